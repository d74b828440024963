/*
 * Torch file: what torch.save wrote: a zip file of a pickle (data.pkl) and raw storages
 * (data/<key>). Read without torch and without running anything (pickle.h).
 */
#ifndef MOE_TRACES_TORCH_FILE_H
#define MOE_TRACES_TORCH_FILE_H

#include "sim/base/error.h"
#include "traces/pickle.h"
#include "traces/tensor.h"

struct moe_torch_file;

/* Errors: MOE_IO; MOE_PARSE for what is no such file, or of big-endian storages. */
enum moe_status moe_torch_file_open(struct moe_torch_file **out, const char *path,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* The same of bytes[size], which stay until close. */
enum moe_status moe_torch_file_open_memory(struct moe_torch_file **out, const char *name,
                                           const void *bytes, size_t size,
                                           struct moe_error *err) MOE_MUST_CHECK;

/* Safe for NULL. */
void moe_torch_file_close(struct moe_torch_file *file);

/* The saved object. */
const struct moe_pickle_value *moe_torch_file_root(const struct moe_torch_file *file);

/* A tensor of the saved object with its storage in memory: *bytes, to be freed, is what
 * out->data points into. what names the value in errors ("logical_count"). Errors: MOE_PARSE
 * when value is no tensor (NULL: missing) or its storage is not what it must be; MOE_LIMIT. */
enum moe_status moe_torch_file_tensor(const struct moe_torch_file *file,
                                      const struct moe_pickle_value *value, const char *what,
                                      struct moe_tensor *out, unsigned char **bytes,
                                      struct moe_error *err) MOE_MUST_CHECK;

#endif

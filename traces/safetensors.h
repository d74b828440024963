/*
 * Safetensors: named tensors in one file: 8 bytes little-endian length of a JSON header
 * {name: {dtype, shape, data_offsets: [begin, end]}}, the header, the raw data.
 * Source: the format's description in huggingface/safetensors, README.
 */
#ifndef MOE_TRACES_SAFETENSORS_H
#define MOE_TRACES_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "traces/tensor.h"

enum { MOE_SAFETENSORS_HEADER_LIMIT = 64 << 20 };

struct moe_safetensors; /* one open file */

/* Errors: MOE_IO; MOE_PARSE for anything that is not such a file, naming the tensor; MOE_RANGE for
 * a header beyond the limit. */
enum moe_status moe_safetensors_open(struct moe_safetensors **out, const char *path,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* The same of bytes[size], which stay until close. */
enum moe_status moe_safetensors_open_memory(struct moe_safetensors **out, const char *name,
                                            const unsigned char *bytes, size_t size,
                                            struct moe_error *err) MOE_MUST_CHECK;

/* Safe for NULL. */
void moe_safetensors_close(struct moe_safetensors *file);

/* Tensors, in the header's order; "__metadata__" is none. */
size_t moe_safetensors_count(const struct moe_safetensors *file);
const char *moe_safetensors_name(const struct moe_safetensors *file, size_t index);

/* One tensor with its data in memory: *bytes, to be freed, is what out->data points into. */
enum moe_status moe_safetensors_read(const struct moe_safetensors *file, size_t index,
                                     struct moe_tensor *out, unsigned char **bytes,
                                     struct moe_error *err) MOE_MUST_CHECK;

#endif

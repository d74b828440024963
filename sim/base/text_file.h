/*
 * Text file: a small file read whole.
 */
#ifndef MOE_SIM_BASE_TEXT_FILE_H
#define MOE_SIM_BASE_TEXT_FILE_H

#include <stddef.h>

#include "sim/base/error.h"

/* Reads path into *text, which the caller frees; a zero byte follows its *bytes bytes.
 * Errors: MOE_IO when it cannot be opened or read (a folder, say), MOE_RANGE when it is
 * longer than limit_bytes, MOE_LIMIT when there is no memory. */
enum moe_status moe_text_file_read(const char *path, size_t limit_bytes, char **text, size_t *bytes,
                                   struct moe_error *err) MOE_MUST_CHECK;

#endif

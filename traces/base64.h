/*
 * Base64 (RFC 4648, section 4): with padding, no white space.
 */
#ifndef MOE_TRACES_BASE64_H
#define MOE_TRACES_BASE64_H

#include <stddef.h>

#include "sim/base/error.h"

/* Decodes text[length] into *bytes, to be freed. name begins the error. Errors: MOE_PARSE with
 * the position of the first character that does not belong there; MOE_LIMIT. */
enum moe_status moe_base64_decode(unsigned char **bytes, size_t *size, const char *name,
                                  const char *text, size_t length,
                                  struct moe_error *err) MOE_MUST_CHECK;

#endif

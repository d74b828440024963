#include "traces/base64.h"

#include <stdint.h>
#include <stdlib.h>

/* 0 .. 63, or 64 for a character that stands for none. */
static uint32_t value_of(char c)
{
    return c >= 'A' && c <= 'Z'   ? (uint32_t) (c - 'A')
           : c >= 'a' && c <= 'z' ? (uint32_t) (c - 'a') + 26
           : c >= '0' && c <= '9' ? (uint32_t) (c - '0') + 52
           : c == '+'             ? 62U
           : c == '/'             ? 63U
                                  : 64U;
}

enum moe_status moe_base64_decode(unsigned char **bytes, size_t *size, const char *name,
                                  const char *text, size_t length, struct moe_error *err)
{
    size_t padding = 0;
    while (padding < 2 && padding < length && text[length - 1 - padding] == '=') {
        padding++;
    }
    if (length % 4 != 0) {
        return moe_fail(err, MOE_PARSE, "%s: %zu characters of base64; a multiple of 4 is expected",
                        name, length);
    }
    unsigned char *out = malloc(length / 4 * 3 + 1);
    if (out == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %zu bytes", name, length / 4 * 3);
    }
    for (size_t i = 0; i < length; i += 4) {
        uint32_t group = 0;
        for (size_t j = i; j < i + 4; j++) {
            const uint32_t value = j < length - padding ? value_of(text[j]) : 0;
            if (value > 63) {
                free(out);
                return moe_fail(err, MOE_PARSE, "%s: character %zu (byte 0x%02x) is no base64",
                                name, j, (unsigned) (unsigned char) text[j]);
            }
            group = group << 6 | value;
        }
        unsigned char *to = out + i / 4 * 3;
        to[0] = (unsigned char) (group >> 16);
        to[1] = (unsigned char) (group >> 8);
        to[2] = (unsigned char) group;
    }
    *bytes = out;
    *size = length / 4 * 3 - padding;
    return MOE_OK;
}

#include "kernels/reference/reference_stream.h"

#include <string.h>

uint32_t moe_reference_stream_read(const void *src, int64_t bytes)
{
    const unsigned char *at = src;
    uint32_t sum = 0;
    for (int64_t i = 0; i < bytes; i += 4) {
        uint32_t word;
        memcpy(&word, at + i, sizeof word);
        sum += word;
    }
    return sum;
}

void moe_reference_stream_write(void *dst, uint32_t word, int64_t bytes)
{
    unsigned char *at = dst;
    for (int64_t i = 0; i < bytes; i += 4) {
        memcpy(at + i, &word, sizeof word);
    }
}

void moe_reference_stream_copy(void *dst, const void *src, int64_t bytes)
{
    memcpy(dst, src, (size_t) bytes);
}

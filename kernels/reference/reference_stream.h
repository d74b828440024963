/* CPU twins of stream.h: same contracts, host pointers, any version. */
#ifndef MOE_KERNELS_REFERENCE_STREAM_H
#define MOE_KERNELS_REFERENCE_STREAM_H

#include <stdint.h>

/* The sum of all 32-bit words modulo 2^32. */
uint32_t moe_reference_stream_read(const void *src, int64_t bytes);
void moe_reference_stream_write(void *dst, uint32_t word, int64_t bytes);
void moe_reference_stream_copy(void *dst, const void *src, int64_t bytes);

#endif

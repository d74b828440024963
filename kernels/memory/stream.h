/*
 * The three ceilings of a GPU's memory: how fast it can be read, written and copied. Every other
 * kernel that moves bytes is judged against these.
 *
 * Versions, from naive to fast. Where the gain lies:
 *   1  one 16-byte access after the other per thread, grid-stride: few bytes in flight
 *   2  eight independent 16-byte accesses in flight per thread, 32 KiB next to each other per
 *      block, past the L1 cache, marked as used once: the memory always has work queued
 *   3  as 2, with one block per 32 KiB instead of as many as fit: the hardware's scheduler evens
 *      out SMs that lie far from the memory, a fixed division does not
 *   4  the copy engine moves 16 KiB at a time, 12 in flight per SM: no register and no issue slot
 *      is held by bytes under way, and 192 KiB per SM are more than registers could hold
 *   5  as 4 in pieces of 64 KiB, marked to leave the L2 cache first: longer runs in one direction,
 *      and a memory that turns around between reading and writing less often
 *   6  write and copy only: one 16-byte access per thread, blocks of 128 threads, as many as there
 *      are bytes. Found by a sweep, not foreseen: a small block holds its place only while
 *      its own two accesses last, so loads and stores of a whole GPU stay close together in
 *      memory. H200, 1 GiB copied in a stream: 4.263 TB/s, cudaMemcpyAsync 4.237; with blocks of 64
 *      threads 3.37, of 256 4.21
 * 4 and 5 need compute capability 9.0.
 *
 * bytes: a multiple of 16, at least 16; pointers aligned to 16 bytes; arrays do not overlap. As in
 * kernels.h results are cudaError_t as int: cudaErrorInvalidValue when that is broken or there is
 * no such version, cudaErrorNotSupported where the GPU is too old for it.
 */
#ifndef MOE_KERNELS_STREAM_H
#define MOE_KERNELS_STREAM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MOE_STREAM_VERSION_COUNT = 6, /* of write and copy */
    MOE_STREAM_READ_VERSION_COUNT = 5,
    MOE_STREAM_SUM_COUNT = 64,
};

/* Adds to the words sum_dev[MOE_STREAM_SUM_COUNT], so that their sum grows by the sum of all
 * 32-bit words of src, both modulo 2^32: which word gets what is not said. Moves bytes bytes. */
int moe_stream_read(uint32_t *sum_dev, const void *src_dev, int64_t bytes, int version,
                    void *stream);

/* Every 32-bit word of dst becomes word. Moves bytes bytes. */
int moe_stream_write(void *dst_dev, uint32_t word, int64_t bytes, int version, void *stream);

/* Moves 2 * bytes bytes. */
int moe_stream_copy(void *dst_dev, const void *src_dev, int64_t bytes, int version, void *stream);

#ifdef __cplusplus
}
#endif
#endif

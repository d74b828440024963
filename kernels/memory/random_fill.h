/*
 * Random data for measurements, made where it is used: gigabytes of weights within milliseconds.
 * Zeros would not do: a matrix product on zeros switches fewer wires and runs 13 % faster on a
 * GPU at its power limit. Element i is a pure function of (seed, i).
 *
 * As in kernels.h, results are cudaError_t as int, device pointers end in _dev, everything is
 * asynchronous on stream. Bad arguments are cudaErrorInvalidValue.
 */
#ifndef MOE_KERNELS_RANDOM_FILL_H
#define MOE_KERNELS_RANDOM_FILL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* dst_dev[count], bell-shaped (the sum of four uniform draws) with mean 0 and deviation sigma > 0;
 * e4m3 saturates at 448. */
int moe_kernel_fill_bf16(void *dst_dev, int64_t count, float sigma, uint64_t seed, void *stream);
int moe_kernel_fill_e4m3(void *dst_dev, int64_t count, float sigma, uint64_t seed, void *stream);

/* dst_dev[count], uniform in [low, high), low < high. */
int moe_kernel_fill_f32(float *dst_dev, int64_t count, float low, float high, uint64_t seed,
                        void *stream);

#ifdef __cplusplus
}
#endif
#endif

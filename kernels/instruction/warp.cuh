/* Reductions over a full warp; every lane gets the result. */
#ifndef MOE_KERNELS_WARP_CUH
#define MOE_KERNELS_WARP_CUH

#include <stdint.h>

static __device__ __forceinline__ float warp_max(float value)
{
    for (int step = 16; step > 0; step /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffU, value, step));
    }
    return value;
}

/* In a fixed order, so that it is the same on every run. */
static __device__ __forceinline__ float warp_sum(float value)
{
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffffU, value, step);
    }
    return value;
}

static __device__ __forceinline__ uint32_t warp_max(uint32_t value)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return __reduce_max_sync(0xffffffffU, value);
#else
    for (int step = 16; step > 0; step /= 2) {
        value = max(value, __shfl_xor_sync(0xffffffffU, value, step));
    }
    return value;
#endif
}

static __device__ __forceinline__ uint32_t warp_min(uint32_t value)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return __reduce_min_sync(0xffffffffU, value);
#else
    for (int step = 16; step > 0; step /= 2) {
        value = min(value, __shfl_xor_sync(0xffffffffU, value, step));
    }
    return value;
#endif
}

#endif

// One hash per element: the elements need no order, so neither do the threads.
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include "kernels/memory/random_fill.h"

// SplitMix64's finaliser.
static __device__ uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

// Four uniform draws of 16 bits, summed: mean 0, variance 4 / 12.
static __device__ float bell(uint64_t seed, int64_t i)
{
    const uint64_t bits = mix(seed ^ mix((uint64_t) i));
    const float sum = (float) (uint32_t) (bits & 0xffff) +
                      (float) (uint32_t) (bits >> 16 & 0xffff) +
                      (float) (uint32_t) (bits >> 32 & 0xffff) + (float) (uint32_t) (bits >> 48);
    return (sum * (1.0f / 65536.0f) - 2.0f) * 1.7320508f;
}

static __global__ void fill_bf16(__nv_bfloat16 *dst, int64_t count, float sigma, uint64_t seed)
{
    const int64_t stride = (int64_t) gridDim.x * blockDim.x;
    for (int64_t i = (int64_t) blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        dst[i] = __float2bfloat16(sigma * bell(seed, i));
    }
}

static __global__ void fill_e4m3(__nv_fp8_e4m3 *dst, int64_t count, float sigma, uint64_t seed)
{
    const int64_t stride = (int64_t) gridDim.x * blockDim.x;
    for (int64_t i = (int64_t) blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        dst[i] = __nv_fp8_e4m3(sigma * bell(seed, i));
    }
}

static __global__ void fill_f32(float *dst, int64_t count, float low, float high, uint64_t seed)
{
    const int64_t stride = (int64_t) gridDim.x * blockDim.x;
    for (int64_t i = (int64_t) blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const float u =
            (float) (uint32_t) (mix(seed ^ mix((uint64_t) i)) >> 40) * (1.0f / 16777216.0f);
        dst[i] = low + (high - low) * u;
    }
}

static const int THREADS = 256;
static const int BLOCKS = 2048; // several per SM on every GPU

extern "C" int moe_kernel_fill_bf16(void *dst_dev, int64_t count, float sigma, uint64_t seed,
                                    void *stream)
{
    if (dst_dev == nullptr || count < 1 || !(sigma > 0.0f)) {
        return (int) cudaErrorInvalidValue;
    }
    fill_bf16<<<BLOCKS, THREADS, 0, (cudaStream_t) stream>>>((__nv_bfloat16 *) dst_dev, count,
                                                             sigma, seed);
    return (int) cudaGetLastError();
}

extern "C" int moe_kernel_fill_e4m3(void *dst_dev, int64_t count, float sigma, uint64_t seed,
                                    void *stream)
{
    if (dst_dev == nullptr || count < 1 || !(sigma > 0.0f)) {
        return (int) cudaErrorInvalidValue;
    }
    fill_e4m3<<<BLOCKS, THREADS, 0, (cudaStream_t) stream>>>((__nv_fp8_e4m3 *) dst_dev, count,
                                                             sigma, seed);
    return (int) cudaGetLastError();
}

extern "C" int moe_kernel_fill_f32(float *dst_dev, int64_t count, float low, float high,
                                   uint64_t seed, void *stream)
{
    if (dst_dev == nullptr || count < 1 || !(low < high)) {
        return (int) cudaErrorInvalidValue;
    }
    fill_f32<<<BLOCKS, THREADS, 0, (cudaStream_t) stream>>>(dst_dev, count, low, high, seed);
    return (int) cudaGetLastError();
}

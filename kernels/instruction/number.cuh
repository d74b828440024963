/* bf16 and e4m3 on the GPU, packed as they lie in memory: the value of the lower address in the
 * lower bits. Rounding as in reference_number.h. */
#ifndef MOE_KERNELS_NUMBER_CUH
#define MOE_KERNELS_NUMBER_CUH

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <stdint.h>

static __device__ __forceinline__ float bf16_low(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

static __device__ __forceinline__ float bf16_high(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000U);
}

static __device__ __forceinline__ uint32_t bf16_pair(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

static __device__ __forceinline__ uint32_t e4m3_pair(float low, float high)
{
    return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
}

/* As moe_e4m3_scale. */
static __device__ __forceinline__ float e4m3_scale(float largest)
{
    return largest >= 0x1p-100F ? largest * (1.0F / 448.0F) : 1.0F;
}

static __device__ __forceinline__ void bf16_unpack(float *to, uint4 eight)
{
    to[0] = bf16_low(eight.x), to[1] = bf16_high(eight.x);
    to[2] = bf16_low(eight.y), to[3] = bf16_high(eight.y);
    to[4] = bf16_low(eight.z), to[5] = bf16_high(eight.z);
    to[6] = bf16_low(eight.w), to[7] = bf16_high(eight.w);
}

static __device__ __forceinline__ uint4 bf16_pack(const float *from)
{
    return make_uint4(bf16_pair(from[0], from[1]), bf16_pair(from[2], from[3]),
                      bf16_pair(from[4], from[5]), bf16_pair(from[6], from[7]));
}

#endif

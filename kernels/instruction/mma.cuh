/*
 * The instructions of compute capability 8.0 that version 2 of the expert FFN has beside those of
 * warp_mma.cuh: products of 16 x 16 by 16 x 8, which the compiler may move, and e4m3 made f16.
 * Source: PTX ISA 9.0, mma.m16n8k16, cvt.
 *
 * Which lane holds what, with g = lane / 4 and t = lane % 4:
 *   warp_matrices  word i: of matrix i, row g, bytes 4 t .. 4 t + 3
 *   a              [0] row g, k 2 t and 2 t + 1; [1] row g + 8; [2] and [3] the same with k + 8
 *   b0, b1         column g, k 2 t and 2 t + 1; the same with k + 8
 *   sum            [0] row g, column 2 t; [1] column 2 t + 1; [2] and [3] row g + 8
 */
#ifndef MOE_KERNELS_MMA_CUH
#define MOE_KERNELS_MMA_CUH

#include <stdint.h>

#include "kernels/instruction/warp_mma.cuh" /* copy_async, warp_matrices */

static __device__ __forceinline__ void mma_bf16(float (&sum)[4], const uint32_t (&a)[4],
                                                uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

static __device__ __forceinline__ void mma_f16(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                               uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/*
 * Four e4m3 as four f16 times E4M3_UNIT, which is exact: low has bytes 0 and 1, high has 2 and
 * 3. Where no instruction converts, the bits are put in place: sign on sign, exponent and fraction
 * on the lower end of f16's exponent and the upper end of its fraction. Its exponent counts from
 * 15, e4m3's from 7, hence the unit; subnormals fall on subnormals. (There a NaN, which has the
 * bits of 480, becomes 480.)
 */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define E4M3_UNIT 1.0F
static __device__ __forceinline__ void e4m3_widen(uint32_t four, uint32_t &low, uint32_t &high)
{
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(low) : "h"((uint16_t) four));
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(high) : "h"((uint16_t) (four >> 16)));
}
#else
#define E4M3_UNIT 0x1p-8F
static __device__ __forceinline__ uint32_t e4m3_place(uint32_t two) /* in bytes 1 and 3 */
{
    return (two & 0x80008000U) | (two >> 1 & 0x3f803f80U);
}

static __device__ __forceinline__ void e4m3_widen(uint32_t four, uint32_t &low, uint32_t &high)
{
    low = e4m3_place(__byte_perm(four, 0, 0x1404));
    high = e4m3_place(__byte_perm(four, 0, 0x3424));
}
#endif

#endif

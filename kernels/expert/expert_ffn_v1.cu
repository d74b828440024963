// Version 1, the naive one: a thread per output element, which walks over the depth by itself.
// Every weight is read from memory once per row, nothing is shared but what the caches happen to
// hold. It is here to be right by reading it, and to check the others at real sizes: sums are
// taken in double, and only mid and out are rounded.
#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "kernels/expert/expert_epilogue.cuh"
#include "kernels/expert/expert_ffn_parts.h"

// The expert of a row: the last one that starts at or before it and is not empty.
static __device__ int32_t expert_of_row(const int32_t *row_offset, int32_t expert_count,
                                        int32_t row)
{
    int32_t expert = 0;
    while (expert + 1 < expert_count && row_offset[expert + 1] <= row) {
        expert++;
    }
    return expert;
}

static __device__ double dot_bf16(const moe_expert_gemm &gemm, int32_t row, int64_t w_row)
{
    const auto *x = (const __nv_bfloat16 *) gemm.x_dev + (int64_t) row * gemm.depth;
    const auto *w = (const __nv_bfloat16 *) gemm.w_dev + w_row * gemm.depth;
    double sum = 0.0;
    for (int32_t d = 0; d < gemm.depth; d++) {
        sum += (double) (__bfloat162float(x[d]) * __bfloat162float(w[d])); /* exact in a float */
    }
    return sum;
}

static __device__ double dot_fp8(const moe_expert_gemm &gemm, int32_t row, int64_t w_row,
                                 const float *w_scale)
{
    const auto *x = (const __nv_fp8_e4m3 *) gemm.x_dev + (int64_t) row * gemm.depth;
    const auto *w = (const __nv_fp8_e4m3 *) gemm.w_dev + w_row * gemm.depth;
    double sum = 0.0;
    for (int32_t first = 0; first < gemm.depth; first += MOE_EXPERT_SCALE_BLOCK) {
        const int32_t block = first / MOE_EXPERT_SCALE_BLOCK;
        double part = 0.0;
        for (int32_t d = first; d < first + MOE_EXPERT_SCALE_BLOCK && d < gemm.depth; d++) {
            part += (double) ((float) x[d] * (float) w[d]);
        }
        sum += part * (double) gemm.x_scale_dev[(int64_t) block * gemm.scale_stride + row] *
               (double) w_scale[block];
    }
    return sum;
}

static __device__ double activate(int epilogue, double gate, double up)
{
    switch (epilogue) {
    case MOE_EPILOGUE_SWIGLU:
        return gate / (1.0 + exp(-gate)) * up;
    case MOE_EPILOGUE_RELU:
        return fmax(gate, 0.0);
    case MOE_EPILOGUE_GELU:
        return 0.5 * gate * erfc(gate * -0.70710678118654752);
    default:
        return gate;
    }
}

static __device__ float value(const moe_expert_gemm &gemm, int32_t row, int32_t column)
{
    const int32_t expert = expert_of_row(gemm.row_offset_dev, gemm.expert_count, row);
    const int32_t matrix_count = gemm.epilogue == MOE_EPILOGUE_SWIGLU ? 2 : 1;
    const int64_t column_blocks =
        (gemm.columns + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
    const int64_t depth_blocks = (gemm.depth + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
    double sums[2] = { 0.0, 0.0 };
    for (int32_t m = 0; m < matrix_count; m++) {
        const int64_t matrix = (int64_t) expert * matrix_count + m;
        const int64_t w_row = matrix * gemm.columns + column;
        if (gemm.dtype == MOE_EXPERT_BF16) {
            sums[m] = dot_bf16(gemm, row, w_row);
        } else {
            const int64_t block = matrix * column_blocks + column / MOE_EXPERT_SCALE_BLOCK;
            sums[m] = dot_fp8(gemm, row, w_row, gemm.w_scale_dev + block * depth_blocks);
        }
    }
    return (float) activate(gemm.epilogue, sums[0], sums[1]);
}

static __global__ void store_bf16(moe_expert_gemm gemm)
{
    const int32_t column = (int32_t) (blockIdx.x * blockDim.x + threadIdx.x);
    for (int32_t row = (int32_t) blockIdx.y; row < gemm.row_count; row += (int32_t) gridDim.y) {
        if (column < gemm.columns) {
            ((__nv_bfloat16 *) gemm.out_dev)[(int64_t) row * gemm.columns + column] =
                __float2bfloat16(value(gemm, row, column));
        }
    }
}

// A block of 128 threads is one scale's columns.
static __global__ void store_fp8(moe_expert_gemm gemm)
{
    __shared__ float largest[MOE_EXPERT_SCALE_BLOCK];
    const int32_t column = (int32_t) (blockIdx.x * blockDim.x + threadIdx.x);
    for (int32_t row = (int32_t) blockIdx.y; row < gemm.row_count; row += (int32_t) gridDim.y) {
        const float v = column < gemm.columns ? value(gemm, row, column) : 0.0F;
        largest[threadIdx.x] = fabsf(v);
        __syncthreads();
        for (unsigned half = MOE_EXPERT_SCALE_BLOCK / 2; half > 0; half /= 2) {
            if (threadIdx.x < half) {
                largest[threadIdx.x] = fmaxf(largest[threadIdx.x], largest[threadIdx.x + half]);
            }
            __syncthreads();
        }
        const float scale = expert_scale(largest[0]);
        if (column < gemm.columns) {
            ((__nv_fp8_e4m3 *) gemm.out_dev)[(int64_t) row * gemm.columns + column] =
                (__nv_fp8_e4m3) (v / scale);
        }
        if (threadIdx.x == 0) {
            gemm.out_scale_dev[(int64_t) blockIdx.x * gemm.scale_stride + row] = scale;
        }
        __syncthreads();
    }
}

extern "C" int moe_expert_gemm_v1(const struct moe_expert_gemm *gemm, void *stream)
{
    const dim3 grid(
        (unsigned) ((gemm->columns + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK),
        gemm->row_count < 4096 ? (unsigned) gemm->row_count : 4096U);
    if (gemm->out_is_fp8) {
        store_fp8<<<grid, MOE_EXPERT_SCALE_BLOCK, 0, (cudaStream_t) stream>>>(*gemm);
    } else {
        store_bf16<<<grid, MOE_EXPERT_SCALE_BLOCK, 0, (cudaStream_t) stream>>>(*gemm);
    }
    return (int) cudaGetLastError();
}

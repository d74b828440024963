#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include "kernels/expert/expert_rows.h"
#include "kernels/instruction/number.cuh"

static const int THREADS = 256;
static const int WARPS = THREADS / 32;

static __device__ double element(const void *base, int64_t index, enum moe_expert_dtype dtype)
{
    return dtype == MOE_EXPERT_BF16
               ? (double) __bfloat162float(((const __nv_bfloat16 *) base)[index])
               : (double) (float) ((const __nv_fp8_e4m3 *) base)[index];
}

static __device__ int64_t block_count(int columns)
{
    return (columns + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
}

// Scale of weight[row][column] in matrix `matrix` (counted over all experts).
static __device__ double weight_scale(const float *scale, enum moe_expert_scaling scaling,
                                      int64_t matrix, int row_count, int column_count, int row,
                                      int column)
{
    if (scaling == MOE_EXPERT_SCALING_ROW) {
        return (double) scale[matrix * row_count + row];
    }
    const int64_t across = block_count(column_count);
    return (
        double) scale[(matrix * block_count(row_count) + row / MOE_EXPERT_SCALE_BLOCK) * across +
                      column / MOE_EXPERT_SCALE_BLOCK];
}

static __device__ double warp_sum(double value)
{
    for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    }
    return value;
}

static __device__ double activate(double gate, double up, enum moe_expert_activation activation)
{
    if (activation == MOE_EXPERT_SWIGLU) {
        return gate / (1.0 + exp(-gate)) * up;
    }
    if (activation == MOE_EXPERT_RELU) {
        return fmax(gate, 0.0);
    }
    return 0.5 * gate * (1.0 + erf(gate * 0.70710678118654752440));
}

// One warp per (sample, column of mid).
static __global__ void first_gemm(struct moe_expert_rows rows)
{
    const int hidden = rows.shape.hidden;
    const int inter = rows.shape.inter;
    const int column = (int) blockIdx.x * WARPS + (int) threadIdx.x / 32;
    const int sample = (int) blockIdx.y;
    if (column >= inter) {
        return;
    }
    const bool fp8 = rows.shape.dtype == MOE_EXPERT_FP8;
    const int matrices = rows.shape.activation == MOE_EXPERT_SWIGLU ? 2 : 1;
    const int64_t row = rows.row_dev[sample];
    double sum[2] = { 0.0, 0.0 };
    for (int k = (int) threadIdx.x % 32; k < hidden; k += 32) {
        double x = element(rows.x_dev, row * hidden + k, rows.shape.dtype);
        if (fp8) {
            x *= (double) (rows.scaling == MOE_EXPERT_SCALING_ROW
                               ? rows.x_scale_dev[row]
                               : rows.x_scale_dev[k / MOE_EXPERT_SCALE_BLOCK * rows.scale_stride +
                                                  row]);
        }
        for (int m = 0; m < matrices; m++) {
            const int64_t matrix = (int64_t) rows.expert_dev[sample] * matrices + m;
            double w = element(rows.weights.w1_dev, (matrix * inter + column) * hidden + k,
                               rows.shape.dtype);
            if (fp8) {
                w *= weight_scale(rows.weights.w1_scale_dev, rows.scaling, matrix, inter, hidden,
                                  column, k);
            }
            sum[m] += x * w;
        }
    }
    const double value = activate(warp_sum(sum[0]), warp_sum(sum[1]), rows.shape.activation);
    if (threadIdx.x % 32 == 0) {
        rows.mid_dev[(int64_t) sample * inter + column] =
            fp8 ? value : (double) __bfloat162float(__double2bfloat16(value));
    }
}

// One warp per (sample, columns under one scale): quantised and multiplied back.
static __global__ void requantise(struct moe_expert_rows rows)
{
    const int inter = rows.shape.inter;
    const int width = rows.scaling == MOE_EXPERT_SCALING_ROW ? inter : MOE_EXPERT_SCALE_BLOCK;
    const int first = (int) blockIdx.x * width;
    const int last = first + width < inter ? first + width : inter;
    double *mid = rows.mid_dev + (int64_t) blockIdx.y * inter;
    double most = 0.0;
    for (int i = first + (int) threadIdx.x; i < last; i += 32) {
        most = fmax(most, fabs(mid[i]));
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        most = fmax(most, __shfl_xor_sync(0xffffffffu, most, distance));
    }
    const float scale = e4m3_scale((float) most);
    for (int i = first + (int) threadIdx.x; i < last; i += 32) {
        mid[i] = (double) (float) __nv_fp8_e4m3((float) mid[i] / scale) * (double) scale;
    }
}

// One warp per (sample, column of out).
static __global__ void second_gemm(struct moe_expert_rows rows)
{
    const int hidden = rows.shape.hidden;
    const int inter = rows.shape.inter;
    const int column = (int) blockIdx.x * WARPS + (int) threadIdx.x / 32;
    const int sample = (int) blockIdx.y;
    if (column >= hidden) {
        return;
    }
    const int64_t expert = rows.expert_dev[sample];
    double sum = 0.0;
    for (int k = (int) threadIdx.x % 32; k < inter; k += 32) {
        double w =
            element(rows.weights.w2_dev, (expert * hidden + column) * inter + k, rows.shape.dtype);
        if (rows.shape.dtype == MOE_EXPERT_FP8) {
            w *= weight_scale(rows.weights.w2_scale_dev, rows.scaling, expert, hidden, inter,
                              column, k);
        }
        sum += rows.mid_dev[(int64_t) sample * inter + k] * w;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) {
        rows.out_dev[(int64_t) sample * hidden + column] = sum;
    }
}

extern "C" int moe_kernel_expert_rows(const struct moe_expert_rows *rows, void *stream)
{
    const bool fp8 = rows->shape.dtype == MOE_EXPERT_FP8;
    if (rows->sample_count < 1 || rows->sample_count > 65535 || rows->x_dev == nullptr ||
        rows->row_dev == nullptr || rows->expert_dev == nullptr || rows->mid_dev == nullptr ||
        rows->out_dev == nullptr || rows->weights.w1_dev == nullptr ||
        rows->weights.w2_dev == nullptr ||
        (fp8 && (rows->x_scale_dev == nullptr || rows->weights.w1_scale_dev == nullptr ||
                 rows->weights.w2_scale_dev == nullptr))) {
        return (int) cudaErrorInvalidValue;
    }
    const cudaStream_t on = (cudaStream_t) stream;
    const unsigned samples = (unsigned) rows->sample_count;
    const unsigned inter = (unsigned) rows->shape.inter;
    const unsigned hidden = (unsigned) rows->shape.hidden;
    first_gemm<<<dim3((inter + WARPS - 1) / WARPS, samples), THREADS, 0, on>>>(*rows);
    if (fp8) {
        const unsigned blocks = rows->scaling == MOE_EXPERT_SCALING_ROW
                                    ? 1
                                    : (inter + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
        requantise<<<dim3(blocks, samples), 32, 0, on>>>(*rows);
    }
    second_gemm<<<dim3((hidden + WARPS - 1) / WARPS, samples), THREADS, 0, on>>>(*rows);
    return (int) cudaGetLastError();
}

// bf16 is infinite or no number when all bits of its exponent are set.
static __device__ unsigned poisoned(uint32_t pair)
{
    return ((pair & 0x7f80u) == 0x7f80u) + ((pair & 0x7f800000u) == 0x7f800000u);
}

static __global__ void count_poison(const uint4 *__restrict__ src, int64_t vectors,
                                    unsigned long long *found)
{
    const int64_t stride = (int64_t) gridDim.x * blockDim.x;
    unsigned count = 0;
    for (int64_t i = (int64_t) blockIdx.x * blockDim.x + threadIdx.x; i < vectors; i += stride) {
        const uint4 v = src[i];
        count += poisoned(v.x) + poisoned(v.y) + poisoned(v.z) + poisoned(v.w);
    }
    if (count != 0) {
        atomicAdd(found, (unsigned long long) count);
    }
}

extern "C" int moe_kernel_count_poison(const void *src_dev, int64_t count, uint64_t *found_dev,
                                       void *stream)
{
    if (src_dev == nullptr || count < 8 || count % 8 != 0 || found_dev == nullptr) {
        return (int) cudaErrorInvalidValue;
    }
    count_poison<<<2048, THREADS, 0, (cudaStream_t) stream>>>((const uint4 *) src_dev, count / 8,
                                                              (unsigned long long *) found_dev);
    return (int) cudaGetLastError();
}

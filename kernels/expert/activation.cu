// Elementwise, so bound by memory: each thread takes 8 neighbouring columns, which is one
// 16-byte access per matrix and one for the result (8 bytes in fp8).
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include "kernels/expert/activation.h"
#include "kernels/instruction/number.cuh"

static const int VECTOR = 8;
static const int THREADS = 256;

struct alignas(16) bf16_vector {
    __nv_bfloat162 pair[VECTOR / 2];
};

struct alignas(8) e4m3_vector {
    __nv_fp8_e4m3 item[VECTOR];
};

template <int ACTIVATION> static __device__ float activate(float gate, float up)
{
    if (ACTIVATION == MOE_EXPERT_SWIGLU) {
        return gate / (1.0f + __expf(-gate)) * up;
    }
    if (ACTIVATION == MOE_EXPERT_RELU) {
        return fmaxf(gate, 0.0f);
    }
    return 0.5f * gate * erfcf(gate * -0.70710678f); // 1 + erf would cancel below 0
}

// 8 columns of one row of projected, activated.
template <int ACTIVATION>
static __device__ void load(const __nv_bfloat16 *row, int column, int inter, float *out)
{
    const bf16_vector gate = *(const bf16_vector *) (row + column);
    bf16_vector up = gate;
    if (ACTIVATION == MOE_EXPERT_SWIGLU) {
        up = *(const bf16_vector *) (row + inter + column);
    }
#pragma unroll
    for (int i = 0; i < VECTOR / 2; i++) {
        const float2 g = __bfloat1622float2(gate.pair[i]);
        const float2 u = __bfloat1622float2(up.pair[i]);
        out[2 * i] = activate<ACTIVATION>(g.x, u.x);
        out[2 * i + 1] = activate<ACTIVATION>(g.y, u.y);
    }
}

template <int ACTIVATION>
static __global__ void activation_bf16(const __nv_bfloat16 *__restrict__ projected,
                                       __nv_bfloat16 *__restrict__ mid, int64_t vectors, int inter)
{
    const int64_t index = (int64_t) blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= vectors) {
        return;
    }
    const int per_row = inter / VECTOR;
    const int64_t row = index / per_row;
    const int column = (int) (index % per_row) * VECTOR;
    const int matrices = ACTIVATION == MOE_EXPERT_SWIGLU ? 2 : 1;
    float value[VECTOR];
    bf16_vector out;
    load<ACTIVATION>(projected + row * matrices * inter, column, inter, value);
#pragma unroll
    for (int i = 0; i < VECTOR / 2; i++) {
        out.pair[i] = __floats2bfloat162_rn(value[2 * i], value[2 * i + 1]);
    }
    *(bf16_vector *) (mid + row * inter + column) = out;
}

static __device__ float largest(const float *value)
{
    float most = 0.0f;
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        most = fmaxf(most, fabsf(value[i]));
    }
    return most;
}

static __device__ void store(__nv_fp8_e4m3 *mid, const float *value, float scale)
{
    e4m3_vector out;
#pragma unroll
    for (int i = 0; i < VECTOR; i++) {
        out.item[i] = __nv_fp8_e4m3(value[i] / scale);
    }
    *(e4m3_vector *) mid = out;
}

// 16 neighbouring threads share the 128 columns of a scale.
template <int ACTIVATION>
static __global__ void activation_fp8(const __nv_bfloat16 *__restrict__ projected,
                                      __nv_fp8_e4m3 *__restrict__ mid, float *__restrict__ scales,
                                      int64_t row_count, int inter, int64_t scale_stride)
{
    const int lanes = MOE_EXPERT_SCALE_BLOCK / VECTOR;
    const int blocks = (inter + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
    const int64_t group = ((int64_t) blockIdx.x * blockDim.x + threadIdx.x) / lanes;
    const int lane = threadIdx.x % lanes;
    const int64_t row = group / blocks;
    const int block = (int) (group % blocks);
    const int column = block * MOE_EXPERT_SCALE_BLOCK + lane * VECTOR;
    const int matrices = ACTIVATION == MOE_EXPERT_SWIGLU ? 2 : 1;
    const bool inside =
        row < row_count && column < inter; // all of a warp takes part in the shuffle
    float value[VECTOR] = {};
    if (inside) {
        load<ACTIVATION>(projected + row * matrices * inter, column, inter, value);
    }
    float most = largest(value);
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, distance, lanes));
    }
    const float scale = e4m3_scale(most);
    if (inside) {
        store(mid + row * inter + column, value, scale);
        if (lane == 0) {
            scales[block * scale_stride + row] = scale;
        }
    }
}

// One block of threads per row; the second reading of the row comes from the cache.
template <int ACTIVATION>
static __global__ void activation_fp8_row(const __nv_bfloat16 *__restrict__ projected,
                                          __nv_fp8_e4m3 *__restrict__ mid,
                                          float *__restrict__ scales, int inter)
{
    __shared__ float of_warp[THREADS / 32];
    const int matrices = ACTIVATION == MOE_EXPERT_SWIGLU ? 2 : 1;
    const int64_t row = blockIdx.x;
    const __nv_bfloat16 *from = projected + row * matrices * inter;
    float value[VECTOR];
    float most = 0.0f;
    for (int column = threadIdx.x * VECTOR; column < inter; column += THREADS * VECTOR) {
        load<ACTIVATION>(from, column, inter, value);
        most = fmaxf(most, largest(value));
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, distance));
    }
    if (threadIdx.x % 32 == 0) {
        of_warp[threadIdx.x / 32] = most;
    }
    __syncthreads();
    for (int i = 0; i < THREADS / 32; i++) {
        most = fmaxf(most, of_warp[i]);
    }
    const float scale = e4m3_scale(most);
    if (threadIdx.x == 0) {
        scales[row] = scale;
    }
    for (int column = threadIdx.x * VECTOR; column < inter; column += THREADS * VECTOR) {
        load<ACTIVATION>(from, column, inter, value);
        store(mid + row * inter + column, value, scale);
    }
}

static bool refused(const void *projected, const void *mid, int64_t row_count, int32_t inter,
                    enum moe_expert_activation activation)
{
    return row_count < 0 || (row_count > 0 && (projected == nullptr || mid == nullptr)) ||
           inter < 16 || inter % 16 != 0 || (int) activation < 0 ||
           activation >= MOE_EXPERT_ACTIVATION_COUNT;
}

static unsigned blocks_for(int64_t threads)
{
    return (unsigned) ((threads + THREADS - 1) / THREADS);
}

// Calls KERNEL<activation> with the rest as its arguments.
#define LAUNCH(KERNEL, BLOCKS, STREAM, ...)                                                      \
    switch (activation) {                                                                        \
    case MOE_EXPERT_SWIGLU:                                                                      \
        KERNEL<MOE_EXPERT_SWIGLU><<<BLOCKS, THREADS, 0, (cudaStream_t) (STREAM)>>>(__VA_ARGS__); \
        break;                                                                                   \
    case MOE_EXPERT_RELU:                                                                        \
        KERNEL<MOE_EXPERT_RELU><<<BLOCKS, THREADS, 0, (cudaStream_t) (STREAM)>>>(__VA_ARGS__);   \
        break;                                                                                   \
    default:                                                                                     \
        KERNEL<MOE_EXPERT_GELU><<<BLOCKS, THREADS, 0, (cudaStream_t) (STREAM)>>>(__VA_ARGS__);   \
        break;                                                                                   \
    }

extern "C" int moe_kernel_activation_bf16(const void *projected_dev, void *mid_dev,
                                          int64_t row_count, int32_t inter,
                                          enum moe_expert_activation activation, void *stream)
{
    if (refused(projected_dev, mid_dev, row_count, inter, activation)) {
        return (int) cudaErrorInvalidValue;
    }
    if (row_count == 0) {
        return (int) cudaSuccess;
    }
    const int64_t vectors = row_count * (inter / VECTOR);
    LAUNCH(activation_bf16, blocks_for(vectors), stream, (const __nv_bfloat16 *) projected_dev,
           (__nv_bfloat16 *) mid_dev, vectors, inter)
    return (int) cudaGetLastError();
}

extern "C" int moe_kernel_activation_fp8(const void *projected_dev, void *mid_dev, float *scale_dev,
                                         int64_t row_count, int32_t inter, int64_t scale_stride,
                                         enum moe_expert_activation activation, void *stream)
{
    if (refused(projected_dev, mid_dev, row_count, inter, activation) ||
        (row_count > 0 && scale_dev == nullptr) || scale_stride < row_count) {
        return (int) cudaErrorInvalidValue;
    }
    if (row_count == 0) {
        return (int) cudaSuccess;
    }
    const int64_t groups =
        (inter + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK * row_count;
    LAUNCH(activation_fp8, blocks_for(groups * (MOE_EXPERT_SCALE_BLOCK / VECTOR)), stream,
           (const __nv_bfloat16 *) projected_dev, (__nv_fp8_e4m3 *) mid_dev, scale_dev, row_count,
           inter, scale_stride)
    return (int) cudaGetLastError();
}

extern "C" int moe_kernel_activation_fp8_row(const void *projected_dev, void *mid_dev,
                                             float *scale_dev, int64_t row_count, int32_t inter,
                                             enum moe_expert_activation activation, void *stream)
{
    if (refused(projected_dev, mid_dev, row_count, inter, activation) ||
        (row_count > 0 && scale_dev == nullptr)) {
        return (int) cudaErrorInvalidValue;
    }
    if (row_count == 0) {
        return (int) cudaSuccess;
    }
    LAUNCH(activation_fp8_row, (unsigned) row_count, stream, (const __nv_bfloat16 *) projected_dev,
           (__nv_fp8_e4m3 *) mid_dev, scale_dev, inter)
    return (int) cudaGetLastError();
}

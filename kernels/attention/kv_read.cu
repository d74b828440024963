// Which kernel reads the cache, with how many splits, and what joins them.
#include "kernels/attention/kv_read.h"

#include "kernels/instruction/launch.cuh"

#include "kernels/attention/kv_read_gqa.cuh"
#include "kernels/attention/kv_read_mla.cuh"
#include "sim/base/split_plan.h"

static_assert((int) MOE_KV_SPLIT_LIMIT == (int) MOE_SPLIT_LIMIT, "what is planned can be launched");

// The splits of one q head; each thread has a column.
static __global__ void join_splits(kv_case c)
{
    const int64_t head = blockIdx.x;
    const float2 *sums = c.part_sum + head * c.split_count;
    const float *part = c.part + head * c.split_count * blockDim.x + threadIdx.x;
    float largest = -CUDART_INF_F;
    float value = 0.0F;
    float sum = 0.0F;
    for (int32_t i = 0; i < c.split_count; i++) {
        largest = fmaxf(largest, sums[i].x);
    }
    const float base = kv_base(largest);
#pragma unroll 4
    for (int32_t i = 0; i < c.split_count; i++) {
        const float share = exp2f((sums[i].x - base) * c.exponent_scale);
        value += share * part[(int64_t) i * blockDim.x];
        sum += share * sums[i].y;
    }
    c.out[head * blockDim.x + threadIdx.x] =
        (uint16_t) bf16_pair(sum > 0.0F ? value / sum : 0.0F, 0.0F);
}

// The kernel that fits a shape, and its launch.
struct kv_launch {
    void (*kernel)(kv_case);
    int threads;
    int shared_bytes;
    int64_t blocks; // of one split
    int32_t columns;
};

static kv_launch launch_of(const moe_kv_shape *shape)
{
    const int64_t sequences = shape->sequence_count;
    if (shape->kind == MOE_KV_GQA && shape->head_dim == 64) {
        return { kv_read_gqa<64>, GQA_THREADS, gqa_layout<64>::SHARED_BYTES,
                 sequences * shape->kv_heads, 64 };
    }
    if (shape->kind == MOE_KV_GQA) {
        return { kv_read_gqa<128>, GQA_THREADS, gqa_layout<128>::SHARED_BYTES,
                 sequences * shape->kv_heads, 128 };
    }
    if (shape->q_heads % 64 == 0) {
        return { kv_read_mla<4>, MLA_THREADS, mla_layout<4>::SHARED_BYTES,
                 sequences * (shape->q_heads / 64), MOE_KV_MLA_OUT_COLUMNS };
    }
    if (shape->q_heads % 32 == 0) {
        return { kv_read_mla<2>, MLA_THREADS, mla_layout<2>::SHARED_BYTES,
                 sequences * (shape->q_heads / 32), MOE_KV_MLA_OUT_COLUMNS };
    }
    return { kv_read_mla<1>, MLA_THREADS, mla_layout<1>::SHARED_BYTES,
             sequences * (shape->q_heads / 16), MOE_KV_MLA_OUT_COLUMNS };
}

static bool is_bad(const moe_kv_shape *shape)
{
    const bool common = shape->sequence_count >= 1 && shape->kv_heads >= 1 && shape->q_heads >= 1 &&
                        shape->page_tokens >= 16 && shape->page_tokens % 16 == 0 &&
                        shape->page_limit >= 1 && shape->context_limit >= 1 &&
                        shape->context_limit <= (int64_t) shape->page_limit * shape->page_tokens &&
                        shape->context_limit <= INT32_MAX - KV_TILE_TOKENS * MOE_KV_SPLIT_LIMIT &&
                        shape->softmax_scale > 0.0F;
    if (!common) {
        return true;
    }
    switch (shape->kind) {
    case MOE_KV_GQA:
        return (shape->head_dim != 64 && shape->head_dim != 128) ||
               shape->q_heads % shape->kv_heads != 0 || shape->q_heads / shape->kv_heads > 16;
    case MOE_KV_MLA:
        return shape->head_dim != MOE_KV_MLA_COLUMNS || shape->kv_heads != 1 ||
               shape->q_heads % 16 != 0 || shape->q_heads > 128;
    default:
        return true;
    }
}

// What the device offers, and how many blocks of the kernel it runs at once.
static cudaError_t prepare(const kv_launch &launch, int64_t *slots)
{
    launch_device device;
    int per_sm = 0;
    cudaError_t code = launch_device_read(&device);
    if (code == cudaSuccess &&
        (device.capability < 80 || device.shared_bytes_max < launch.shared_bytes)) {
        code = cudaErrorNotSupported;
    }
    if (code == cudaSuccess) {
        code = launch_prepare(launch.kernel, launch.threads, launch.shared_bytes, &per_sm);
    }
    *slots = (int64_t) device.sm_count * per_sm;
    return code;
}

extern "C" int moe_kv_split_count(const struct moe_kv_shape *shape, int32_t *out)
{
    int64_t slots = 0;
    if (is_bad(shape)) {
        return (int) cudaErrorInvalidValue;
    }
    const kv_launch launch = launch_of(shape);
    const cudaError_t code = prepare(launch, &slots);
    if (code != cudaSuccess) {
        return (int) code;
    }
    *out = moe_split_count(launch.blocks, launch_ceil(shape->context_limit, KV_TILE_TOKENS), slots);
    return (int) cudaSuccess;
}

// Sums first: pairs of floats lie on 8 bytes, and parts behind them on 16.
static size_t sum_bytes(const moe_kv_shape *shape, int32_t split_count)
{
    const size_t rows = (size_t) shape->sequence_count * (size_t) shape->q_heads;
    return (rows * (size_t) split_count * sizeof(float2) + 15) / 16 * 16;
}

extern "C" size_t moe_kv_workspace_bytes(const struct moe_kv_shape *shape, int32_t split_count)
{
    const size_t rows = (size_t) shape->sequence_count * (size_t) shape->q_heads;
    const auto columns =
        (size_t) (shape->kind == MOE_KV_MLA ? MOE_KV_MLA_OUT_COLUMNS : shape->head_dim);
    return split_count == 1 ? 0
                            : sum_bytes(shape, split_count) +
                                  rows * (size_t) split_count * columns * sizeof(float);
}

extern "C" int moe_kv_read(const struct moe_kv_shape *shape, const struct moe_kv_batch *batch,
                           int32_t split_count, void *stream)
{
    const auto to = (cudaStream_t) stream;
    const bool is_mla = shape->kind == MOE_KV_MLA;
    int64_t slots = 0;
    if (is_bad(shape) || split_count < 1 || split_count > MOE_KV_SPLIT_LIMIT ||
        !launch_is_aligned(batch->q_dev, 16) || !launch_is_aligned(batch->k_dev, 16) ||
        (!is_mla && !launch_is_aligned(batch->v_dev, 16)) ||
        !launch_is_aligned(batch->page_table_dev, 4) || !launch_is_aligned(batch->context_dev, 4) ||
        !launch_is_aligned(batch->out_dev, 16) ||
        (split_count > 1 && !launch_is_aligned(batch->workspace_dev, 16))) {
        return (int) cudaErrorInvalidValue;
    }
    const kv_launch launch = launch_of(shape);
    const int64_t grid = launch.blocks * split_count;
    if (grid > INT32_MAX) {
        return (int) cudaErrorInvalidValue;
    }
    cudaError_t code = prepare(launch, &slots);
    if (code != cudaSuccess) {
        return (int) code;
    }
    auto *workspace = (unsigned char *) batch->workspace_dev;
    const bool is_split = split_count > 1;
    const kv_case c = {
        (const uint16_t *) batch->q_dev,
        (const uint16_t *) batch->k_dev,
        (const uint16_t *) (is_mla ? batch->k_dev : batch->v_dev),
        batch->page_table_dev,
        batch->context_dev,
        (uint16_t *) batch->out_dev,
        is_split ? (float *) (workspace + sum_bytes(shape, split_count)) : nullptr,
        is_split ? (float2 *) workspace : nullptr,
        shape->q_heads,
        shape->kv_heads,
        shape->page_tokens,
        shape->page_limit,
        split_count,
        shape->softmax_scale * 1.44269504F,
    };
    const auto kernel = launch.kernel;
    kernel<<<(unsigned) grid, (unsigned) launch.threads, (size_t) launch.shared_bytes, to>>>(c);
    code = cudaGetLastError();
    if (code == cudaSuccess && is_split) {
        join_splits<<<(unsigned) (shape->sequence_count * shape->q_heads),
                      (unsigned) launch.columns, 0, to>>>(c);
        code = cudaGetLastError();
    }
    return (int) code;
}

// The weighted sum of each token's rows; the versions are told apart in permute.h.
#include "kernels/global_access.cuh"
#include "kernels/launch.cuh"
#include "kernels/number.cuh"
#include "kernels/permute.h"

enum { THREADS = 128, AHEAD = 8 };

static __global__ void __launch_bounds__(THREADS)
    combine_v1(uint16_t *out, const uint16_t *rows, const int32_t *position, const float *weight,
               int32_t top_k, int32_t hidden, int64_t count)
{
    const int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) {
        return;
    }
    const int64_t token = i / hidden;
    float sum = 0.0F;
    for (int32_t place = 0; place < top_k; place++) {
        const int64_t row = position[token * top_k + place];
        if (row >= 0) {
            sum =
                fmaf(weight[token * top_k + place], bf16_low(rows[row * hidden + i % hidden]), sum);
        }
    }
    out[i] = (uint16_t) bf16_pair(sum, 0.0F);
}

// pieces blocks per token, of 8 * THREADS values each. Rows are asked for AHEAD at a time before
// the first is used.
static __global__ void __launch_bounds__(THREADS)
    combine_v2(uint4 *out, const uint4 *rows, const int32_t *position, const float *weight,
               int32_t top_k, int32_t chunks, int32_t pieces)
{
    const int64_t token = blockIdx.x / (unsigned) pieces;
    const int32_t chunk =
        (int32_t) (blockIdx.x % (unsigned) pieces) * THREADS + (int32_t) threadIdx.x;
    const int32_t *position_of = position + token * top_k;
    const float *weight_of = weight + token * top_k;
    float sum[8] = { 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F };
    if (chunk >= chunks) {
        return;
    }
    for (int32_t first = 0; first < top_k; first += AHEAD) {
        uint4 v[AHEAD];
        int32_t row[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            row[j] = first + j < top_k ? position_of[first + j] : -1;
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            if (row[j] >= 0) {
                v[j] = load_once(rows + (int64_t) row[j] * chunks + chunk);
            }
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            if (row[j] >= 0) {
                const float w = weight_of[first + j];
                float value[8];
                bf16_unpack(value, v[j]);
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    sum[n] = fmaf(w, value[n], sum[n]);
                }
            }
        }
    }
    store_once(out + token * chunks + chunk, bf16_pack(sum));
}

extern "C" int moe_combine_rows(const struct moe_permute_shape *shape, void *out_dev,
                                const void *rows_dev, const int32_t *position_dev,
                                const float *weight_dev, int version, void *stream)
{
    const auto to = (cudaStream_t) stream;
    const int64_t count = (int64_t) shape->token_count * shape->hidden;
    const int32_t chunks = shape->hidden / 8;
    const int64_t pieces = launch_ceil(chunks, THREADS);
    if (shape->token_count < 1 || shape->top_k < 1 || shape->top_k > MOE_PERMUTE_TOP_K_LIMIT ||
        (int64_t) shape->token_count * shape->top_k > INT32_MAX || shape->hidden < 16 ||
        shape->hidden % 16 != 0 || shape->hidden > MOE_PERMUTE_HIDDEN_LIMIT || version < 1 ||
        version > MOE_COMBINE_VERSION_COUNT || launch_ceil(count, THREADS) > INT32_MAX ||
        !launch_is_aligned(out_dev, 16) || !launch_is_aligned(rows_dev, 16) ||
        !launch_is_aligned(position_dev, 4) || !launch_is_aligned(weight_dev, 4)) {
        return (int) cudaErrorInvalidValue;
    }
    if (version == 1) {
        combine_v1<<<(unsigned) launch_ceil(count, THREADS), THREADS, 0, to>>>(
            (uint16_t *) out_dev, (const uint16_t *) rows_dev, position_dev, weight_dev,
            shape->top_k, shape->hidden, count);
    } else {
        combine_v2<<<(unsigned) (shape->token_count * pieces), THREADS, 0, to>>>(
            (uint4 *) out_dev, (const uint4 *) rows_dev, position_dev, weight_dev, shape->top_k,
            chunks, (int32_t) pieces);
    }
    return (int) cudaGetLastError();
}

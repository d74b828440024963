// The weighted sum of each token's rows; the versions are told apart in permute.h.
#include "kernels/instruction/global_access.cuh"
#include "kernels/instruction/launch.cuh"
#include "kernels/instruction/number.cuh"
#include "kernels/route/permute.h"

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

// pieces blocks per token, of 8 * THREADS values each. Lane p of each warp fetches position and
// weight of place p, which costs one wait for all places; rows are then asked for AHEAD at a time
// before the first is used.
static __global__ void __launch_bounds__(THREADS)
    combine_v2(uint4 *out, const uint4 *rows, const int32_t *position, const float *weight,
               int32_t top_k, int32_t chunks, int32_t pieces)
{
    const int64_t token = blockIdx.x / (unsigned) pieces;
    const int32_t lane = (int32_t) threadIdx.x % 32;
    const int32_t chunk =
        (int32_t) (blockIdx.x % (unsigned) pieces) * THREADS + (int32_t) threadIdx.x;
    const bool inside = chunk < chunks;
    const int32_t my_row = lane < top_k ? position[token * top_k + lane] : -1;
    const float my_weight = lane < top_k ? weight[token * top_k + lane] : 0.0F;
    float sum[8] = { 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F, 0.0F };
    for (int32_t first = 0; first < top_k; first += AHEAD) { // top_k is at most 32
        uint4 v[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int32_t row = __shfl_sync(0xffffffffU, my_row, first + j);
            if (row >= 0 && inside) {
                v[j] = load_once(rows + (int64_t) row * chunks + chunk);
            }
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int32_t row = __shfl_sync(0xffffffffU, my_row, first + j);
            const float w = __shfl_sync(0xffffffffU, my_weight, first + j);
            if (row >= 0 && inside) {
                float value[8];
                bf16_unpack(value, v[j]);
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    sum[n] = fmaf(w, value[n], sum[n]);
                }
            }
        }
    }
    if (inside) {
        store_once(out + token * chunks + chunk, bf16_pack(sum));
    }
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

/*
 * MLA decode, absorbed: one row of 576 numbers per token is the key of all heads, and its first 512
 * are the value. A block of eight warps has 16, 32 or 64 heads of one split. Per tile of 64 tokens:
 *   scores   a warp has up to 32 heads x 16 tokens; q lies in shared memory, as the registers hold
 *            the output;
 *   maximum  over all tokens of the tile, through shared memory;
 *   weights  exp2 of the scores, rounded to bf16, through shared memory;
 *   output   a warp has the same heads x 512 / (warps that share these heads) columns.
 * While a tile is worked on the next one is on its way.
 */
#ifndef MOE_KERNELS_KV_READ_MLA_CUH
#define MOE_KERNELS_KV_READ_MLA_CUH

#include "kernels/attention/kv_read.h"
#include "kernels/attention/kv_read_parts.cuh"
#include "kernels/instruction/number.cuh"
#include "kernels/instruction/warp_mma.cuh"

enum { MLA_THREADS = 256, MLA_WARPS = 8, MLA_ROW_CHUNKS = MOE_KV_MLA_COLUMNS / 8 };

/* Tiles: of 16 heads. */
template <int Tiles> struct mla_layout {
    static constexpr int HEADS = Tiles * 16;
    static constexpr int HEAD_WARPS = Tiles > 1 ? 2 : 1;      /* warps along the heads */
    static constexpr int SIDE_WARPS = MLA_WARPS / HEAD_WARPS; /* along tokens or columns */
    static constexpr int HEAD_TILES = Tiles / HEAD_WARPS;     /* of a warp */
    static constexpr int TOKEN_TILES = KV_TILE_TOKENS / 8 / SIDE_WARPS; /* of 8, of a warp */
    static constexpr int COLUMN_TILES = MOE_KV_MLA_OUT_COLUMNS / 8 / SIDE_WARPS;

    static constexpr int ROW_BYTES = MOE_KV_MLA_COLUMNS * 2;
    static constexpr int STAGE_BYTES = KV_TILE_TOKENS * ROW_BYTES;
    static constexpr int WEIGHT_ROW_BYTES = KV_TILE_TOKENS * 2;
    static constexpr int Q_AT = 2 * STAGE_BYTES;
    static constexpr int WEIGHT_AT = Q_AT + HEADS * ROW_BYTES;
    static constexpr int SHARE_AT = WEIGHT_AT + HEADS * WEIGHT_ROW_BYTES;
    static constexpr int SHARED_BYTES = SHARE_AT + SIDE_WARPS * HEADS * (int) sizeof(float);

    /* As in GQA: the same chunk of 8 rows lies in 8 bank groups, since both row lengths are
     * multiples of 128 bytes. */
    static __device__ __forceinline__ int at(int row, int chunk)
    {
        return row * ROW_BYTES + (chunk ^ (row & 7)) * 16;
    }
    static __device__ __forceinline__ int weight_at(int row, int chunk)
    {
        return row * WEIGHT_ROW_BYTES + (chunk ^ (row & 7)) * 16;
    }
};

template <int Tiles> struct mla_state {
    using layout = mla_layout<Tiles>;
    float out[layout::HEAD_TILES][layout::COLUMN_TILES][4];
    float score[layout::HEAD_TILES][layout::TOKEN_TILES][4];
    float largest[layout::HEAD_TILES][2]; /* of rows lane / 4 and lane / 4 + 8 */
    float sum[layout::HEAD_TILES][2];     /* this lane's share */
    int lane;
    int first_row; /* of the warp's heads within the block's */
    int side;      /* which of the warps with the same heads */
};

/* Eight rows per warp: they lie in one page. */
template <int Tiles>
static __device__ __forceinline__ void mla_fetch(const kv_case &c, unsigned char *stage,
                                                 int32_t token, int32_t page, int32_t context)
{
    const int lane = (int) threadIdx.x % 32;
    const int warp = (int) threadIdx.x / 32;
    const int64_t first_row = (int64_t) page * c.page_tokens + token % c.page_tokens;
#pragma unroll 6
    for (int j = 0; j < MLA_ROW_CHUNKS * 8 / 32; j++) {
        const int row = (j * 32 + lane) / MLA_ROW_CHUNKS;
        const int chunk = (j * 32 + lane) % MLA_ROW_CHUNKS;
        const bool wanted = token + row < context;
        const int64_t from = wanted ? (first_row + row) * MOE_KV_MLA_COLUMNS + chunk * 8 : 0;
        copy_async(stage + mla_layout<Tiles>::at(warp * 8 + row, chunk), c.k + from, wanted);
    }
}

/* Scores of the warp's heads and tokens, 32 columns at a time. */
template <int Tiles>
static __device__ __forceinline__ void mla_score(mla_state<Tiles> *s, const unsigned char *q,
                                                 const unsigned char *stage, int32_t left)
{
    using layout = mla_layout<Tiles>;
#pragma unroll
    for (int t = 0; t < layout::HEAD_TILES * layout::TOKEN_TILES * 4; t++) {
        s->score[t / 4 / layout::TOKEN_TILES][t / 4 % layout::TOKEN_TILES][t % 4] = 0.0F;
    }
#pragma unroll 2
    for (int step = 0; step < MLA_ROW_CHUNKS / 4; step++) {
        uint32_t keys[layout::TOKEN_TILES][4];
#pragma unroll
        for (int t = 0; t < layout::TOKEN_TILES; t++) {
            const int row = (s->side * layout::TOKEN_TILES + t) * 8 + s->lane % 8;
            warp_matrices(keys[t], stage + layout::at(row, step * 4 + s->lane / 8));
        }
#pragma unroll
        for (int h = 0; h < layout::HEAD_TILES; h++) {
            const int row = s->first_row + h * 16 + s->lane % 16;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                uint32_t a[4];
                warp_matrices(a, q + layout::at(row, step * 4 + half * 2 + s->lane / 16));
#pragma unroll
                for (int t = 0; t < layout::TOKEN_TILES; t++) {
                    warp_mma_bf16(s->score[h][t], a, keys[t] + half * 2);
                }
            }
        }
    }
#pragma unroll
    for (int t = 0; t < layout::TOKEN_TILES; t++) {
        const int token = (s->side * layout::TOKEN_TILES + t) * 8 + s->lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < layout::HEAD_TILES * 4; i++) {
            float *score = &s->score[i / 4][t][i % 4];
            *score = token + i % 2 < left ? *score : -CUDART_INF_F;
        }
    }
}

/* share[side][row]: each warp's largest score of a row, for the others. */
template <int Tiles>
static __device__ __forceinline__ void mla_share_largest(const mla_state<Tiles> &s, float *share)
{
    using layout = mla_layout<Tiles>;
#pragma unroll
    for (int i = 0; i < layout::HEAD_TILES * 2; i++) {
        float largest = -CUDART_INF_F;
#pragma unroll
        for (int t = 0; t < layout::TOKEN_TILES; t++) {
            const float *score = s.score[i / 2][t] + i % 2 * 2;
            largest = fmaxf(largest, fmaxf(score[0], score[1]));
        }
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
        if (s.lane % 4 == 0) {
            share[s.side * layout::HEADS + s.first_row + i / 2 * 16 + i % 2 * 8 + s.lane / 4] =
                largest;
        }
    }
}

/* Scores become weights, in shared memory; what was summed so far shrinks. */
template <int Tiles>
static __device__ __forceinline__ void mla_weigh(const kv_case &c, mla_state<Tiles> *s,
                                                 const float *share, unsigned char *weights)
{
    using layout = mla_layout<Tiles>;
#pragma unroll
    for (int i = 0; i < layout::HEAD_TILES * 2; i++) {
        const int h = i / 2;
        const int half = i % 2;
        const int row = s->first_row + h * 16 + half * 8 + s->lane / 4;
        float largest = s->largest[h][half];
#pragma unroll
        for (int side = 0; side < layout::SIDE_WARPS; side++) {
            largest = fmaxf(largest, share[side * layout::HEADS + row]);
        }
        const float base = kv_base(largest);
        const float shrink = exp2f((s->largest[h][half] - base) * c.exponent_scale);
        s->largest[h][half] = largest;
        s->sum[h][half] *= shrink;
#pragma unroll
        for (int t = 0; t < layout::TOKEN_TILES; t++) {
            const float *score = s->score[h][t] + half * 2;
            const float w0 = exp2f((score[0] - base) * c.exponent_scale);
            const float w1 = exp2f((score[1] - base) * c.exponent_scale);
            s->sum[h][half] += w0 + w1;
            *(uint32_t *) (weights + layout::weight_at(row, s->side * layout::TOKEN_TILES + t) +
                           s->lane % 4 * 4) = bf16_pair(w0, w1);
        }
#pragma unroll
        for (int n = 0; n < layout::COLUMN_TILES; n++) {
            s->out[h][n][half * 2] *= shrink;
            s->out[h][n][half * 2 + 1] *= shrink;
        }
    }
}

template <int Tiles>
static __device__ __forceinline__ void mla_add(mla_state<Tiles> *s, const unsigned char *weights,
                                               const unsigned char *stage)
{
    using layout = mla_layout<Tiles>;
#pragma unroll
    for (int step = 0; step < KV_TILE_TOKENS / 16; step++) {
        uint32_t a[layout::HEAD_TILES][4];
#pragma unroll
        for (int h = 0; h < layout::HEAD_TILES; h++) {
            warp_matrices(a[h], weights + layout::weight_at(s->first_row + h * 16 + s->lane % 16,
                                                            step * 2 + s->lane / 16));
        }
#pragma unroll
        for (int n = 0; n < layout::COLUMN_TILES / 2; n++) {
            uint32_t values[4];
            const int chunk = s->side * layout::COLUMN_TILES + n * 2 + s->lane / 16;
            warp_matrices_transposed(values, stage + layout::at(step * 16 + s->lane % 16, chunk));
#pragma unroll
            for (int h = 0; h < layout::HEAD_TILES; h++) {
                warp_mma_bf16(s->out[h][n * 2], a[h], values);
                warp_mma_bf16(s->out[h][n * 2 + 1], a[h], values + 2);
            }
        }
    }
}

/* Rows of the output, to out or, of several splits, to part. */
template <int Tiles>
static __device__ __forceinline__ void mla_finish(const kv_case &c, mla_state<Tiles> *s,
                                                  float *share, int64_t first_head, int32_t split)
{
    using layout = mla_layout<Tiles>;
#pragma unroll
    for (int i = 0; i < layout::HEAD_TILES * 2; i++) {
        float sum = s->sum[i / 2][i % 2];
        sum += __shfl_xor_sync(0xffffffffU, sum, 1);
        sum += __shfl_xor_sync(0xffffffffU, sum, 2);
        if (s->lane % 4 == 0) {
            share[s->side * layout::HEADS + s->first_row + i / 2 * 16 + i % 2 * 8 + s->lane / 4] =
                sum;
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < layout::HEAD_TILES * 2; i++) {
        const int h = i / 2;
        const int half = i % 2;
        const int row = s->first_row + h * 16 + half * 8 + s->lane / 4;
        const int64_t head = first_head + row;
        float sum = 0.0F;
        for (int side = 0; side < layout::SIDE_WARPS; side++) {
            sum += share[side * layout::HEADS + row];
        }
        const float factor = sum > 0.0F ? 1.0F / sum : 0.0F;
#pragma unroll
        for (int n = 0; n < layout::COLUMN_TILES; n++) {
            const int column = (s->side * layout::COLUMN_TILES + n) * 8 + s->lane % 4 * 2;
            const float *value = s->out[h][n] + half * 2;
            if (c.split_count == 1) {
                *(uint32_t *) (c.out + head * MOE_KV_MLA_OUT_COLUMNS + column) =
                    bf16_pair(value[0] * factor, value[1] * factor);
            } else {
                *(float2 *) (c.part + (head * c.split_count + split) * MOE_KV_MLA_OUT_COLUMNS +
                             column) = make_float2(value[0], value[1]);
            }
        }
        if (c.split_count > 1 && s->side == 0 && s->lane % 4 == 0) {
            c.part_sum[head * c.split_count + split] = make_float2(s->largest[h][half], sum);
        }
    }
}

template <int Tiles>
static __device__ __forceinline__ void mla_begin(const kv_case &c, mla_state<Tiles> *s,
                                                 unsigned char *q, int64_t first_head)
{
    using layout = mla_layout<Tiles>;
    const int warp = (int) threadIdx.x / 32;
    const auto *from = (const uint4 *) (c.q + first_head * MOE_KV_MLA_COLUMNS);
    for (int i = (int) threadIdx.x; i < layout::HEADS * MLA_ROW_CHUNKS; i += MLA_THREADS) {
        *(uint4 *) (q + layout::at(i / MLA_ROW_CHUNKS, i % MLA_ROW_CHUNKS)) = from[i];
    }
    s->lane = (int) threadIdx.x % 32;
    s->first_row = warp % layout::HEAD_WARPS * layout::HEAD_TILES * 16;
    s->side = warp / layout::HEAD_WARPS;
#pragma unroll
    for (int h = 0; h < layout::HEAD_TILES; h++) {
#pragma unroll
        for (int i = 0; i < layout::COLUMN_TILES * 4; i++) {
            s->out[h][i / 4][i % 4] = 0.0F;
        }
        s->largest[h][0] = s->largest[h][1] = -CUDART_INF_F;
        s->sum[h][0] = s->sum[h][1] = 0.0F;
    }
}

template <int Tiles> static __global__ void __launch_bounds__(MLA_THREADS, 1) kv_read_mla(kv_case c)
{
    extern __shared__ __align__(128) unsigned char mla_shared[];
    using layout = mla_layout<Tiles>;
    const auto blocks = (unsigned) (c.q_heads / layout::HEADS);
    const auto split = (int32_t) (blockIdx.x / blocks % (unsigned) c.split_count);
    const auto sequence = (int32_t) (blockIdx.x / blocks / (unsigned) c.split_count);
    const int64_t first_head =
        (int64_t) sequence * c.q_heads + (int64_t) (blockIdx.x % blocks) * layout::HEADS;
    const int32_t warp_token = (int32_t) threadIdx.x / 32 * 8;
    const kv_split mine = kv_split_of(c, sequence, split);
    auto *share = (float *) (mla_shared + layout::SHARE_AT);
    mla_state<Tiles> s;
    const auto token_of = [&](int32_t i) { return (mine.first_tile + i) * KV_TILE_TOKENS; };
    const auto page_of =
        [&](int32_t i) { /* of this warp's rows; asked for one round ahead */
                         const int32_t token = token_of(i) + warp_token;
                         return i < mine.tile_count && token < mine.context
                                    ? c.page_table[(int64_t) sequence * c.page_limit +
                                                   token / c.page_tokens]
                                    : 0;
        };
    const auto fetch = [&](int32_t i, int32_t page) {
        if (i < mine.tile_count) {
            mla_fetch<Tiles>(c, mla_shared + i % 2 * layout::STAGE_BYTES, token_of(i) + warp_token,
                             page, mine.context);
        }
        copy_async_commit();
    };
    fetch(0, page_of(0));
    fetch(1, page_of(1));
    int32_t page = page_of(2);
    mla_begin(c, &s, mla_shared + layout::Q_AT, first_head);
    for (int32_t i = 0; i < mine.tile_count; i++) {
        const unsigned char *stage = mla_shared + i % 2 * layout::STAGE_BYTES;
        copy_async_wait<1>();
        __syncthreads();
        mla_score(&s, mla_shared + layout::Q_AT, stage, mine.context - token_of(i));
        mla_share_largest(s, share);
        __syncthreads();
        mla_weigh(c, &s, share, mla_shared + layout::WEIGHT_AT);
        __syncthreads();
        mla_add(&s, mla_shared + layout::WEIGHT_AT, stage);
        __syncthreads(); /* the stage may be overwritten */
        fetch(i + 2, page);
        page = page_of(i + 3);
    }
    copy_async_wait<0>();
    mla_finish(c, &s, share, first_head, split);
}

#endif

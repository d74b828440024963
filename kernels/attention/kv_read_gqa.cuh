/*
 * GQA decode. A block of four warps has one kv head of one split; the q heads of its group are the
 * rows of A, padded to 16. Of each tile of 64 tokens a warp has 16, which it brings to its own ring
 * of stages and works on alone: scores are two products per 16 columns of q, and the rounded
 * probabilities are, as they lie in the registers, the A of the product with v.
 */
#ifndef MOE_KERNELS_KV_READ_GQA_CUH
#define MOE_KERNELS_KV_READ_GQA_CUH

#include "kernels/attention/kv_read_parts.cuh"
#include "kernels/instruction/number.cuh"
#include "kernels/instruction/warp_mma.cuh"

enum { GQA_THREADS = 128, GQA_WARPS = 4, GQA_TOKENS = 16 /* of a stage */, GQA_STAGES = 3 };

template <int Dim> struct gqa_layout {
    static constexpr int CHUNKS = Dim / 8;                  /* of 16 bytes, per row */
    static constexpr int HALF_BYTES = GQA_TOKENS * Dim * 2; /* keys or values of a stage */
    static constexpr int RING_BYTES = GQA_STAGES * 2 * HALF_BYTES;
    static constexpr int SHARED_BYTES = GQA_WARPS * RING_BYTES;

    /* Chunks are permuted within a row, so that the same chunk of 8 rows lies in 8 bank groups. */
    static __device__ __forceinline__ int at(int row, int chunk)
    {
        return row * Dim * 2 + (chunk ^ (row & 7)) * 16;
    }
};

template <int Dim> struct gqa_state {
    uint32_t q[Dim / 16][4];
    float out[Dim / 8][4];
    float largest[2]; /* of rows lane / 4 and lane / 4 + 8 */
    float sum[2];     /* this lane's share */
};

template <int Dim>
static __device__ __forceinline__ void gqa_load_q(gqa_state<Dim> *s, const uint16_t *q,
                                                  int32_t group)
{
    const int lane = (int) threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < Dim / 16; step++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + i % 2 * 8;
            const int column = step * 16 + lane % 4 * 2 + i / 2 * 8;
            s->q[step][i] = row < group ? *(const uint32_t *) (q + row * Dim + column) : 0;
        }
    }
}

/* Rows of 16 tokens from `token` on to a stage; zeros beyond the context. */
template <int Dim>
static __device__ __forceinline__ void gqa_fetch(const kv_case &c, unsigned char *stage,
                                                 int32_t token, int32_t page, int32_t head,
                                                 int32_t context)
{
    using layout = gqa_layout<Dim>;
    const int lane = (int) threadIdx.x % 32;
    const int64_t first_row = (int64_t) page * c.page_tokens + token % c.page_tokens;
#pragma unroll
    for (int j = 0; j < layout::CHUNKS / 2; j++) {
        const int row = (j * 32 + lane) / layout::CHUNKS;
        const int chunk = (j * 32 + lane) % layout::CHUNKS;
        const bool wanted = token + row < context;
        const int64_t from = wanted ? ((first_row + row) * c.kv_heads + head) * Dim + chunk * 8 : 0;
        copy_async(stage + layout::at(row, chunk), c.k + from, wanted);
        copy_async(stage + layout::HALF_BYTES + layout::at(row, chunk), c.v + from, wanted);
    }
}

/* Scores of 16 tokens: score[n] is those of tokens 8 n .. 8 n + 7. */
template <int Dim>
static __device__ __forceinline__ void
gqa_score(const gqa_state<Dim> &s, const unsigned char *stage, int32_t left, float score[2][4])
{
    const int lane = (int) threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        score[0][i] = 0.0F;
        score[1][i] = 0.0F;
    }
#pragma unroll
    for (int step = 0; step < Dim / 16; step++) {
        uint32_t keys[4];
        warp_matrices(
            keys, stage + gqa_layout<Dim>::at(lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
        warp_mma_bf16(score[0], s.q[step], keys);
        warp_mma_bf16(score[1], s.q[step], keys + 2);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int token = i / 4 * 8 + lane % 4 * 2 + i % 2;
        score[i / 4][i % 4] = token < left ? score[i / 4][i % 4] : -CUDART_INF_F;
    }
}

template <int Dim>
static __device__ __forceinline__ void gqa_work(const kv_case &c, gqa_state<Dim> *s,
                                                const unsigned char *stage, int32_t left)
{
    const int lane = (int) threadIdx.x % 32;
    float score[2][4];
    uint32_t weight[4];
    gqa_score(*s, stage, left, score);
#pragma unroll
    for (int half = 0; half < 2; half++) { /* rows lane / 4, then those 8 below */
        float *a = score[0] + half * 2;
        float *b = score[1] + half * 2;
        float largest = fmaxf(fmaxf(a[0], a[1]), fmaxf(b[0], b[1]));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
        largest = fmaxf(largest, s->largest[half]);
        const float base = kv_base(largest);
        const float shrink = exp2f((s->largest[half] - base) * c.exponent_scale);
        s->largest[half] = largest;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            a[i] = exp2f((a[i] - base) * c.exponent_scale);
            b[i] = exp2f((b[i] - base) * c.exponent_scale);
        }
        s->sum[half] = s->sum[half] * shrink + (a[0] + a[1]) + (b[0] + b[1]);
        weight[half] = bf16_pair(a[0], a[1]);
        weight[half + 2] = bf16_pair(b[0], b[1]);
#pragma unroll
        for (int n = 0; n < Dim / 8; n++) {
            s->out[n][half * 2] *= shrink;
            s->out[n][half * 2 + 1] *= shrink;
        }
    }
#pragma unroll
    for (int n = 0; n < Dim / 16; n++) {
        uint32_t values[4];
        warp_matrices_transposed(values, stage + gqa_layout<Dim>::HALF_BYTES +
                                             gqa_layout<Dim>::at(lane % 16, n * 2 + lane / 16));
        warp_mma_bf16(s->out[n * 2], weight, values);
        warp_mma_bf16(s->out[n * 2 + 1], weight, values + 2);
    }
}

/* The four warps' results become the block's, and go to out or, of several splits, to part. */
template <int Dim>
static __device__ void gqa_finish(const kv_case &c, gqa_state<Dim> *s, float *shared, int32_t group,
                                  int64_t first_head, int32_t split)
{
    const int lane = (int) threadIdx.x % 32;
    const int warp = (int) threadIdx.x / 32;
    float(*out)[16][Dim] = (float(*)[16][Dim]) shared; /* [warp][row][column] */
    __shared__ float largest[GQA_WARPS][16];
    __shared__ float sum[GQA_WARPS][16];
    __syncthreads(); /* all stages are done with */
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = lane / 4 + half * 8;
        float all = s->sum[half];
        all += __shfl_xor_sync(0xffffffffU, all, 1);
        all += __shfl_xor_sync(0xffffffffU, all, 2);
        if (lane % 4 == 0) {
            largest[warp][row] = s->largest[half];
            sum[warp][row] = all;
        }
#pragma unroll
        for (int n = 0; n < Dim / 8; n++) {
            *(float2 *) &out[warp][row][n * 8 + lane % 4 * 2] =
                make_float2(s->out[n][half * 2], s->out[n][half * 2 + 1]);
        }
    }
    __syncthreads();
    for (int i = (int) threadIdx.x; i < group * Dim; i += GQA_THREADS) {
        const int row = i / Dim;
        float top = -CUDART_INF_F;
        float value = 0.0F;
        float all = 0.0F;
        for (int w = 0; w < GQA_WARPS; w++) {
            top = fmaxf(top, largest[w][row]);
        }
        for (int w = 0; w < GQA_WARPS; w++) {
            const float share = exp2f((largest[w][row] - kv_base(top)) * c.exponent_scale);
            value += share * out[w][row][i % Dim];
            all += share * sum[w][row];
        }
        const int64_t head = first_head + row;
        if (c.split_count == 1) {
            c.out[head * Dim + i % Dim] =
                (uint16_t) bf16_pair(all > 0.0F ? value / all : 0.0F, 0.0F);
        } else {
            c.part[(head * c.split_count + split) * Dim + i % Dim] = value;
            if (i % Dim == 0) {
                c.part_sum[head * c.split_count + split] = make_float2(top, all);
            }
        }
    }
}

/* Blocks of the same split and neighbouring heads follow each other: their rows are neighbours. */
template <int Dim> static __global__ void __launch_bounds__(GQA_THREADS) kv_read_gqa(kv_case c)
{
    extern __shared__ __align__(128) unsigned char gqa_shared[];
    using layout = gqa_layout<Dim>;
    const auto head = (int32_t) (blockIdx.x % (unsigned) c.kv_heads);
    const auto split = (int32_t) (blockIdx.x / (unsigned) c.kv_heads % (unsigned) c.split_count);
    const auto sequence = (int32_t) (blockIdx.x / (unsigned) c.kv_heads / (unsigned) c.split_count);
    const int warp = (int) threadIdx.x / 32;
    const int32_t group = c.q_heads / c.kv_heads;
    const int64_t first_head = (int64_t) sequence * c.q_heads + head * group;
    const kv_split mine = kv_split_of(c, sequence, split);
    unsigned char *ring = gqa_shared + warp * layout::RING_BYTES;
    gqa_state<Dim> s;
    const auto token_of = [&](int32_t i) {
        return (mine.first_tile + i) * KV_TILE_TOKENS + warp * GQA_TOKENS;
    };
    const auto page_of =
        [&](int32_t i) { /* asked for one round before it is needed */
                         const int32_t token = token_of(i);
                         return i < mine.tile_count && token < mine.context
                                    ? c.page_table[(int64_t) sequence * c.page_limit +
                                                   token / c.page_tokens]
                                    : 0;
        };
    const auto fetch = [&](int32_t i, int32_t page) {
        if (i < mine.tile_count) {
            gqa_fetch<Dim>(c, ring + i % GQA_STAGES * 2 * layout::HALF_BYTES, token_of(i), page,
                           head, mine.context);
        }
        copy_async_commit();
    };
    for (int32_t i = 0; i < GQA_STAGES - 1; i++) {
        fetch(i, page_of(i));
    }
    int32_t page = page_of(GQA_STAGES - 1);
    gqa_load_q(&s, c.q + first_head * Dim, group);
#pragma unroll
    for (int n = 0; n < Dim / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            s.out[n][i] = 0.0F;
        }
    }
    s.largest[0] = s.largest[1] = -CUDART_INF_F;
    s.sum[0] = s.sum[1] = 0.0F;
    for (int32_t i = 0; i < mine.tile_count; i++) {
        fetch(i + GQA_STAGES - 1, page);
        page = page_of(i + GQA_STAGES);
        copy_async_wait<GQA_STAGES - 1>();
        __syncwarp();
        if (token_of(i) < mine.context) {
            gqa_work(c, &s, ring + i % GQA_STAGES * 2 * layout::HALF_BYTES,
                     mine.context - token_of(i));
        }
        __syncwarp(); /* the stage may be overwritten */
    }
    copy_async_wait<0>();
    gqa_finish(c, &s, (float *) gqa_shared, group, first_head, split);
}

#endif

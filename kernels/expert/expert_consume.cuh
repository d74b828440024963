/*
 * What the two consumer warpgroups of version 3 do with a tile that the copy engine brings in,
 * stage by stage. A stage is 128 bytes of depth of
 *   w  256 weight rows in two boxes of 128: gate and up of the same 128 columns when there
 *      are two matrices, else 256 columns of one
 *   x  the tile's tokens, 8, 16, 32, 64, 128 or 192 rows of them
 * in fp8 also x_scale[128], and the scales of the two boxes come by ordinary loads.
 *
 * Up to 64 tokens, and with 192, the tile is computed turned: the tokens are wgmma's N, which may
 * be small, and warpgroup g sums rows 64 g .. 64 g + 63 of both boxes. With 128 it is upright: the
 * 256 weight rows are N, warpgroup g sums tokens 64 g .. 64 g + 63; one instruction then does the
 * work of two and reads less shared memory per product.
 */
#ifndef MOE_KERNELS_EXPERT_CONSUME_CUH
#define MOE_KERNELS_EXPERT_CONSUME_CUH

#include "kernels/expert/expert_store.cuh"
#include "kernels/instruction/wgmma.cuh"

enum {
    CONSUMERS = 2, /* warpgroups */
    TILE_SLOTS = 4,
    TURN_BARRIER = 4, /* and 5: one per warpgroup */
    W_BOX_BYTES = MOE_V3_WEIGHT_ROWS * MOE_V3_ROW_BYTES,
    W_BYTES = 2 * W_BOX_BYTES,
    WARPGROUP_BYTES = 64 * MOE_V3_ROW_BYTES, /* 64 rows of either */
    K_STEPS = MOE_V3_ROW_BYTES / 32,         /* instructions per stage and operand */
};

/* How a block is made up: the narrow one has more stages, the wide one larger tiles. */
template <bool Wide> struct expert_block {
    static constexpr int32_t TOKENS = Wide ? MOE_V3_WIDE_TILE : MOE_V3_TOKEN_TILE_MOST;
    static constexpr int32_t STAGES = Wide ? 3 : 4;
};

template <bool Wide> struct expert_shared {
    static constexpr int32_t STAGES = expert_block<Wide>::STAGES;
    /* weights, then tokens */
    alignas(1024) uint8_t stage[STAGES][W_BYTES + expert_block<Wide>::TOKENS * MOE_V3_ROW_BYTES];
    alignas(1024) uint8_t staging[CONSUMERS][STAGING_ROWS * STAGING_ROW_BYTES];
    alignas(128) float x_scale[STAGES][(MOE_V3_SCALE_BOX + 31) / 32 * 32];
    float exchange[9 * STAGING_ROWS];
    uint64_t full[STAGES];
    uint64_t empty[STAGES];
    uint64_t tile_full[TILE_SLOTS];
    uint64_t tile_stored[TILE_SLOTS];
    uint64_t tile_empty[TILE_SLOTS];
    expert_tile tile[TILE_SLOTS];
    int32_t row_offset[MOE_EXPERT_COUNT_LIMIT + 1];
    int32_t row_tile_start[MOE_EXPERT_COUNT_LIMIT + 1];
    moe_expert_split split[Wide ? MOE_EXPERT_COUNT_LIMIT : 1];
};

/* A place in the ring of stages; parity flips when it comes round. */
template <int Size> struct ring {
    int32_t stage;
    uint32_t parity;

    __device__ __forceinline__ void next()
    {
        if (++stage == Size) {
            stage = 0;
            parity ^= 1;
        }
    }
};
template <bool Wide> using stage_ring = ring<expert_block<Wide>::STAGES>;
using tile_ring = ring<TILE_SLOTS>;

/* Output columns of one tile. */
static __host__ __device__ constexpr int32_t tile_columns(bool gated)
{
    return gated ? MOE_V3_WEIGHT_ROWS : 2 * MOE_V3_WEIGHT_ROWS;
}

static __device__ __forceinline__ int32_t depth_steps(const moe_expert_gemm &gemm, bool fp8)
{
    const int32_t step = fp8 ? MOE_V3_ROW_BYTES : MOE_V3_ROW_BYTES / 2;
    return (gemm.depth + step - 1) / step;
}

/* How many say of a stage that it is read. The products are the warpgroup's together, so that one
 * thread can say it for all; the scales of fp8 every warp reads for itself, when it comes to it. */
template <bool Fp8> static constexpr int32_t READERS = Fp8 ? BOTH_WARPGROUPS / 32 : CONSUMERS;

/* The stage is read: its place may be filled again. */
template <bool Fp8, bool Wide>
static __device__ __forceinline__ void release(expert_shared<Wide> &sm, int32_t stage)
{
    if (Fp8) {
        __syncwarp();
    }
    if (threadIdx.x % (BOTH_WARPGROUPS / READERS<Fp8>) == 0) {
        mbarrier_arrive(shared_address(&sm.empty[stage]));
    }
}

/* One instruction. In fp8 the first of a stage overwrites the sums; in bf16 all add. */
template <int N, bool Fp8>
static __device__ __forceinline__ void multiply(float *sums, uint64_t a, uint64_t b, bool first)
{
    if (!Fp8) {
        Wgmma<N>::bf16(sums, a, b);
    } else if (first) {
        Wgmma<N>::e4m3_first(sums, a, b);
    } else {
        Wgmma<N>::e4m3(sums, a, b);
    }
}

/* bf16: sums over the whole depth, one stage's products in flight while the next is awaited.
 * multiply(stage) issues the wgmma instructions. */
template <bool Wide, typename Multiply, typename Keep>
static __device__ __forceinline__ void sum_bf16(expert_shared<Wide> &sm, stage_ring<Wide> &at,
                                                int32_t steps, Multiply multiply, Keep keep)
{
    int32_t before = at.stage;
    for (int32_t s = 0; s < steps; s++) {
        mbarrier_wait(shared_address(&sm.full[at.stage]), at.parity);
        keep();
        wgmma_fence();
        multiply(at.stage);
        wgmma_commit();
        keep();
        if (s > 0) {
            wgmma_wait<1>();
            release<false>(sm, before);
        }
        before = at.stage;
        at.next();
    }
    wgmma_wait<0>();
    keep();
    release<false>(sm, before);
}

/* The scales of the two weight boxes of a tile, along the depth. */
struct box_scales {
    const float *first;
    const float *second;
};

static __device__ __forceinline__ box_scales find_box_scales(const moe_expert_gemm &gemm,
                                                             const expert_tile &tile, bool gated,
                                                             int32_t depth_blocks)
{
    const int64_t column_blocks =
        (gemm.columns + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
    const int64_t matrix = (int64_t) tile.expert * (gated ? 2 : 1);
    const int64_t block = (int64_t) tile.weight_tile * tile_columns(gated) / MOE_EXPERT_SCALE_BLOCK;
    /* A second box beyond the last column holds zeros; any scale will do. */
    const int64_t second = gated ? (matrix + 1) * column_blocks + block
                                 : matrix * column_blocks + min(block + 1, column_blocks - 1);
    return { gemm.w_scale_dev + (matrix * column_blocks + block) * depth_blocks,
             gemm.w_scale_dev + second * depth_blocks };
}

/* The question is asked once for all sums: asked for each, the code of GELU lies between any two of
 * them, and fetching instructions takes several times what the products do (192 rows of 768 x 3072
 * with ReLU: 791 us where the library's took 394). */
template <int Count>
static __device__ __forceinline__ void activate(int epilogue, float (&sums)[Count])
{
    if (epilogue == MOE_EPILOGUE_RELU) {
#pragma unroll
        for (int i = 0; i < Count; i++) {
            sums[i] = fmaxf(sums[i], 0.0F);
        }
    } else if (epilogue == MOE_EPILOGUE_GELU) {
#pragma unroll
        for (int i = 0; i < Count; i++) {
            sums[i] = expert_gelu(sums[i]);
        }
    }
}

template <int N, bool Gated, bool Fp8, bool Wide>
static __device__ __forceinline__ void
consume_turned(const moe_expert_gemm &gemm, expert_shared<Wide> &sm, const expert_tile &tile,
               const expert_output &o, stage_ring<Wide> &at)
{
    const int32_t steps = depth_steps(gemm, Fp8);
    const uint32_t rows = (uint32_t) o.warpgroup * WARPGROUP_BYTES;
    /* Zeroed, or every N's sums would stay alive across all tiles. */
    float first[N / 2] = {};
    float second[N / 2] = {};
    const auto stage_products = [&](int32_t stage, float *a, float *b) {
        const uint64_t w0 = wgmma_descriptor(shared_address(sm.stage[stage]) + rows);
        const uint64_t w1 = wgmma_descriptor(shared_address(sm.stage[stage]) + W_BOX_BYTES + rows);
        const uint64_t x = wgmma_descriptor(shared_address(sm.stage[stage]) + W_BYTES);
#pragma unroll
        for (uint64_t k = 0; k < 2 * K_STEPS; k += 2) { /* addresses count 16 bytes */
            multiply<N, Fp8>(a, w0 + k, x + k, k == 0);
            multiply<N, Fp8>(b, w1 + k, x + k, k == 0);
        }
    };
    if (!Fp8) {
        sum_bf16(
            sm, at, steps, [&](int32_t stage) { stage_products(stage, first, second); },
            [&]() {
                wgmma_keep(first);
                wgmma_keep(second);
            });
    } else {
        const box_scales w = find_box_scales(gemm, tile, Gated, steps);
        for (int32_t s = 0; s < steps; s++) {
            const float w0 = __ldg(w.first + s);
            const float w1 = __ldg(w.second + s);
            float part0[N / 2];
            float part1[N / 2];
            mbarrier_wait(shared_address(&sm.full[at.stage]), at.parity);
            wgmma_fence();
            stage_products(at.stage, part0, part1);
            wgmma_commit();
            wgmma_wait<0>();
            wgmma_keep(part0);
            wgmma_keep(part1);
            const float *scale = sm.x_scale[at.stage] + tile.row % 4 + 2 * (threadIdx.x % 4);
#pragma unroll
            for (int i = 0; i < N / 2; i++) {
                const float x = scale[8 * (i / 4) + i % 2];
                first[i] += part0[i] * (x * w0);
                second[i] += part1[i] * (x * w1);
            }
            release<true>(sm, at.stage);
            at.next();
        }
    }
    const int32_t column = tile.weight_tile * tile_columns(Gated);
    if constexpr (Gated) {
        store_turned<N, Fp8>(o, column, [&](int j, int i) {
            return expert_swiglu(first[4 * j + i], second[4 * j + i]);
        });
    } else if (gemm.epilogue == MOE_EPILOGUE_NONE) {
        store_turned<N, false>(o, column, [&](int j, int i) { return first[4 * j + i]; });
        store_turned<N, false>(o, column + MOE_V3_WEIGHT_ROWS,
                               [&](int j, int i) { return second[4 * j + i]; });
    } else {
        activate(gemm.epilogue, first);
        activate(gemm.epilogue, second);
        store_turned<N, Fp8>(o, column, [&](int j, int i) { return first[4 * j + i]; });
        store_turned<N, Fp8>(o, column + MOE_V3_WEIGHT_ROWS,
                             [&](int j, int i) { return second[4 * j + i]; });
    }
}

/* fp8, upright: each box in turn, so that one box's products and both boxes' sums fit into the
 * registers. The warpgroups take turns in asking for products: while one scales and adds, the
 * other's are made. Without the turns both ask and then both add, and the tensor cores rest. */
template <bool Gated>
static __device__ __forceinline__ void
sum_upright_e4m3(const moe_expert_gemm &gemm, expert_shared<false> &sm, const expert_tile &tile,
                 int32_t warpgroup, stage_ring<false> &at, float (&sum)[128])
{
    const int32_t steps = depth_steps(gemm, true);
    const box_scales w = find_box_scales(gemm, tile, Gated, steps);
    const int32_t row = tile.row % 4 + warpgroup * 64 +
                        (int32_t) threadIdx.x % WARPGROUP / 32 * 16 +
                        (int32_t) threadIdx.x % 32 / 4;
    for (int32_t s = 0; s < steps; s++) {
        const float w_scale[2] = { __ldg(w.first + s), __ldg(w.second + s) };
        mbarrier_wait(shared_address(&sm.full[at.stage]), at.parity);
        const float upper = sm.x_scale[at.stage][row];
        const float lower = sm.x_scale[at.stage][row + 8];
        const uint64_t x = wgmma_descriptor(shared_address(sm.stage[at.stage]) + W_BYTES +
                                            (uint32_t) warpgroup * WARPGROUP_BYTES);
#pragma unroll
        for (int box = 0; box < 2; box++) {
            const uint64_t b =
                wgmma_descriptor(shared_address(sm.stage[at.stage]) + (uint32_t) box * W_BOX_BYTES);
            float part[64];
            named_barrier(TURN_BARRIER + warpgroup, BOTH_WARPGROUPS);
            wgmma_fence();
#pragma unroll
            for (uint64_t k = 0; k < 2 * K_STEPS; k += 2) {
                multiply<128, true>(part, x + k, b + k, k == 0);
            }
            wgmma_commit();
            named_barrier_arrive(TURN_BARRIER + 1 - warpgroup, BOTH_WARPGROUPS);
            wgmma_wait<0>();
            wgmma_keep(part);
            if (box == 1) {
                release<true>(sm, at.stage);
            }
            const float scales[2] = { upper * w_scale[box], lower * w_scale[box] };
#pragma unroll
            for (int i = 0; i < 64; i++) {
                sum[64 * box + i] += part[i] * scales[i / 2 % 2];
            }
        }
        at.next();
    }
}

template <bool Gated, bool Fp8, bool Wide>
static __device__ __forceinline__ void
consume_upright(const moe_expert_gemm &gemm, expert_shared<Wide> &sm, const expert_tile &tile,
                const expert_output &o, stage_ring<Wide> &at)
{
    float sum[128] = {}; /* [box][16 groups of 8 columns][4] */
    if constexpr (Fp8) {
        sum_upright_e4m3<Gated>(gemm, sm, tile, o.warpgroup, at, sum);
    } else {
        sum_bf16(
            sm, at, depth_steps(gemm, false),
            [&](int32_t stage) {
                const uint64_t x = wgmma_descriptor(shared_address(sm.stage[stage]) + W_BYTES +
                                                    (uint32_t) o.warpgroup * WARPGROUP_BYTES);
                const uint64_t w = wgmma_descriptor(shared_address(sm.stage[stage]));
#pragma unroll
                for (uint64_t k = 0; k < 2 * K_STEPS; k += 2) {
                    Wgmma<256>::bf16(sum, x + k, w + k);
                }
            },
            [&]() { wgmma_keep(sum); });
    }
    const int32_t column = tile.weight_tile * tile_columns(Gated);
    if constexpr (Gated) {
        store_upright<Fp8>(o, column, [&](int j, int i) {
            return expert_swiglu(sum[4 * j + i], sum[64 + 4 * j + i]);
        });
    } else {
        if (gemm.epilogue != MOE_EPILOGUE_NONE) {
            activate(gemm.epilogue, sum);
        }
#pragma unroll
        for (int box = 0; box < 2; box++) {
            const int32_t c = column + box * MOE_V3_WEIGHT_ROWS;
            const auto value = [&](int j, int i) { return sum[64 * box + 4 * j + i]; };
            if (Fp8 && gemm.epilogue != MOE_EPILOGUE_NONE) {
                store_upright<true>(o, c, value);
            } else {
                store_upright<false>(o, c, value);
            }
        }
    }
}

#endif

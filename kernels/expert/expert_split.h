/*
 * How version 3 cuts the rows of one expert into token tiles: for the GPU, which has to find its
 * tiles, and for the host, which chooses the launch. Each token tile meets every block of 256
 * weight rows of its expert.
 *
 * The narrow launch has tiles of up to 128 tokens. The wide launch also has tiles of 192; what is
 * left over of an expert goes to tiles of 128. A wide tile needs 56 KiB for a stage of products
 * that takes 1536 clocks, one of 128 tokens 48 KiB for 1024.
 *
 * Which is best is a matter of what tiles cost, in clocks of one multiprocessor per stage of 128
 * bytes of depth: the products take 8 clocks a token, the stage comes from the L2 cache at about
 * 44 bytes a clock (what tiles of 128 reached: H200, 1024 rows each of 32 experts of 7168 x 2048).
 * A wide tile costs the same whether it is full or not. Measured there, us of a wide cut and of a
 * narrow one: 192 rows (one wide) 850-940 against 1140-1200, 512 (two wide and 128) 2440-2520
 * against 2290-2370, 1024 (four and two of 128) 4600 against 4410. In three longer
 * stages a block hides less than in four, and blocks that hold tiles of two sizes presumably lose
 * the step in which they share operands in L2. The model knows neither and would give the wide cut
 * 3.4 % at 512 and 1024: what it promises must exceed one part in MOE_V3_WIDE_LEAST_GAIN.
 */
#ifndef MOE_KERNELS_EXPERT_SPLIT_H
#define MOE_KERNELS_EXPERT_SPLIT_H

#include <stdint.h>

#ifdef __CUDACC__
#define MOE_HOST_AND_DEVICE static __host__ __device__ inline
#else
#define MOE_HOST_AND_DEVICE static inline
#endif

enum {
    MOE_V3_TOKEN_TILE_COUNT = 6, /* 8, 16, 32, 64, 128, 192 rows of x */
    MOE_V3_TOKEN_TILE_LEAST = 8,
    MOE_V3_TOKEN_TILE_MOST = 128, /* of the narrow launch */
    MOE_V3_WIDE_TILE = 192,
    MOE_V3_TILE_WEIGHT_ROWS = 256, /* of either matrix, or of both together */
    MOE_V3_WIDE_TILE_CLOCKS = 1600,
    MOE_V3_WIDE_LEAST_GAIN = 25, /* one part of so many */
    MOE_V3_L2_BYTES_PER_CLOCK = 44,
    /* The memory's 4.6 TB/s for 132 multiprocessors at 1.6 GHz. */
    MOE_V3_MEMORY_BYTES_PER_CLOCK = 22,
};

struct moe_expert_split {
    int32_t wide_count; /* the first tiles; the rest have 128 rows, the last what is left */
    int32_t tile_count;
};

/* 0 for 8 rows, 1 for 16, ..: the smallest token tile that holds them; rows at most 192. */
MOE_HOST_AND_DEVICE int32_t moe_token_tile_class(int32_t rows)
{
    int32_t c = rows > MOE_V3_TOKEN_TILE_MOST ? 5 : 0;
    while (c < 5 && (MOE_V3_TOKEN_TILE_LEAST << c) < rows) {
        c++;
    }
    return c;
}

/* Rows of a class. */
MOE_HOST_AND_DEVICE int32_t moe_token_tile_rows(int32_t tile_class)
{
    return tile_class < 5 ? MOE_V3_TOKEN_TILE_LEAST << tile_class : MOE_V3_WIDE_TILE;
}

MOE_HOST_AND_DEVICE int32_t moe_split_ceil(int32_t count, int32_t size)
{
    return (count + size - 1) / size;
}

/* Clocks of one tile of 1 to 128 rows, per stage. */
MOE_HOST_AND_DEVICE int32_t moe_token_tile_clocks(int32_t rows)
{
    const int32_t held = moe_token_tile_rows(moe_token_tile_class(rows));
    const int32_t products = 8 * held;
    const int32_t loads = 128 * (MOE_V3_TILE_WEIGHT_ROWS + held) / MOE_V3_L2_BYTES_PER_CLOCK;
    return products > loads ? products : loads;
}

/* Clocks of `rows` rows, which may be 0, cut into tiles of 128. */
MOE_HOST_AND_DEVICE int32_t moe_expert_narrow_clocks(int32_t rows)
{
    const int32_t rest = rows % MOE_V3_TOKEN_TILE_MOST;
    return rows / MOE_V3_TOKEN_TILE_MOST * moe_token_tile_clocks(MOE_V3_TOKEN_TILE_MOST) +
           (rest > 0 ? moe_token_tile_clocks(rest) : 0);
}

/* The cut of the narrow launch. */
MOE_HOST_AND_DEVICE struct moe_expert_split moe_expert_split_narrow(int32_t rows)
{
    const struct moe_expert_split split = { 0, moe_split_ceil(rows, MOE_V3_TOKEN_TILE_MOST) };
    return split;
}

/* Whether `wide` clocks are enough below `narrow` to be believed. */
MOE_HOST_AND_DEVICE int moe_split_gains(int64_t wide, int64_t narrow)
{
    return (narrow - wide) * MOE_V3_WIDE_LEAST_GAIN > narrow;
}

/* The cheapest cut of the wide launch and its clocks, the narrow one unless wide tiles gain
 * enough; among equals the one with the fewest wide tiles. A wide tile costs less per row than one
 * of 128, so that all but the last few rows go to such. */
MOE_HOST_AND_DEVICE struct moe_expert_split moe_expert_split_wide(int32_t rows, int32_t *clocks)
{
    const int32_t most = moe_split_ceil(rows, MOE_V3_WIDE_TILE);
    const int32_t narrow = moe_expert_narrow_clocks(rows);
    struct moe_expert_split best = moe_expert_split_narrow(rows);
    *clocks = narrow;
    for (int32_t wide = most > 2 ? most - 2 : 1; wide <= most; wide++) {
        const int32_t in_wide = wide * MOE_V3_WIDE_TILE;
        const int32_t rest = rows > in_wide ? rows - in_wide : 0;
        const int32_t cost = wide * MOE_V3_WIDE_TILE_CLOCKS + moe_expert_narrow_clocks(rest);
        if (cost < *clocks && moe_split_gains(cost, narrow)) {
            *clocks = cost;
            best.wide_count = wide;
            best.tile_count = wide + moe_split_ceil(rest, MOE_V3_TOKEN_TILE_MOST);
        }
    }
    return best;
}

/* What one GEMM of the FFN makes of the token tiles: each meets weight_tiles blocks of weights,
 * over a depth of `stages`. */
struct moe_expert_gemm_size {
    int32_t weight_tiles;
    int32_t stages;
};

/* Clocks of a GEMM by all multiprocessors together, times their number: the tiles' sum, but no less
 * than the longest tile, which one of them does alone. */
MOE_HOST_AND_DEVICE int64_t moe_expert_gemm_clocks(struct moe_expert_gemm_size gemm, int64_t sum,
                                                   int64_t longest, int32_t sm_count)
{
    const int64_t shared = sum * gemm.weight_tiles;
    const int64_t alone = longest * sm_count;
    return gemm.stages * (shared > alone ? shared : alone);
}

/* Whether the wide launch is expected to take less time. Where the memory gives the pace, it has
 * nothing to win and fewer stages; where there are fewer tiles than multiprocessors, a wide tile
 * lasts longer than two narrow ones side by side (4096 x 1536, two experts of 129 to 192 rows: 98 us
 * against 65 of 193 rows, which are cut narrow). row_offset[expert_count + 1]. */
MOE_HOST_AND_DEVICE int moe_expert_split_is_wide(const int32_t *row_offset, int32_t expert_count,
                                                 struct moe_expert_gemm_size first,
                                                 struct moe_expert_gemm_size second,
                                                 int32_t sm_count)
{
    int64_t narrow = 0;
    int64_t wide = 0;
    int64_t memory = 0;
    int64_t narrow_longest = 0;
    int64_t wide_longest = 0;
    for (int32_t e = 0; e < expert_count; e++) {
        const int32_t rows = row_offset[e + 1] - row_offset[e];
        const int32_t in_narrow = rows < MOE_V3_TOKEN_TILE_MOST ? rows : MOE_V3_TOKEN_TILE_MOST;
        const int32_t tile = in_narrow > 0 ? moe_token_tile_clocks(in_narrow) : 0;
        int32_t clocks = 0;
        const struct moe_expert_split split = moe_expert_split_wide(rows, &clocks);
        const int32_t wide_tile = split.wide_count > 0 ? MOE_V3_WIDE_TILE_CLOCKS : tile;
        wide += clocks;
        narrow += moe_expert_narrow_clocks(rows);
        memory += rows > 0 ? MOE_V3_TILE_WEIGHT_ROWS * 128 / MOE_V3_MEMORY_BYTES_PER_CLOCK : 0;
        narrow_longest = tile > narrow_longest ? tile : narrow_longest;
        wide_longest = wide_tile > wide_longest ? wide_tile : wide_longest;
    }
    return moe_split_gains(moe_expert_gemm_clocks(first, wide, wide_longest, sm_count) +
                               moe_expert_gemm_clocks(second, wide, wide_longest, sm_count),
                           moe_expert_gemm_clocks(first, narrow, narrow_longest, sm_count) +
                               moe_expert_gemm_clocks(second, narrow, narrow_longest, sm_count)) &&
           narrow > memory;
}

#endif

/*
 * How version 3 cuts the rows of one expert into token tiles, for the GPU, which needs to find
 * its tiles, and for the host, which chooses the launch.
 *
 * The narrow launch has tiles of up to 128 rows. The wide one may also take 192 at a time: first
 * all tiles of 192, then those of 128, of which the last may be shorter. How many of 192 is a
 * matter of what tiles cost, in clocks of one multiprocessor for 64 columns of depth and 256
 * weight rows: the products take 8 clocks a row, while 32 KiB of weights and 128 bytes a
 * row come from the L2 cache at about 44 bytes a clock (measured with tiles of 128 rows:
 * H200, 1024 rows each of 32 experts of 7168 x 2048). Where both take equally long a wide
 * tile is wasted on less than 192 rows.
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
    MOE_V3_L2_BYTES_PER_CLOCK = 44,
    /* The memory's 4.6 TB/s for 132 multiprocessors at 1.6 GHz. */
    MOE_V3_MEMORY_BYTES_PER_CLOCK = 22,
    MOE_V3_STAGE_WEIGHT_BYTES = 32 * 1024,
};

struct moe_expert_split {
    int32_t wide_count; /* tiles of 192 rows, which come first; the last may be shorter */
    int32_t tile_count; /* all */
};

/* 0 for 8 rows, 1 for 16, ..: the smallest token tile that holds them; rows at most 192. */
MOE_HOST_AND_DEVICE int32_t moe_token_tile_class(int32_t rows)
{
    int32_t c = 0;
    while ((MOE_V3_TOKEN_TILE_LEAST << c) < rows) {
        c++;
    }
    return c;
}

/* Rows of a class. */
MOE_HOST_AND_DEVICE int32_t moe_token_tile_rows(int32_t tile_class)
{
    return tile_class == MOE_V3_TOKEN_TILE_COUNT - 1 ? MOE_V3_WIDE_TILE
                                                     : MOE_V3_TOKEN_TILE_LEAST << tile_class;
}

/* Clocks of one tile of 1 to 192 rows, per stage. */
MOE_HOST_AND_DEVICE int32_t moe_token_tile_clocks(int32_t rows)
{
    const int32_t held = moe_token_tile_rows(moe_token_tile_class(rows));
    const int32_t products = 8 * held;
    const int32_t loads = (MOE_V3_STAGE_WEIGHT_BYTES + 128 * held) / MOE_V3_L2_BYTES_PER_CLOCK;
    return products > loads ? products : loads;
}

/* Clocks of `rows` rows cut into tiles of 128. rows may be 0. */
MOE_HOST_AND_DEVICE int64_t moe_expert_narrow_clocks(int32_t rows)
{
    const int32_t rest = rows % MOE_V3_TOKEN_TILE_MOST;
    return (int64_t) (rows / MOE_V3_TOKEN_TILE_MOST) *
               moe_token_tile_clocks(MOE_V3_TOKEN_TILE_MOST) +
           (rest > 0 ? moe_token_tile_clocks(rest) : 0);
}

/* The cheapest cut, of equal ones that with the fewest wide tiles; its clocks in *clocks. A wide
 * tile costs least per row, so that all but the last few rows go to such. */
MOE_HOST_AND_DEVICE struct moe_expert_split moe_expert_split_find(int32_t rows, int64_t *clocks)
{
    const int32_t most = (rows + MOE_V3_WIDE_TILE - 1) / MOE_V3_WIDE_TILE;
    struct moe_expert_split best = { 0, 0 };
    *clocks = INT64_MAX;
    for (int32_t wide = most > 2 ? most - 2 : 0; wide <= most; wide++) {
        const int32_t in_wide = wide * MOE_V3_WIDE_TILE;
        const int32_t rest = rows > in_wide ? rows - in_wide : 0;
        const int64_t cost = (int64_t) wide * moe_token_tile_clocks(MOE_V3_WIDE_TILE) +
                             moe_expert_narrow_clocks(rest);
        if (cost < *clocks) {
            *clocks = cost;
            best.wide_count = wide;
            best.tile_count = wide + (rest + MOE_V3_TOKEN_TILE_MOST - 1) / MOE_V3_TOKEN_TILE_MOST;
        }
    }
    return best;
}

/* Whether the wide launch is expected to take less time: where the memory gives the pace, it has
 * nothing to win and fewer stages. row_offset[expert_count + 1]. */
MOE_HOST_AND_DEVICE int moe_expert_split_is_wide(const int32_t *row_offset, int32_t expert_count)
{
    int64_t narrow = 0;
    int64_t wide = 0;
    int64_t memory = 0;
    for (int32_t e = 0; e < expert_count; e++) {
        const int32_t rows = row_offset[e + 1] - row_offset[e];
        int64_t clocks = 0;
        (void) moe_expert_split_find(rows, &clocks);
        wide += clocks;
        narrow += moe_expert_narrow_clocks(rows);
        memory += rows > 0 ? MOE_V3_STAGE_WEIGHT_BYTES / MOE_V3_MEMORY_BYTES_PER_CLOCK : 0;
    }
    return wide < narrow && narrow > memory;
}

#endif

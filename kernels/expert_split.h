/*
 * How version 3 cuts the rows of one expert into token tiles: for the GPU, which has to find its
 * tiles, and for the host, which chooses the launch.
 *
 * The narrow launch has tiles of up to 128 tokens by 256 weight rows. The wide launch has two more:
 *   wide  192 tokens by 256 weight rows; what is left over of an expert goes to tiles of 128
 *   tall  193 to 256 tokens by 192 weight rows, for experts whose rows are cut into such alone
 * Both need 56 KiB for a stage of products that takes 1536 clocks, where 128 by 256 need 48 KiB
 * for 1024.
 *
 * Which is best is a matter of what tiles cost, in clocks of one multiprocessor per stage of 128
 * bytes of depth: the products of 256 weight rows take 8 clocks a token, the stage comes from the
 * L2 cache at about 44 bytes a clock (what tiles of 128 reached: H200, 1024 rows each of 32
 * experts of 7168 x 2048). A wide or a tall tile costs the same whether it is full or not.
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
    MOE_V3_TOKEN_TILE_COUNT = 7, /* 8, 16, 32, 64, 128, 192, 256 rows of x */
    MOE_V3_TOKEN_TILE_LEAST = 8,
    MOE_V3_TOKEN_TILE_MOST = 128, /* of the narrow launch */
    MOE_V3_WIDE_TILE = 192,
    MOE_V3_TALL_TILE = 256,
    MOE_V3_TILE_WEIGHT_ROWS = 256, /* of either matrix, or of both together */
    MOE_V3_TALL_WEIGHT_ROWS = 192,
    MOE_V3_LARGE_TILE_CLOCKS = 1536, /* wide or tall */
    MOE_V3_L2_BYTES_PER_CLOCK = 44,
    /* The memory's 4.6 TB/s for 132 multiprocessors at 1.6 GHz. */
    MOE_V3_MEMORY_BYTES_PER_CLOCK = 22,
};

struct moe_expert_split {
    int32_t first_rows;  /* of each of the first first_count tiles */
    int32_t first_count; /* wide or tall; the rest have 128 rows, the last what is left */
    int32_t tile_count;
    int32_t weight_tile_count; /* each row tile meets so many blocks of weights */
};

/* 0 for 8 rows, 1 for 16, ..: the smallest token tile that holds them; rows at most 256. */
MOE_HOST_AND_DEVICE int32_t moe_token_tile_class(int32_t rows)
{
    int32_t c = rows > MOE_V3_WIDE_TILE ? 6 : rows > MOE_V3_TOKEN_TILE_MOST ? 5 : 0;
    while (c < 5 && (MOE_V3_TOKEN_TILE_LEAST << c) < rows) {
        c++;
    }
    return c;
}

/* Rows of a class. */
MOE_HOST_AND_DEVICE int32_t moe_token_tile_rows(int32_t tile_class)
{
    return tile_class < 5    ? MOE_V3_TOKEN_TILE_LEAST << tile_class
           : tile_class == 5 ? MOE_V3_WIDE_TILE
                             : MOE_V3_TALL_TILE;
}

MOE_HOST_AND_DEVICE int32_t moe_split_ceil(int32_t count, int32_t size)
{
    return (count + size - 1) / size;
}

/* Clocks of one tile of 1 to 128 rows and 256 weight rows, per stage. */
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

/* The cut of the narrow launch. weight_rows: of all matrices of an expert. */
MOE_HOST_AND_DEVICE struct moe_expert_split moe_expert_split_narrow(int32_t rows,
                                                                    int32_t weight_rows)
{
    const struct moe_expert_split split = { 0, 0, moe_split_ceil(rows, MOE_V3_TOKEN_TILE_MOST),
                                            moe_split_ceil(weight_rows, MOE_V3_TILE_WEIGHT_ROWS) };
    return split;
}

/* The cheapest cut of the wide launch and its clocks; among equals the one with the fewest large
 * tiles, and tall ones last. A wide tile costs less per row than one of 128, so that all but the
 * last few rows go to such. */
MOE_HOST_AND_DEVICE struct moe_expert_split moe_expert_split_wide(int32_t rows, int32_t weight_rows,
                                                                  int64_t *clocks)
{
    const int32_t most = moe_split_ceil(rows, MOE_V3_WIDE_TILE);
    const int32_t tall_count = moe_split_ceil(rows, MOE_V3_TALL_TILE);
    const int32_t tall_weight_tiles = moe_split_ceil(weight_rows, MOE_V3_TALL_WEIGHT_ROWS);
    struct moe_expert_split best = moe_expert_split_narrow(rows, weight_rows);
    *clocks = (int64_t) moe_expert_narrow_clocks(rows) * best.weight_tile_count;
    for (int32_t wide = most > 2 ? most - 2 : 1; wide <= most; wide++) {
        const int32_t in_wide = wide * MOE_V3_WIDE_TILE;
        const int32_t rest = rows > in_wide ? rows - in_wide : 0;
        const int64_t cost =
            ((int64_t) wide * MOE_V3_LARGE_TILE_CLOCKS + moe_expert_narrow_clocks(rest)) *
            best.weight_tile_count;
        if (cost < *clocks) {
            *clocks = cost;
            best.first_rows = MOE_V3_WIDE_TILE;
            best.first_count = wide;
            best.tile_count = wide + moe_split_ceil(rest, MOE_V3_TOKEN_TILE_MOST);
        }
    }
    if (rows > MOE_V3_WIDE_TILE) {
        const int32_t each = moe_split_ceil(rows, tall_count);
        const int64_t cost = (int64_t) tall_count * MOE_V3_LARGE_TILE_CLOCKS * tall_weight_tiles;
        /* Its size tells a tall tile from others: the smallest has more rows than a wide one. */
        if (cost < *clocks && rows - (tall_count - 1) * each > MOE_V3_WIDE_TILE) {
            *clocks = cost;
            best.first_rows = each;
            best.first_count = tall_count;
            best.tile_count = tall_count;
            best.weight_tile_count = tall_weight_tiles;
        }
    }
    return best;
}

/* Whether the wide launch is expected to take less time: where the memory gives the pace, it has
 * nothing to win and fewer stages. row_offset[expert_count + 1]. */
MOE_HOST_AND_DEVICE int moe_expert_split_is_wide(const int32_t *row_offset, int32_t expert_count,
                                                 int32_t weight_rows)
{
    int64_t narrow = 0;
    int64_t wide = 0;
    int64_t memory = 0;
    for (int32_t e = 0; e < expert_count; e++) {
        const int32_t rows = row_offset[e + 1] - row_offset[e];
        int64_t clocks = 0;
        (void) moe_expert_split_wide(rows, weight_rows, &clocks);
        wide += clocks;
        narrow += (int64_t) moe_expert_narrow_clocks(rows) *
                  moe_split_ceil(weight_rows, MOE_V3_TILE_WEIGHT_ROWS);
        memory += rows > 0 ? (int64_t) weight_rows * 128 / MOE_V3_MEMORY_BYTES_PER_CLOCK : 0;
    }
    return wide < narrow && narrow > memory;
}

#endif

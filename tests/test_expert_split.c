#include <criterion/criterion.h>

#include "kernels/expert/expert_split.h"

/* Every count of wide tiles tried, where the fast one looks at the last three. */
static int32_t least_clocks(int32_t rows)
{
    const int32_t narrow = moe_expert_narrow_clocks(rows);
    int32_t least = narrow;
    for (int32_t wide = 1; wide <= rows / MOE_V3_WIDE_TILE + 1; wide++) {
        const int32_t rest = rows - wide * MOE_V3_WIDE_TILE;
        const int32_t clocks =
            wide * MOE_V3_WIDE_TILE_CLOCKS + moe_expert_narrow_clocks(rest > 0 ? rest : 0);
        least = clocks < least ? clocks : least;
    }
    return (double) least < (double) narrow * (1.0 - 1.0 / MOE_V3_WIDE_LEAST_GAIN) ? least : narrow;
}

Test(expert_split, a_class_holds_its_rows_and_the_one_below_does_not)
{
    for (int32_t rows = 1; rows <= MOE_V3_WIDE_TILE; rows++) {
        const int32_t found = moe_token_tile_class(rows);
        cr_assert_geq(found, 0);
        cr_assert_lt(found, MOE_V3_TOKEN_TILE_COUNT);
        cr_assert_geq(moe_token_tile_rows(found), rows);
        cr_assert(found == 0 || moe_token_tile_rows(found - 1) < rows, "%d rows", rows);
    }
}

/* The tiles hold all rows, none is empty, and no other cut costs less. */
Test(expert_split, a_cut_is_whole_and_cheapest)
{
    for (int32_t rows = 0; rows <= 5000; rows++) {
        int32_t clocks = -1;
        const struct moe_expert_split split = moe_expert_split_wide(rows, &clocks);
        const int32_t narrow = split.tile_count - split.wide_count;
        const int32_t room = split.wide_count * MOE_V3_WIDE_TILE + narrow * MOE_V3_TOKEN_TILE_MOST;
        const int32_t last = narrow > 0 ? MOE_V3_TOKEN_TILE_MOST : MOE_V3_WIDE_TILE;
        cr_assert_geq(room, rows, "%d rows", rows);
        cr_assert(rows == 0 ? split.tile_count == 0 : room - last < rows, "%d rows", rows);
        cr_assert_eq(clocks, least_clocks(rows), "%d rows", rows);
    }
}

/* What was measured on a GPU (expert_split.h): wide tiles are for 129 to 192 rows, and for counts
 * that they divide much better than 128 does. */
Test(expert_split, known_cuts)
{
    static const struct {
        int32_t rows;
        struct moe_expert_split split;
    } known[] = {
        { 1, { 0, 1 } },   { 128, { 0, 1 } }, { 129, { 1, 1 } }, { 192, { 1, 1 } },
        { 193, { 0, 2 } }, { 256, { 0, 2 } }, { 320, { 1, 2 } }, { 384, { 2, 2 } },
        { 512, { 0, 4 } }, { 576, { 3, 3 } }, { 768, { 4, 4 } }, { 1024, { 0, 8 } },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        int32_t clocks = 0;
        const struct moe_expert_split split = moe_expert_split_wide(known[i].rows, &clocks);
        cr_expect_eq(split.wide_count, known[i].split.wide_count, "%d rows", known[i].rows);
        cr_expect_eq(split.tile_count, known[i].split.tile_count, "%d rows", known[i].rows);
    }
}

/* 7168 x 2048, gated, on a chip of 132 multiprocessors. */
static const struct moe_expert_gemm_size large_first = { .weight_tiles = 16, .stages = 112 };
static const struct moe_expert_gemm_size large_second = { .weight_tiles = 28, .stages = 32 };

/* One hot expert among many with few rows waits for the memory, which larger tiles do not help. */
Test(expert_split, the_wide_launch_is_for_work_that_the_memory_does_not_bound)
{
    int32_t offset[33] = { 0 };
    for (int32_t e = 0; e < 32; e++) {
        offset[e + 1] = offset[e] + (e == 16 ? 192 : 52);
    }
    cr_assert_not(moe_expert_split_is_wide(offset, 32, large_first, large_second, 132));
    for (int32_t rows = 1; rows <= 1024; rows++) {
        int32_t clocks = 0;
        for (int32_t e = 0; e < 32; e++) {
            offset[e + 1] = offset[e] + rows;
        }
        cr_assert_eq(moe_expert_split_is_wide(offset, 32, large_first, large_second, 132),
                     moe_expert_split_wide(rows, &clocks).wide_count > 0, "%d rows", rows);
    }
}

/* 4096 x 1536 with few experts: up to where the narrow tiles of 192 rows fill the chip, wide ones
 * only last longer. The second GEMM has 16 blocks of weights, so three experts of two tiles. */
Test(expert_split, few_tiles_are_not_widened)
{
    const struct moe_expert_gemm_size first = { .weight_tiles = 12, .stages = 64 };
    const struct moe_expert_gemm_size second = { .weight_tiles = 16, .stages = 24 };
    int32_t offset[17] = { 0 };
    for (int32_t e = 0; e < 16; e++) {
        offset[e + 1] = offset[e] + 192;
    }
    cr_assert_not(moe_expert_split_is_wide(offset, 1, first, second, 132));
    cr_assert_not(moe_expert_split_is_wide(offset, 2, first, second, 132));
    cr_assert_not(moe_expert_split_is_wide(offset, 5, first, second, 132));
    cr_assert(moe_expert_split_is_wide(offset, 16, first, second, 132));
    cr_assert(moe_expert_split_is_wide(offset, 2, first, second, 16));
}

#include <criterion/criterion.h>

#include "kernels/expert_split.h"

/* Every count of wide tiles tried, where the fast one looks at the last three. */
static int64_t least_clocks(int32_t rows)
{
    int64_t least = INT64_MAX;
    for (int32_t wide = 0; wide <= rows / MOE_V3_WIDE_TILE + 1; wide++) {
        const int32_t rest = rows - wide * MOE_V3_WIDE_TILE;
        const int64_t clocks = (int64_t) wide * moe_token_tile_clocks(MOE_V3_WIDE_TILE) +
                               moe_expert_narrow_clocks(rest > 0 ? rest : 0);
        least = clocks < least ? clocks : least;
    }
    return least;
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
Test(expert_split, a_split_is_whole_and_cheapest)
{
    for (int32_t rows = 0; rows <= 5000; rows++) {
        int64_t clocks = -1;
        const struct moe_expert_split split = moe_expert_split_find(rows, &clocks);
        const int32_t narrow = split.tile_count - split.wide_count;
        const int32_t room = split.wide_count * MOE_V3_WIDE_TILE + narrow * MOE_V3_TOKEN_TILE_MOST;
        const int32_t last = narrow > 0 ? MOE_V3_TOKEN_TILE_MOST : MOE_V3_WIDE_TILE;
        cr_assert_geq(room, rows, "%d rows", rows);
        cr_assert(rows == 0 ? split.tile_count == 0 : room - last < rows, "%d rows", rows);
        cr_assert_eq(clocks, least_clocks(rows), "%d rows", rows);
    }
}

Test(expert_split, known_cuts)
{
    static const int32_t known[][3] = { { 1, 0, 1 },   { 128, 0, 1 }, { 129, 1, 1 },
                                        { 192, 1, 1 }, { 193, 0, 2 }, { 256, 0, 2 },
                                        { 320, 1, 2 }, { 512, 2, 3 }, { 1024, 4, 6 } };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        int64_t clocks = 0;
        const struct moe_expert_split split = moe_expert_split_find(known[i][0], &clocks);
        cr_assert_eq(split.wide_count, known[i][1], "%d rows", known[i][0]);
        cr_assert_eq(split.tile_count, known[i][2], "%d rows", known[i][0]);
    }
}

/* One hot expert among many with few rows waits for the memory, which larger tiles do not help. */
Test(expert_split, the_wide_launch_is_for_work_that_the_memory_does_not_bound)
{
    int32_t offset[33] = { 0 };
    for (int32_t e = 0; e < 32; e++) {
        offset[e + 1] = offset[e] + (e == 16 ? 420 : 52);
    }
    cr_assert_not(moe_expert_split_is_wide(offset, 32));
    for (int32_t e = 0; e < 32; e++) {
        offset[e + 1] = offset[e] + 128;
    }
    cr_assert_not(moe_expert_split_is_wide(offset, 32));
    for (int32_t e = 0; e < 32; e++) {
        offset[e + 1] = offset[e] + 192;
    }
    cr_assert(moe_expert_split_is_wide(offset, 32));
}

#include <criterion/criterion.h>

#include "kernels/expert_split.h"

static const int32_t weight_rows_tried[] = { 64, 192, 256, 384, 1536, 2048, 4096, 5760, 7168 };

enum { TRIED_COUNT = sizeof weight_rows_tried / sizeof weight_rows_tried[0] };

/* Every count of wide tiles tried, where the fast one looks at the last three. */
static int64_t least_clocks(int32_t rows, int32_t weight_rows)
{
    int64_t least = INT64_MAX;
    for (int32_t wide = 0; wide <= rows / MOE_V3_WIDE_TILE + 1; wide++) {
        const int32_t rest = rows - wide * MOE_V3_WIDE_TILE;
        const int64_t clocks = (wide * (int64_t) MOE_V3_LARGE_TILE_CLOCKS +
                                moe_expert_narrow_clocks(rest > 0 ? rest : 0)) *
                               ((weight_rows + 255) / 256);
        least = clocks < least ? clocks : least;
    }
    /* Tall: cut evenly, and each with more rows than a wide one. */
    const int32_t tall = (rows + 255) / 256;
    const int32_t each = tall > 0 ? (rows + tall - 1) / tall : 0;
    if (tall > 0 && rows - (tall - 1) * each > 192) {
        const int64_t clocks =
            tall * (int64_t) MOE_V3_LARGE_TILE_CLOCKS * ((weight_rows + 191) / 192);
        least = clocks < least ? clocks : least;
    }
    return least;
}

Test(expert_split, a_class_holds_its_rows_and_the_one_below_does_not)
{
    for (int32_t rows = 1; rows <= MOE_V3_TALL_TILE; rows++) {
        const int32_t found = moe_token_tile_class(rows);
        cr_assert_geq(found, 0);
        cr_assert_lt(found, MOE_V3_TOKEN_TILE_COUNT);
        cr_assert_geq(moe_token_tile_rows(found), rows);
        cr_assert(found == 0 || moe_token_tile_rows(found - 1) < rows, "%d rows", rows);
    }
}

/* The tiles hold all rows, none is empty, a tile of more than 192 rows is always a tall one, and
 * no other cut costs less. */
Test(expert_split, a_cut_is_whole_and_cheapest)
{
    for (int32_t rows = 0; rows <= 3000; rows++) {
        for (int32_t i = 0; i < TRIED_COUNT; i++) {
            const int32_t weight_rows = weight_rows_tried[i];
            int64_t clocks = -1;
            const struct moe_expert_split split = moe_expert_split_wide(rows, weight_rows, &clocks);
            const int32_t narrow = split.tile_count - split.first_count;
            const int32_t room =
                split.first_count * split.first_rows + narrow * MOE_V3_TOKEN_TILE_MOST;
            const int32_t last = narrow > 0 ? MOE_V3_TOKEN_TILE_MOST : split.first_rows;
            cr_assert_geq(room, rows, "%d rows", rows);
            cr_assert(rows == 0 ? split.tile_count == 0 : room - last < rows, "%d rows", rows);
            const int tall = split.first_count > 0 && split.first_rows != MOE_V3_WIDE_TILE;
            cr_assert(!tall || (narrow == 0 && rows - room + last > MOE_V3_WIDE_TILE), "%d rows",
                      rows);
            cr_assert_eq(split.weight_tile_count,
                         (weight_rows + (tall ? 191 : 255)) / (tall ? 192 : 256));
            cr_assert_eq(clocks, least_clocks(rows, weight_rows), "%d rows", rows);
        }
    }
}

Test(expert_split, known_cuts)
{
    static const struct {
        int32_t rows;
        struct moe_expert_split split;
    } known[] = {
        { 1, { 0, 0, 1, 16 } },     { 128, { 0, 0, 1, 16 } },   { 129, { 192, 1, 1, 16 } },
        { 192, { 192, 1, 1, 16 } }, { 193, { 193, 1, 1, 22 } }, { 256, { 256, 1, 1, 22 } },
        { 320, { 192, 1, 2, 16 } }, { 512, { 192, 2, 3, 16 } }, { 1024, { 192, 4, 6, 16 } },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        int64_t clocks = 0;
        const struct moe_expert_split split = moe_expert_split_wide(known[i].rows, 4096, &clocks);
        cr_assert_eq(split.first_rows, known[i].split.first_rows, "%d rows", known[i].rows);
        cr_assert_eq(split.first_count, known[i].split.first_count, "%d rows", known[i].rows);
        cr_assert_eq(split.tile_count, known[i].split.tile_count, "%d rows", known[i].rows);
        cr_assert_eq(split.weight_tile_count, known[i].split.weight_tile_count, "%d rows",
                     known[i].rows);
    }
}

/* One hot expert among many with few rows waits for the memory, which larger tiles do not help. */
Test(expert_split, the_wide_launch_is_for_work_that_the_memory_does_not_bound)
{
    int32_t offset[33] = { 0 };
    for (int32_t e = 0; e < 32; e++) {
        offset[e + 1] = offset[e] + (e == 16 ? 420 : 52);
    }
    cr_assert_not(moe_expert_split_is_wide(offset, 32, 4096));
    for (int32_t rows = 1; rows <= 1024; rows++) {
        for (int32_t e = 0; e < 32; e++) {
            offset[e + 1] = offset[e] + rows;
        }
        cr_assert_eq(moe_expert_split_is_wide(offset, 32, 4096), rows > 128, "%d rows", rows);
    }
}

#include <criterion/criterion.h>
#include <math.h>

#include "calibrate/expert/expert_floor.h"
#include "calibrate/expert/row_histogram.h"

static int32_t rows_of(const int32_t *row_offset, int32_t expert)
{
    return row_offset[expert + 1] - row_offset[expert];
}

Test(row_histogram, every_spread_has_the_same_number_of_rows)
{
    int32_t row_offset[129];
    for (int kind = 0; kind < MOE_ROW_HISTOGRAM_COUNT; kind++) {
        for (int32_t experts = 1; experts <= 128; experts += 9) {
            for (int32_t rows = 0; rows <= 70; rows += 7) {
                moe_row_histogram_make((enum moe_row_histogram) kind, experts, rows, row_offset);
                cr_assert_eq(row_offset[0], 0);
                cr_assert_eq(row_offset[experts], experts * rows);
                for (int32_t e = 0; e < experts; e++) {
                    cr_assert_geq(rows_of(row_offset, e), 0);
                }
            }
        }
    }
}

Test(row_histogram, spreads_are_what_their_names_say)
{
    int32_t row_offset[40];
    moe_row_histogram_make(MOE_ROW_UNIFORM, 32, 7, row_offset);
    for (int32_t e = 0; e < 32; e++) {
        cr_assert_eq(rows_of(row_offset, e), 7);
    }
    /* 39 shares of 32 * 39 rows: 32 each and 256 for the hot one. */
    moe_row_histogram_make(MOE_ROW_HOT8X, 32, 39, row_offset);
    for (int32_t e = 0; e < 32; e++) {
        cr_assert_eq(rows_of(row_offset, e), e == 16 ? 256 : 32);
    }
    moe_row_histogram_make(MOE_ROW_HALF_EMPTY, 32, 5, row_offset);
    for (int32_t e = 0; e < 32; e++) {
        cr_assert_eq(rows_of(row_offset, e), e % 2 == 0 ? 10 : 0);
    }
}

Test(row_histogram, zipf_falls_with_the_rank)
{
    int32_t row_offset[33];
    int32_t sorted[32];
    double sum = 0.0;
    moe_row_histogram_make(MOE_ROW_ZIPF, 32, 1000, row_offset);
    for (int32_t e = 0; e < 32; e++) {
        int32_t place = e;
        for (; place > 0 && sorted[place - 1] < rows_of(row_offset, e); place--) {
            sorted[place] = sorted[place - 1];
        }
        sorted[place] = rows_of(row_offset, e);
        sum += pow(e + 1.0, -1.2);
    }
    for (int32_t rank = 0; rank < 32; rank++) {
        cr_assert_float_eq(sorted[rank], 32000.0 * pow(rank + 1.0, -1.2) / sum, 1.0);
    }
    cr_assert_neq(rows_of(row_offset, 0), sorted[0], "the hottest must not stand first");
}

Test(row_histogram, load_counts_tiles)
{
    const int32_t row_offset[] = { 0, 0, 1, 65, 193, 322 }; /* 0, 1, 64, 128, 129 rows */
    const struct moe_row_load load = moe_row_load_read(row_offset, 5);
    cr_assert_eq(load.row_count, 322);
    cr_assert_eq(load.active_count, 4);
    cr_assert_eq(load.row_max, 129);
    cr_assert_eq(load.tiles64, 1 + 1 + 2 + 3);
    cr_assert_eq(load.tiles128, 1 + 1 + 1 + 2);
}

Test(expert_floor, counts_by_hand)
{
    struct moe_expert_ffn_shape shape = { .hidden = 7168,
                                          .inter = 2048,
                                          .expert_count = 32,
                                          .dtype = MOE_EXPERT_BF16,
                                          .activation = MOE_EXPERT_SWIGLU };
    const struct moe_row_load load = { .row_count = 64, .active_count = 30 };
    struct moe_expert_work work = moe_expert_work_count(&shape, &load);
    cr_assert_float_eq(moe_expert_weight_bytes(&shape), 88080384.0, 0.5);
    cr_assert_float_eq(work.weight_bytes, 30.0 * 88080384.0, 0.5);
    cr_assert_float_eq(work.row_bytes, 64.0 * 4.0 * 7168.0, 0.5);
    cr_assert_float_eq(work.flops, 2.0 * 64.0 * 3.0 * 7168.0 * 2048.0, 0.5);
    shape.dtype = MOE_EXPERT_FP8; /* a scale per 128 x 128 and per 1 x 128 */
    work = moe_expert_work_count(&shape, &load);
    cr_assert_float_eq(work.weight_bytes, 30.0 * 3.0 * (7168.0 * 2048.0 + 4.0 * 56.0 * 16.0), 0.5);
    cr_assert_float_eq(work.row_bytes, 64.0 * (3.0 * 7168.0 + 4.0 * 56.0), 0.5);
    shape.activation = MOE_EXPERT_RELU; /* two matrices */
    cr_assert_float_eq(moe_expert_weight_bytes(&shape), 2.0 * (7168.0 * 2048.0 + 4.0 * 56.0 * 16.0),
                       0.5);
}

Test(expert_floor, is_the_larger_of_memory_and_arithmetic)
{
    const struct moe_expert_work work = { .weight_bytes = 3e9, .row_bytes = 1e9, .flops = 4e12 };
    /* 4e9 bytes at 4e12 per second: 1000 us; 4e12 FLOPs at 100 SMs x 4096 x 1000 MHz: 9766 us. */
    cr_assert_float_eq(moe_expert_floor_us(&work, MOE_EXPERT_BF16, 4e12, 100, 1000.0), 9765.625,
                       1e-6);
    cr_assert_float_eq(moe_expert_floor_us(&work, MOE_EXPERT_FP8, 4e12, 100, 1000.0), 4882.8125,
                       1e-6);
    cr_assert_float_eq(moe_expert_floor_us(&work, MOE_EXPERT_BF16, 4e12, 100, 20000.0), 1000.0,
                       1e-6);
}

/* The twins of permute.h on answers made by hand. */
#include <criterion/criterion.h>
#include <math.h>

#include "kernels/reference/reference_number.h"
#include "kernels/reference/reference_permute.h"

Test(reference_permute, rows_stand_by_expert_then_token_then_place)
{
    /* Expert 1 has none; -1 and 7 are nobody's here; token 2 chose expert 2 twice. */
    const struct moe_permute_shape shape = {
        .token_count = 3, .top_k = 3, .expert_count = 4, .hidden = 16
    };
    const int32_t ids[] = { 2, 0, -1, 3, 2, 7, 2, 0, 2 };
    const int32_t offsets[] = { 0, 2, 2, 6, 7 };
    const int32_t positions[] = { 2, 0, -1, 6, 3, -1, 4, 1, 5 };
    const int32_t sources[] = { 1, 7, 0, 4, 6, 8, 3 };
    int32_t row_offset[5];
    int32_t position[9];
    int32_t row_source[9];
    moe_reference_permute_plan(&shape, ids, row_offset, position, row_source);
    cr_assert_arr_eq(row_offset, offsets, sizeof offsets);
    cr_assert_arr_eq(position, positions, sizeof positions);
    cr_assert_arr_eq(row_source, sources, sizeof sources);
}

Test(reference_permute, rows_take_their_scales_along)
{
    const struct moe_permute_shape shape = {
        .token_count = 2, .top_k = 2, .expert_count = 2, .hidden = 144
    };
    const int32_t position[] = { 2, 0, -1, 1 };
    const float x_scale[] = { 1.0F, 2.0F, 9.0F, 3.0F, 4.0F, 9.0F };              /* stride 3 */
    const float scales[] = { 1.0F, 2.0F, 1.0F, -1.0F, 3.0F, 4.0F, 3.0F, -1.0F }; /* stride 4 */
    float row_scale[8] = { -1, -1, -1, -1, -1, -1, -1, -1 };
    uint8_t x[288];
    uint8_t rows[3 * 144];
    for (int i = 0; i < 288; i++) {
        x[i] = (uint8_t) (i < 144 ? i : 255 - i % 144);
    }
    moe_reference_permute_values(&shape, MOE_EXPERT_FP8, rows, x, position);
    moe_reference_permute_scales(&shape, row_scale, 4, x_scale, 3, position);
    cr_assert_arr_eq(rows, x, 144);
    cr_assert_arr_eq(rows + 144, x + 144, 144);
    cr_assert_arr_eq(rows + 288, x, 144);
    cr_assert_arr_eq(row_scale, scales, sizeof scales);
}

Test(reference_permute, combine_weighs_and_leaves_out)
{
    const struct moe_permute_shape shape = {
        .token_count = 2, .top_k = 2, .expert_count = 2, .hidden = 16
    };
    const int32_t position[] = { 1, 0, -1, -1 };
    const float weight[] = { 0.5F, 2.0F, 1.0F, 1.0F };
    uint16_t rows[32];
    uint16_t out[32];
    for (int i = 0; i < 16; i++) {
        rows[i] = moe_bf16_from_float((float) i);
        rows[16 + i] = moe_bf16_from_float(-4.0F);
    }
    moe_reference_combine_rows(&shape, out, rows, position, weight);
    for (int i = 0; i < 16; i++) {
        cr_assert_eq(moe_float_from_bf16(out[i]), 2.0F * (float) i - 2.0F);
        cr_assert_eq(out[16 + i], 0);
    }
}

Test(reference_permute, quantise_makes_the_largest_448)
{
    enum { HIDDEN = 144 };
    uint16_t x[2 * HIDDEN] = { 0 };
    uint8_t q[2 * HIDDEN];
    float scale[2 * 4];
    x[3] = moe_bf16_from_float(-7.0F); /* 448 / 64 */
    x[4] = moe_bf16_from_float(1.0F);
    x[130] = moe_bf16_from_float(896.0F);
    x[HIDDEN] = moe_bf16_from_float(0x1p-101F); /* counts as zero */
    x[HIDDEN + 128] = moe_bf16_from_float(0x1p-100F);
    moe_reference_quantise_rows(2, HIDDEN, q, scale, 4, x);
    cr_assert_float_eq(scale[0], 1.0 / 64.0, 1e-9);
    cr_assert_eq(moe_float_from_e4m3(q[3]), -448.0F);
    cr_assert_eq(moe_float_from_e4m3(q[4]), 64.0F);
    cr_assert_eq(moe_float_from_e4m3(q[0]), 0.0F);
    cr_assert_float_eq(scale[4], 2.0, 1e-6);
    cr_assert_eq(moe_float_from_e4m3(q[130]), 448.0F);
    cr_assert_eq(scale[1], 1.0F);
    cr_assert_eq(q[HIDDEN], 0);
    cr_assert_float_eq(scale[5] / 0x1p-100F, 1.0 / 448.0, 1e-8);
    cr_assert_eq(moe_float_from_e4m3(q[HIDDEN + 128]), 448.0F);
}

/* The twin of expert_ffn.h on answers made by hand. All numbers are sums of few powers of two, so
 * that whatever differs is an error of place, scale or order, and no rounding. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "kernels/reference/reference_expert.h"
#include "kernels/reference/reference_number.h"

enum { SMALL = 64 };

static void *zeros(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    cr_assert_not_null(memory);
    return memory;
}

/* `factor` where column = (row + shift) % SMALL, in the index-th of SMALL x SMALL matrices. */
static void set_shift(uint16_t *matrices, size_t index, int shift, float factor)
{
    uint16_t *matrix = matrices + index * SMALL * SMALL;
    for (int row = 0; row < SMALL; row++) {
        for (int column = 0; column < SMALL; column++) {
            matrix[row * SMALL + column] =
                moe_bf16_from_float(column == (row + shift) % SMALL ? factor : 0.0F);
        }
    }
}

/* mid and out of a bf16 network of SMALL by SMALL. */
static void run_small(const struct moe_reference_expert *ffn, double *mid, double *out)
{
    double *scratch = zeros(moe_reference_expert_scratch_count(&ffn->shape), sizeof *scratch);
    const int32_t row_count = ffn->row_offset[ffn->shape.expert_count];
    uint16_t *rounded = zeros((size_t) row_count * SMALL, sizeof *rounded);
    moe_reference_expert_first(ffn, scratch, mid);
    moe_reference_expert_round(ffn, mid, rounded, NULL);
    moe_reference_expert_second(ffn, rounded, NULL, scratch, out);
    free(rounded);
    free(scratch);
}

Test(reference_expert, every_row_meets_its_own_expert)
{
    /* Expert 0 hands x on; 1 has no rows; 2 takes the next column, doubled, and then the one after
     * it. Of row r, column c is c - 32 + r, so a half of it does not pass the ReLU. */
    enum { ROWS = 3, EXPERTS = 3 };
    const int32_t row_offset[] = { 0, 1, 1, 3 };
    uint16_t *w1 = zeros((size_t) EXPERTS * SMALL * SMALL, sizeof *w1);
    uint16_t *w2 = zeros((size_t) EXPERTS * SMALL * SMALL, sizeof *w2);
    uint16_t x[ROWS * SMALL];
    double mid[ROWS * SMALL];
    double out[ROWS * SMALL];
    set_shift(w1, 0, 0, 1.0F);
    set_shift(w2, 0, 0, 1.0F);
    set_shift(w1, 1, 0, 512.0F);
    set_shift(w2, 1, 0, 512.0F);
    set_shift(w1, 2, 1, 2.0F);
    set_shift(w2, 2, 2, 1.0F);
    for (int i = 0; i < ROWS * SMALL; i++) {
        const int value = i % SMALL - 32 + i / SMALL;
        x[i] = moe_bf16_from_float((float) value);
    }
    const struct moe_reference_expert ffn = {
        .shape = { SMALL, SMALL, EXPERTS, MOE_EXPERT_BF16, MOE_EXPERT_RELU },
        .row_offset = row_offset,
        .x = x,
        .w1 = w1,
        .w2 = w2,
    };
    run_small(&ffn, mid, out);
    for (int row = 0; row < ROWS; row++) {
        for (int c = 0; c < SMALL; c++) {
            const int first_from = row == 0 ? c : (c + 1) % SMALL;
            const int second_from = row == 0 ? c : (c + 3) % SMALL;
            const double factor = row == 0 ? 1.0 : 2.0;
            cr_assert_eq(mid[row * SMALL + c], factor * fmax(first_from - 32 + row, 0.0),
                         "mid of row %d, column %d", row, c);
            cr_assert_eq(out[row * SMALL + c], factor * fmax(second_from - 32 + row, 0.0),
                         "out of row %d, column %d", row, c);
        }
    }
    free(w1);
    free(w2);
}

Test(reference_expert, gate_comes_first_and_up_second)
{
    /* silu(z) is z from z = 64 on and nothing from z = -64 down, as far as a double can say. */
    enum { EXPERTS = 2 };
    const int32_t row_offset[] = { 0, 1, 2 };
    uint16_t *w1 = zeros((size_t) EXPERTS * 2 * SMALL * SMALL, sizeof *w1);
    uint16_t *w2 = zeros((size_t) EXPERTS * SMALL * SMALL, sizeof *w2);
    uint16_t x[EXPERTS * SMALL];
    double mid[EXPERTS * SMALL];
    double out[EXPERTS * SMALL];
    set_shift(w1, 0, 0, 64.0F);  /* gate of expert 0 */
    set_shift(w1, 1, 0, -3.0F);  /* up */
    set_shift(w1, 2, 0, 128.0F); /* gate of expert 1 */
    set_shift(w1, 3, 0, 5.0F);
    set_shift(w2, 0, 0, 1.0F);
    set_shift(w2, 1, 0, 0.5F);
    for (int i = 0; i < EXPERTS * SMALL; i++) {
        x[i] = moe_bf16_from_float((float) (i % 3 - 1)); /* -1, 0, 1, .. */
    }
    const struct moe_reference_expert ffn = {
        .shape = { SMALL, SMALL, EXPERTS, MOE_EXPERT_BF16, MOE_EXPERT_SWIGLU },
        .row_offset = row_offset,
        .x = x,
        .w1 = w1,
        .w2 = w2,
    };
    run_small(&ffn, mid, out);
    for (int i = 0; i < EXPERTS * SMALL; i++) {
        const double expected = i % 3 != 2 ? 0.0 : i < SMALL ? -192.0 : 640.0;
        cr_assert_float_eq(mid[i], expected, 1e-20, "mid %d: %g", i, mid[i]);
        cr_assert_float_eq(out[i], i < SMALL ? expected : expected / 2.0, 1e-20, "out %d", i);
    }
    free(w1);
    free(w2);
}

Test(reference_expert, gelu_is_the_exact_one)
{
    const int32_t row_offset[] = { 0, 1 };
    uint16_t *w = zeros((size_t) SMALL * SMALL, sizeof *w);
    uint16_t x[SMALL] = { 0 };
    double mid[SMALL];
    double out[SMALL];
    set_shift(w, 0, 0, 1.0F);
    x[1] = moe_bf16_from_float(1.0F);
    x[2] = moe_bf16_from_float(-1.0F);
    x[3] = moe_bf16_from_float(40.0F);
    x[4] = moe_bf16_from_float(-40.0F);
    const struct moe_reference_expert ffn = {
        .shape = { SMALL, SMALL, 1, MOE_EXPERT_BF16, MOE_EXPERT_GELU },
        .row_offset = row_offset,
        .x = x,
        .w1 = w,
        .w2 = w,
    };
    run_small(&ffn, mid, out);
    /* Phi(1) to 16 places; the approximation with tanh has 0.84119. */
    cr_assert_eq(mid[0], 0.0);
    cr_assert_float_eq(mid[1], 0.8413447460685429, 1e-15);
    cr_assert_float_eq(mid[2], 0.8413447460685429 - 1.0, 1e-15);
    cr_assert_eq(mid[3], 40.0);
    cr_assert_float_eq(mid[4], 0.0, 1e-300);
    free(w);
}

/* fp8 with two scales along each side of 144: 128 columns, then 16. */
enum { WIDE = 144, STRIDE = 4 };

/* count times 1 in e4m3. */
static uint8_t *ones(size_t count)
{
    uint8_t *values = zeros(count, 1);
    for (size_t i = 0; i < count; i++) {
        values[i] = moe_e4m3_from_float(1.0F);
    }
    return values;
}

Test(reference_expert, scales_belong_to_their_rows_and_blocks)
{
    /* x is 1 in column 5 and column 130 only, so a sum has one product under each scale. */
    enum { ROWS = 3, EXPERTS = 2 };
    const int32_t row_offset[] = { 0, 1, 3 };
    const float x_scale[2 * STRIDE] = { 1, 2, 4, NAN, 8, 16, 32, NAN };
    /* [expert][inter / 128][hidden / 128] */
    const float w1_scale[EXPERTS][2][2] = { { { 1, 2 }, { 4, 8 } }, { { 3, 5 }, { 7, 9 } } };
    uint8_t *x = zeros((size_t) ROWS * WIDE, 1);
    uint8_t *w1 = ones((size_t) EXPERTS * WIDE * WIDE);
    double *mid = zeros((size_t) ROWS * WIDE, sizeof *mid);
    const struct moe_reference_expert ffn = {
        .shape = { WIDE, WIDE, EXPERTS, MOE_EXPERT_FP8, MOE_EXPERT_RELU },
        .row_offset = row_offset,
        .scale_stride = STRIDE,
        .x = x,
        .x_scale = x_scale,
        .w1 = w1,
        .w1_scale = &w1_scale[0][0][0],
    };
    double *scratch = zeros(moe_reference_expert_scratch_count(&ffn.shape), sizeof *scratch);
    for (size_t row = 0; row < ROWS; row++) {
        x[row * WIDE + 5] = moe_e4m3_from_float(1.0F);
        x[row * WIDE + 130] = moe_e4m3_from_float(1.0F);
    }
    moe_reference_expert_first(&ffn, scratch, mid);
    for (int row = 0; row < ROWS; row++) {
        for (int i = 0; i < WIDE; i++) {
            const float *w = w1_scale[row > 0][i / 128];
            cr_assert_eq(mid[row * WIDE + i],
                         (double) (x_scale[row] * w[0] + x_scale[STRIDE + row] * w[1]),
                         "row %d, column %d: %g", row, i, mid[row * WIDE + i]);
        }
    }
    free(x);
    free(w1);
    free(mid);
    free(scratch);
}

Test(reference_expert, second_scales_go_by_hidden_then_inter)
{
    /* hidden has two blocks, inter one: a swap of the two would show. Column 7 of mid alone. */
    enum { ROWS = 2, EXPERTS = 2 };
    const int32_t row_offset[] = { 0, 1, 2 };
    const float mid_scale[STRIDE] = { 2, 4, NAN, NAN };
    const float w2_scale[EXPERTS][2] = { { 1, 3 }, { 5, 7 } };
    uint8_t mid[ROWS * SMALL] = { 0 };
    uint8_t *w2 = ones((size_t) EXPERTS * WIDE * SMALL);
    double *out = zeros((size_t) ROWS * WIDE, sizeof *out);
    const struct moe_reference_expert ffn = {
        .shape = { WIDE, SMALL, EXPERTS, MOE_EXPERT_FP8, MOE_EXPERT_RELU },
        .row_offset = row_offset,
        .scale_stride = STRIDE,
        .w2 = w2,
        .w2_scale = &w2_scale[0][0],
    };
    double *scratch = zeros(moe_reference_expert_scratch_count(&ffn.shape), sizeof *scratch);
    mid[7] = moe_e4m3_from_float(1.5F);
    mid[SMALL + 7] = moe_e4m3_from_float(-1.0F);
    moe_reference_expert_second(&ffn, mid, mid_scale, scratch, out);
    for (int h = 0; h < WIDE; h++) {
        cr_assert_eq(out[h], 3.0 * (double) w2_scale[0][h / 128], "row 0, column %d", h);
        cr_assert_eq(out[WIDE + h], -4.0 * (double) w2_scale[1][h / 128], "row 1, column %d", h);
    }
    free(w2);
    free(out);
    free(scratch);
}

Test(reference_expert, mid_is_rounded_under_the_scale_of_its_largest)
{
    enum { ROWS = 2 };
    const int32_t row_offset[] = { 0, ROWS };
    const struct moe_reference_expert ffn = {
        .shape = { SMALL, WIDE, 1, MOE_EXPERT_FP8, MOE_EXPERT_RELU },
        .row_offset = row_offset,
        .scale_stride = STRIDE,
    };
    double mid[ROWS * WIDE] = { 0 };
    uint8_t values[ROWS * WIDE];
    float scales[2 * STRIDE] = { -1, -1, -1, -1, -1, -1, -1, -1 };
    mid[3] = 448.0; /* scale 1 */
    mid[127] = 1.0;
    mid[128] = 1.0; /* the short block: 7 / 448 = 1 / 64 */
    mid[142] = -3.5;
    mid[143] = 7.0;
    mid[WIDE + 10] = -0.875; /* 1 / 512; row 1 has nothing in its short block */
    moe_reference_expert_round(&ffn, mid, values, scales);
    const float expected[2 * STRIDE] = { 1.0F,      1.0F / 512, -1.0F, -1.0F,
                                         1.0F / 64, 1.0F,       -1.0F, -1.0F };
    for (int i = 0; i < 2 * STRIDE; i++) {
        cr_assert_eq(scales[i], expected[i], "scale %d: %g", i, (double) scales[i]);
    }
    for (int i = 0; i < ROWS * WIDE; i++) {
        uint8_t bits = 0;
        switch (i) {
        case 3:   /* 448 */
        case 143: /* 7 * 64 */
            bits = 0x7e;
            break;
        case 127: /* 1 */
            bits = 0x38;
            break;
        case 128: /* 1 * 64 */
            bits = 0x68;
            break;
        case 142: /* -3.5 * 64 */
            bits = 0xf6;
            break;
        case WIDE + 10: /* -0.875 * 512 */
            bits = 0xfe;
            break;
        default:
            break;
        }
        cr_assert_eq(values[i], bits, "element %d: %x", i, values[i]);
    }
}

#include <criterion/criterion.h>
#include <string.h>

#include "kernels/reference/reference_activation.h"
#include "kernels/reference/reference_number.h"

enum { INTER = 144, ROWS = 2, STRIDE = 3, BLOCKS = 2 };

/* Row 0: nothing but zeros in its first block, 7 in its short one. Row 1: zeros after ReLU. */
static void project(uint16_t *projected)
{
    memset(projected, 0, (size_t) ROWS * INTER * sizeof *projected);
    projected[128] = moe_bf16_from_float(7.0F);
    projected[143] = moe_bf16_from_float(-7.0F);
    for (int32_t i = 0; i < INTER; i++) {
        projected[INTER + i] = moe_bf16_from_float(-1.0F);
    }
}

Test(reference_activation, a_block_of_zeros_has_scale_1)
{
    uint16_t projected[ROWS * INTER];
    uint8_t mid[ROWS * INTER];
    float scale[BLOCKS * STRIDE] = { -1, -1, -1, -1, -1, -1 };
    const float expected[BLOCKS * STRIDE] = { 1.0F, 1.0F, -1.0F, 1.0F / 64, 1.0F, -1.0F };
    project(projected);
    moe_reference_activation_fp8(projected, mid, scale, ROWS, INTER, STRIDE, MOE_EXPERT_RELU);
    for (int32_t i = 0; i < BLOCKS * STRIDE; i++) {
        cr_assert_eq(scale[i], expected[i], "scale %d: %g", (int) i, (double) scale[i]);
    }
    for (int32_t i = 0; i < ROWS * INTER; i++) {
        cr_assert_eq(moe_float_from_e4m3(mid[i]), i == 128 ? 448.0F : 0.0F, "cell %d", (int) i);
    }
}

Test(reference_activation, a_row_of_zeros_has_scale_1)
{
    uint16_t projected[ROWS * INTER];
    uint8_t mid[ROWS * INTER];
    float scale[ROWS];
    project(projected);
    moe_reference_activation_fp8_row(projected, mid, scale, ROWS, INTER, MOE_EXPERT_RELU);
    cr_assert_eq(scale[0], 1.0F / 64);
    cr_assert_eq(scale[1], 1.0F);
    cr_assert_eq(moe_float_from_e4m3(mid[128]), 448.0F);
    cr_assert_eq(moe_float_from_e4m3(mid[INTER]), 0.0F);
}

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "kernels/reference/reference_number.h"

Test(reference_number, bf16_rounds_to_nearest_even)
{
    cr_assert_eq(moe_bf16_from_float(1.0F), 0x3f80);
    cr_assert_eq(moe_bf16_from_float(-2.0F), 0xc000);
    cr_assert_eq(moe_bf16_from_float(1.0F + 0x1p-8F), 0x3f80);            /* a tie, down to even */
    cr_assert_eq(moe_bf16_from_float(1.0F + 0x1p-7F + 0x1p-8F), 0x3f82);  /* a tie, up to even */
    cr_assert_eq(moe_bf16_from_float(1.0F + 0x1p-8F + 0x1p-20F), 0x3f81); /* above the tie */
    cr_assert_eq(moe_bf16_from_float(3.4e38F), 0x7f80);
    cr_assert(isnan(moe_float_from_bf16(moe_bf16_from_float(NAN))));
    for (uint32_t bits = 0; bits < 0x7f80; bits++) {
        cr_assert_eq(moe_bf16_from_float(moe_float_from_bf16((uint16_t) bits)), bits);
    }
}

Test(reference_number, e4m3_values_are_those_of_the_paper)
{
    cr_assert_eq(moe_float_from_e4m3(0x00), 0.0F);
    cr_assert_eq(moe_float_from_e4m3(0x01), 0x1p-9F);
    cr_assert_eq(moe_float_from_e4m3(0x08), 0x1p-6F);
    cr_assert_eq(moe_float_from_e4m3(0x38), 1.0F);
    cr_assert_eq(moe_float_from_e4m3(0x7e), 448.0F);
    cr_assert_eq(moe_float_from_e4m3(0xfe), -448.0F);
    cr_assert(isnan(moe_float_from_e4m3(0x7f)));
    cr_assert(isnan(moe_float_from_e4m3(0xff)));
}

/* The nearest code by trying all; of two equally near the even one. */
static uint8_t nearest(float value)
{
    uint8_t best = 0;
    for (uint8_t code = 0; code < 0x7f; code++) {
        const double far = fabs((double) moe_float_from_e4m3(code) - (double) fabsf(value));
        const double least = fabs((double) moe_float_from_e4m3(best) - (double) fabsf(value));
        if (far < least || (far == least && code % 2 == 0)) {
            best = code;
        }
    }
    return (uint8_t) (best | (signbit(value) ? 0x80 : 0));
}

Test(reference_number, e4m3_takes_the_nearest)
{
    for (int32_t i = -480 * 64; i <= 480 * 64; i++) {
        const float value = (float) i / 64.0F;
        cr_assert_eq(moe_e4m3_from_float(value), nearest(value), "%g", (double) value);
    }
    for (int32_t i = 0; i <= 4096; i++) { /* the smallest, ties among them */
        const float value = (float) i * 0x1p-14F;
        cr_assert_eq(moe_e4m3_from_float(value), nearest(value), "%g", (double) value);
    }
    cr_assert_eq(moe_e4m3_from_float(INFINITY), 0x7e);
    cr_assert_eq(moe_e4m3_from_float(-1e30F), 0xfe);
    cr_assert_eq(moe_e4m3_from_float(NAN) & 0x7f, 0x7f);
}

Test(reference_number, e4m3_scale_is_never_zero)
{
    cr_assert_eq(moe_e4m3_scale(448.0F), 1.0F);
    cr_assert_eq(moe_e4m3_scale(7.0F), 0x1p-6F);
    cr_assert_eq(moe_e4m3_scale(0.0F), 1.0F);
    cr_assert_eq(moe_e4m3_scale(nextafterf(0x1p-100F, 0.0F)), 1.0F);
    cr_assert_lt(moe_e4m3_scale(0x1p-100F), 0x1p-108F);
    cr_assert(isfinite(1.0F / moe_e4m3_scale(0x1p-100F)));
}

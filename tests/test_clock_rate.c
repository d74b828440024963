#include <criterion/criterion.h>

#include "kernels/clock/clock.h"

Test(clock_rate, is_the_median_over_SMs_with_both_stamps)
{
    /* 1,000 ns: 1,980 MHz, 1,200 MHz, 1,210 MHz; the others miss one stamp or stand still. */
    const struct moe_clock_reading before[] = { { 5, 100 }, { 70, 100 }, { 0, 0 },
                                                { 3, 100 }, { 4, 100 },  { 9, 100 } };
    const struct moe_clock_reading after[] = { { 1985, 1100 }, { 1270, 1100 }, { 99, 1100 },
                                               { 0, 0 },       { 1214, 1100 }, { 9, 100 } };
    cr_assert_eq(moe_clock_mhz(before, after, 6), 1210.0);
    cr_assert_eq(moe_clock_mhz(before, after, 2), 1590.0);
    cr_assert_eq(moe_clock_mhz(before + 2, after + 2, 2), 0.0);
}

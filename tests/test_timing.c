#include <criterion/criterion.h>
#include <math.h>

#include "calibrate/timing/timing.h"

Test(timing, quantiles_lie_between_the_repeats)
{
    /* 1 .. 101 in a scrambled order: quantile q is 1 + 100 q. */
    float us[101];
    struct moe_timing timing;
    for (uint32_t i = 0; i < 101; i++) {
        us[i] = (float) (1 + i * 37 % 101);
    }
    moe_timing_summarise(us, 101, &timing);
    cr_assert_eq(timing.count, 101);
    cr_assert_float_eq(timing.min_us, 1.0, 1e-9);
    cr_assert_float_eq(timing.p5_us, 6.0, 1e-9);
    cr_assert_float_eq(timing.p25_us, 26.0, 1e-9);
    cr_assert_float_eq(timing.median_us, 51.0, 1e-9);
    cr_assert_float_eq(timing.p95_us, 96.0, 1e-9);
    cr_assert_float_eq(timing.p99_us, 100.0, 1e-9);
    cr_assert_float_eq(timing.mad_us, 25.0, 1e-9);
    cr_assert(timing.bimodal);
    cr_assert_eq(us[1], 38.0F, "the repeats must stay as they were measured");
}

/* Chance that a median lies left of the order statistic `rank` of count, summed the slow way. */
static double chance_left(uint32_t count, uint32_t rank)
{
    double sum = 0.0;
    for (uint32_t i = 0; i <= rank; i++) {
        double term = 1.0;
        for (uint32_t j = 0; j < i; j++) {
            term = term * (double) (count - j) / (double) (j + 1);
        }
        sum += term;
    }
    return sum / pow(2.0, count);
}

Test(timing, the_interval_holds_95_percent_and_no_narrower_one_does)
{
    for (uint32_t count = 6; count <= MOE_TIMING_LIMIT; count++) {
        uint32_t low = 0;
        uint32_t high = 0;
        moe_timing_median_ranks(count, &low, &high);
        cr_assert_eq(low + high, count - 1);
        cr_assert_leq(chance_left(count, low), 0.025 + 1e-12, "count %u", count);
        cr_assert_gt(chance_left(count, low + 1), 0.025, "count %u", count);
    }
}

Test(timing, few_repeats_give_the_extremes)
{
    uint32_t low = 9;
    uint32_t high = 9;
    moe_timing_median_ranks(1, &low, &high);
    cr_assert_eq(low + high, 0);
    moe_timing_median_ranks(5, &low, &high);
    cr_assert_eq(low, 0);
    cr_assert_eq(high, 4);
}

/* count repeats around centre, half of them width below and half above. */
static void spread(float *us, uint32_t count, float centre, float width)
{
    for (uint32_t i = 0; i < count; i++) {
        us[i] = centre * (i % 2 == 0 ? 1.0F - width : 1.0F + width);
    }
}

Test(timing, stops_at_the_width_of_the_rule_and_not_before)
{
    float us[MOE_TIMING_LIMIT];
    spread(us, 20, 100.0F, 0.004F);
    cr_assert(moe_timing_enough(us, 20, 0.0, 0.3));
    cr_assert_not(moe_timing_enough(us, 19, 0.0, 0.3));
    spread(us, 20, 100.0F, 0.006F);
    cr_assert_not(moe_timing_enough(us, 20, 0.0, 0.3));
    spread(us, 20, 10.0F, 0.006F); /* short ones may be twice as wide */
    cr_assert(moe_timing_enough(us, 20, 0.0, 0.3));
    spread(us, 20, 10.0F, 0.012F);
    cr_assert_not(moe_timing_enough(us, 20, 0.0, 0.3));
}

Test(timing, stops_when_time_or_room_is_spent)
{
    float us[MOE_TIMING_LIMIT];
    spread(us, MOE_TIMING_LIMIT, 100.0F, 0.5F);
    cr_assert(moe_timing_enough(us, 1, 0.3, 0.3));
    cr_assert_not(moe_timing_enough(us, 1, 0.29, 0.3));
    cr_assert_not(moe_timing_enough(us, 0, 1.0, 0.3), "nothing is never enough");
    cr_assert(moe_timing_enough(us, MOE_TIMING_LIMIT, 0.0, 0.3));
    cr_assert_not(moe_timing_enough(us, MOE_TIMING_LIMIT - 1, 0.0, 0.3));
}

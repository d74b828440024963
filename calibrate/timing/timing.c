#include "calibrate/timing/timing.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *left, const void *right)
{
    const float a = *(const float *) left;
    const float b = *(const float *) right;
    return (a > b) - (a < b);
}

static double quantile(const float *sorted, uint32_t count, double q)
{
    const double place = q * (double) (count - 1);
    const uint32_t below = (uint32_t) place;
    const uint32_t above = below + 1 < count ? below + 1 : below;
    const double part = place - (double) below;
    return (double) sorted[below] * (1.0 - part) + (double) sorted[above] * part;
}

/* The median lies left of order statistic `rank` when at most `rank` repeats fell below it,
 * each with probability 1/2. */
void moe_timing_median_ranks(uint32_t count, uint32_t *low, uint32_t *high)
{
    assert(count >= 1);
    assert(count <= MOE_TIMING_LIMIT);
    double probability = pow(0.5, count); /* of exactly `rank` repeats below */
    double tail = probability;
    uint32_t rank = 0;
    while (tail <= 0.025) {
        rank++;
        probability *= (double) (count - rank + 1) / (double) rank;
        tail += probability;
    }
    /* Here P(at most rank below) > 2.5 %, so the rank before it was the last good one. */
    *low = rank == 0 ? 0 : rank - 1;
    *high = count - 1 - *low;
}

void moe_timing_summarise(const float *us, uint32_t count, struct moe_timing *out)
{
    assert(count >= 1);
    assert(count <= MOE_TIMING_LIMIT);
    float sorted[MOE_TIMING_LIMIT];
    uint32_t low = 0;
    uint32_t high = 0;
    memcpy(sorted, us, count * sizeof *us);
    qsort(sorted, count, sizeof sorted[0], compare);
    moe_timing_median_ranks(count, &low, &high);
    *out = (struct moe_timing){
        .count = count,
        .min_us = (double) sorted[0],
        .p5_us = quantile(sorted, count, 0.05),
        .p25_us = quantile(sorted, count, 0.25),
        .median_us = quantile(sorted, count, 0.5),
        .p75_us = quantile(sorted, count, 0.75),
        .p95_us = quantile(sorted, count, 0.95),
        .p99_us = quantile(sorted, count, 0.99),
        .low_us = (double) sorted[low],
        .high_us = (double) sorted[high],
        .bimodal = quantile(sorted, count, 0.95) > 1.15 * quantile(sorted, count, 0.10),
    };
    for (uint32_t i = 0; i < count; i++) {
        sorted[i] = (float) fabs((double) us[i] - out->median_us);
    }
    qsort(sorted, count, sizeof sorted[0], compare);
    out->mad_us = quantile(sorted, count, 0.5);
}

bool moe_timing_enough(const float *us, uint32_t count, double spent_s, double budget_s)
{
    struct moe_timing timing;
    if (count >= MOE_TIMING_LIMIT || (count > 0 && spent_s >= budget_s)) {
        return true;
    }
    if (count < MOE_TIMING_LEAST) {
        return false;
    }
    moe_timing_summarise(us, count, &timing);
    const double width = timing.median_us < 20.0 ? 0.01 : 0.005;
    return timing.high_us <= timing.median_us * (1.0 + width) &&
           timing.low_us >= timing.median_us * (1.0 - width);
}

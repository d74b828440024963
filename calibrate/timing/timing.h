/*
 * Timing: what the repeats of one measurement say, and when there are enough of them.
 *
 * The stopping rule is about the median, since the mean of a few runs is moved by one stray
 * interrupt: its 95 % interval by order statistics, which asks nothing of the distribution.
 * Source of the interval: W. J. Conover, Practical Nonparametric Statistics, section 3.2.
 */
#ifndef MOE_CALIBRATE_TIMING_H
#define MOE_CALIBRATE_TIMING_H

#include <stdbool.h>
#include <stdint.h>

enum {
    MOE_TIMING_LEAST = 20, /* repeats before the interval is believed */
    MOE_TIMING_LIMIT = 200,
};

#define MOE_TIMING_BUDGET_S 0.3 /* of one measurement */

/* Microseconds. Quantiles lie between two repeats by linear interpolation. */
struct moe_timing {
    uint32_t count;
    double min_us;
    double p5_us;
    double p25_us;
    double median_us;
    double p75_us;
    double p95_us;
    double p99_us;
    double mad_us; /* median of the distances from the median */
    double low_us; /* 95 % interval of the median; the extremes when there are too few */
    double high_us;
    bool bimodal; /* p95 more than 1.15 times p10: two speeds, not one with noise */
};

/* us[count], 1 <= count <= MOE_TIMING_LIMIT, in the order measured; left as it is. */
void moe_timing_summarise(const float *us, uint32_t count, struct moe_timing *out);

/* True when the repeats suffice: at least MOE_TIMING_LEAST and the median's interval within
 * +-0.5 % of it (1 % below 20 us), or MOE_TIMING_LIMIT, or budget_s spent. count may be 0. */
bool moe_timing_enough(const float *us, uint32_t count, double spent_s, double budget_s);

/* Ranks (from 0) of the two order statistics of count that hold the median between them with at
 * least 95 %; the first and the last when no two do. count >= 1. */
void moe_timing_median_ranks(uint32_t count, uint32_t *low, uint32_t *high);

#endif

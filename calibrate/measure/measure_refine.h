/*
 * Measure refinement: where a series is to be measured next, given what is known of it.
 *
 * Between two neighbouring sizes the table interpolates. Two ways to do so are compared at the
 * middle (geometric): straight between the times, and the roofline of the series times the
 * interpolated ratio of time to roofline. Where they disagree, the truth is uncertain. Besides,
 * each end is predicted from its neighbours as if it had not been measured. The score of an
 * interval is the disagreement plus the mean error of its ends, over the time that a visit costs;
 * an interval whose disagreement and error are both below 2 % is left alone.
 */
#ifndef MOE_CALIBRATE_MEASURE_REFINE_H
#define MOE_CALIBRATE_MEASURE_REFINE_H

#include <stdbool.h>
#include <stdint.h>

struct moe_refine_size {
    double tokens; /* ascending */
    double us;
    double bytes;
    double flops;
};

/* The roofline (us) with additive start, fitted by eye: launch from the least time, rates from the
 * fastest byte and the fastest FLOP seen. What its shape misses, the ratio carries. */
struct moe_refine_roofline {
    double start_us;
    double bytes_per_us;
    double flops_per_us; /* 0: no arithmetic */
};
struct moe_refine_roofline moe_refine_roofline_of(const struct moe_refine_size *sizes,
                                                  uint32_t count);
double moe_refine_roofline_us(const struct moe_refine_roofline *roofline, double bytes,
                              double flops);

/* The whole number of tokens to measure next, 0 when nothing is worth it; *score is its score.
 * sizes[count], at least 3 to choose at all. visit_s: what a visit costs besides its time. */
double moe_refine_choose(const struct moe_refine_size *sizes, uint32_t count, double visit_s,
                         double *score);

#endif

/*
 * Latency: a histogram of durations with quantiles, of bounded size whatever is counted.
 *
 * Buckets are exact below 1,024 ns and 1/512 of their octave above, so a quantile is off by
 * less than 0.2 %; counts, sum and extremes are exact. Weights count a value several times
 * (a step's length stands for each token that it decoded).
 */
#ifndef MOE_SIM_ENGINE_LATENCY_H
#define MOE_SIM_ENGINE_LATENCY_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/time.h"

enum { MOE_LATENCY_BUCKETS = 512 * 56 };

struct moe_latency {
    uint64_t *count; /* [MOE_LATENCY_BUCKETS] */
    uint64_t total;
    double sum_ns;
    moe_time_ns min_ns;
    moe_time_ns max_ns;
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_latency_init(struct moe_latency *latency, struct moe_arena *arena,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* ns >= 0. */
void moe_latency_add(struct moe_latency *latency, moe_time_ns ns, uint64_t weight);

/* The value that a share q (0 .. 1) of the weight does not exceed, linear inside a bucket;
 * 0 when nothing was counted. */
double moe_latency_quantile(const struct moe_latency *latency, double q);

double moe_latency_mean(const struct moe_latency *latency);

#endif

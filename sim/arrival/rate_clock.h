/*
 * Rate clock: from expected counts to times. A renewal process of unit mean is drawn first;
 * the clock then says at what time the integral of the rate reaches each of its points. With
 * exponential gaps that is an exact Poisson process of that rate (time rescaling: D. Daley and
 * D. Vere-Jones, An Introduction to the Theory of Point Processes, theorem 7.4.I); with others it
 * is the process whose gaps have that shape in units of the mean gap of the moment.
 *
 * The rate is base rate x schedule (linear between points) x what the burst state says. Bursts:
 * two states that alternate, the first being off, with exponential stays; the share of requests
 * in the on state is given, so that the mean over long times is the rate.
 */
#ifndef MOE_SIM_ARRIVAL_RATE_CLOCK_H
#define MOE_SIM_ARRIVAL_RATE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/scenario/arrival_options.h"

struct moe_rate_schedule {
    double rate;    /* requests/s, > 0 */
    uint32_t count; /* points; 0: the factor is 1 always */
    double at_s[MOE_ARRIVAL_POINT_LIMIT];
    double factor[MOE_ARRIVAL_POINT_LIMIT];
    bool bursts;
    double stay_s[2];     /* mean stay: off, on */
    double multiplier[2]; /* of the rate: off, on */
};

struct moe_rate_clock {
    const struct moe_rate_schedule *schedule;
    double now_s;
    uint32_t point; /* last one at or before now_s */
    uint64_t burst_key;
    uint64_t switches; /* of the burst state so far */
    double switch_s;   /* when the next one is; infinity without bursts */
};

/* burst_key: stream of the stays. */
void moe_rate_clock_init(struct moe_rate_clock *clock, const struct moe_rate_schedule *schedule,
                         uint64_t burst_key);

/* Moves on until the expected number of arrivals since the last call is `amount` > 0; the time
 * is then clock->now_s. False when the rate is 0 for ever before that. */
bool moe_rate_clock_advance(struct moe_rate_clock *clock, double amount);

#endif

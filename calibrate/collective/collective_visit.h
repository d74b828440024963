/*
 * Visits: one point measured once on the lanes, with its results checked.
 *
 * What decides is the slowest rank: its time is a call's time, and the stopping rule of timing.h
 * is asked about that. Each rank's own times are kept too. Where several processes take part, each
 * sees the times of all ranks, so that all come to the same decisions.
 */
#ifndef MOE_CALIBRATE_COLLECTIVE_VISIT_H
#define MOE_CALIBRATE_COLLECTIVE_VISIT_H

#include <stdint.h>

#include "calibrate/collective/bootstrap.h"
#include "calibrate/collective/collective_plan.h"
#include "calibrate/collective/exchange.h"
#include "calibrate/collective/lanes.h"
#include "calibrate/collective/watchdog.h"
#include "calibrate/timing/timing.h"
#include "sim/base/error.h"

/* Means over the batches of a visit; 0 where NVML does not tell. */
struct moe_visit_sensors {
    double mhz;
    double watts;
    double celsius;
    uint64_t throttle; /* union */
};

/* Of one rank. */
struct moe_visit_rank {
    bool worked;
    uint32_t count;
    float us[MOE_TIMING_LIMIT];
    struct moe_visit_sensors sensors;
};

struct moe_visit {
    uint32_t count;
    float slowest_us[MOE_TIMING_LIMIT]; /* of each call, over the ranks */
    uint32_t dropped;                   /* batches thrown away: a fault reason, a late start */
    double error;                       /* 0: looked at and right; -1: not looked at */
    struct moe_visit_rank *ranks;       /* [rank_count] of the run */
};

/* What a visit works with; all owned by the caller. */
struct moe_visit_tools {
    const struct moe_bootstrap *boot;
    struct moe_lanes *lanes;
    struct moe_exchange *exchange;
    struct moe_watchdog *dog;
    uint16_t *cells; /* [(MOE_LANES_CHECK_BYTES + MOE_EXCHANGE_GUARD) / 2]: scratch */
};

/* visit->ranks is the caller's, [lanes->rank_count]. budget_s: of timed calls; look: whether
 * results are looked at (where they fit into MOE_LANES_CHECK_BYTES). Errors: MOE_DEVICE, also for a
 * wrong result, with the operation, its size, the rank and the cell. */
enum moe_status moe_visit_call(const struct moe_visit_tools *tools,
                               const struct moe_collective_call *call, double budget_s, bool look,
                               struct moe_visit *visit, struct moe_error *err) MOE_MUST_CHECK;

#endif

/*
 * Hardware options: the keys under `hardware:` of a scenario: what if a GPU or its links were
 * slower, or died.
 *
 * An event is a text:
 *   "slow gpu=3 by=1.15"               its computing and memory take 1.15 times as long
 *   "clock gpu=3 by=1.07"              its arithmetic takes 1.07 times as long, its memory does not
 *   "link gpu=3 by=2 at=10 for=5"      its links, from 10 s after the begin on, for 5 s
 *   "dead gpu=3 at=20"                 gone from 20 s on
 * at defaults to 0, for to the rest of the run. Factors of several events multiply. A link event
 * slows what the GPU sends and receives; others that wait for it wait at the barrier.
 * What holds from the begin to the end has been measured before: policies that ask for the finish
 * times of GPUs plan on it.
 */
#ifndef MOE_SIM_SCENARIO_HARDWARE_OPTIONS_H
#define MOE_SIM_SCENARIO_HARDWARE_OPTIONS_H

#include <stdint.h>

#include "sim/base/error.h"
#include "sim/base/time.h"

enum { MOE_HARDWARE_EVENT_LIMIT = 32, MOE_HARDWARE_EVENT_BYTES = 64 };

enum moe_hardware_event_kind {
    MOE_HARDWARE_SLOW,
    MOE_HARDWARE_LINK,
    MOE_HARDWARE_DEAD,
    MOE_HARDWARE_CLOCK,
};

enum moe_clock_mode {
    MOE_CLOCK_BURST,     /* "burst": as calibrations measure, in bursts of milliseconds */
    MOE_CLOCK_SUSTAINED, /* "sustained": arithmetic as slow as under load that lasts */
};

struct moe_hardware_event {
    enum moe_hardware_event_kind kind;
    uint32_t gpu;
    double factor;        /* of time */
    moe_time_ns begin_ns; /* of the run */
    moe_time_ns end_ns;   /* INT64_MAX: never */
};

struct moe_hardware_options { /* hardware: */
    uint32_t event_count;     /*   events: [] */
    char events[MOE_HARDWARE_EVENT_LIMIT][MOE_HARDWARE_EVENT_BYTES];
    enum moe_clock_mode clock; /*   clock: burst */
    double sustained_factor;   /*   sustained_factor: 0 (as calibrated) */
    double recovery_s;         /*   recovery_s: 5 (serving stands still when a GPU dies) */
    struct moe_hardware_event event[MOE_HARDWARE_EVENT_LIMIT]; /* settled when loaded */
};

/* Reads the texts. Errors: MOE_RANGE naming the event and what is allowed. */
enum moe_status moe_hardware_options_settle(struct moe_hardware_options *options,
                                            uint32_t gpu_count,
                                            struct moe_error *err) MOE_MUST_CHECK;

#endif

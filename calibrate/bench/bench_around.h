/*
 * Bench of what stands around the experts: the gate, rows into expert order and back, rounding to
 * fp8. All versions side by side, to be judged against the copy ceiling.
 */
#ifndef MOE_CALIBRATE_BENCH_AROUND_H
#define MOE_CALIBRATE_BENCH_AROUND_H

#include <stdint.h>

#include "calibrate/bench/bench_plan.h"
#include "calibrate/bench/bench_result.h"
#include "calibrate/timing/graph_timer.h"
#include "sim/base/error.h"

/* Appends to *moves; the choices are random by seed. Errors: MOE_DEVICE, MOE_LIMIT. */
enum moe_status moe_bench_around_measure(struct moe_graph_timer *timer,
                                         const struct moe_bench_route *route, uint64_t seed,
                                         struct moe_bench_moves *moves,
                                         struct moe_error *err) MOE_MUST_CHECK;

#endif

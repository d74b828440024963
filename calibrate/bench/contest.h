/*
 * Contest: works that do the same thing, measured in turns, so that drift hits all alike.
 */
#ifndef MOE_CALIBRATE_CONTEST_H
#define MOE_CALIBRATE_CONTEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "calibrate/bench/bench_result.h"
#include "calibrate/timing/graph_timer.h"
#include "sim/base/error.h"

enum { MOE_CONTEST_LIMIT = MOE_BENCH_CELL_LIMIT };

struct moe_contender {
    struct moe_graph_work work; /* captured; set_count 0: takes no part */
    char *failure;              /* where to write why it fell out; failure_size bytes */
    size_t failure_size;
};

/* Rounds in which each contender in need gets one batch, in a new order each time, until all have
 * enough. One that fails falls out with its reason. Errors: MOE_DEVICE when the GPU itself can't
 * go on. */
enum moe_status moe_contest_run(struct moe_graph_timer *timer, struct moe_contender *contenders,
                                uint32_t count, double budget_s, uint64_t seed,
                                struct moe_error *err) MOE_MUST_CHECK;

/* Decides about a failure of one contender: its own business, then the text goes to failure and
 * the result is MOE_OK; or the GPU's, then it is passed on. */
enum moe_status moe_contest_absorb(const struct moe_graph_timer *timer, enum moe_status status,
                                   const struct moe_error *own, char *failure, size_t failure_size,
                                   struct moe_error *err) MOE_MUST_CHECK;

#endif

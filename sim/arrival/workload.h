/*
 * Workload: the order in which the trace's requests are served.
 *
 * The first plan_share of the requests, in recorded order, are the planning set; the
 * policies plan on nothing else. The workload serves the remaining requests passes times,
 * freshly shuffled each time, and the planning set last (shuffled), when nothing is scored
 * any more. So every token of the trace is replayed, and no token that is scored was seen by
 * a planner or shares a step with one that was.
 *
 * Shuffles depend on (seed, pass) only. A trace larger than MOE_WORKLOAD_WINDOW_BYTES of
 * routes (one byte an id up to 256 experts, two above) is cut into runs of consecutive
 * requests: as many as stay within that size, at least one; the runs are shuffled, and the
 * requests within each, so that a run's blobs stay in the trace's cache.
 *
 * The shuffles (replay_map.h) of pass p, 0 being the planning set: key =
 * moe_random_key(moe_random_mix(seed) + p, MOE_RANDOM_REQUEST_ORDER); the runs with counter
 * base 1 << 63, the requests of the run that begins at place f of the order with f << 32.
 */
#ifndef MOE_SIM_ARRIVAL_WORKLOAD_H
#define MOE_SIM_ARRIVAL_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "traces/trace_store.h"

enum { MOE_WORKLOAD_WINDOW_BYTES = 64 << 20 };

struct moe_workload {
    const struct moe_trace_request *requests;
    uint64_t seed;
    uint32_t request_count;
    uint32_t planned_count; /* requests[0 .. planned_count-1] */
    uint32_t passes;
    uint64_t window_rows;
    uint32_t *order;        /* [request_count]: the set being served, shuffled */
    uint32_t *starts;       /* [request_count + 1]: first requests of the windows */
    uint32_t *window_order; /* [request_count] */
    uint32_t order_count;
    uint32_t order_next;
    uint32_t pass; /* 1 .. passes: the scored passes; then 0: the planning set */
};

/* How many requests the planning set has: at least 1, and at least 1 remains. */
uint32_t moe_workload_planned_count(uint32_t request_count, double plan_share);

/* Errors: MOE_RANGE for a trace with fewer than 2 or more than 2^32-2 requests,
 * MOE_LIMIT when the arena is full. */
enum moe_status moe_workload_init(struct moe_workload *workload, const struct moe_trace *trace,
                                  double plan_share, uint32_t passes, uint64_t seed,
                                  struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* The next request to admit, without taking it. False when none is left. */
bool moe_workload_peek(const struct moe_workload *workload, uint32_t *request);
/* Takes it; there must be one. */
void moe_workload_take(struct moe_workload *workload);

/* Whether the next request is one to score: there is one, and it is not of the planning set. */
bool moe_workload_scores_next(const struct moe_workload *workload);

#endif

/*
 * Planning: what policies are shown before a run, made once for all runs of a study.
 *
 * The planning window is the first planned_requests requests of the trace (workload.h); nothing
 * of it is scored. Beside the sums of both windows, and only where a policy asks for it:
 *   batches  the window as it would be served: request r begins when request r - S has ended
 *            (the first S at step 0), reads its prompt in its first step and one token more in
 *            each step that follows. S seats are GPUs x running_per_gpu, but no more than an
 *            eighth of the window's requests (at least one), so that a short window is not one
 *            wave. The steps are cut evenly into at most MOE_PLANNING_BATCH_LIMIT batches.
 *   routes   its tokens, in recorded order, as far as MOE_PLANNING_ROUTE_BYTES reach; whole
 *            requests, at least one.
 * Layers and experts are the model's (replay_map.h).
 */
#ifndef MOE_SIM_ENGINE_PLANNING_H
#define MOE_SIM_ENGINE_PLANNING_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/composition.h"
#include "sim/base/arena.h"
#include "sim/cost/cost.h"
#include "sim/engine/replay_map.h"
#include "sim/scenario/scenario.h"
#include "traces/trace_store.h"

enum {
    MOE_PLANNING_BATCH_LIMIT = 256,
    MOE_PLANNING_BATCH_BYTES = 256 << 20, /* of all batches: fewer of them for huge models */
    MOE_PLANNING_ROUTE_BYTES = 512 << 20,
    MOE_PLANNING_SPEED_POINTS = 23, /* 0 and 2^0 .. 2^21 tokens */
};

struct moe_planning {
    struct moe_arena arena; /* of all below */
    uint32_t domain_count;
    uint64_t unknown;          /* unknown choices in both windows */
    const double *load;        /* [layer][expert] */
    const double *future_load; /* [layer][expert] */
    uint32_t batch_count;      /* 0: not asked for */
    const float *batches;      /* [batch][layer][expert] */
    bool has_routes;
    struct moe_policy_routes routes;
};

/* Which rows loads and batches are made of. Routes hold all rows, each labelled with its phase. */
enum moe_planning_rows {
    MOE_PLANNING_ALL_ROWS,
    MOE_PLANNING_PROMPT_ROWS, /* what a prefill pool runs */
    MOE_PLANNING_OUTPUT_ROWS, /* what a decode pool runs */
};

struct moe_planning_source {
    const struct moe_scenario *scenario;
    const struct moe_replay_map *map;
    struct moe_trace *trace;
    uint32_t planned_requests;
    enum moe_planning_rows rows;
    uint32_t needs; /* enum moe_policy_need, of all policies together */
};

/* Reads the trace once. Errors: MOE_LIMIT when memory is short; as moe_trace_read. */
enum moe_status moe_planning_init(struct moe_planning *planning,
                                  const struct moe_planning_source *source,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_planning_finish(struct moe_planning *planning);

/* Bytes of scratch that a policy may count on when it plans. */
size_t moe_planning_scratch_bytes(const struct moe_planning *planning,
                                  const struct moe_placement_shape *shape);

/* What one run adds: the GPUs of its seed. */
struct moe_planning_run {
    struct moe_place_view view; /* everything there is; previous is the caller's to set */
    struct moe_policy_speed speed;
    struct moe_policy_topology topology;
    struct moe_policy_memory memory;
};

/* Fills run, whose view points into it: it must not move. Errors: MOE_LIMIT when the arena is
 * full. */
enum moe_status moe_planning_view(struct moe_planning_run *run, const struct moe_planning *planning,
                                  const struct moe_scenario *scenario, const struct moe_cost *cost,
                                  uint64_t seed, struct moe_arena *arena,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* Whether trace and study can give what the composition needs. Errors: MOE_POLICY naming the
 * composition, what it needs and what there is. */
enum moe_status moe_planning_check(const struct moe_composition *composition,
                                   const struct moe_trace *trace,
                                   struct moe_error *err) MOE_MUST_CHECK;

#endif

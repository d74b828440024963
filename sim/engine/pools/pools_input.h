/*
 * Pools' input: what the runs of both pools of a study stand on, made once: each pool's scenario,
 * costs over as many ranks as it has, and the loads of the rows that it will run.
 */
#ifndef MOE_SIM_ENGINE_POOLS_POOLS_INPUT_H
#define MOE_SIM_ENGINE_POOLS_POOLS_INPUT_H

#include "sim/cost/calibration.h"
#include "sim/engine/planning.h"
#include "sim/engine/run.h"

struct moe_pools_input {
    struct moe_run_pools run; /* for moe_run_input.pools */
    struct moe_scenario scenario[MOE_POOL_COUNT];
    struct moe_cost *cost[MOE_POOL_COUNT];
    struct moe_planning planning[MOE_POOL_COUNT];
};

struct moe_pools_source {
    const struct moe_run_input *whole; /* scenario, map; outlives the pools */
    const struct moe_calibration *calibration;
    struct moe_trace *trace;
    uint32_t planned_requests;
    uint32_t needs; /* of all policies (planning.h) */
};

/* arena: of the costs. *pools must not move. Errors: MOE_LIMIT; MOE_RANGE when the planning
 * window has no rows for a pool; as moe_cost_init_serving and moe_trace_read. */
enum moe_status moe_pools_input_init(struct moe_pools_input *pools,
                                     const struct moe_pools_source *source, struct moe_arena *arena,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_pools_input_finish(struct moe_pools_input *pools);

#endif

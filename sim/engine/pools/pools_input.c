#include "sim/engine/pools/pools_input.h"

#include "sim/scenario/deployment.h"

static const enum moe_planning_rows pool_rows[MOE_POOL_COUNT] = {
    [MOE_POOL_PREFILL] = MOE_PLANNING_PROMPT_ROWS,
    [MOE_POOL_DECODE] = MOE_PLANNING_OUTPUT_ROWS,
};

static enum moe_status plan(struct moe_pools_input *pools, const struct moe_pools_source *source,
                            enum moe_pool pool, struct moe_error *err)
{
    const struct moe_planning_source planning = {
        .scenario = &pools->scenario[pool],
        .map = source->whole->map,
        .trace = source->trace,
        .planned_requests = source->planned_requests,
        .rows = pool_rows[pool],
        .needs = source->needs,
    };
    const struct moe_model *model = &pools->scenario[pool].model;
    const size_t cells = (size_t) model->moe_layer_count * model->expert_count;
    double sum = 0.0;
    MOE_TRY(moe_planning_init(&pools->planning[pool], &planning, err));
    for (size_t i = 0; i < cells; i++) {
        sum += pools->planning[pool].load[i];
    }
    return sum > 0.0 ? MOE_OK
                     : moe_fail(err, MOE_RANGE,
                                "%s: the %u requests planned on have no %s rows, so the %s pool "
                                "has nothing to plan on; raise serving.plan_share or take a trace "
                                "with both phases",
                                moe_trace_path(source->trace), source->planned_requests,
                                moe_pool_name(pool), moe_pool_name(pool));
}

enum moe_status moe_pools_input_init(struct moe_pools_input *pools,
                                     const struct moe_pools_source *source, struct moe_arena *arena,
                                     struct moe_error *err)
{
    *pools = (struct moe_pools_input){ 0 };
    for (uint32_t i = 0; i < MOE_POOL_COUNT; i++) {
        const enum moe_pool pool = (enum moe_pool) i;
        struct moe_scenario *scenario = &pools->scenario[pool];
        moe_deployment_pool(source->whole->scenario, pool, scenario);
        enum moe_status status =
            moe_cost_init_serving(&pools->cost[pool], source->calibration, &scenario->model,
                                  &scenario->cluster, &scenario->serving, arena, err);
        if (status == MOE_OK) {
            status = plan(pools, source, pool, err);
        }
        if (status != MOE_OK) {
            moe_pools_input_finish(pools);
            return status;
        }
        pools->run.part[pool] = (struct moe_run_input){
            .scenario = scenario,
            .cost = pools->cost[pool],
            .map = source->whole->map,
            .planning = &pools->planning[pool],
        };
    }
    return MOE_OK;
}

void moe_pools_input_finish(struct moe_pools_input *pools)
{
    for (uint32_t i = 0; i < MOE_POOL_COUNT; i++) {
        moe_planning_finish(&pools->planning[i]);
    }
}

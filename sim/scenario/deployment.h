/*
 * Deployment: ways to serve that take several keys to agree, checked together, and the scenario
 * that each pool of GPUs is by itself.
 */
#ifndef MOE_SIM_SCENARIO_DEPLOYMENT_H
#define MOE_SIM_SCENARIO_DEPLOYMENT_H

#include <stdbool.h>

#include "sim/scenario/scenario.h"

/* Steps in two halves. Errors: MOE_RANGE. */
enum moe_status moe_deployment_check_overlap(const struct moe_scenario *scenario,
                                             struct moe_error *err) MOE_MUST_CHECK;

/* Prefill and decode apart; the model is loaded, slot_count as the file has it. Errors:
 * MOE_RANGE with what to change. */
enum moe_status moe_deployment_check_pools(const struct moe_scenario *scenario,
                                           struct moe_error *err) MOE_MUST_CHECK;

static inline bool moe_deployment_has_pools(const struct moe_scenario *scenario)
{
    return scenario->pools.prefill_gpus > 0;
}

const char *moe_pool_name(enum moe_pool pool); /* "prefill", "decode" */

/* One pool of a checked scenario, as a scenario without pools: its part of the cluster (whose
 * first_gpu says where it begins), its slots and budgets, and what happens to its GPUs. *out may
 * not be *scenario. */
void moe_deployment_pool(const struct moe_scenario *scenario, enum moe_pool pool,
                         struct moe_scenario *out);

#endif

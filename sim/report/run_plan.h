/*
 * Run plan: the placement that a policy had in a stored run, as a plan that engines load.
 */
#ifndef MOE_SIM_REPORT_RUN_PLAN_H
#define MOE_SIM_REPORT_RUN_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/composition.h"
#include "policies/plan/plan.h"
#include "sim/base/error.h"

struct moe_run_plan_choice {
    const char *policy; /* its label in the report; NULL: the best one */
    bool seed_is_given;
    uint64_t seed; /* else the first one */
};

struct moe_run_plan_found {
    char policy[MOE_COMPOSITION_BYTES];
    uint32_t dense_layers; /* of the model; the plan's numbers assume that they come first */
};

/* Reads run.db and the model that its scenario names. Errors: as moe_database_open and
 * moe_scenario_parse; MOE_RANGE for a policy or seed that the run does not have, listing those
 * it has, or a model without MoE layers for the plan; MOE_PARSE for a damaged store. */
enum moe_status moe_run_plan_read(struct moe_plan *out, struct moe_run_plan_found *found,
                                  const char *path, const struct moe_run_plan_choice *choice,
                                  struct moe_error *err) MOE_MUST_CHECK;

#endif

/*
 * Scenario check: what no single key of a scenario shows, looked at once all keys are read.
 */
#ifndef MOE_SIM_SCENARIO_SCENARIO_CHECK_H
#define MOE_SIM_SCENARIO_SCENARIO_CHECK_H

#include "sim/scenario/scenario.h"

/* Takes keys that each are in their range, their paths resolved: loads the model, settles what
 * depends on it or on other keys (slots left at 0, lists in text, policies in canonical text),
 * and checks that they agree. Errors: MOE_RANGE with the keys, what moe_composition_parse and
 * moe_model_load return; the scenario is then settled in part, and of no use. */
enum moe_status moe_scenario_complete(struct moe_scenario *scenario,
                                      struct moe_error *err) MOE_MUST_CHECK;

#endif

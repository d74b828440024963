/* Round robin: GPUs are offered the next waiting request one after the other. What the engine does
 * when nobody says otherwise. */
#include "policies/policy.h"

static const struct moe_group_methods group = { .in_turn = true };

MOE_POLICY_DEFINE(group_round_robin) = {
    MOE_POLICY_HEADER,
    .name = "round_robin",
    .summary = "the next waiting request joins the next GPU that has a seat and room for it",
    .source = "round-robin data-parallel routing, as SGLang's and vLLM's routers start with",
    .tie_rule = "GPU 0 first in every sweep",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    .group = &group,
};

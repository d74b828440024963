/* Even: the copies of an expert take its tokens in turn, one by one, across all source GPUs.
 * What the engine does when nobody says otherwise. */
#include "policies/policy.h"

static const struct moe_dispatch_methods dispatch = { .in_turn = true };

MOE_POLICY_DEFINE(dispatch_even) = {
    MOE_POLICY_HEADER,
    .name = "even",
    .summary = "the copies of an expert take its tokens in turn: their counts differ by at most "
               "one in the long run",
    .source = "TensorRT-LLM's routing (round robin over the copies)",
    .tie_rule = "copies in ascending order of their slots, tokens in order of source GPU",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    .dispatch = &dispatch,
};

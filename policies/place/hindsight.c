/* Hindsight: EPLB that is told the loads it will be scored on. */
#include "policies/policy.h"
#include "policies/solve/eplb_solver.h"
#include "sim/base/no_malloc.h"

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    return moe_eplb_place(&view->shape, view->future_load, scratch, plan, err);
}

MOE_POLICY_DEFINE(hindsight) = {
    MOE_POLICY_HEADER,
    .name = "hindsight",
    .summary = "oracle, not deployable: EPLB solved on the very window that is scored; its "
               "distance to eplb is the price of stale loads",
    .source = "own; EPLB (deepseek-ai/EPLB) on the loads of the scored window",
    .tie_rule = "as eplb",
    .needs = MOE_POLICY_NEEDS_FUTURE,
    .place = place,
};

/* EPLB: DeepSeek's balancer on the loads of the planning window. */
#include "policies/policy.h"
#include "policies/solve/eplb_solver.h"
#include "sim/base/no_malloc.h"

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    return moe_eplb_place(&view->shape, view->load, scratch, plan, err);
}

MOE_POLICY_DEFINE(eplb) = {
    MOE_POLICY_HEADER,
    .name = "eplb",
    .summary = "DeepSeek's EPLB: copies for the hottest experts, then balanced packing; "
               "hierarchical when the nodes divide the groups",
    .source = "github deepseek-ai/EPLB eplb.py (rebalance_experts); its unstable sort made stable",
    .tie_rule = "of equal float32 loads the first expert, group, node or GPU",
    .needs = MOE_POLICY_NEEDS_LOAD,
    .place = place,
};

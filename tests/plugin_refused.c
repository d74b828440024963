/* A plug-in of another ABI, or with another table: PLUGIN_ABI and PLUGIN_SIZE say which. */
#include "policies/policy.h"

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    (void) view;
    (void) scratch;
    (void) plan;
    (void) err;
    return MOE_POLICY;
}

MOE_POLICY_DEFINE(refused) = {
    .abi = PLUGIN_ABI,
    .struct_size = PLUGIN_SIZE,
    .name = "refused",
    .summary = "must not be loaded",
    .source = "own",
    .tie_rule = "none",
    .place = place,
};

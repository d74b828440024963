/* A plug-in that loads and leaves expert 0 out: `moesim policy check` must say so. */
#include "policies/policy.h"

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    (void) scratch;
    (void) err;
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        for (uint32_t expert = 1; expert < view->shape.expert_count; expert++) {
            moe_placement_layer(plan, layer)[expert] = (uint16_t) expert;
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(broken) = {
    MOE_POLICY_HEADER, .name = "broken",   .summary = "leaves expert 0 out",
    .source = "own",   .tie_rule = "none", .numbered = true,
    .place = place,
};

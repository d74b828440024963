/* Contiguous: slot i of a layer holds expert i modulo the expert count. Without redundant
 * slots that is the engines' block placement; with them GPU g starts at expert
 * g * slots_per_gpu, and the redundant slots, which are the last ones, repeat the first
 * experts. */
#include "policies/policy.h"
#include "sim/base/no_malloc.h"

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    (void) scratch;
    (void) err;
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        for (uint32_t slot = 0; slot < view->shape.slot_count; slot++) {
            slots[slot] = (uint16_t) (slot % view->shape.expert_count);
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(contiguous) = {
    MOE_POLICY_HEADER,
    .name = "contiguous",
    .summary = "slot i holds expert i modulo the expert count; what engines start with",
    .source = "vLLM expert_placement_strategy 'linear' and its initial redundant map; "
              "SGLang --init-expert-location trivial",
    .tie_rule = "none needed",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    .numbered = true,
    .place = place,
};

/* Round robin: copy i, of expert i modulo the expert count, goes to GPU i modulo the
 * GPU count. */
#include "policies/policy.h"
#include "sim/base/no_malloc.h"

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(shape);
    (void) scratch;
    (void) err;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        for (uint32_t copy = 0; copy < shape->slot_count; copy++) {
            const uint32_t gpu = copy % shape->gpu_count;
            const uint32_t rank = copy / shape->gpu_count;
            slots[gpu * slots_per_gpu + rank] = (uint16_t) (copy % shape->expert_count);
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(round_robin) = {
    MOE_POLICY_HEADER,
    .name = "round_robin",
    .summary = "expert e on GPU e modulo the GPU count; redundant slots continue the round",
    .source = "vLLM expert_placement_strategy 'round_robin'; its continuation into redundant "
              "slots is ours",
    .tie_rule = "none needed",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    .numbered = true,
    .place = place,
};

/* LPT: longest processing time first, without copies. Each expert, hottest first, goes
 * to the least loaded GPU that has a free slot; slots beyond the expert count stay
 * empty. What placement alone can do, before any replication. */
#include <assert.h>

#include "policies/policy.h"
#include "policies/solve/packing.h"
#include "sim/base/no_malloc.h"

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const struct moe_packing_shape packing = {
        .item_count = shape->expert_count,
        .pack_count = shape->gpu_count,
        .capacity = moe_placement_slots_per_gpu(shape),
        .set_count = 1,
    };
    struct moe_packer packer;
    float *weight = MOE_NEW(scratch, float, shape->expert_count);
    uint32_t *slot_of_expert = MOE_NEW(scratch, uint32_t, shape->expert_count);
    if (weight == NULL || slot_of_expert == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to place %u experts", shape->expert_count);
    }
    MOE_TRY(moe_packer_init(&packer, scratch, shape->expert_count, shape->gpu_count, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const double *load = view->load + (size_t) layer * shape->expert_count;
        uint16_t *slots = moe_placement_layer(plan, layer);
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            assert(load[expert] >= 0.0);
            assert(load[expert] <= MOE_POLICY_LOAD_LIMIT);
            weight[expert] = (float) load[expert] + 0.0f; /* + 0 turns -0 into 0 */
        }
        moe_packer_pack(&packer, &packing, weight, slot_of_expert);
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            slots[slot_of_expert[expert]] = (uint16_t) expert;
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(lpt) = {
    MOE_POLICY_HEADER,
    .name = "lpt",
    .summary = "placement without copies: hottest expert first onto the least loaded GPU with "
               "a free slot; spare slots stay empty",
    .source = "R. L. Graham, SIAM J. Appl. Math. 17(2), 1969 (LPT), with a slot limit per GPU; "
              "float32 sums as in EPLB",
    .tie_rule = "of equal float32 loads the first expert, of equally loaded GPUs the first",
    .needs = MOE_POLICY_NEEDS_LOAD,
    .budgeted = true, /* it makes no copies */
    .place = place,
};

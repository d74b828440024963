/* EPLB as TensorRT-LLM runs it: copies from a max-heap of load / copies, then copies by load
 * onto the least loaded rank. No groups, no nodes; all in float64. A layer without any load is
 * replicated evenly, the first experts taking the remainder. */
#include <assert.h>

#include "policies/policy.h"
#include "policies/solve/greedy.h"
#include "sim/base/no_malloc.h"

struct trtllm {
    struct moe_greedy greedy;
    double *weight;         /* [slot_count] load of each copy, experts in ascending order */
    uint32_t *copies;       /* [expert_count] */
    uint32_t *expert;       /* [slot_count] of each copy */
    uint32_t *slot_of_copy; /* [slot_count] */
};

static void replicate(struct trtllm *t, const struct moe_placement_shape *shape, const double *load)
{
    double total = 0.0;
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        t->copies[expert] = 1;
        total += load[expert];
    }
    if (total > 0.0) {
        moe_greedy_replicate(&t->greedy, load, shape->expert_count,
                             shape->slot_count - shape->expert_count, true, t->copies, NULL);
        return;
    }
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        t->copies[expert] = shape->slot_count / shape->expert_count +
                            (expert < shape->slot_count % shape->expert_count);
    }
}

static void place_layer(struct trtllm *t, const struct moe_placement_shape *shape,
                        const double *load, uint16_t *slots)
{
    uint32_t copy = 0;
    replicate(t, shape, load);
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        for (uint32_t i = 0; i < t->copies[expert]; i++) {
            t->expert[copy] = expert;
            t->weight[copy++] = load[expert] / t->copies[expert];
        }
    }
    assert(copy == shape->slot_count);
    moe_greedy_pack(&t->greedy, t->weight, shape->slot_count, shape->gpu_count,
                    moe_placement_slots_per_gpu(shape), t->slot_of_copy);
    for (copy = 0; copy < shape->slot_count; copy++) {
        slots[t->slot_of_copy[copy]] = (uint16_t) t->expert[copy];
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    struct trtllm t = {
        .weight = MOE_NEW(scratch, double, shape->slot_count),
        .copies = MOE_NEW(scratch, uint32_t, shape->expert_count),
        .expert = MOE_NEW(scratch, uint32_t, shape->slot_count),
        .slot_of_copy = MOE_NEW(scratch, uint32_t, shape->slot_count),
    };
    if (t.weight == NULL || t.copies == NULL || t.expert == NULL || t.slot_of_copy == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to balance %u experts over %u slots",
                        shape->expert_count, shape->slot_count);
    }
    MOE_TRY(moe_greedy_init(&t.greedy, scratch, shape->slot_count, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        place_layer(&t, shape, view->load + (size_t) layer * shape->expert_count,
                    moe_placement_layer(plan, layer));
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(eplb_trtllm) = {
    MOE_POLICY_HEADER,
    .name = "eplb_trtllm",
    .summary = "EPLB as in TensorRT-LLM: no groups or nodes, float64; zero load is spread evenly",
    .source = "TensorRT-LLM cpp/tensorrt_llm/runtime/moeLoadBalancer, doReplication and "
              "doPlacement; equal to them",
    .tie_rule = "copies: of equal load per copy the highest expert; placement: the lowest expert "
                "first, of equally loaded ranks the lowest",
    .needs = MOE_POLICY_NEEDS_LOAD,
    .place = place,
};

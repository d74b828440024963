/* EPLB as vLLM runs it: DeepSeek's three steps with loads rounded to float32 first and all
 * sums and quotients in float64, then every expert that stays on its GPU back into the slot
 * that it had. "Place" and "copy" are those of policies/solve/eplb_solver.c. */
#include <assert.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/greedy.h"
#include "policies/solve/realign.h"
#include "sim/base/no_malloc.h"

struct vllm {
    struct moe_placement_shape shape; /* one group and node when global */
    struct moe_greedy greedy;
    struct moe_realign realign;
    double *group_load;       /* [group_count] */
    uint32_t *place_of_group; /* [group_count] */
    uint32_t *expert_at;      /* [expert_count] by place */
    double *load;             /* [expert_count] by place, in one node from 0 */
    uint32_t *copies;         /* [expert_count], likewise */
    uint32_t *place_of_copy;  /* [slot_count] of one node */
    double *weight;           /* [slot_count] of one node's copies */
    uint32_t *slot_of_copy;   /* [slot_count] */
};

static enum moe_status set_up(struct vllm *v, const struct moe_placement_shape *shape,
                              struct moe_arena *scratch, struct moe_error *err)
{
    v->shape = *shape;
    if (shape->group_count % shape->node_count != 0) {
        v->shape.group_count = 1;
        v->shape.node_count = 1;
    }
    v->group_load = MOE_NEW(scratch, double, shape->group_count);
    v->place_of_group = MOE_NEW(scratch, uint32_t, shape->group_count);
    v->expert_at = MOE_NEW(scratch, uint32_t, shape->expert_count);
    v->load = MOE_NEW(scratch, double, shape->expert_count);
    v->copies = MOE_NEW(scratch, uint32_t, shape->expert_count);
    v->place_of_copy = MOE_NEW(scratch, uint32_t, shape->slot_count);
    v->weight = MOE_NEW(scratch, double, shape->slot_count);
    v->slot_of_copy = MOE_NEW(scratch, uint32_t, shape->slot_count);
    if (v->group_load == NULL || v->place_of_group == NULL || v->expert_at == NULL ||
        v->load == NULL || v->copies == NULL || v->place_of_copy == NULL || v->weight == NULL ||
        v->slot_of_copy == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to balance %u experts over %u slots",
                        shape->expert_count, shape->slot_count);
    }
    MOE_TRY(moe_greedy_init(&v->greedy, scratch, shape->slot_count, err));
    return moe_realign_init(&v->realign, scratch, shape->gpu_count,
                            moe_placement_slots_per_gpu(shape), shape->expert_count, err);
}

/* Packing where a pack of one item is not balanced: item i goes to pack i. */
static void pack(struct vllm *v, const double *weight, uint32_t items, uint32_t packs,
                 uint32_t *place_of_item)
{
    if (items == packs) {
        for (uint32_t item = 0; item < items; item++) {
            place_of_item[item] = item;
        }
    } else {
        moe_greedy_pack(&v->greedy, weight, items, packs, items / packs, place_of_item);
    }
}

static void place_groups(struct vllm *v, const double *load)
{
    const uint32_t group_size = v->shape.expert_count / v->shape.group_count;
    for (uint32_t group = 0; group < v->shape.group_count; group++) {
        v->group_load[group] = 0.0;
        for (uint32_t i = 0; i < group_size; i++) {
            v->group_load[group] += (float) load[group * group_size + i];
        }
    }
    pack(v, v->group_load, v->shape.group_count, v->shape.node_count, v->place_of_group);
    for (uint32_t group = 0; group < v->shape.group_count; group++) {
        for (uint32_t i = 0; i < group_size; i++) {
            v->expert_at[v->place_of_group[group] * group_size + i] = group * group_size + i;
        }
    }
}

static void place_node(struct vllm *v, uint32_t node, const double *load, uint16_t *slots)
{
    const uint32_t expert_count = v->shape.expert_count / v->shape.node_count;
    const uint32_t slot_count = v->shape.slot_count / v->shape.node_count;
    const uint32_t *expert_at = v->expert_at + (size_t) node * expert_count;
    for (uint32_t place = 0; place < expert_count; place++) {
        v->load[place] = (float) load[expert_at[place]];
        v->copies[place] = 1;
        v->place_of_copy[place] = place;
    }
    moe_greedy_replicate(&v->greedy, v->load, expert_count, slot_count - expert_count, false,
                         v->copies, v->place_of_copy + expert_count);
    for (uint32_t copy = 0; copy < slot_count; copy++) {
        const uint32_t place = v->place_of_copy[copy];
        v->weight[copy] = v->load[place] / v->copies[place];
    }
    pack(v, v->weight, slot_count, v->shape.gpu_count / v->shape.node_count, v->slot_of_copy);
    for (uint32_t copy = 0; copy < slot_count; copy++) {
        slots[(size_t) node * slot_count + v->slot_of_copy[copy]] =
            (uint16_t) expert_at[v->place_of_copy[copy]];
    }
}

enum { PRESERVE };

static const struct moe_policy_parameter parameters[] = {
    [PRESERVE] = { .name = "preserve",
                   .kind = MOE_PARAMETER_FLAG,
                   .standard = 1,
                   .help = "keep an expert that stays on its GPU in its slot",
                   .source = "vLLM preserve_intragpu_slots" },
};

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    struct vllm v;
    MOE_TRY(set_up(&v, &view->shape, scratch, err));
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        const double *load = view->load + (size_t) layer * view->shape.expert_count;
        uint16_t *slots = moe_placement_layer(plan, layer);
        place_groups(&v, load);
        for (uint32_t node = 0; node < v.shape.node_count; node++) {
            place_node(&v, node, load, slots);
        }
        if (view->parameters[PRESERVE] != 0.0) {
            moe_realign_slots(&v.realign, moe_placement_layer(view->previous, layer), slots);
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(eplb_vllm) = {
    MOE_POLICY_HEADER,
    .name = "eplb_vllm",
    .summary = "EPLB as in vLLM: float64 sums; experts that stay on a GPU keep their slot",
    .source = "vLLM vllm/distributed/eplb (the numpy port of DeepSeek's EPLB); its unstable sort "
              "made stable, group sums in float64",
    .tie_rule = "of equal loads the first expert, group, node or GPU",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_PREVIOUS,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

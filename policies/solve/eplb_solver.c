/* The three steps of the published function, each in the time that a winner tree and a
 * radix sort allow. "Place" is an expert's position in node order: the experts of node
 * 0 first, group after group in the order in which the groups arrived there. "Copy" is
 * a physical expert before it has a slot, numbered node by node in order of creation:
 * first every expert of the node once, then the redundant ones. */
#include "policies/solve/eplb_solver.h"

#include <assert.h>
#include <float.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/winner_tree.h"
#include "sim/base/no_malloc.h"

static_assert(FLT_EVAL_METHOD == 0, "float32 steps must round to float32");

enum moe_status moe_eplb_solver_init(struct moe_eplb_solver *solver, struct moe_arena *arena,
                                     const struct moe_placement_shape *shape, struct moe_error *err)
{
    struct moe_placement_shape solved = *shape;
    if (shape->group_count % shape->node_count != 0) {
        solved.group_count = 1;
        solved.node_count = 1;
    }
    const uint32_t experts_per_node = solved.expert_count / solved.node_count;
    const uint32_t pack_limit =
        solved.gpu_count > solved.node_count ? solved.gpu_count : solved.node_count;
    *solver = (struct moe_eplb_solver){
        .shape = solved,
        .weight = MOE_NEW(arena, float, solved.expert_count),
        .group_weight = MOE_NEW(arena, float, solved.group_count),
        .place_of_group = MOE_NEW(arena, uint32_t, solved.group_count),
        .expert_at = MOE_NEW(arena, uint16_t, solved.expert_count),
        .tree = MOE_NEW(arena, uint64_t, 2 * (size_t) moe_winner_leaf_count(experts_per_node)),
        .score = MOE_NEW(arena, float, solved.slot_count),
        .slot_of_copy = MOE_NEW(arena, uint32_t, solved.slot_count),
        .expert_of_copy = MOE_NEW(arena, uint16_t, solved.slot_count),
        .rank_of_copy = MOE_NEW(arena, uint16_t, solved.slot_count),
        .copies_at_place = MOE_NEW(arena, uint16_t, solved.expert_count),
    };
    if (solver->weight == NULL || solver->group_weight == NULL || solver->place_of_group == NULL ||
        solver->expert_at == NULL || solver->tree == NULL || solver->score == NULL ||
        solver->slot_of_copy == NULL || solver->expert_of_copy == NULL ||
        solver->rank_of_copy == NULL || solver->copies_at_place == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to balance %u experts over %u slots",
                        solved.expert_count, solved.slot_count);
    }
    return moe_packer_init(&solver->packer, arena, solved.slot_count, pack_limit, err);
}

/* Step 1: groups onto nodes, and with them the order of the experts. */
static void place_groups(struct moe_eplb_solver *solver)
{
    const struct moe_placement_shape *shape = &solver->shape;
    const uint32_t group_size = shape->expert_count / shape->group_count;
    const struct moe_packing_shape packing = {
        .item_count = shape->group_count,
        .pack_count = shape->node_count,
        .capacity = shape->group_count / shape->node_count,
        .set_count = 1,
    };
    if (packing.capacity == 1) {
        for (uint32_t group = 0; group < shape->group_count; group++) {
            solver->place_of_group[group] = group;
        }
    } else {
        for (uint32_t group = 0; group < shape->group_count; group++) {
            float sum = 0.0f;
            for (uint32_t i = 0; i < group_size; i++) {
                sum += solver->weight[group * group_size + i];
            }
            solver->group_weight[group] = sum;
        }
        moe_packer_pack(&solver->packer, &packing, solver->group_weight, solver->place_of_group);
    }
    for (uint32_t group = 0; group < shape->group_count; group++) {
        uint16_t *expert_at =
            solver->expert_at + (size_t) solver->place_of_group[group] * group_size;
        for (uint32_t i = 0; i < group_size; i++) {
            expert_at[i] = (uint16_t) (group * group_size + i);
        }
    }
}

/* Step 2 for one node: every redundant copy goes to the expert with the most weight per
 * copy. Fills this node's part of expert_of_copy, rank_of_copy, copies_at_place, score. */
static void replicate(struct moe_eplb_solver *solver, uint32_t node)
{
    const struct moe_placement_shape *shape = &solver->shape;
    const uint32_t expert_count = shape->expert_count / shape->node_count;
    const uint32_t copy_count = shape->slot_count / shape->node_count;
    const uint32_t leaf_count = moe_winner_leaf_count(expert_count);
    const uint16_t *expert_at = solver->expert_at + (size_t) node * expert_count;
    uint16_t *copies = solver->copies_at_place + (size_t) node * expert_count;
    uint16_t *expert_of_copy = solver->expert_of_copy + (size_t) node * copy_count;
    uint16_t *rank_of_copy = solver->rank_of_copy + (size_t) node * copy_count;
    float *score = solver->score + (size_t) node * copy_count;
    uint64_t *tree = solver->tree;

    /* Until step 2 ends, expert_of_copy holds places and score those of the places. */
    for (uint32_t place = 0; place < expert_count; place++) {
        score[place] = solver->weight[expert_at[place]];
        copies[place] = 1;
        expert_of_copy[place] = (uint16_t) place;
        rank_of_copy[place] = 0;
        tree[leaf_count + place] = moe_winner_key(moe_winner_rank_descending(score[place]), place);
    }
    if (copy_count > expert_count) {
        for (uint32_t leaf = expert_count; leaf < leaf_count; leaf++) {
            tree[leaf_count + leaf] = MOE_WINNER_NEVER;
        }
        moe_winner_build(tree, leaf_count);
    }
    for (uint32_t copy = expert_count; copy < copy_count; copy++) {
        const uint32_t place = (uint32_t) moe_winner_top(tree);
        expert_of_copy[copy] = (uint16_t) place;
        rank_of_copy[copy] = copies[place]++;
        score[place] = solver->weight[expert_at[place]] / (float) copies[place];
        moe_winner_set(tree, leaf_count, place,
                       moe_winner_key(moe_winner_rank_descending(score[place]), place));
    }
    for (uint32_t copy = expert_count; copy < copy_count; copy++) {
        score[copy] = score[expert_of_copy[copy]];
    }
    for (uint32_t copy = 0; copy < copy_count; copy++) {
        expert_of_copy[copy] = expert_at[expert_of_copy[copy]];
    }
}

/* Step 3: copies onto the GPUs of their node, and the result in slot order. */
static void place_copies(struct moe_eplb_solver *solver, const struct moe_eplb_layer *layer)
{
    const struct moe_placement_shape *shape = &solver->shape;
    const struct moe_packing_shape packing = {
        .item_count = shape->slot_count,
        .pack_count = shape->gpu_count,
        .capacity = moe_placement_slots_per_gpu(shape),
        .set_count = shape->node_count,
    };
    if (packing.capacity == 1) {
        for (uint32_t copy = 0; copy < shape->slot_count; copy++) {
            solver->slot_of_copy[copy] = copy;
        }
    } else {
        moe_packer_pack(&solver->packer, &packing, solver->score, solver->slot_of_copy);
    }
    for (uint32_t copy = 0; copy < shape->slot_count; copy++) {
        const uint32_t slot = solver->slot_of_copy[copy];
        layer->expert_of_slot[slot] = solver->expert_of_copy[copy];
        layer->rank_of_slot[slot] = solver->rank_of_copy[copy];
    }
    for (uint32_t place = 0; place < shape->expert_count; place++) {
        layer->copies[solver->expert_at[place]] = solver->copies_at_place[place];
    }
}

void moe_eplb_solver_run(struct moe_eplb_solver *solver, const double *load,
                         const struct moe_eplb_layer *layer)
{
    for (uint32_t expert = 0; expert < solver->shape.expert_count; expert++) {
        assert(load[expert] >= 0.0);
        assert(load[expert] <= MOE_POLICY_LOAD_LIMIT);
        solver->weight[expert] = (float) load[expert] + 0.0f; /* + 0 turns -0 into 0 */
    }
    place_groups(solver);
    for (uint32_t node = 0; node < solver->shape.node_count; node++) {
        replicate(solver, node);
    }
    place_copies(solver, layer);
}

void moe_eplb_layer_list_slots(const struct moe_eplb_layer *layer,
                               const struct moe_placement_shape *shape, uint32_t copy_limit,
                               int32_t *slots)
{
    for (size_t i = 0; i < (size_t) shape->expert_count * copy_limit; i++) {
        slots[i] = -1;
    }
    for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
        assert(layer->rank_of_slot[slot] < copy_limit);
        slots[(size_t) layer->expert_of_slot[slot] * copy_limit + layer->rank_of_slot[slot]] =
            (int32_t) slot;
    }
}

enum moe_status moe_eplb_place(const struct moe_placement_shape *shape, const double *load,
                               struct moe_arena *scratch, struct moe_placement *plan,
                               struct moe_error *err)
{
    struct moe_eplb_solver solver;
    uint16_t *rank_of_slot = MOE_NEW(scratch, uint16_t, shape->slot_count);
    uint16_t *copies = MOE_NEW(scratch, uint16_t, shape->expert_count);
    if (rank_of_slot == NULL || copies == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to balance %u experts over %u slots",
                        shape->expert_count, shape->slot_count);
    }
    MOE_TRY(moe_eplb_solver_init(&solver, scratch, shape, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const struct moe_eplb_layer solved = {
            .expert_of_slot = moe_placement_layer(plan, layer),
            .rank_of_slot = rank_of_slot,
            .copies = copies,
        };
        moe_eplb_solver_run(&solver, load + (size_t) layer * shape->expert_count, &solved);
    }
    return MOE_OK;
}

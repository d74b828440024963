/*
 * EPLB solver: DeepSeek's expert-parallel load balancer, one layer at a time.
 *
 * Source: github deepseek-ai/EPLB, eplb.py, rebalance_experts, with its descending
 * sort made stable (an unstable one leaves tied weights undefined). Exactly as there:
 * weights are float32; weight / copies is a float32 division; a pack's running sum is
 * float32; of equal scores the first index wins; packs of one item are not balanced
 * (item i goes to pack i). group_count divisible by node_count means hierarchical:
 * groups onto nodes, copies inside a node, copies onto the node's GPUs. Anything else
 * is solved as if there were one group and one node (global).
 * Nothing forbids two copies of one expert on one GPU.
 *
 * It differs from the published program only in time: O((E + P) log) instead of
 * O(P * E), and no heap allocation after init.
 */
#ifndef MOE_POLICIES_EPLB_SOLVER_H
#define MOE_POLICIES_EPLB_SOLVER_H

#include <stdint.h>

#include "policies/placement.h"
#include "policies/solve/packing.h"

struct moe_eplb_solver {
    struct moe_placement_shape shape; /* node_count = group_count = 1 when global */
    struct moe_packer packer;
    float *weight;             /* [expert_count] of the logical experts */
    float *group_weight;       /* [group_count] */
    uint32_t *place_of_group;  /* [group_count] node * groups per node + rank in the node */
    uint16_t *expert_at;       /* [expert_count] logical expert at a place in node order */
    uint64_t *tree;            /* winner tree over one node's experts */
    float *score;              /* [slot_count] weight per copy, of the copies in creation order */
    uint32_t *slot_of_copy;    /* [slot_count] */
    uint16_t *expert_of_copy;  /* [slot_count] */
    uint16_t *rank_of_copy;    /* [slot_count] */
    uint16_t *copies_at_place; /* [expert_count] */
};

/* What the published function returns for one layer, in the caller's memory. */
struct moe_eplb_layer {
    uint16_t *expert_of_slot; /* [slot_count]: phy2log */
    uint16_t *rank_of_slot;   /* [slot_count]: 0 for the expert itself, n for its n-th copy */
    uint16_t *copies;         /* [expert_count]: logcnt */
};

/* Takes its scratch from arena: about 100 bytes per slot and expert. shape has passed
 * moe_placement_shape_check. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_eplb_solver_init(struct moe_eplb_solver *solver, struct moe_arena *arena,
                                     const struct moe_placement_shape *shape,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* load[expert_count]: each from 0 to MOE_POLICY_LOAD_LIMIT; rounded to float32. */
void moe_eplb_solver_run(struct moe_eplb_solver *solver, const double *load,
                         const struct moe_eplb_layer *layer);

/* log2phy: slots[expert][rank], copy_limit columns, -1 behind an expert's last copy.
 * copy_limit is at least every copies[expert]. */
void moe_eplb_layer_list_slots(const struct moe_eplb_layer *layer,
                               const struct moe_placement_shape *shape, uint32_t copy_limit,
                               int32_t *slots);

/* Solves every layer of load[layer_count][expert_count] into plan. scratch as for
 * init. Errors: MOE_LIMIT when scratch is full. */
enum moe_status moe_eplb_place(const struct moe_placement_shape *shape, const double *load,
                               struct moe_arena *scratch, struct moe_placement *plan,
                               struct moe_error *err) MOE_MUST_CHECK;

#endif

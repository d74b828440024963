/*
 * CRAFT's solver: how many copies each layer is worth, and where their slots go.
 *
 * Source: "Cost-aware Expert Replica Allocation with Fine-Grained Layerwise Estimations"
 * (CRAFT), arXiv 2603.28768. No code is public. Five steps:
 *   1 estimate   per layer and number of copies k in {0, 1, 2, 4, .. <= GPUs}: copies to
 *                argmax load/copies, greedy placement, and its balancedness (mean / max
 *                GPU load) averaged over a replay of the profiled batches
 *   2 budget     R slots per GPU over all layers together, given or found at the knee
 *   3 allocate   multiple-choice knapsack by dynamic programming: one k per layer, sum of
 *                gains largest, at most R * GPUs copies
 *   4 slots      each copy's slot to the GPU with the fewest slots over all layers so far
 *   5 place      hottest copy to the coldest GPU that has a slot left in this layer
 * Where the paper is silent: the mean is over batches; the knee is the point of the gain
 * curve furthest above its chord (see moe_craft_knee); a remainder of experts over GPUs
 * is dealt out like copies are. Loads and sums are float32, as in EPLB.
 *
 * Everything is deterministic. Ties: of equal load/copies the first expert; of equal
 * copies in load the first expert; of equally loaded GPUs the one with more slots in the
 * layer, then the one that got its last slot first; of equal gains the fewer copies.
 */
#ifndef MOE_POLICIES_CRAFT_SOLVER_H
#define MOE_POLICIES_CRAFT_SOLVER_H

#include <stdint.h>

#include "policies/placement.h"
#include "policies/solve/packing.h"

enum { MOE_CRAFT_OPTION_LIMIT = 18 };

struct moe_craft {
    struct moe_placement_shape shape;
    uint32_t option_count;                   /* >= 1 */
    uint32_t option[MOE_CRAFT_OPTION_LIMIT]; /* copies beyond one each, ascending from 0 */
    struct moe_packer packer;
    float *weight;                 /* [expert_count] */
    uint32_t *copies;              /* [expert_count] */
    float *share;                  /* [item_limit] load of one copy */
    uint16_t *expert_of_item;      /* [item_limit] */
    uint32_t *slot_of_item;        /* [item_limit] */
    uint32_t *limit;               /* [gpu_count] slots of a GPU, descending */
    uint64_t *tree;                /* winner tree over experts */
    uint32_t item_limit;           /* slot_count */
    float *block;                  /* [expert_count][batches of a block] of the replay */
    struct moe_craft_trial *trial; /* [option_count] */
};

/* Options are those that the shape has room for. Takes its scratch from arena: about
 * 600 bytes per expert and 8 per slot and option. Errors: MOE_LIMIT when it is full. */
enum moe_status moe_craft_init(struct moe_craft *craft, struct moe_arena *arena,
                               const struct moe_placement_shape *shape,
                               struct moe_error *err) MOE_MUST_CHECK;

/* One layer: balance[option_count], the balancedness of every option averaged over the
 * batches; a batch without load counts as 1. load[expert_count] is what the plans are
 * made from. Batch b's counts stand at batches + b * stride, [expert_count], each finite
 * and >= 0. batch_count >= 1. */
void moe_craft_estimate(struct moe_craft *craft, const double *load, const float *batches,
                        size_t stride, uint32_t batch_count, double *balance);

/* gain[budget + 1]: the largest sum over layers of balance[layer][chosen] -
 * balance[layer][0] with at most that many copies in all; never falls with the budget.
 * choice[layer_count][budget + 1]: the option that reaches it, for moe_craft_backtrack. */
void moe_craft_allocate(const struct moe_craft *craft, const double *balance, uint32_t budget,
                        double *gain, uint8_t *choice);

/* copies_of_layer[layer_count] that use at most budget copies. choice has choice_budget + 1
 * columns, budget <= choice_budget. */
void moe_craft_backtrack(const struct moe_craft *craft, const uint8_t *choice,
                         uint32_t choice_budget, uint32_t budget, uint32_t *copies_of_layer);

/* The smallest R in 0 .. limit that maximises gain[R * gpu_count] - bend * R *
 * gain[limit * gpu_count] / limit: with bend 1 the point furthest above the chord; a
 * larger bend stops earlier. limit >= 1; bend > 0. */
uint32_t moe_craft_knee(const double *gain, uint32_t gpu_count, uint32_t limit, double bend);

/* slots[layer_count][gpu_count] for expert_count + copies_of_layer[layer] slots in each
 * layer, and order[layer_count][gpu_count]: the GPUs by slots in the layer, most first.
 * Ties between GPUs: fewest slots in this layer, then node after node in turn. */
void moe_craft_deal_slots(const struct moe_placement_shape *shape, const uint32_t *copies_of_layer,
                          uint32_t *slots, uint32_t *order, uint32_t *total);

/* Step 4's slots of one layer filled: expert_of_slot[slot_count], the rest empty. CRAFT has
 * enough = 0 and most = UINT32_MAX. Otherwise no expert gets more than most copies, even if
 * slots stay empty, and load per copy below enough is not divided further while there are
 * experts with one copy to get a second. */
void moe_craft_place_layer(struct moe_craft *craft, const double *load, uint32_t copies,
                           double enough, uint32_t most, const uint32_t *slots,
                           const uint32_t *order, uint16_t *expert_of_slot);

#endif

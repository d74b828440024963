/*
 * Bound meter: how far the fullest GPU of each layer was from what could have been.
 *
 * For every MOE_BOUND_STRIDE-th scored step and each of its layers, five loads in tokens, summed:
 *   own         of the fullest GPU, as the tokens were really dispatched
 *   perfect     the mean of all GPUs: nothing is below it
 *   split       the least load of the fullest GPU that the plan's copies allow, for fractional
 *               tokens (policies/solve/split.h): what the best dispatch could do with this plan.
 *               Temporary copies do not count: a dispatch that fetches may be below it
 *   no copy     max(mean, hottest expert): no plan without copies is below it
 *   hindsight   of the fullest GPU under a plan that knows the scored requests: as many copies in
 *               each layer as the plan has, given to the hottest experts one by one, packed
 *               hottest first onto the least loaded GPU with a free slot, tokens split evenly.
 *               A plan made by a heuristic for the sums of all steps: a policy may beat it
 * The regret against a bound is own / bound - 1, of these sums.
 *
 * Ties: of equal loads per copy the first expert, of equal copies the earlier one, of equally
 * loaded GPUs the first.
 */
#ifndef MOE_SIM_ENGINE_BOUND_METER_H
#define MOE_SIM_ENGINE_BOUND_METER_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/copy_index.h"
#include "policies/placement.h"
#include "policies/solve/hosts.h"
#include "policies/solve/split.h"
#include "sim/base/arena.h"

enum { MOE_BOUND_STRIDE = 16 };

struct moe_bound_sums {
    uint64_t layer_steps;
    double own;
    double perfect;
    double split;
    double no_copy;
    double hindsight; /* 0 without the scored loads */
};

struct moe_bound_meter {
    struct moe_placement_shape shape;
    struct moe_copy_index *index;   /* [layer] of the plan */
    struct moe_placement hindsight; /* expert_of_slot NULL: the scored loads are not known */
    uint32_t *hindsight_copies;     /* [layer][expert] */
    struct moe_hosts hosts;
    struct moe_split split;
    double *load;     /* [expert] of the layer in hand */
    int64_t *scaled;  /* [expert] */
    double *gpu_load; /* [gpu] */
};

/* scored_load[layer][expert], or NULL. Takes its memory from the arena, about
 * moe_bound_meter_bytes. Errors: MOE_LIMIT when it is full. */
size_t moe_bound_meter_bytes(const struct moe_placement_shape *shape);
enum moe_status moe_bound_meter_init(struct moe_bound_meter *meter,
                                     const struct moe_placement *plan, const double *scored_load,
                                     struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* The layer has other copies from here on (the hindsight plan keeps as many as the first had). */
void moe_bound_meter_replan(struct moe_bound_meter *meter, const struct moe_placement *plan,
                            uint32_t layer);

/* One layer of one step: tokens[expert] that were processed, own_max of them on the fullest
 * GPU. */
void moe_bound_meter_add(struct moe_bound_meter *meter, uint32_t layer, const uint32_t *tokens,
                         double own_max, struct moe_bound_sums *sums);

#endif

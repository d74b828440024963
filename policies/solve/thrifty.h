/*
 * Thrifty steps: what balancers share that start from the placement in force and weigh every
 * expert that moves: estimates of the load from a series of batches, a fresh plan under the
 * labels that move least, and exchanges between a full GPU and an emptier one.
 *
 * Rows are one layer: expert_of_slot[slot_count]. Imbalance is max / mean GPU load with the
 * load of an expert split evenly over its copies (1 = perfect; 1 where there is no load).
 */
#ifndef MOE_POLICIES_THRIFTY_H
#define MOE_POLICIES_THRIFTY_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/policy_view.h"
#include "policies/solve/eplb_solver.h"
#include "policies/solve/realign.h"

struct moe_thrifty {
    struct moe_placement_shape shape;
    uint32_t capacity;
    struct moe_eplb_solver eplb;
    struct moe_realign realign;
    double *weight;         /* [expert_count] the estimate that the steps below work on */
    double *spread;         /* [expert_count] standard deviation, from moe_thrifty_average */
    double *gpu_load;       /* [gpu_count] of the row that was measured last */
    uint32_t *copies;       /* [expert_count] of that row */
    uint8_t *busy;          /* [gpu_count] for the caller: GPUs that may not exchange */
    uint16_t *rank_of_slot; /* [slot_count] */
    uint16_t *copy_count;   /* [expert_count] */
};

/* Errors: MOE_LIMIT when the arena is full; those of moe_realign_init. */
enum moe_status moe_thrifty_init(struct moe_thrifty *t, struct moe_arena *arena,
                                 const struct moe_placement_shape *shape,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* weight and spread: mean and standard deviation over batches begin .. end-1 of one layer, where
 * the batches' own weights rise linearly from oldest to newest (1, 1: all alike). */
void moe_thrifty_average(struct moe_thrifty *t, const struct moe_place_view *view, uint32_t layer,
                         uint32_t begin, uint32_t end, double oldest, double newest);

/* Total variation, 0 to 1, between the shares of the experts in the first and the second half
 * of the batches of one layer; 0 with one batch or an empty half. */
double moe_thrifty_drift(const struct moe_place_view *view, uint32_t layer);

/* The imbalance of a row under weight; fills gpu_load and copies. */
double moe_thrifty_measure(struct moe_thrifty *t, const uint16_t *row);

/* EPLB under weight into plan, relabelled to move as little as possible away from before: GPUs
 * inside their node where groups are bound to nodes, else all. */
void moe_thrifty_replan(struct moe_thrifty *t, const uint16_t *before, uint16_t *plan);

/* One exchange of two slots, or a move into an empty one, between the fullest GPU that is not
 * busy and the partner that leaves the smaller maximum of the two. row has been measured and is
 * measured afterwards. *partner and *fullest are set when the exchange lowers the fullest GPU's
 * load and no GPU is above that afterwards; else row is unchanged and false comes back. No
 * exchange puts two copies of an expert on one GPU. Ties: the lowest partner, then slots. */
bool moe_thrifty_exchange(struct moe_thrifty *t, uint16_t *row, uint32_t *fullest,
                          uint32_t *partner);

#endif

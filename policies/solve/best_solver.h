/*
 * Best solver: one layer's places, chosen for loads that are not known exactly.
 *
 * Own work. Every other balancer plans on one load per expert and is scored on another; the
 * fullest GPU is then the one where several experts were surprised together. A column here is a
 * load that the layer may have; the plan is improved by exchanging two copies between GPUs for
 * as long as that raises the weighted mean over columns of the balancedness, mean / max.
 *   max       is smoothed to (sum over GPUs of L^16)^(1/16), so that an exchange is judged by the
 *             two GPUs that it touches
 *   L         of a GPU is the sum over its copies of x + risk * x^2, x the copy's share of the
 *             mean GPU load: with independent relative errors of spread s the variance of a GPU
 *             is s^2 * sum of x^2, and the largest of many normal loads is about that of mean +
 *             variance * t / 2 (the exponential bound of its moment generating function)
 * float32 with sums in a fixed order and square roots only: the same on every machine.
 * Only the GPUs with the largest parts in the maxima are relieved; a plan is final when none of
 * them has an exchange that helps.
 * Ties: of equally good exchanges the first slot of the GPU, then the first partner; GPUs come by
 * their part in the smoothed maxima, the first of equals.
 */
#ifndef MOE_POLICIES_BEST_SOLVER_H
#define MOE_POLICIES_BEST_SOLVER_H

#include <stdint.h>

#include "policies/placement.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

enum { MOE_BEST_COLUMN_LIMIT = 48 };

struct moe_best {
    uint32_t expert_count;
    uint32_t slot_count;
    uint32_t gpu_count;
    uint32_t column_count;                /* a multiple of 8 */
    float risk;                           /* >= 0 */
    float weight[MOE_BEST_COLUMN_LIMIT];  /* of the columns, >= 0; 0 for padding */
    float *load;                          /* [expert][column], the caller's; mean GPU load 1 */
    float *share;                         /* [expert][column] x + risk * x^2 of one copy */
    float *gpu_load;                      /* [gpu][column] */
    float *power;                         /* [gpu][column] */
    float total[MOE_BEST_COLUMN_LIMIT];   /* sum of power over GPUs */
    float urgency[MOE_BEST_COLUMN_LIMIT]; /* what a unit of total costs: first-order */
    uint32_t *copies;                     /* [expert] */
    uint32_t *order;                      /* [gpu] */
    float *part;                          /* [gpu] */
    uint8_t *here;                        /* [expert] on the GPU that is being relieved */
};

/* column_count is 1 .. MOE_BEST_COLUMN_LIMIT; it is rounded up, the caller fills the padding
 * with any load and weight 0. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_best_init(struct moe_best *best, struct moe_arena *arena,
                              const struct moe_placement_shape *shape, uint32_t column_count,
                              float risk, struct moe_error *err) MOE_MUST_CHECK;

/* Exchanges copies of slots[slot_count], where every expert has one, for the columns that the
 * caller has filled in; at most limit times. Copies of one expert never come to lie on one GPU.
 * Returns the exchanges made; the score never falls. */
uint32_t moe_best_improve(struct moe_best *best, uint32_t limit, uint16_t *slots);

/* The score of slots: weighted mean of 1 / smoothed max of the columns. */
double moe_best_score(struct moe_best *best, const uint16_t *slots);

#endif

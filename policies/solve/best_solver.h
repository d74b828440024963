/*
 * Best solver: one layer's places, chosen for loads that are not known exactly.
 *
 * Own work. Every other balancer plans on one load per expert and is scored on another; the
 * fullest GPU is then the one where several experts were surprised together. A column here is a
 * load that the layer may have; the plan is improved by exchanging two copies between GPUs, and by
 * giving the slot of an expert's spare copy to another expert, for as long as that raises the
 * weighted mean over columns of the balancedness, mean / max.
 *   max       is smoothed to (sum over GPUs of L^16)^(1/16), so that an exchange is judged by the
 *             two GPUs that it touches
 *   L         of a GPU is the sum over its copies of x + risk * x^2, x the copy's share of the
 *             mean GPU load: with independent relative errors of spread s the variance of a GPU
 *             is the sum of s^2 x^2, and the mean of the 16th power of a load near 1 with a
 *             variance v is that of load + 7.5 v to second order: s stands for a risk of
 *             7.5 s^2 (MOE_BEST_RISK_OF_SQUARE)
 * float32 with sums in a fixed order and square roots only: the same on every machine.
 * Only the GPUs with the largest parts in the maxima are relieved, and only the spare copies that
 * are missed least give way; a plan is final when none of those has a change that helps.
 * Ties: of equally good changes an exchange, then the first slot of the GPU, then the first
 * partner; GPUs come by their part in the smoothed maxima, the first of equals.
 */
#ifndef MOE_POLICIES_BEST_SOLVER_H
#define MOE_POLICIES_BEST_SOLVER_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/placement.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

enum { MOE_BEST_COLUMN_LIMIT = 48 };

#define MOE_BEST_RISK_OF_SQUARE 7.5 /* (16 - 1) / 2 */

struct moe_best {
    uint32_t expert_count;
    uint32_t slot_count;
    uint32_t gpu_count;
    uint32_t column_count;                /* a multiple of 8 */
    float weight[MOE_BEST_COLUMN_LIMIT];  /* of the columns, >= 0; 0 for padding */
    float *load;                          /* [expert][column], the caller's; mean GPU load 1 */
    float *risk;                          /* [expert], the caller's, >= 0 */
    float *share;                         /* [expert][column] x + risk x^2 of one copy */
    float *gpu_load;                      /* [gpu][column] */
    float *power;                         /* [gpu][column] */
    float total[MOE_BEST_COLUMN_LIMIT];   /* sum of power over GPUs */
    float urgency[MOE_BEST_COLUMN_LIMIT]; /* what a unit of total costs: first-order */
    uint32_t *copies;                     /* [expert] */
    uint32_t *order;                      /* [gpu] */
    float *part;                          /* [gpu] */
    uint8_t *here;                        /* [expert] on the GPU that is being relieved */
    bool recopy;                          /* copies may go from one expert to another */
    uint32_t *first_host;                 /* [expert] into host_gpu, copies[expert] entries */
    uint32_t *host_gpu;                   /* [slot] GPUs of an expert's copies */
    uint8_t *twice;                       /* [expert] has two copies on one GPU */
    uint8_t *gives;                       /* [expert] its spare copies may give way */
    uint8_t *marked;                      /* [gpu] scratch, 0 between calls */
    uint32_t *giving_slot;                /* [slot] copies that may give way, ascending */
    uint32_t giving_count;
};

/* column_count is 1 .. MOE_BEST_COLUMN_LIMIT; it is rounded up, the caller fills the padding
 * with any load and weight 0. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_best_init(struct moe_best *best, struct moe_arena *arena,
                              const struct moe_placement_shape *shape, uint32_t column_count,
                              struct moe_error *err) MOE_MUST_CHECK;

/* Changes slots[slot_count], where every expert has one, for the columns that the caller has
 * filled in, at most limit times: exchanges of two copies and, with recopy, a slot from an expert
 * with several copies to another. Copies of one expert never come to lie on one GPU. Returns the
 * changes made; the score never falls. */
uint32_t moe_best_improve(struct moe_best *best, uint32_t limit, uint16_t *slots);

/* The score of slots: weighted mean of 1 / smoothed max of the columns. */
double moe_best_score(struct moe_best *best, const uint16_t *slots);

#endif

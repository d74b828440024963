/*
 * ViBE's solver: experts on GPUs so that all finish together, not so that all get equally
 * many tokens.
 *
 * Source: "ViBE: Co-Optimizing Workload Skew and Hardware Variability for MoE Serving", arXiv
 * 2606.00735. Given f_g(n), the measured time of GPU g for n tokens, and the load w_e of every
 * expert: place each expert once, equally many on every GPU, with max_g f_g(sum of w_e)
 * smallest. The paper gives the objective, not the solver; no code is public. Ours: hottest
 * expert first to the GPU that would finish it soonest, and the same by tokens alone; from
 * both, the best exchange of two experts between the slowest GPU and another one until none
 * helps; the faster of the two results. Where experts do not divide over the GPUs, the
 * remainder goes one each to as many GPUs.
 *
 * Ties: of equal loads the first expert, of equal finish times the first GPU, of equally good
 * exchanges the first expert of the slowest GPU, then the first partner; of equal results the
 * one by finish time.
 */
#ifndef MOE_POLICIES_VIBE_SOLVER_H
#define MOE_POLICIES_VIBE_SOLVER_H

#include <stdint.h>

#include "policies/policy_view.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_vibe {
    uint32_t expert_count;
    uint32_t gpu_count;
    const struct moe_policy_speed *speed;
    uint32_t *order; /* [expert_count] */
    uint32_t *fill;  /* [gpu_count] experts */
    double *tokens;  /* [gpu_count] */
    double *time_ns; /* [gpu_count] */
    uint32_t *other; /* [expert_count] the second attempt */
};

/* speed outlives the solver. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_vibe_init(struct moe_vibe *vibe, struct moe_arena *arena, uint32_t expert_count,
                              uint32_t gpu_count, const struct moe_policy_speed *speed,
                              struct moe_error *err) MOE_MUST_CHECK;

/* gpu_of_expert[expert_count] for load[expert_count] in tokens of one step and layer, each
 * finite and >= 0. Every GPU gets expert_count / gpu_count experts, rounded up or down. */
void moe_vibe_solve(struct moe_vibe *vibe, const double *load, uint32_t *gpu_of_expert);

/* Exchanges experts of a placement until no exchange lowers the slowest GPU's time, or limit
 * exchanges were made; returns how many. The number of experts of a GPU stays. */
uint32_t moe_vibe_exchange(struct moe_vibe *vibe, const double *load, uint32_t limit,
                           uint32_t *gpu_of_expert);

/* The slowest GPU's time. */
double moe_vibe_time_ns(struct moe_vibe *vibe, const double *load, const uint32_t *gpu_of_expert);

/* 1 - cosine of the angle between a[count] and b[count], each >= 0: 0 for the same mix, 1 for
 * nothing in common. Two zero vectors have distance 0, one alone 1. ViBE's sign of drift. */
double moe_vibe_drift(const double *a, const double *b, uint32_t count);

#endif

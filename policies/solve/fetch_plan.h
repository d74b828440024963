/*
 * Fetch plan: which tokens of a layer leave the home of their expert, where any GPU may take them
 * that holds a copy or has a temporary slot left to fetch one into.
 *
 * For policies that move weights within a step (LLEP, UltraEP, HarMoEny): their fetch method makes
 * the plan, their split method, which sees the fetched copies, carries it out. An expert's home is
 * the GPU of its first copy before anything was fetched. Tokens that are given to nobody stay.
 */
#ifndef MOE_POLICIES_FETCH_PLAN_H
#define MOE_POLICIES_FETCH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/policy.h"

struct moe_fetch_gift {
    uint32_t expert;
    uint32_t gpu;
    int64_t tokens;
};

struct moe_fetch_plan {
    uint32_t gpu_count;
    uint32_t expert_count;
    uint32_t limit;              /* temporary slots of a GPU */
    uint32_t gift_limit;         /* slots of a layer, temporary ones included */
    bool made;                   /* by fetch, not yet carried out by split */
    uint8_t *has;                /* [expert][gpu] 1: a lasting copy, 2: a fetched one */
    uint32_t *used;              /* [gpu] temporary slots */
    uint16_t *home;              /* [expert] GPU */
    struct moe_fetch_gift *gift; /* [gift_count] each expert and GPU once */
    uint32_t gift_count;
};

/* For one layer of this shape, temporary slots included. Errors: MOE_LIMIT when the arena is
 * full. */
enum moe_status moe_fetch_plan_init(struct moe_fetch_plan *plan, struct moe_arena *arena,
                                    const struct moe_placement_shape *shape,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* Looks at who holds what; nothing is given yet. */
void moe_fetch_plan_begin(struct moe_fetch_plan *plan, const struct moe_dispatch_view *view);

/* The same layer once more from the start. */
void moe_fetch_plan_again(struct moe_fetch_plan *plan);

/* Whether gpu holds the expert or can fetch it. */
static inline bool moe_fetch_plan_may(const struct moe_fetch_plan *plan, uint32_t expert,
                                      uint32_t gpu)
{
    return plan->has[(size_t) expert * plan->gpu_count + gpu] != 0 || plan->used[gpu] < plan->limit;
}

/* Gives tokens > 0 of the expert's home to a GPU that may take them (asserted). */
void moe_fetch_plan_give(struct moe_fetch_plan *plan, uint32_t expert, uint32_t gpu,
                         int64_t tokens);

/* The fetch method's answer; the plan is made. */
void moe_fetch_plan_answer(struct moe_fetch_plan *plan, struct moe_dispatch_fetch *fetch,
                           uint32_t *count);

/* goal[copy] of the view that has the fetched copies; the plan is carried out. Several copies on
 * one GPU: the first works. */
void moe_fetch_plan_goals(struct moe_fetch_plan *plan, const struct moe_dispatch_view *view,
                          uint64_t *goal);

#endif

/*
 * Dispatch solver: the state that dispatch policies which solve something share: who hosts what,
 * the flow, the division over the sources, and room for numbers per expert, GPU and copy.
 */
#ifndef MOE_POLICIES_DISPATCH_SOLVER_H
#define MOE_POLICIES_DISPATCH_SOLVER_H

#include <stdint.h>

#include "policies/policy.h"
#include "policies/solve/hosts.h"
#include "policies/solve/split.h"
#include "policies/solve/spread.h"

struct moe_dispatch_solver {
    struct moe_hosts hosts;
    struct moe_split split;
    struct moe_spread spread;
    int64_t *load;     /* [expert_count] tokens, after moe_dispatch_solver_begin */
    int64_t *gpu_load; /* [gpu_count] the policy's own */
    uint64_t *goal;    /* [slot_count] tokens per copy; the policy's own */
    uint16_t *order;   /* [expert_count + gpu_count] the policy's own */
};

/* The init method of such a policy. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_dispatch_solver_init(const struct moe_place_view *planning,
                                         const struct moe_placement *placement,
                                         struct moe_arena *arena, void **state,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Looks the layer's hosts and loads up, and sends everything to first copies. */
void moe_dispatch_solver_begin(struct moe_dispatch_solver *solver,
                               const struct moe_dispatch_view *view, uint32_t *quota);

/* Sets every copy's goal to the whole demand of its expert where it is the first copy, to 0
 * elsewhere, and gpu_load to what that makes: the first copy as the master of all others. */
void moe_dispatch_solver_master(struct moe_dispatch_solver *solver,
                                const struct moe_dispatch_view *view);

/* Sets every copy's goal to what the solved split sends it: a flow to a GPU goes to the first of
 * an expert's copies there, and so do experts that lie on one GPU only. */
void moe_dispatch_solver_flow(struct moe_dispatch_solver *solver,
                              const struct moe_dispatch_view *view);

/* Carries out goal[copy]. */
void moe_dispatch_solver_finish(struct moe_dispatch_solver *solver,
                                const struct moe_dispatch_view *view, enum moe_spread_way way,
                                uint32_t *quota);

#endif

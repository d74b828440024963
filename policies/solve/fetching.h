/*
 * Fetching: the methods of dispatch policies that move weights within a step (LLEP, UltraEP,
 * HarMoEny), around what is each one's own.
 *
 *   plan      gives tokens of solver->fetch, begun, to GPUs that hold or can fetch their expert;
 *             solver->load and gpu_load (everything at the first copies) are set
 *   settle    the same layer where nothing can be fetched: quota[source GPU][copy], zeroed
 *   spread    the enum moe_spread_way of quotas by plan, from the policy's parameters
 */
#ifndef MOE_POLICIES_FETCHING_H
#define MOE_POLICIES_FETCHING_H

#include "policies/policy.h"
#include "policies/solve/dispatch_solver.h"

struct moe_fetching {
    void (*plan)(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view);
    void (*settle)(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                   uint32_t *quota);
    enum moe_spread_way (*spread)(const double *parameters);
};

/* The fetch and the split method by these; state is moe_dispatch_solver_init's. */
void moe_fetching_fetch(const struct moe_fetching *own, struct moe_dispatch_solver *solver,
                        const struct moe_dispatch_view *view, struct moe_dispatch_fetch *copies,
                        uint32_t *count);
void moe_fetching_split(const struct moe_fetching *own, struct moe_dispatch_solver *solver,
                        const struct moe_dispatch_view *view, uint32_t *quota);

/* The table `dispatch` of a policy whose own parts stand in the struct moe_fetching `own`. */
#define MOE_FETCHING_DISPATCH(own)                                                          \
    static enum moe_status fetch(void *state, const struct moe_dispatch_view *view,         \
                                 struct moe_dispatch_fetch *copies, uint32_t *count,        \
                                 struct moe_error *err)                                     \
    {                                                                                       \
        (void) err;                                                                         \
        moe_fetching_fetch(&(own), state, view, copies, count);                             \
        return MOE_OK;                                                                      \
    }                                                                                       \
    static enum moe_status split(void *state, const struct moe_dispatch_view *view,         \
                                 uint32_t *quota, struct moe_error *err)                    \
    {                                                                                       \
        (void) err;                                                                         \
        moe_fetching_split(&(own), state, view, quota);                                     \
        return MOE_OK;                                                                      \
    }                                                                                       \
    static const struct moe_dispatch_methods dispatch = { .init = moe_dispatch_solver_init, \
                                                          .fetch = fetch,                   \
                                                          .split = split }

#endif

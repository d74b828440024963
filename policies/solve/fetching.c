#include "policies/solve/fetching.h"

#include "sim/base/no_malloc.h"

void moe_fetching_fetch(const struct moe_fetching *own, struct moe_dispatch_solver *solver,
                        const struct moe_dispatch_view *view, struct moe_dispatch_fetch *copies,
                        uint32_t *count)
{
    moe_dispatch_solver_load(solver, view);
    moe_dispatch_solver_master(solver, view);
    moe_fetch_plan_begin(&solver->fetch, view);
    own->plan(solver, view);
    moe_fetch_plan_answer(&solver->fetch, copies, count);
}

void moe_fetching_split(const struct moe_fetching *own, struct moe_dispatch_solver *solver,
                        const struct moe_dispatch_view *view, uint32_t *quota)
{
    moe_dispatch_solver_begin(solver, view);
    if (!solver->fetch.made) {
        moe_dispatch_solver_master(solver, view);
        own->settle(solver, view, quota);
        return;
    }
    moe_fetch_plan_goals(&solver->fetch, view, solver->goal);
    moe_dispatch_solver_finish(solver, view, own->spread(view->parameters), quota);
}

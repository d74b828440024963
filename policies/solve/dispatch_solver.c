#include "policies/solve/dispatch_solver.h"

#include <string.h>

#include "sim/base/no_malloc.h"

enum moe_status moe_dispatch_solver_init(const struct moe_place_view *planning,
                                         const struct moe_placement *placement,
                                         struct moe_arena *arena, void **state,
                                         struct moe_error *err)
{
    (void) planning;
    const struct moe_placement_shape *shape = &placement->shape;
    struct moe_dispatch_solver *solver = MOE_NEW(arena, struct moe_dispatch_solver, 1);
    if (solver != NULL) {
        solver->load = MOE_NEW(arena, int64_t, shape->expert_count);
        solver->gpu_load = MOE_NEW(arena, int64_t, shape->gpu_count);
        solver->goal = MOE_NEW(arena, uint64_t, shape->slot_count);
        solver->order = MOE_NEW(arena, uint16_t, (size_t) shape->expert_count + shape->gpu_count);
    }
    if (solver == NULL || solver->load == NULL || solver->gpu_load == NULL ||
        solver->goal == NULL || solver->order == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the loads of %u experts in %u slots",
                        shape->expert_count, shape->slot_count);
    }
    MOE_TRY(moe_hosts_init(&solver->hosts, arena, shape, err));
    MOE_TRY(moe_split_init(&solver->split, arena, shape, err));
    MOE_TRY(moe_spread_init(&solver->spread, arena, shape, err));
    *state = solver;
    return MOE_OK;
}

void moe_dispatch_solver_begin(struct moe_dispatch_solver *solver,
                               const struct moe_dispatch_view *view, uint32_t *quota)
{
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        solver->load[expert] = (int64_t) view->expert_total[expert];
    }
    moe_hosts_build(&solver->hosts, view->first_copy, view->gpu_of_copy);
    moe_spread_first(view, quota);
}

void moe_dispatch_solver_master(struct moe_dispatch_solver *solver,
                                const struct moe_dispatch_view *view)
{
    memset(solver->goal, 0, view->copy_count * sizeof *solver->goal);
    memset(solver->gpu_load, 0, view->shape.gpu_count * sizeof *solver->gpu_load);
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        const uint32_t master = view->first_copy[expert];
        solver->goal[master] = view->expert_total[expert];
        solver->gpu_load[view->gpu_of_copy[master]] += solver->load[expert];
    }
}

void moe_dispatch_solver_flow(struct moe_dispatch_solver *solver,
                              const struct moe_dispatch_view *view)
{
    const struct moe_split *split = &solver->split;
    const struct moe_hosts *hosts = &solver->hosts;
    memset(solver->goal, 0, view->copy_count * sizeof *solver->goal);
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        solver->goal[view->first_copy[expert]] = view->expert_total[expert];
    }
    for (uint32_t item = 0; item < split->item_count; item++) {
        const uint32_t first = split->first_edge[item];
        const uint32_t host = hosts->first_host[split->item_expert[item]];
        for (uint32_t edge = first; edge < split->first_edge[item + 1]; edge++) {
            solver->goal[hosts->first_copy_of_host[host + edge - first]] =
                (uint64_t) split->flow[edge];
        }
    }
}

void moe_dispatch_solver_finish(struct moe_dispatch_solver *solver,
                                const struct moe_dispatch_view *view, enum moe_spread_way way,
                                uint32_t *quota)
{
    moe_spread_goals(&solver->spread, view, solver->goal, way, quota);
}

/* METRO (arXiv 2512.09277): every active expert works on one of its GPUs only, and the GPU with
 * the most active experts has as few as can be. Decode is bound by reading the weights of the
 * experts that are active, and one copy of an expert is enough to serve its tokens, so spreading
 * tokens over copies costs time there.
 *
 * method=greedy is the paper's: each active expert to the hosting GPU with the smallest count so
 * far. The order is not stated; here experts with one host come first, because they have no
 * choice, then the others in ascending order. method=exact is the optimum, the paper's binary
 * search over matchings done as one flow of unit loads (policies/solve/split.h). */
#include "policies/solve/dispatch_solver.h"

#include <string.h>

#include "sim/base/no_malloc.h"

enum { METHOD };
enum { METHOD_GREEDY, METHOD_EXACT };

/* goal: an expert's whole demand to the first copy on its GPU of the smallest count. */
static void choose_greedily(struct moe_dispatch_solver *solver,
                            const struct moe_dispatch_view *view)
{
    const struct moe_hosts *hosts = &solver->hosts;
    int64_t *count = solver->gpu_load;
    memset(count, 0, view->shape.gpu_count * sizeof *count);
    memset(solver->goal, 0, view->copy_count * sizeof *solver->goal);
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        const uint32_t first = hosts->first_host[expert];
        if (hosts->first_host[expert + 1] - first == 1 && solver->load[expert] > 0) {
            count[hosts->gpu_of_host[first]]++;
            solver->goal[view->first_copy[expert]] = view->expert_total[expert];
        }
    }
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        const uint32_t first = hosts->first_host[expert];
        const uint32_t end = hosts->first_host[expert + 1];
        if (end - first == 1 || solver->load[expert] == 0) {
            continue;
        }
        uint32_t best = first;
        for (uint32_t host = first + 1; host < end; host++) {
            best = count[hosts->gpu_of_host[host]] < count[hosts->gpu_of_host[best]] ? host : best;
        }
        count[hosts->gpu_of_host[best]]++;
        solver->goal[hosts->first_copy_of_host[best]] = view->expert_total[expert];
    }
}

/* goal: the same, with the smallest possible largest count: a flow of ones, then of demands. */
static void choose_exactly(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view)
{
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        solver->load[expert] = view->expert_total[expert] > 0;
    }
    moe_split_begin(&solver->split, &solver->hosts, solver->load);
    (void) moe_split_level(&solver->split);
    for (uint32_t edge = 0; edge < solver->split.first_edge[solver->split.item_count]; edge++) {
        const uint16_t item = solver->split.edge_item[edge];
        solver->split.flow[edge] *= (int64_t) view->expert_total[solver->split.item_expert[item]];
    }
    moe_dispatch_solver_flow(solver, view);
}

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) err;
    struct moe_dispatch_solver *solver = state;
    moe_dispatch_solver_begin(solver, view, quota);
    if ((int) view->parameters[METHOD] == METHOD_EXACT) {
        choose_exactly(solver, view);
    } else {
        choose_greedily(solver, view);
    }
    moe_dispatch_solver_finish(solver, view, MOE_SPREAD_SHARE, quota);
    return MOE_OK;
}

static const char *const methods[] = { "greedy", "exact", NULL };

static const struct moe_policy_parameter parameters[] = {
    [METHOD] = { .name = "method",
                 .kind = MOE_PARAMETER_CHOICE,
                 .choices = methods,
                 .standard = METHOD_GREEDY,
                 .help = "greedy, as the paper runs it, or the optimum",
                 .source = "METRO 2512.09277" },
};

static const struct moe_dispatch_methods dispatch = { .init = moe_dispatch_solver_init,
                                                      .split = split };

MOE_POLICY_DEFINE(dispatch_metro) = {
    MOE_POLICY_HEADER,
    .name = "metro",
    .summary = "one copy of every active expert, chosen so that the GPU with the most active "
               "experts has as few as can be",
    .source = "METRO, arXiv 2512.09277; experts without a choice go first",
    .tie_rule = "experts in ascending order; of equal counts the lowest GPU",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

/* Capacity: what exceeds a stated capacity is not computed at all. Source: capacity-aware
 * inference (arXiv 2503.05066; github CASE-Lab-UMD/Capacity-Aware-MoE), token drop: an expert
 * takes at most factor times the mean load of an expert.
 *
 * of=expert is that; the kept tokens are shared evenly by the copies. of=gpu holds every GPU to
 * factor times the mean GPU load instead, after the tokens have been divided as by `lp`; its
 * copies then give up the same share. The paper drops the tokens of the lowest gate scores; here
 * only counts are known, so every source loses the same share. Dropped tokens are a loss of
 * quality: the run reports their share. */
#include "policies/solve/dispatch_solver.h"

#include <math.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum { FACTOR, OF };
enum { OF_EXPERT, OF_GPU };

static void cap_experts(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                        double factor)
{
    int64_t sum = 0;
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        sum += solver->load[expert];
    }
    const uint64_t most = (uint64_t) ceil(factor * (double) sum / view->shape.expert_count);
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        const uint32_t begin = view->first_copy[expert];
        const uint32_t copies = view->first_copy[expert + 1] - begin;
        const uint64_t total = view->expert_total[expert];
        const uint64_t kept = total < most ? total : most;
        for (uint32_t copy = 0; copy < copies; copy++) {
            solver->goal[begin + copy] = kept / copies + (copy < kept % copies ? 1 : 0);
        }
    }
}

static void cap_gpus(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                     double factor)
{
    struct moe_split *split = &solver->split;
    const uint32_t gpus = view->shape.gpu_count;
    int64_t sum = 0;
    moe_split_begin(split, &solver->hosts, solver->load);
    (void) moe_split_level(split);
    moe_dispatch_solver_flow(solver, view);
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        sum += split->load[gpu];
    }
    /* By running sums over the GPU's copies, so that each keeps exactly its capacity. */
    const int64_t most = (int64_t) ceil(factor * (double) sum / gpus);
    int64_t *seen = solver->gpu_load;
    memset(seen, 0, gpus * sizeof *seen);
    for (uint32_t copy = 0; copy < view->copy_count; copy++) {
        const uint32_t gpu = view->gpu_of_copy[copy];
        if (split->load[gpu] > most) {
            const int64_t load = split->load[gpu];
            const double inverse = 1.0 / (double) load;
            const int64_t before = seen[gpu];
            seen[gpu] += (int64_t) solver->goal[copy];
            solver->goal[copy] = (uint64_t) (moe_spread_portion(seen[gpu], most, load, inverse) -
                                             moe_spread_portion(before, most, load, inverse));
        }
    }
}

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) err;
    struct moe_dispatch_solver *solver = state;
    moe_dispatch_solver_begin(solver, view, quota);
    if ((int) view->parameters[OF] == OF_GPU) {
        cap_gpus(solver, view, view->parameters[FACTOR]);
    } else {
        cap_experts(solver, view, view->parameters[FACTOR]);
    }
    moe_dispatch_solver_finish(solver, view, MOE_SPREAD_SHARE, quota);
    return MOE_OK;
}

static const char *const of[] = { "expert", "gpu", NULL };

static const struct moe_policy_parameter parameters[] = {
    [FACTOR] = { .name = "factor",
                 .kind = MOE_PARAMETER_REAL,
                 .standard = 2.0,
                 .min = 1.0,
                 .max = 1000.0,
                 .help = "capacity in mean loads",
                 .source = "own; gamma of arXiv 2503.05066" },
    [OF] = { .name = "of",
             .kind = MOE_PARAMETER_CHOICE,
             .choices = of,
             .standard = OF_EXPERT,
             .help = "whose load is capped: each expert's, or each GPU's after levelling",
             .source = "arXiv 2503.05066 caps experts" },
};

static const struct moe_dispatch_methods dispatch = { .may_drop = true,
                                                      .init = moe_dispatch_solver_init,
                                                      .split = split };

MOE_POLICY_DEFINE(dispatch_capacity) = {
    MOE_POLICY_HEADER,
    .name = "capacity",
    .summary = "tokens above a stated capacity are dropped, the same share of every source's",
    .source = "capacity-aware inference, arXiv 2503.05066; drops by share, not by gate score",
    .tie_rule = "remainders by running sums over copies in order of slots, sources in order of GPU",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

/* HarMoEny (arXiv 2506.12417, algorithm 2; github sacs-epfl/HarMoEny): while some GPU is above the
 * mean, the heaviest gives the lightest the largest bucket (tokens of one source for one expert)
 * that is worth a move, as many tokens as the lightest has room for below the mean.
 *
 * Tokens start at the first copy of their expert. HarMoEny fetches a missing expert from the host's
 * memory. Where GPUs have temporary slots, so it is here, with all of an expert's tokens on the
 * heaviest GPU for a bucket, since which source's tokens go is settled afterwards. Without them the
 * receiving GPU must host the expert already, so the lightest means the lightest of those that
 * host an expert of the heaviest GPU and are below the mean. A GPU that can give nothing more is
 * left alone. */
#include "policies/solve/fetching.h"

#include <string.h>

#include "sim/base/no_malloc.h"

enum { BUCKET };

/* A move of one bucket: copies from and to, of one source. */
struct move {
    uint32_t from;
    uint32_t to;
    uint32_t source;
    uint32_t tokens; /* in the bucket; 0 when there is no move */
};

/* The lightest GPU below the mean that could take something from gpu, and the largest bucket
 * for it; only buckets of at least `least` tokens. Room below the mean is whole tokens, so nobody
 * is lifted above it, and what was relieved once stays so: the moves end. */
static struct move find_move(const struct moe_dispatch_solver *solver,
                             const struct moe_dispatch_view *view, const uint32_t *quota,
                             uint32_t gpu, int64_t sum, uint32_t least)
{
    const uint32_t gpus = view->shape.gpu_count;
    struct move best = { 0 };
    int64_t best_load = INT64_MAX;
    uint32_t best_gpu = gpus;
    for (uint32_t i = 0; i < solver->hosts.replicated_count; i++) {
        const uint32_t expert = solver->hosts.replicated[i];
        const uint32_t begin = view->first_copy[expert];
        const uint32_t end = view->first_copy[expert + 1];
        uint32_t from = begin;
        while (from < end && view->gpu_of_copy[from] != gpu) {
            from++;
        }
        if (from == end || solver->goal[from] < least) {
            continue;
        }
        uint32_t source = gpus; /* of the expert's largest bucket here */
        uint32_t tokens = least - 1;
        for (uint32_t s = 0; s < gpus; s++) {
            const uint32_t bucket = quota[(size_t) s * view->copy_count + from];
            source = bucket > tokens ? s : source;
            tokens = bucket > tokens ? bucket : tokens;
        }
        for (uint32_t to = begin; source < gpus && to < end; to++) {
            const uint32_t there = view->gpu_of_copy[to];
            const int64_t load = solver->gpu_load[there];
            if (there == gpu || (load + 1) * gpus > sum || load > best_load ||
                (load == best_load && there > best_gpu)) {
                continue;
            }
            if (there != best_gpu || tokens > best.tokens) {
                best = (struct move){ from, to, source, tokens };
                best_load = load;
                best_gpu = there;
            }
        }
    }
    return best;
}

static void balance(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                    uint32_t least, uint32_t *quota)
{
    const uint32_t gpus = view->shape.gpu_count;
    int64_t sum = 0;
    bool *stuck = solver->split.reached;
    memset(stuck, 0, gpus * sizeof *stuck);
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        sum += solver->gpu_load[gpu];
    }
    for (;;) {
        uint32_t heaviest = gpus;
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            if (!stuck[gpu] && solver->gpu_load[gpu] * gpus > sum &&
                (heaviest == gpus || solver->gpu_load[gpu] > solver->gpu_load[heaviest])) {
                heaviest = gpu;
            }
        }
        if (heaviest == gpus) {
            return;
        }
        const struct move move = find_move(solver, view, quota, heaviest, sum, least);
        if (move.tokens == 0) {
            stuck[heaviest] = true;
            continue;
        }
        const uint32_t target = view->gpu_of_copy[move.to];
        const int64_t room = sum / gpus - solver->gpu_load[target];
        const uint32_t tokens = move.tokens < room ? move.tokens : (uint32_t) room;
        uint32_t *row = quota + (size_t) move.source * view->copy_count;
        row[move.from] -= tokens;
        row[move.to] += tokens;
        solver->goal[move.from] -= tokens;
        solver->goal[move.to] += tokens;
        solver->gpu_load[heaviest] -= tokens;
        solver->gpu_load[target] += tokens;
    }
}

/* The lightest GPU that is below the mean and may take a bucket of gpu, and the largest of those:
 * left[expert] is what its home still has. gpus when there is none. */
static uint32_t find_bucket(const struct moe_dispatch_solver *solver, uint32_t gpu, int64_t sum,
                            int64_t least, uint32_t *expert)
{
    const struct moe_fetch_plan *plan = &solver->fetch;
    const uint32_t gpus = plan->gpu_count;
    uint32_t target = gpus;
    for (uint32_t e = 0; e < plan->expert_count; e++) {
        const int64_t left = (int64_t) solver->goal[e];
        for (uint32_t to = 0; plan->home[e] == gpu && left >= least && to < gpus; to++) {
            const int64_t load = solver->gpu_load[to];
            if (to == gpu || (load + 1) * gpus > sum || !moe_fetch_plan_may(plan, e, to) ||
                (target < gpus && load > solver->gpu_load[target])) {
                continue;
            }
            const bool lighter = target == gpus || load < solver->gpu_load[target];
            if (lighter || (to == target && left > (int64_t) solver->goal[*expert])) {
                target = to;
                *expert = e;
            }
        }
    }
    return target;
}

static void plan(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view)
{
    const uint32_t gpus = view->shape.gpu_count;
    bool *stuck = solver->split.reached; /* the flow's own room is free here */
    int64_t sum = 0;
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        solver->goal[expert] = view->expert_total[expert]; /* left at home, until split */
        sum += solver->load[expert];
    }
    memset(stuck, 0, gpus * sizeof *stuck);
    for (;;) {
        uint32_t heaviest = gpus;
        uint32_t expert = 0;
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            if (!stuck[gpu] && solver->gpu_load[gpu] * gpus > sum &&
                (heaviest == gpus || solver->gpu_load[gpu] > solver->gpu_load[heaviest])) {
                heaviest = gpu;
            }
        }
        if (heaviest == gpus) {
            break;
        }
        const uint32_t target =
            find_bucket(solver, heaviest, sum, (int64_t) view->parameters[BUCKET], &expert);
        stuck[heaviest] = target == gpus;
        if (target == gpus) {
            continue;
        }
        const int64_t room = sum / gpus - solver->gpu_load[target];
        const int64_t left = (int64_t) solver->goal[expert];
        const int64_t tokens = left < room ? left : room;
        moe_fetch_plan_give(&solver->fetch, expert, target, tokens);
        solver->goal[expert] -= (uint64_t) tokens;
        solver->gpu_load[heaviest] -= tokens;
        solver->gpu_load[target] += tokens;
    }
}

static void settle(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                   uint32_t *quota)
{
    moe_spread_first(view, quota);
    balance(solver, view, (uint32_t) view->parameters[BUCKET], quota);
}

static enum moe_spread_way spread(const double *parameters)
{
    (void) parameters;
    return MOE_SPREAD_GPU;
}

static const struct moe_fetching own = { plan, settle, spread };
MOE_FETCHING_DISPATCH(own);

static const struct moe_policy_parameter parameters[] = {
    [BUCKET] = { .name = "bucket",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 150.0,
                 .min = 1.0,
                 .max = 1e9,
                 .help = "the fewest tokens of one source for one expert that are worth moving",
                 .source = "HarMoEny's configurations (eq_tokens)" },
};

MOE_POLICY_DEFINE(dispatch_harmoeny) = {
    MOE_POLICY_HEADER,
    .name = "harmoeny",
    .summary = "the heaviest GPU gives its largest buckets to the lightest host until all are at "
               "the mean or nothing is worth a move",
    .source = "HarMoEny, arXiv 2506.12417, algorithm 2; weights move where there are "
              "temporary slots",
    .tie_rule = "of equal loads the lower GPU, of equal buckets the lower expert, then source",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

/* HarMoEny (arXiv 2506.12417, algorithm 2; github sacs-epfl/HarMoEny): while some GPU is above the
 * mean, the heaviest gives the lightest the largest bucket (tokens of one source for one expert)
 * that is worth a move, as many tokens as the lightest has room for below the mean.
 *
 * Tokens start at the first copy of their expert. Departures: HarMoEny fetches a missing expert
 * from the host's memory; here the receiving GPU must host the expert already, so the lightest
 * means the lightest of those that host an expert of the heaviest GPU and are below the mean. A
 * GPU that can give nothing more is left alone. */
#include "policies/solve/dispatch_solver.h"

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
 * for it; only buckets of at least `least` tokens. Room below the mean is whole tokens, so nobody is
 * lifted above it, and what was relieved once stays so: the moves end. */
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

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) err;
    struct moe_dispatch_solver *solver = state;
    moe_dispatch_solver_begin(solver, view, quota);
    moe_dispatch_solver_master(solver, view);
    balance(solver, view, (uint32_t) view->parameters[BUCKET], quota);
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [BUCKET] = { .name = "bucket",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 150.0,
                 .min = 1.0,
                 .max = 1e9,
                 .help = "the fewest tokens of one source for one expert that are worth moving",
                 .source = "HarMoEny's configurations (eq_tokens)" },
};

static const struct moe_dispatch_methods dispatch = { .init = moe_dispatch_solver_init,
                                                      .split = split };

MOE_POLICY_DEFINE(dispatch_harmoeny) = {
    MOE_POLICY_HEADER,
    .name = "harmoeny",
    .summary = "the heaviest GPU gives its largest buckets to the lightest host until all are at "
               "the mean or nothing is worth a move",
    .source = "HarMoEny, arXiv 2506.12417, algorithm 2; only to hosts of the expert",
    .tie_rule = "of equal loads the lower GPU, of equal buckets the lower expert, then source",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

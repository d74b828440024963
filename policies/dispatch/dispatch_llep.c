/* LLEP, least-loaded expert parallelism (arXiv 2601.17111; github
 * SalesforceAIResearch/LeastLoadedEP, llep/gpt_oss_llep.py): while the heaviest GPU is not much
 * above the mean, plain expert parallelism; otherwise experts by descending load keep on their
 * own GPU (that of the first copy) what fits below a cap and spill the rest, in chunks not too
 * small for a GEMM, to the GPUs that are least loaded.
 *
 * Effectively loaded: what is assigned to a GPU so far and what its own experts, not yet visited,
 * will bring. LLEP sends an expert's weights to any GPU: so it does here where GPUs have temporary
 * slots; without them a target must host the expert already. A rest that is too small or finds no
 * room goes to the least loaded GPU that may take it, its own included. */
#include "policies/solve/fetching.h"

#include <string.h>

#include "sim/base/no_malloc.h"

enum { TRIGGER, CAP, CHUNK };

/* The GPU with the least effective load that may take tokens of the expert; skip_home: another
 * than its home, UINT32_MAX when there is none. */
static uint32_t least_loaded(const struct moe_dispatch_solver *solver, uint32_t expert,
                             bool skip_home)
{
    const struct moe_fetch_plan *plan = &solver->fetch;
    uint32_t best = UINT32_MAX;
    for (uint32_t gpu = 0; gpu < plan->gpu_count; gpu++) {
        if (!(skip_home && gpu == plan->home[expert]) &&
            (best == UINT32_MAX || solver->gpu_load[gpu] < solver->gpu_load[best]) &&
            moe_fetch_plan_may(plan, expert, gpu)) {
            best = gpu;
        }
    }
    return best;
}

/* The expert's tokens above what its own GPU has room for go elsewhere. gpu_load counts both
 * what is assigned and what is pending, the expert's own tokens not among them. */
static void spill(struct moe_dispatch_solver *solver, uint32_t expert, int64_t cap, int64_t chunk)
{
    const uint32_t home = solver->fetch.home[expert];
    int64_t *load = solver->gpu_load;
    int64_t rest = solver->load[expert];
    const int64_t room = cap - load[home] > 0 ? cap - load[home] : 0;
    int64_t kept = rest < room ? rest : room;
    if (rest - kept < chunk || least_loaded(solver, expert, true) == UINT32_MAX) {
        kept = rest; /* not worth a GEMM, or nowhere to go */
    }
    load[home] += kept;
    rest -= kept;
    while (rest > 0) {
        uint32_t gpu = least_loaded(solver, expert, true);
        const int64_t gap = cap - load[gpu];
        int64_t piece = rest < gap ? rest : gap;
        if (piece < chunk) { /* no GPU has room for a chunk, or the rest is less than one */
            gpu = least_loaded(solver, expert, false);
            piece = rest;
        }
        if (gpu != home) {
            moe_fetch_plan_give(&solver->fetch, expert, gpu, piece);
        }
        load[gpu] += piece;
        rest -= piece;
    }
}

/* For what GPUs hold and can fetch. */
static void plan(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view)
{
    const uint32_t gpus = view->shape.gpu_count;
    uint16_t *order = solver->order;
    uint32_t count = 0;
    int64_t sum = 0;
    int64_t most = 0;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        sum += solver->gpu_load[gpu];
        most = solver->gpu_load[gpu] > most ? solver->gpu_load[gpu] : most;
    }
    const double mean = (double) sum / gpus;
    if ((double) most < view->parameters[TRIGGER] * mean) {
        return;
    }
    const int64_t cap = (int64_t) (view->parameters[CAP] * mean);
    const int64_t chunk = (int64_t) view->parameters[CHUNK];
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        const uint32_t copies = view->first_copy[expert + 1] - view->first_copy[expert];
        if (copies < 2 && (view->fetch_limit == 0 || solver->load[expert] < chunk)) {
            continue; /* it cannot or would not leave */
        }
        uint32_t hole = count++;
        for (; hole > 0 && solver->load[order[hole - 1]] < solver->load[expert]; hole--) {
            order[hole] = order[hole - 1];
        }
        order[hole] = (uint16_t) expert;
    }
    for (uint32_t i = 0; i < count; i++) {
        solver->gpu_load[solver->fetch.home[order[i]]] -= solver->load[order[i]];
        spill(solver, order[i], cap, chunk);
    }
}

static enum moe_spread_way spread(const double *parameters)
{
    (void) parameters;
    return MOE_SPREAD_GPU;
}

static void settle(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                   uint32_t *quota)
{
    moe_fetch_plan_begin(&solver->fetch, view);
    plan(solver, view);
    moe_fetch_plan_goals(&solver->fetch, view, solver->goal);
    moe_dispatch_solver_finish(solver, view, spread(view->parameters), quota);
}

static const struct moe_fetching own = { plan, settle, spread };
MOE_FETCHING_DISPATCH(own);

static const struct moe_policy_parameter parameters[] = {
    [TRIGGER] = { .name = "trigger",
                  .kind = MOE_PARAMETER_REAL,
                  .standard = 1.3,
                  .min = 1.0,
                  .max = 100.0,
                  .help = "max / mean GPU load below which every token goes to its first copy",
                  .source = "LLEP 2601.17111 (lambda)" },
    [CAP] = { .name = "cap",
              .kind = MOE_PARAMETER_REAL,
              .standard = 1.1,
              .min = 1.0,
              .max = 100.0,
              .help = "what a GPU may take, in mean GPU loads",
              .source = "LeastLoadedEP llep/gpt_oss_llep.py (alpha)" },
    [CHUNK] = { .name = "chunk",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 1024.0,
                .min = 1.0,
                .max = 1e9,
                .help = "the fewest tokens worth sending to another GPU",
                .source = "LeastLoadedEP llep/gpt_oss_llep.py (min_tokens_per_gemm)" },
};

MOE_POLICY_DEFINE(dispatch_llep) = {
    MOE_POLICY_HEADER,
    .name = "llep",
    .summary = "first copies keep what fits below a cap, the rest spills in chunks to the least "
               "loaded hosts; nothing moves while GPUs are nearly level",
    .source = "LLEP, arXiv 2601.17111, SalesforceAIResearch/LeastLoadedEP; weights move where "
              "there are temporary slots",
    .tie_rule = "of equal loads the lower expert or GPU",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

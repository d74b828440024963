/* LLEP, least-loaded expert parallelism (arXiv 2601.17111; github
 * SalesforceAIResearch/LeastLoadedEP, llep/gpt_oss_llep.py): while the heaviest GPU is not much
 * above the mean, plain expert parallelism; otherwise experts by descending load keep on their
 * own GPU (that of the first copy) what fits below a cap and spill the rest, in chunks not too
 * small for a GEMM, to the GPUs that are least loaded.
 *
 * Effectively loaded: what is assigned to a GPU so far and what its own experts, not yet visited,
 * will bring. Departures: LLEP sends an expert's weights to any GPU; here a target must host the
 * expert already. A rest that is too small or finds no room goes to the least loaded host, its
 * own GPU included, which keeps the program's last resort within the hosts. */
#include "policies/solve/dispatch_solver.h"

#include <string.h>

#include "sim/base/no_malloc.h"

enum { TRIGGER, CAP, CHUNK };

/* Host of the expert with the least effective load; skip: the first host is left out. */
static uint32_t least_loaded(const struct moe_dispatch_solver *solver, uint32_t expert, bool skip)
{
    const struct moe_hosts *hosts = &solver->hosts;
    uint32_t best = hosts->first_host[expert] + (skip ? 1 : 0);
    for (uint32_t host = best + 1; host < hosts->first_host[expert + 1]; host++) {
        best =
            solver->gpu_load[hosts->gpu_of_host[host]] < solver->gpu_load[hosts->gpu_of_host[best]]
                ? host
                : best;
    }
    return best;
}

/* The expert's tokens above what its own GPU has room for go elsewhere. gpu_load counts both
 * what is assigned and what is pending, the expert's own tokens not among them. */
static void spill(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                  uint32_t expert, int64_t cap, int64_t chunk)
{
    const struct moe_hosts *hosts = &solver->hosts;
    const uint32_t begin = view->first_copy[expert];
    const uint32_t own = hosts->first_host[expert];
    int64_t *load = solver->gpu_load;
    int64_t *own_load = &load[hosts->gpu_of_host[own]];
    int64_t rest = solver->load[expert];
    const int64_t room = cap - *own_load > 0 ? cap - *own_load : 0;
    int64_t kept = rest < room ? rest : room;
    if (hosts->first_host[expert + 1] - own == 1 || rest - kept < chunk) {
        kept = rest; /* nowhere to go, or not worth a GEMM */
    }
    solver->goal[begin] = (uint64_t) kept;
    *own_load += kept;
    rest -= kept;
    while (rest > 0) {
        uint32_t host = least_loaded(solver, expert, true);
        const int64_t gap = cap - load[hosts->gpu_of_host[host]];
        int64_t piece = rest < gap ? rest : gap;
        if (piece < chunk) { /* no host has room for a chunk, or the rest is less than one */
            host = least_loaded(solver, expert, false);
            piece = rest;
        }
        solver->goal[hosts->first_copy_of_host[host]] += (uint64_t) piece;
        load[hosts->gpu_of_host[host]] += piece;
        rest -= piece;
    }
}

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) err;
    struct moe_dispatch_solver *solver = state;
    const uint32_t gpus = view->shape.gpu_count;
    int64_t sum = 0;
    int64_t most = 0;
    moe_dispatch_solver_begin(solver, view, quota);
    moe_dispatch_solver_master(solver, view);
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        sum += solver->gpu_load[gpu];
        most = solver->gpu_load[gpu] > most ? solver->gpu_load[gpu] : most;
    }
    const double mean = (double) sum / gpus;
    if ((double) most < view->parameters[TRIGGER] * mean) {
        moe_dispatch_solver_finish(solver, view, MOE_SPREAD_GPU, quota);
        return MOE_OK;
    }
    const int64_t cap = (int64_t) (view->parameters[CAP] * mean);
    const int64_t chunk = (int64_t) view->parameters[CHUNK];
    uint16_t *order = solver->order;
    uint32_t count = 0;
    for (uint32_t i = 0; i < solver->hosts.replicated_count; i++) {
        const uint16_t expert = solver->hosts.replicated[i];
        uint32_t hole = count++;
        for (; hole > 0 && solver->load[order[hole - 1]] < solver->load[expert]; hole--) {
            order[hole] = order[hole - 1];
        }
        order[hole] = expert;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t expert = order[i];
        solver->gpu_load[view->gpu_of_copy[view->first_copy[expert]]] -= solver->load[expert];
        spill(solver, view, expert, cap, chunk);
    }
    moe_dispatch_solver_finish(solver, view, MOE_SPREAD_GPU, quota);
    return MOE_OK;
}

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

static const struct moe_dispatch_methods dispatch = { .init = moe_dispatch_solver_init,
                                                      .split = split };

MOE_POLICY_DEFINE(dispatch_llep) = {
    MOE_POLICY_HEADER,
    .name = "llep",
    .summary = "first copies keep what fits below a cap, the rest spills in chunks to the least "
               "loaded hosts; nothing moves while GPUs are nearly level",
    .source = "LLEP, arXiv 2601.17111, SalesforceAIResearch/LeastLoadedEP; only to hosts of the "
              "expert",
    .tie_rule = "of equal loads the lower expert or GPU",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

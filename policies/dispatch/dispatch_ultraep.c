/* UltraEP (arXiv 2606.04101; github Dots-Infra/UltraEP v1.0.0, csrc/kernels/placement.cu, MIT):
 * quotas that bring every GPU below a threshold. The master of an expert (its first copy) starts
 * with all its tokens; GPUs above the threshold t, heaviest first, export tokens of their
 * experts, heaviest first, to the host with the most slack below t, in pieces of at least a
 * floor; a master keeps at least one token. Then tokens go first to a copy on their own GPU.
 *
 * UltraEP also chooses which copies its redundant slots hold in that step: so it does here where
 * GPUs have temporary slots; without them the placement has chosen, and a target must host the
 * expert already.
 *
 * Departures: its four-way parallel search for the smallest feasible t is a bisection (feasibility
 * is not strictly monotone, so either may miss a smaller one). Its pieces are at least 1024 tokens,
 * because an export may cost the transfer of an expert's weights; here that is min_tokens, whose
 * standard of 1 suits copies that lie in place. What its largest remainders round, running sums
 * round (spread.h). When no t up to the heaviest GPU's load works, everything stays with the
 * masters. */
#include "policies/solve/fetching.h"

#include <math.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum { FAST, THRESHOLD, MARGIN, MIN_TOKENS, WAY };
enum { FAST_TRIES = 3 };

/* GPUs, heaviest first; then the experts in of[expert_count], or all for NULL, heaviest first. */
static void sort_by_load(const struct moe_dispatch_solver *solver, uint16_t *gpu_order,
                         uint16_t *expert_order, uint32_t gpus, uint32_t expert_count,
                         const uint16_t *of)
{
    for (uint32_t i = 0; i < gpus; i++) {
        uint32_t hole = i;
        for (; hole > 0 && solver->gpu_load[gpu_order[hole - 1]] < solver->gpu_load[i]; hole--) {
            gpu_order[hole] = gpu_order[hole - 1];
        }
        gpu_order[hole] = (uint16_t) i;
    }
    for (uint32_t i = 0; i < expert_count; i++) {
        const uint16_t expert = of == NULL ? (uint16_t) i : of[i];
        uint32_t hole = i;
        for (; hole > 0 && solver->load[expert_order[hole - 1]] < solver->load[expert]; hole--) {
            expert_order[hole] = expert_order[hole - 1];
        }
        expert_order[hole] = expert;
    }
}

/* The other host of expert with the most slack below t; the master's own when none has any. */
static uint32_t slackest(const struct moe_dispatch_solver *solver, uint32_t expert, int64_t t,
                         uint32_t *open)
{
    const struct moe_hosts *hosts = &solver->hosts;
    const uint32_t master = hosts->first_host[expert];
    uint32_t best = master;
    int64_t most = 0;
    *open = 0;
    for (uint32_t host = master + 1; host < hosts->first_host[expert + 1]; host++) {
        const int64_t slack = t - solver->split.load[hosts->gpu_of_host[host]];
        *open += slack > 0;
        if (slack > most) {
            most = slack;
            best = host;
        }
    }
    return best;
}

/* Whether every GPU comes down to t; goal[] then says how. floor < 0: the fast mode's. */
static bool feasible(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                     int64_t t, int64_t floor)
{
    const uint32_t gpus = view->shape.gpu_count;
    const uint16_t *experts = solver->order + gpus;
    int64_t *load = solver->split.load;
    memcpy(load, solver->gpu_load, gpus * sizeof *load);
    for (uint32_t i = 0; i < solver->hosts.replicated_count; i++) {
        const uint32_t expert = solver->hosts.replicated[i];
        const uint32_t begin = view->first_copy[expert];
        const size_t copies = view->first_copy[expert + 1] - begin;
        memset(solver->goal + begin, 0, copies * sizeof *solver->goal);
        solver->goal[begin] = view->expert_total[expert];
    }
    for (uint32_t i = 0; i < gpus; i++) {
        const uint32_t gpu = solver->order[i];
        if (load[gpu] <= t) {
            continue;
        }
        for (uint32_t j = 0; j < solver->hosts.replicated_count && load[gpu] > t; j++) {
            const uint32_t expert = experts[j];
            const uint32_t master = view->first_copy[expert];
            while (view->gpu_of_copy[master] == gpu && load[gpu] > t && solver->goal[master] > 1) {
                uint32_t open;
                const uint32_t host = slackest(solver, expert, t, &open);
                if (open == 0) {
                    break;
                }
                const int64_t need = load[gpu] - t;
                const int64_t slack = t - load[solver->hosts.gpu_of_host[host]];
                const int64_t avail = (int64_t) solver->goal[master] - 1;
                const int64_t least = floor < 0 ? (need + open - 1) / open : floor;
                int64_t piece = need < slack ? need : slack;
                piece = piece < avail ? piece : avail;
                if (piece < least) {
                    break;
                }
                solver->goal[master] -= (uint64_t) piece;
                solver->goal[solver->hosts.first_copy_of_host[host]] += (uint64_t) piece;
                load[gpu] -= piece;
                load[solver->hosts.gpu_of_host[host]] += piece;
            }
        }
        if (load[gpu] > t) {
            return false;
        }
    }
    return true;
}

/* As slackest, of the GPUs that hold the expert or can fetch it. */
static uint32_t slackest_of_all(const struct moe_dispatch_solver *solver, uint32_t expert,
                                int64_t t, uint32_t *open)
{
    const struct moe_fetch_plan *plan = &solver->fetch;
    uint32_t best = plan->home[expert];
    int64_t most = 0;
    *open = 0;
    for (uint32_t gpu = 0; gpu < plan->gpu_count; gpu++) {
        const int64_t slack = t - solver->split.load[gpu];
        if (slack > 0 && gpu != plan->home[expert] && moe_fetch_plan_may(plan, expert, gpu)) {
            *open += 1;
            best = slack > most ? gpu : best;
            most = slack > most ? slack : most;
        }
    }
    return best;
}

/* The expert's home comes down towards t; left is what it still has of the expert. */
static void export_fetching(struct moe_dispatch_solver *solver, uint32_t expert, int64_t t,
                            int64_t floor)
{
    int64_t *load = solver->split.load;
    const uint32_t home = solver->fetch.home[expert];
    int64_t left = solver->load[expert];
    while (load[home] > t && left > 1) {
        uint32_t open;
        const uint32_t gpu = slackest_of_all(solver, expert, t, &open);
        if (open == 0) {
            return;
        }
        const int64_t need = load[home] - t;
        const int64_t slack = t - load[gpu];
        const int64_t least = floor < 0 ? (need + open - 1) / open : floor;
        int64_t piece = need < slack ? need : slack;
        piece = piece < left - 1 ? piece : left - 1;
        if (piece < least) {
            return;
        }
        moe_fetch_plan_give(&solver->fetch, expert, gpu, piece);
        load[home] -= piece;
        load[gpu] += piece;
        left -= piece;
    }
}

/* As feasible, where weights may move; the fetch plan then says how. */
static bool feasible_fetching(struct moe_dispatch_solver *solver,
                              const struct moe_dispatch_view *view, int64_t t, int64_t floor)
{
    const uint32_t gpus = view->shape.gpu_count;
    const uint16_t *experts = solver->order + gpus;
    int64_t *load = solver->split.load;
    moe_fetch_plan_again(&solver->fetch);
    memcpy(load, solver->gpu_load, gpus * sizeof *load);
    for (uint32_t i = 0; i < gpus; i++) {
        const uint32_t gpu = solver->order[i];
        for (uint32_t j = 0; j < view->shape.expert_count && load[gpu] > t; j++) {
            if (solver->fetch.home[experts[j]] == gpu) {
                export_fetching(solver, experts[j], t, floor);
            }
        }
        if (load[gpu] > t) {
            return false;
        }
    }
    return true;
}

typedef bool feasible_at(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                         int64_t t, int64_t floor);

static void solve(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                  feasible_at *reaches)
{
    const uint32_t gpus = view->shape.gpu_count;
    const double *value = view->parameters;
    int64_t sum = 0;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        sum += solver->gpu_load[gpu];
    }
    int64_t high = solver->gpu_load[solver->order[0]];
    int64_t low = (int64_t) ceil((double) sum / gpus * value[THRESHOLD]);
    if (value[FAST] != 0.0) {
        const int64_t step = (high + 99) / 100 > 1 ? (high + 99) / 100 : 1;
        int64_t t = (int64_t) ceil((double) low * (1.0 + value[MARGIN]));
        for (int i = 0; i < FAST_TRIES; i++, t += step) {
            if (reaches(solver, view, t, -1)) {
                return;
            }
        }
        low = t - step;
    }
    const int64_t floor = (int64_t) value[MIN_TOKENS];
    if (low < high && reaches(solver, view, low, floor)) {
        return;
    }
    while (high - low > 1) { /* low fails; high, where nothing has to move, does not */
        const int64_t middle = low + (high - low) / 2;
        if (reaches(solver, view, middle, floor)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    (void) reaches(solver, view, high, floor);
}

static void plan(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view)
{
    const uint32_t gpus = view->shape.gpu_count;
    sort_by_load(solver, solver->order, solver->order + gpus, gpus, view->shape.expert_count, NULL);
    solve(solver, view, feasible_fetching);
}

static enum moe_spread_way spread(const double *parameters)
{
    return (enum moe_spread_way) parameters[WAY];
}

static void settle(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view,
                   uint32_t *quota)
{
    const uint32_t gpus = view->shape.gpu_count;
    sort_by_load(solver, solver->order, solver->order + gpus, gpus, solver->hosts.replicated_count,
                 solver->hosts.replicated);
    solve(solver, view, feasible);
    moe_dispatch_solver_finish(solver, view, spread(view->parameters), quota);
}

static const struct moe_fetching own = { plan, settle, spread };
MOE_FETCHING_DISPATCH(own);

static const struct moe_policy_parameter parameters[] = {
    [FAST] = { .name = "fast",
               .kind = MOE_PARAMETER_FLAG,
               .standard = 1.0,
               .help = "three tries just above the mean, pieces as even as the hosts allow, before "
                       "the search",
               .source = "UltraEP v1.0.0" },
    [THRESHOLD] = { .name = "threshold",
                    .kind = MOE_PARAMETER_REAL,
                    .standard = 1.0,
                    .min = 1.0,
                    .max = 10.0,
                    .help = "the lowest load to aim at, in mean GPU loads",
                    .source = "UltraEP v1.0.0" },
    [MARGIN] = { .name = "margin",
                 .kind = MOE_PARAMETER_REAL,
                 .standard = 0.01,
                 .min = 0.0,
                 .max = 1.0,
                 .help = "how far above that the first fast try lies",
                 .source = "UltraEP v1.0.0 (eps)" },
    [MIN_TOKENS] = { .name = "min_tokens",
                     .kind = MOE_PARAMETER_WHOLE,
                     .standard = 1.0,
                     .min = 1.0,
                     .max = 1e9,
                     .help = "the smallest piece that the search exports",
                     .source = "own; UltraEP v1.0.0 (min_tokens_per_replica): 1024" },
    [WAY] = { .name = "spread",
              .kind = MOE_PARAMETER_CHOICE,
              .choices = moe_spread_ways,
              .standard = MOE_SPREAD_GPU,
              .help = "which source's tokens a copy takes: the same share of each, or first those "
                      "of its own GPU, or of its GPU and node",
              .source = "UltraEP v1.0.0 (reroute)" },
};

MOE_POLICY_DEFINE(dispatch_ultraep) = {
    MOE_POLICY_HEADER,
    .name = "ultraep",
    .summary = "GPUs above a threshold export tokens from master copies to the hosts with most "
               "slack; own tokens stay at home first",
    .source = "UltraEP, arXiv 2606.04101, Dots-Infra/UltraEP v1.0.0; copies are the placement's "
              "and, where there are temporary slots, fetched ones",
    .tie_rule = "of equal loads the lower GPU or expert, of equal slacks the lower GPU",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

/* UltraEP (arXiv 2606.04101; github Dots-Infra/UltraEP v1.0.0, csrc/kernels/placement.cu, MIT):
 * quotas that bring every GPU below a threshold. The master of an expert (its first copy) starts
 * with all its tokens; GPUs above the threshold t, heaviest first, export tokens of their
 * experts, heaviest first, to the host with the most slack below t, in pieces of at least a
 * floor; a master keeps at least one token. Then tokens go first to a copy on their own GPU.
 *
 * Departures: UltraEP also chooses which copies its redundant slots hold in that step; here the
 * placement has chosen, so a target must host the expert already. Its four-way parallel search
 * for the smallest feasible t is a bisection (feasibility is not strictly monotone, so either may
 * miss a smaller one). Its pieces are at least 1024 tokens there, because an export costs the
 * transfer of an expert's weights; here they lie in place already, so the standard is 1. What its largest remainders round, running sums round (spread.h).
 * When no t up to the heaviest GPU's load works, everything stays with the masters. */
#include "policies/solve/dispatch_solver.h"

#include <math.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum { FAST, THRESHOLD, MARGIN, MIN_TOKENS, WAY };
enum { FAST_TRIES = 3 };

/* GPUs from order[0], heaviest first; then the replicated experts, heaviest first. */
static void sort_by_load(const struct moe_dispatch_solver *solver, uint16_t *gpu_order,
                         uint16_t *expert_order, uint32_t gpus)
{
    for (uint32_t i = 0; i < gpus; i++) {
        uint32_t hole = i;
        for (; hole > 0 && solver->gpu_load[gpu_order[hole - 1]] < solver->gpu_load[i]; hole--) {
            gpu_order[hole] = gpu_order[hole - 1];
        }
        gpu_order[hole] = (uint16_t) i;
    }
    for (uint32_t i = 0; i < solver->hosts.replicated_count; i++) {
        const uint16_t expert = solver->hosts.replicated[i];
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

static void solve(struct moe_dispatch_solver *solver, const struct moe_dispatch_view *view)
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
            if (feasible(solver, view, t, -1)) {
                return;
            }
        }
        low = t - step;
    }
    const int64_t floor = (int64_t) value[MIN_TOKENS];
    if (low < high && feasible(solver, view, low, floor)) {
        return;
    }
    while (high - low > 1) { /* low fails; high, where nothing has to move, does not */
        const int64_t middle = low + (high - low) / 2;
        if (feasible(solver, view, middle, floor)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    (void) feasible(solver, view, high, floor);
}

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) err;
    struct moe_dispatch_solver *solver = state;
    moe_dispatch_solver_begin(solver, view, quota);
    moe_dispatch_solver_master(solver, view);
    sort_by_load(solver, solver->order, solver->order + view->shape.gpu_count,
                 view->shape.gpu_count);
    solve(solver, view);
    moe_dispatch_solver_finish(solver, view, (enum moe_spread_way) view->parameters[WAY], quota);
    return MOE_OK;
}

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

static const struct moe_dispatch_methods dispatch = { .init = moe_dispatch_solver_init,
                                                      .split = split };

MOE_POLICY_DEFINE(dispatch_ultraep) = {
    MOE_POLICY_HEADER,
    .name = "ultraep",
    .summary = "GPUs above a threshold export tokens from master copies to the hosts with most "
               "slack; own tokens stay at home first",
    .source = "UltraEP, arXiv 2606.04101, Dots-Infra/UltraEP v1.0.0; copies are the placement's",
    .tie_rule = "of equal loads the lower GPU or expert, of equal slacks the lower GPU",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

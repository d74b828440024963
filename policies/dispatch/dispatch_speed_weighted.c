/* Speed weighted: the tokens of every replicated expert are divided so that the GPU that finishes
 * last finishes as early as the copies allow, by each GPU's own finish-time curve. Source: own;
 * what LPLB does for equal GPUs, with ViBE's measure (arXiv 2606.00735, finish time f_g).
 *
 * A deadline T lets GPU g take as many tokens as its curve does by then; whether the tokens fit is
 * a flow (policies/solve/split.h). When they do not, the flow names GPUs whose tokens have nowhere
 * else to go, and T rises to where just those fit: a true lower bound, so the last T is the optimum
 * but for the bisection's last bit (2^-40 of T). */
#include "policies/solve/dispatch_solver.h"

#include <assert.h>
#include <float.h>
#include <math.h>

#include "sim/base/no_malloc.h"

enum { WAY };
enum { BISECTIONS = 48 };

/* The most whole tokens, at most limit, that a GPU finishes by deadline_ns. */
static int64_t tokens_by(const struct moe_policy_speed *speed, uint32_t gpu, double deadline_ns,
                         int64_t limit)
{
    const double *time = speed->time_ns + (size_t) gpu * speed->point_count;
    const double *tokens = speed->tokens;
    uint32_t point = 1; /* the curve's piece from point-1 to point */
    if (deadline_ns < time[0]) {
        return 0;
    }
    while (point + 1 < speed->point_count && time[point] <= deadline_ns) {
        point++;
    }
    const double slope = (time[point] - time[point - 1]) / (tokens[point] - tokens[point - 1]);
    const double more = deadline_ns - time[point - 1];
    if (more >= slope * ((double) limit - tokens[point - 1])) {
        return limit;
    }
    return (int64_t) floor(tokens[point - 1] + more / slope);
}

/* The least deadline, from one that is too early, by which the GPUs that the flow reached take
 * all that they hold together. */
static double next_deadline(const struct moe_dispatch_solver *solver,
                            const struct moe_policy_speed *speed, double early)
{
    const struct moe_split *split = &solver->split;
    int64_t held = 0;
    for (uint32_t gpu = 0; gpu < split->gpu_count; gpu++) {
        held += split->reached[gpu] ? split->load[gpu] : 0;
    }
    double late = early;
    for (uint32_t gpu = 0; gpu < split->gpu_count; gpu++) { /* each its own: surely enough */
        const double time = moe_policy_speed_ns(speed, gpu, (double) split->load[gpu]);
        late = split->reached[gpu] && time > late ? time : late;
    }
    late = late * (1.0 + 4.0 * DBL_EPSILON); /* past what the inverse's rounding takes away */
    for (int i = 0; i < BISECTIONS && late - early > early * 0x1p-40; i++) {
        const double middle = early + (late - early) / 2;
        int64_t fits = 0;
        for (uint32_t gpu = 0; gpu < split->gpu_count && fits < held; gpu++) {
            fits += split->reached[gpu] ? tokens_by(speed, gpu, middle, held) : 0;
        }
        if (fits >= held) {
            late = middle;
        } else {
            early = middle;
        }
    }
    return late;
}

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) err;
    struct moe_dispatch_solver *solver = state;
    struct moe_split *split = &solver->split;
    const uint32_t gpus = view->shape.gpu_count;
    int64_t sum = 0;
    double deadline = 0.0;
    moe_dispatch_solver_begin(solver, view);
    moe_split_begin(split, &solver->hosts, solver->load);
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        sum += solver->load[expert];
    }
    for (;;) {
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            split->capacity[gpu] = tokens_by(view->speed, gpu, deadline, sum);
        }
        if (moe_split_fit(split)) {
            break;
        }
        deadline = next_deadline(solver, view->speed, deadline);
    }
    moe_dispatch_solver_flow(solver, view);
    moe_dispatch_solver_finish(solver, view, (enum moe_spread_way) view->parameters[WAY], quota);
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [WAY] = { .name = "spread",
              .kind = MOE_PARAMETER_CHOICE,
              .choices = moe_spread_ways,
              .standard = MOE_SPREAD_SHARE,
              .help = "which source's tokens a copy takes: the same share of each, or first those "
                      "of its own GPU, or of its GPU and node",
              .source = "own" },
};

static const struct moe_dispatch_methods dispatch = { .init = moe_dispatch_solver_init,
                                                      .split = split };

MOE_POLICY_DEFINE(dispatch_speed_weighted) = {
    MOE_POLICY_HEADER,
    .name = "speed_weighted",
    .summary = "the earliest finish of the GPU that finishes last, by each GPU's own curve",
    .source = "own: LPLB's program over ViBE's finish times (arXiv 2606.00735)",
    .tie_rule = "as for lp",
    .needs = MOE_POLICY_NEEDS_GPU_SPEED,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

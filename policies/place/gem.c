/* GEM: one copy of every expert, placed by what each GPU really takes for it.
 *
 * An expert whose load varies little over the window's steps (standard deviation at most
 * `consistent` times its mean) is consistent, any other is temporal. Consistent experts come
 * first, heaviest first, each onto the GPU that would finish it earliest by its mean load.
 * Temporal ones follow, likewise in order of their mean, each onto the GPU with which the
 * slowest GPU of a step, on average over the steps, finishes earliest. Then experts change
 * places with one of the GPU that is slowest in most time, while that average falls.
 * All GPUs get equally many experts (up to one where they do not divide); spare slots stay
 * empty. Finish times are those of view->speed, so a fast GPU gets more tokens.
 *
 * The notes on the paper have the two classes, the profile per GPU and that it is static, with
 * one GPU per expert; thresholds, orders and the exchanges are ours. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/greedy.h"
#include "sim/base/no_malloc.h"

enum { CONSISTENT, STEPS, EXCHANGES };

static const struct moe_policy_parameter parameters[] = {
    [CONSISTENT] = { .name = "consistent",
                     .kind = MOE_PARAMETER_REAL,
                     .standard = 0.5,
                     .max = 1e6,
                     .help = "standard deviation over mean up to which an expert is consistent",
                     .source = "own; the threshold was not found" },
    [STEPS] = { .name = "steps",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 32,
                .min = 1,
                .max = 4096,
                .help = "the window is averaged down to so many steps",
                .source = "own" },
    [EXCHANGES] = { .name = "exchanges",
                    .kind = MOE_PARAMETER_WHOLE,
                    .standard = 64,
                    .max = 65534,
                    .help = "most exchanges per layer",
                    .source = "own" },
};

/* The three slowest GPUs of a step, so that the slowest of all but two is known. */
struct slowest {
    uint32_t gpu[3];
    double time[3];
};

struct gem {
    const struct moe_place_view *view;
    uint32_t expert_count;
    uint32_t gpu_count;
    uint32_t share; /* experts per GPU */
    uint32_t step_count;
    double *load;            /* [step][expert] mean of the step's batches */
    double *mean;            /* [expert] */
    uint8_t *temporal;       /* [expert] */
    uint32_t *order;         /* [expert] */
    uint32_t *spare;         /* [expert] */
    uint32_t *gpu_of;        /* [expert] */
    uint32_t *fill;          /* [gpu] */
    double *gpu_mean;        /* [gpu] */
    double *gpu_load;        /* [gpu][step] */
    struct slowest *slowest; /* [step] */
};

static enum moe_status set_up(struct gem *g, const struct moe_place_view *view,
                              struct moe_arena *scratch, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint32_t steps = (uint32_t) view->parameters[STEPS];
    const size_t experts = shape->expert_count;
    const size_t gpus = shape->gpu_count;
    *g = (struct gem){
        .view = view,
        .expert_count = shape->expert_count,
        .gpu_count = shape->gpu_count,
        .share = (shape->expert_count + shape->gpu_count - 1) / shape->gpu_count,
        .step_count = steps < view->batch_count ? steps : view->batch_count,
    };
    g->load = MOE_NEW(scratch, double, g->step_count *experts);
    g->mean = MOE_NEW(scratch, double, experts);
    g->temporal = MOE_NEW(scratch, uint8_t, experts);
    g->order = MOE_NEW(scratch, uint32_t, experts);
    g->spare = MOE_NEW(scratch, uint32_t, experts);
    g->gpu_of = MOE_NEW(scratch, uint32_t, experts);
    g->fill = MOE_NEW(scratch, uint32_t, gpus);
    g->gpu_mean = MOE_NEW(scratch, double, gpus);
    g->gpu_load = MOE_NEW(scratch, double, gpus * g->step_count);
    g->slowest = MOE_NEW(scratch, struct slowest, g->step_count);
    if (g->load == NULL || g->mean == NULL || g->temporal == NULL || g->order == NULL ||
        g->spare == NULL || g->gpu_of == NULL || g->fill == NULL || g->gpu_mean == NULL ||
        g->gpu_load == NULL || g->slowest == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %u steps of %u experts", g->step_count,
                        shape->expert_count);
    }
    return MOE_OK;
}

/* The batches, cut evenly into the steps. */
static void read_layer(struct gem *g, uint32_t layer)
{
    const size_t experts = g->expert_count;
    memset(g->mean, 0, experts * sizeof *g->mean);
    memset(g->load, 0, g->step_count * experts * sizeof *g->load);
    for (uint32_t step = 0; step < g->step_count; step++) {
        const uint64_t batches = g->view->batch_count;
        const uint32_t begin = (uint32_t) (step * batches / g->step_count);
        const uint32_t end = (uint32_t) ((step + 1) * batches / g->step_count);
        for (uint32_t batch = begin; batch < end; batch++) {
            const float *row = moe_place_view_batch(g->view, batch) + layer * experts;
            for (size_t expert = 0; expert < experts; expert++) {
                g->load[step * experts + expert] += (double) row[expert] / (end - begin);
            }
        }
        for (size_t expert = 0; expert < experts; expert++) {
            g->mean[expert] += g->load[step * experts + expert] / g->step_count;
        }
    }
    for (size_t expert = 0; expert < experts; expert++) {
        double variance = 0.0;
        for (uint32_t step = 0; step < g->step_count; step++) {
            const double off = g->load[step * experts + expert] - g->mean[expert];
            variance += off * off / g->step_count;
        }
        g->temporal[expert] = sqrt(variance) > g->view->parameters[CONSISTENT] * g->mean[expert];
    }
}

static double finish(const struct gem *g, uint32_t gpu, double tokens)
{
    return moe_policy_speed_ns(g->view->speed, gpu, tokens > 0.0 ? tokens : 0.0);
}

static double load_of(const struct gem *g, uint32_t expert, uint32_t step)
{
    return g->load[(size_t) step * g->expert_count + expert];
}

static void find_slowest(struct gem *g)
{
    for (uint32_t step = 0; step < g->step_count; step++) {
        struct slowest found = { { UINT32_MAX, UINT32_MAX, UINT32_MAX }, { 0.0, 0.0, 0.0 } };
        for (uint32_t gpu = 0; gpu < g->gpu_count; gpu++) {
            const double time = finish(g, gpu, g->gpu_load[(size_t) gpu * g->step_count + step]);
            int place = 3;
            while (place > 0 &&
                   (found.gpu[place - 1] == UINT32_MAX || time > found.time[place - 1])) {
                place--;
            }
            for (int i = 2; i > place; i--) {
                found.gpu[i] = found.gpu[i - 1];
                found.time[i] = found.time[i - 1];
            }
            if (place < 3) {
                found.gpu[place] = gpu;
                found.time[place] = time;
            }
        }
        g->slowest[step] = found;
    }
}

/* The slowest of a step among all GPUs but two. */
static double slowest_but(const struct slowest *s, uint32_t a, uint32_t b)
{
    for (int i = 0; i < 3; i++) {
        if (s->gpu[i] != a && s->gpu[i] != b) {
            return s->gpu[i] == UINT32_MAX ? 0.0 : s->time[i];
        }
    }
    return 0.0;
}

static void add(struct gem *g, uint32_t expert, uint32_t gpu)
{
    g->gpu_of[expert] = gpu;
    g->fill[gpu]++;
    g->gpu_mean[gpu] += g->mean[expert];
    for (uint32_t step = 0; step < g->step_count; step++) {
        g->gpu_load[(size_t) gpu * g->step_count + step] += load_of(g, expert, step);
    }
}

/* Mean over steps of the slowest GPU's time if gpu had the expert as well. */
static double worth_with(const struct gem *g, uint32_t expert, uint32_t gpu)
{
    double sum = 0.0;
    for (uint32_t step = 0; step < g->step_count; step++) {
        const double mine = finish(
            g, gpu, g->gpu_load[(size_t) gpu * g->step_count + step] + load_of(g, expert, step));
        sum += fmax(mine, slowest_but(&g->slowest[step], gpu, gpu));
    }
    return sum / g->step_count;
}

static void place_experts(struct gem *g, bool temporal)
{
    for (uint32_t i = 0; i < g->expert_count; i++) {
        const uint32_t expert = g->order[i];
        uint32_t best = UINT32_MAX;
        double best_worth = INFINITY;
        double best_own = INFINITY;
        if (g->temporal[expert] != temporal) {
            continue;
        }
        for (uint32_t gpu = 0; gpu < g->gpu_count; gpu++) {
            if (g->fill[gpu] == g->share) {
                continue;
            }
            /* Its own time also decides between GPUs that leave the slowest as it is. */
            const double own = finish(g, gpu, g->gpu_mean[gpu] + g->mean[expert]);
            const double worth = temporal ? worth_with(g, expert, gpu) : own;
            if (best == UINT32_MAX || worth < best_worth ||
                (worth == best_worth && own < best_own)) {
                best = gpu;
                best_worth = worth;
                best_own = own;
            }
        }
        assert(best != UINT32_MAX);
        add(g, expert, best);
        if (temporal) {
            find_slowest(g);
        }
    }
}

/* Mean over steps of the slowest GPU when a and b change places. */
static double worth_exchanged(const struct gem *g, uint32_t a, uint32_t b)
{
    const uint32_t of_a = g->gpu_of[a];
    const uint32_t of_b = g->gpu_of[b];
    double sum = 0.0;
    for (uint32_t step = 0; step < g->step_count; step++) {
        const double moved = load_of(g, a, step) - load_of(g, b, step);
        const double time_a =
            finish(g, of_a, g->gpu_load[(size_t) of_a * g->step_count + step] - moved);
        const double time_b =
            finish(g, of_b, g->gpu_load[(size_t) of_b * g->step_count + step] + moved);
        sum += fmax(fmax(time_a, time_b), slowest_but(&g->slowest[step], of_a, of_b));
    }
    return sum / g->step_count;
}

static void exchange(struct gem *g, uint32_t a, uint32_t b)
{
    const uint32_t of_a = g->gpu_of[a];
    const uint32_t of_b = g->gpu_of[b];
    for (uint32_t step = 0; step < g->step_count; step++) {
        const double moved = load_of(g, a, step) - load_of(g, b, step);
        g->gpu_load[(size_t) of_a * g->step_count + step] -= moved;
        g->gpu_load[(size_t) of_b * g->step_count + step] += moved;
    }
    g->gpu_of[a] = of_b;
    g->gpu_of[b] = of_a;
    find_slowest(g);
}

/* The GPU whose being the slowest takes most time, over all steps; the first of equal ones. */
static uint32_t straggler(struct gem *g, double *mean_time)
{
    uint32_t worst = 0;
    *mean_time = 0.0;
    memset(g->gpu_mean, 0, g->gpu_count * sizeof *g->gpu_mean); /* no more needed as a mean */
    for (uint32_t step = 0; step < g->step_count; step++) {
        g->gpu_mean[g->slowest[step].gpu[0]] += g->slowest[step].time[0];
        *mean_time += g->slowest[step].time[0] / g->step_count;
    }
    for (uint32_t gpu = 1; gpu < g->gpu_count; gpu++) {
        worst = g->gpu_mean[gpu] > g->gpu_mean[worst] ? gpu : worst;
    }
    return worst;
}

static void exchange_all(struct gem *g)
{
    for (uint32_t left = (uint32_t) g->view->parameters[EXCHANGES]; left > 0; left--) {
        double now;
        const uint32_t slow = straggler(g, &now);
        double best = now * (1.0 - 1e-9); /* rounding alone is no gain */
        uint32_t best_a = UINT32_MAX;
        uint32_t best_b = UINT32_MAX;
        for (uint32_t i = 0; i < g->expert_count; i++) {
            const uint32_t a = g->order[i];
            for (uint32_t j = 0; j < g->expert_count && g->gpu_of[a] == slow; j++) {
                const uint32_t b = g->order[j];
                const double worth = g->gpu_of[b] != slow ? worth_exchanged(g, a, b) : INFINITY;
                if (worth < best) {
                    best = worth;
                    best_a = a;
                    best_b = b;
                }
            }
        }
        if (best_a == UINT32_MAX) {
            return;
        }
        exchange(g, best_a, best_b);
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const uint32_t capacity = moe_placement_slots_per_gpu(&view->shape);
    struct gem g;
    MOE_TRY(set_up(&g, view, scratch, err));
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        read_layer(&g, layer);
        moe_greedy_sort(g.mean, g.expert_count, g.order, g.spare);
        memset(g.fill, 0, g.gpu_count * sizeof *g.fill);
        memset(g.gpu_mean, 0, g.gpu_count * sizeof *g.gpu_mean);
        memset(g.gpu_load, 0, (size_t) g.gpu_count * g.step_count * sizeof *g.gpu_load);
        place_experts(&g, false);
        find_slowest(&g);
        place_experts(&g, true);
        exchange_all(&g);
        memset(g.fill, 0, g.gpu_count * sizeof *g.fill);
        for (uint32_t expert = 0; expert < g.expert_count; expert++) {
            const uint32_t gpu = g.gpu_of[expert];
            slots[gpu * capacity + g.fill[gpu]++] = (uint16_t) expert;
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(gem) = {
    MOE_POLICY_HEADER,
    .name = "gem",
    .summary = "one copy per expert by the GPUs' measured finish times; steady experts first, "
               "then those whose load comes and goes",
    .source = "GEM, arXiv 2605.19945: its two classes and its static placement by measured "
              "speed; threshold, orders and exchanges are ours",
    .tie_rule = "of equal means the first expert, of equal GPUs the first, of equal exchanges that "
                "of the heavier experts",
    .needs = MOE_POLICY_NEEDS_BATCHES | MOE_POLICY_NEEDS_GPU_SPEED,
    .budgeted = true, /* it makes no copies */
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

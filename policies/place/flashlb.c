/* FlashLB: balances the mean and the spread of the load.
 *
 * A GPU's risk is mean + z * standard deviation of its load over the steps of the planning
 * window, the covariances of its experts included. The experts stand in descending order of
 * risk and are cut into `depth` intervals. Going down them, the search decides how many of the
 * copies that are left an interval gets: it starts from what plain replication would give and
 * tries up to `width` more and fewer, simulating for each the rest of the plan. A plan is worth
 * the mean over steps of the largest GPU load over the mean one. Copies go, by mean load, to
 * the GPU of least risk; two copies of an expert only share a GPU when no other has room.
 *
 * Departures: the original keeps the ratio that a layer had when it was last changed; here,
 * where a policy has no memory, the ratio that the new plan would have takes its place. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/copy_budget.h"
#include "policies/solve/greedy.h"
#include "policies/solve/realign.h"
#include "sim/base/no_malloc.h"

enum { REPLICATE, Z, DEPTH, WIDTH, SAMPLES, FLOOR, KEEP_ABOVE, KEEP_RATIO, REALIGN };
enum { GREEDY, PROPORTIONAL };

static const struct moe_policy_parameter parameters[] = {
    [REPLICATE] = { .name = "replicate",
                    .kind = MOE_PARAMETER_CHOICE,
                    .standard = GREEDY,
                    .choices = (const char *const[]){ "greedy", "proportional", NULL },
                    .help = "how an interval's copies go to its experts: each to the largest risk "
                            "per copy, or all in proportion to risk by largest remainder",
                    .source = "vllm-ascend policy_flashlb, which has both; greedy was the better "
                              "on recorded loads" },
    [Z] = { .name = "z",
            .kind = MOE_PARAMETER_REAL,
            .standard = 0.6744897501960817,
            .max = 10,
            .help = "standard deviations added to the mean",
            .source = "vllm-ascend policy_flashlb: the 75 % quantile" },
    [DEPTH] = { .name = "depth",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 4,
                .min = 1,
                .max = 16,
                .help = "intervals of experts; 1 = no search",
                .source = "vllm-ascend policy_flashlb" },
    [WIDTH] = { .name = "width",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 8,
                .max = 64,
                .help = "copies more or fewer that are tried per interval",
                .source = "vllm-ascend policy_flashlb" },
    [SAMPLES] = { .name = "samples",
                  .kind = MOE_PARAMETER_WHOLE,
                  .standard = 64,
                  .min = 1,
                  .max = 4096,
                  .help = "the window is summed up to so many steps; the oldest may be left out",
                  .source = "vllm-ascend policy_flashlb" },
    [FLOOR] = { .name = "floor",
                .kind = MOE_PARAMETER_REAL,
                .standard = 1,
                .max = 1e9,
                .help = "tokens added to every expert of every batch",
                .source = "vllm-ascend policy_flashlb" },
    [KEEP_ABOVE] = { .name = "keep_above",
                     .kind = MOE_PARAMETER_REAL,
                     .standard = 0.9,
                     .max = 1,
                     .help = "a layer stays as it is while mean / max load is at least this",
                     .source = "vllm-ascend policy_flashlb" },
    [KEEP_RATIO] = { .name = "keep_ratio",
                     .kind = MOE_PARAMETER_REAL,
                     .standard = 0.95,
                     .max = 1,
                     .help = "and at least this times the new plan's",
                     .source = "vllm-ascend policy_flashlb" },
    [REALIGN] = { .name = "realign",
                  .kind = MOE_PARAMETER_FLAG,
                  .standard = 1,
                  .help = "relabel GPUs and slots so that least moves",
                  .source = "vllm-ascend policy_flashlb" },
};

struct flash {
    const double *parameters;
    uint32_t expert_count;
    uint32_t gpu_count;
    uint32_t capacity;
    uint32_t step_count;
    struct moe_greedy greedy;
    struct moe_realign realign;
    double *x;           /* [step][expert] */
    double *mean;        /* [expert] */
    double *covariance;  /* [expert][expert] */
    double *risk;        /* [expert] mean + z * deviation */
    uint32_t *by_risk;   /* [expert] descending */
    uint32_t *decided;   /* [expert] copies of the intervals that are behind */
    uint32_t *copies;    /* [expert] of the simulated plan */
    double *unit;        /* [expert] scratch: mean per copy; risks of an interval */
    uint32_t *part;      /* [expert] scratch: copies of an interval */
    uint32_t open_count; /* GPUs with room */
    uint32_t *by_mean;   /* [gpu] those, in ascending order of gpu_mean */
    uint32_t *fill;      /* [gpu] */
    double *gpu_mean;    /* [gpu] */
    double *gpu_var;     /* [gpu] */
    uint16_t *slots;     /* [gpu * capacity] the simulated plan */
};

static enum moe_status set_up(struct flash *f, const struct moe_place_view *view,
                              struct moe_arena *scratch, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint32_t samples = (uint32_t) view->parameters[SAMPLES];
    const size_t experts = shape->expert_count;
    *f = (struct flash){
        .parameters = view->parameters,
        .expert_count = shape->expert_count,
        .gpu_count = shape->gpu_count,
        .capacity = moe_placement_slots_per_gpu(shape),
        .step_count = view->batch_count < samples ? view->batch_count : samples,
    };
    f->x = MOE_NEW(scratch, double, f->step_count *experts);
    f->mean = MOE_NEW(scratch, double, experts);
    f->covariance = MOE_NEW(scratch, double, experts *experts);
    f->risk = MOE_NEW(scratch, double, experts);
    f->by_risk = MOE_NEW(scratch, uint32_t, experts);
    f->decided = MOE_NEW(scratch, uint32_t, experts);
    f->copies = MOE_NEW(scratch, uint32_t, experts);
    f->unit = MOE_NEW(scratch, double, experts);
    f->part = MOE_NEW(scratch, uint32_t, experts);
    f->by_mean = MOE_NEW(scratch, uint32_t, shape->gpu_count);
    f->fill = MOE_NEW(scratch, uint32_t, shape->gpu_count);
    f->gpu_mean = MOE_NEW(scratch, double, shape->gpu_count);
    f->gpu_var = MOE_NEW(scratch, double, shape->gpu_count);
    f->slots = MOE_NEW(scratch, uint16_t, shape->slot_count);
    if (f->x == NULL || f->mean == NULL || f->covariance == NULL || f->risk == NULL ||
        f->by_risk == NULL || f->decided == NULL || f->copies == NULL || f->unit == NULL ||
        f->part == NULL || f->by_mean == NULL || f->fill == NULL || f->gpu_mean == NULL ||
        f->gpu_var == NULL || f->slots == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the covariances of %u experts in %u steps",
                        shape->expert_count, f->step_count);
    }
    MOE_TRY(moe_greedy_init(&f->greedy, scratch, shape->slot_count, err));
    return moe_realign_init(&f->realign, scratch, shape->gpu_count, f->capacity,
                            shape->expert_count, err);
}

/* Means and covariances of one layer. Steps are sums of equally many batches, the last ones. */
static void read_layer(struct flash *f, const struct moe_place_view *view, uint32_t layer)
{
    const size_t experts = f->expert_count;
    const uint32_t per_step = view->batch_count / f->step_count;
    const uint32_t first = view->batch_count - per_step * f->step_count;
    memset(f->mean, 0, experts * sizeof *f->mean);
    for (uint32_t step = 0; step < f->step_count; step++) {
        double *x = f->x + step * experts;
        memset(x, 0, experts * sizeof *x);
        for (uint32_t i = 0; i < per_step; i++) {
            const float *batch =
                moe_place_view_batch(view, first + step * per_step + i) + layer * experts;
            for (size_t expert = 0; expert < experts; expert++) {
                x[expert] += (double) batch[expert] + f->parameters[FLOOR];
            }
        }
        for (size_t expert = 0; expert < experts; expert++) {
            f->mean[expert] += x[expert] / f->step_count;
        }
    }
    memset(f->covariance, 0, experts * experts * sizeof *f->covariance);
    for (uint32_t step = 0; step < f->step_count && f->step_count > 1; step++) {
        const double *x = f->x + step * experts;
        for (size_t a = 0; a < experts; a++) {
            const double off = (x[a] - f->mean[a]) / (f->step_count - 1);
            double *row = f->covariance + a * experts;
            for (size_t b = 0; b < experts; b++) {
                row[b] += off * (x[b] - f->mean[b]);
            }
        }
    }
    for (size_t expert = 0; expert < experts; expert++) {
        f->risk[expert] =
            f->mean[expert] + f->parameters[Z] * sqrt(f->covariance[expert * experts + expert]);
    }
    moe_greedy_sort(f->risk, f->expert_count, f->by_risk, f->greedy.spare);
}

/* copies[experts of the interval] with extra copies beyond the first, in proportion to risk. */
static void replicate_proportionally(struct flash *f, const uint32_t *experts, uint32_t count,
                                     uint32_t extra)
{
    double total = 0.0;
    uint32_t given = 0;
    for (uint32_t i = 0; i < count; i++) {
        total += f->risk[experts[i]];
    }
    for (uint32_t i = 0; i < count; i++) {
        const double quota =
            total > 0.0 ? f->risk[experts[i]] / total * extra : (double) extra / count;
        const uint32_t whole = (uint32_t) quota;
        f->copies[experts[i]] = 1 + whole;
        given += whole;
        f->unit[i] = quota - whole;
    }
    moe_greedy_sort(f->unit, count, f->part, f->greedy.spare);
    for (uint32_t i = 0; given < extra; i++, given++) {
        f->copies[experts[f->part[i % count]]]++;
    }
}

static void replicate(struct flash *f, const uint32_t *experts, uint32_t count, uint32_t extra)
{
    if (f->parameters[REPLICATE] == PROPORTIONAL) {
        replicate_proportionally(f, experts, count, extra);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        f->unit[i] = f->risk[experts[i]];
        f->part[i] = 1;
    }
    moe_greedy_replicate(&f->greedy, f->unit, count, extra, false, f->part, NULL);
    for (uint32_t i = 0; i < count; i++) {
        f->copies[experts[i]] = f->part[i];
    }
}

/* Variance of a GPU's load with one more copy. *held says whether it has one already. */
static double variance_with(const struct flash *f, uint32_t gpu, uint32_t expert, bool *held)
{
    const double *row = f->covariance + (size_t) expert * f->expert_count;
    const uint16_t *slots = f->slots + (size_t) gpu * f->capacity;
    const double share = 1.0 / f->copies[expert];
    double variance = f->gpu_var[gpu] + row[expert] * share * share;
    *held = false;
    for (uint32_t i = 0; i < f->fill[gpu]; i++) {
        *held |= slots[i] == expert;
        variance += 2.0 * row[slots[i]] * share / f->copies[slots[i]];
    }
    return variance > 0.0 ? variance : 0.0; /* rounding */
}

/* GPUs with room are looked at in the order of their means, so that the search ends where the
 * mean alone is above the best risk. */
static void place_copy(struct flash *f, uint32_t expert)
{
    const double mean = f->mean[expert] / f->copies[expert];
    uint32_t best = UINT32_MAX; /* place in by_mean */
    bool best_held = true;
    bool empty_seen = false;
    double best_risk = INFINITY;
    double best_variance = 0.0;
    for (uint32_t i = 0; i < f->open_count; i++) {
        const uint32_t gpu = f->by_mean[i];
        bool held = false;
        if (!best_held && f->gpu_mean[gpu] + mean > best_risk) {
            break;
        }
        if (f->fill[gpu] == 0 && empty_seen) {
            continue; /* empty GPUs are alike, and the first of them stands first */
        }
        empty_seen |= f->fill[gpu] == 0;
        const double variance = variance_with(f, gpu, expert, &held);
        const double risk = f->gpu_mean[gpu] + mean + f->parameters[Z] * sqrt(variance);
        if (best == UINT32_MAX || (best_held && !held) ||
            (best_held == held &&
             (risk < best_risk || (risk == best_risk && gpu < f->by_mean[best])))) {
            best = i;
            best_held = held;
            best_risk = risk;
            best_variance = variance;
        }
    }
    assert(best != UINT32_MAX);
    const uint32_t gpu = f->by_mean[best];
    f->gpu_mean[gpu] += mean;
    f->gpu_var[gpu] = best_variance;
    f->slots[(size_t) gpu * f->capacity + f->fill[gpu]++] = (uint16_t) expert;
    const bool full = f->fill[gpu] == f->capacity;
    const uint32_t last = f->open_count - 1;
    while (best < last && (full || f->gpu_mean[f->by_mean[best + 1]] < f->gpu_mean[gpu])) {
        f->by_mean[best] = f->by_mean[best + 1];
        best++;
    }
    f->by_mean[best] = gpu; /* the last, when it is full */
    f->open_count -= full;
}

/* Mean over steps of max / mean GPU load of a plan with f->copies. */
static double score(const struct flash *f, const uint16_t *slots, const uint32_t *copies)
{
    double sum = 0.0;
    for (uint32_t step = 0; step < f->step_count; step++) {
        const double *x = f->x + (size_t) step * f->expert_count;
        double total = 0.0;
        double max = 0.0;
        for (uint32_t expert = 0; expert < f->expert_count; expert++) {
            f->unit[expert] = x[expert] / copies[expert];
        }
        for (uint32_t gpu = 0; gpu < f->gpu_count; gpu++) {
            double load = 0.0;
            for (uint32_t i = 0; i < f->capacity; i++) {
                const uint16_t expert = slots[gpu * f->capacity + i];
                load += expert == MOE_SLOT_EMPTY ? 0.0 : f->unit[expert];
            }
            total += load;
            max = load > max ? load : max;
        }
        sum += total > 0.0 ? max * f->gpu_count / total : 1.0;
    }
    return sum / f->step_count;
}

/* Places f->copies and says what the plan in f->slots is worth; less is better. */
static double simulate(struct flash *f)
{
    uint32_t *order = f->greedy.order;
    memset(f->slots, 0xff, (size_t) f->gpu_count * f->capacity * sizeof *f->slots);
    f->open_count = f->gpu_count;
    for (uint32_t gpu = 0; gpu < f->gpu_count; gpu++) {
        f->by_mean[gpu] = gpu;
    }
    memset(f->fill, 0, f->gpu_count * sizeof *f->fill);
    memset(f->gpu_mean, 0, f->gpu_count * sizeof *f->gpu_mean);
    memset(f->gpu_var, 0, f->gpu_count * sizeof *f->gpu_var);
    for (uint32_t expert = 0; expert < f->expert_count; expert++) {
        f->unit[expert] = f->mean[expert] / f->copies[expert];
    }
    moe_greedy_sort(f->unit, f->expert_count, order, f->greedy.spare);
    for (uint32_t i = 0; i < f->expert_count; i++) {
        for (uint32_t copy = 0; copy < f->copies[order[i]]; copy++) {
            place_copy(f, order[i]);
        }
    }
    return score(f, f->slots, f->copies);
}

/* The same when the interval [begin, end) gets given of the left copies. */
static double try_split(struct flash *f, uint32_t begin, uint32_t end, uint32_t given,
                        uint32_t left)
{
    for (uint32_t i = 0; i < begin; i++) {
        f->copies[f->by_risk[i]] = f->decided[f->by_risk[i]];
    }
    replicate(f, f->by_risk + begin, end - begin, given);
    if (end < f->expert_count) {
        replicate(f, f->by_risk + end, f->expert_count - end, left - given);
    }
    return simulate(f);
}

/* How many of the left copies the interval gets: the nearest best to what plain replication
 * gives, fewer before more. */
static uint32_t split(struct flash *f, uint32_t begin, uint32_t end, uint32_t left)
{
    const uint32_t width = (uint32_t) f->parameters[WIDTH];
    uint32_t plain = 0;
    replicate(f, f->by_risk + begin, f->expert_count - begin, left);
    for (uint32_t i = begin; i < end; i++) {
        plain += f->copies[f->by_risk[i]] - 1;
    }
    uint32_t best = plain;
    double best_score = try_split(f, begin, end, plain, left);
    for (uint32_t step = 1; step <= width; step++) {
        const uint32_t tried[] = { plain >= step ? plain - step : plain,
                                   plain + step <= left ? plain + step : plain };
        for (int i = 0; i < 2; i++) {
            if (tried[i] == plain) {
                continue;
            }
            const double worth = try_split(f, begin, end, tried[i], left);
            if (worth < best_score) {
                best_score = worth;
                best = tried[i];
            }
        }
    }
    return best;
}

/* The plan of one layer into f->slots; what it is worth. */
static double search(struct flash *f, uint32_t left)
{
    const uint32_t depth = (uint32_t) f->parameters[DEPTH];
    const uint32_t interval = (f->expert_count + depth - 1) / depth;
    uint32_t begin = 0;
    for (uint32_t node = 0; node + 1 < depth && left > 0 && begin + interval < f->expert_count;
         node++) {
        const uint32_t end = begin + interval;
        const uint32_t given = split(f, begin, end, left);
        replicate(f, f->by_risk + begin, interval, given);
        for (uint32_t i = begin; i < end; i++) {
            f->decided[f->by_risk[i]] = f->copies[f->by_risk[i]];
        }
        left -= given;
        begin = end;
    }
    return try_split(f, begin, f->expert_count, left, left);
}

/* Whether the layer may stay as it is, given what the new plan is worth. */
static bool may_keep(struct flash *f, const uint16_t *before, double worth)
{
    memset(f->part, 0, f->expert_count * sizeof *f->part);
    for (uint32_t slot = 0; slot < f->gpu_count * f->capacity; slot++) {
        if (before[slot] != MOE_SLOT_EMPTY) {
            f->part[before[slot]]++;
        }
    }
    const double ratio = 1.0 / score(f, before, f->part);
    return ratio >= f->parameters[KEEP_ABOVE] && ratio >= f->parameters[KEEP_RATIO] / worth;
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const uint32_t slots = view->shape.slot_count;
    struct flash f;
    MOE_TRY(set_up(&f, view, scratch, err));
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        const uint16_t *before = moe_placement_layer(view->previous, layer);
        uint16_t *now = moe_placement_layer(plan, layer);
        read_layer(&f, view, layer);
        const double worth = search(&f, moe_copy_budget(view, layer));
        const bool keep = view->replica_budget_total == 0 && may_keep(&f, before, worth);
        memcpy(now, keep ? before : f.slots, slots * sizeof *now);
        if (f.parameters[REALIGN] != 0.0 && !keep) {
            moe_realign_gpus(&f.realign, before, now, f.gpu_count);
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(flashlb) = {
    MOE_POLICY_HEADER,
    .name = "flashlb",
    .summary = "balances mean + z * deviation of the load, with a tree search over how many "
               "copies the hotter experts get",
    .source = "vllm-ascend policy_flashlb (FlashTree); it remembers a layer's last ratio, here "
              "the new plan's stands for it",
    .tie_rule = "of equal risks the first expert, of equal GPUs the first, of equally good "
                "searches the one nearest to plain replication, fewer copies before more",
    .needs = MOE_POLICY_NEEDS_BATCHES | MOE_POLICY_NEEDS_PREVIOUS,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

/* Best: our own placement. Copies where the expected load per copy is largest, hottest first to
 * the coldest GPU, then exchanges for as long as they help against the loads that may come
 * instead of the expected one (best_solver.h). These are, as columns:
 *   the window's load
 *   its powers 4/8 .. 11/8: other workloads of a model sharpen or flatten its skew
 *   with one routing group after the other hotter by tilt: under group-limited routing the
 *     experts of a group rise and fall together, and should not share a GPU
 *   what was observed in parts of the window, in the order of time
 * Only the planning window is looked at. Powers are taken by square roots and products, which
 * round alike on every machine. */
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/best_solver.h"
#include "policies/solve/craft_solver.h"
#include "sim/base/no_malloc.h"

enum { RISK, TILT, CALM, PARTS, EXCHANGES };

static const struct moe_policy_parameter parameters[] = {
    [RISK] = { .name = "risk",
               .kind = MOE_PARAMETER_REAL,
               .standard = 1.0,
               .min = 0.0,
               .max = 20.0,
               .help = "what a copy's uncertainty counts: x + risk x^2 for a share x of a GPU's "
                       "mean load",
               .source = "own" },
    [TILT] = { .name = "tilt",
               .kind = MOE_PARAMETER_REAL,
               .standard = 0.5,
               .min = 0.0,
               .max = 10.0,
               .help = "by how much a routing group may become hotter; 0: groups do not matter",
               .source = "own" },
    [CALM] = { .name = "calm",
               .kind = MOE_PARAMETER_REAL,
               .standard = 1.0,
               .min = 0.0,
               .max = 1000.0,
               .help = "weight of the window's load itself, each other column's being 1",
               .source = "own" },
    [PARTS] = { .name = "parts",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 16,
                .min = 0,
                .max = 16,
                .help = "parts of the window that are balanced by themselves as well",
                .source = "own" },
    [EXCHANGES] = { .name = "exchanges",
                    .kind = MOE_PARAMETER_WHOLE,
                    .standard = 200,
                    .min = 0,
                    .max = 1e6,
                    .help = "exchanges of a layer at most",
                    .source = "own" },
};

enum { LOWEST_EIGHTH = 4, HIGHEST_EIGHTH = 11, TILT_LIMIT = 16 };

struct columns {
    uint32_t tilts; /* routing groups, or runs of them */
    uint32_t parts;
    uint32_t all;
};

static struct columns count_columns(const struct moe_place_view *view)
{
    const uint32_t groups = view->shape.group_count;
    const uint32_t parts = (uint32_t) view->parameters[PARTS];
    struct columns columns = { 0 };
    if (view->parameters[TILT] > 0.0 && groups > 1) {
        columns.tilts = groups < TILT_LIMIT ? groups : TILT_LIMIT;
    }
    if (view->batch_count > 1) {
        columns.parts = view->batch_count < parts ? view->batch_count : parts;
    }
    columns.all = HIGHEST_EIGHTH - LOWEST_EIGHTH + 1 + columns.tilts + columns.parts;
    return columns;
}

/* One column, scaled to a mean GPU load of 1; one without load has no weight. */
static void put_column(struct moe_best *best, uint32_t column, const double *load, double weight)
{
    double sum = 0.0;
    for (uint32_t expert = 0; expert < best->expert_count; expert++) {
        sum += load[expert];
    }
    for (uint32_t expert = 0; expert < best->expert_count; expert++) {
        const double x = sum > 0.0 ? load[expert] / sum * best->gpu_count : 0.0;
        best->load[(size_t) expert * best->column_count + column] = (float) x;
    }
    best->weight[column] = sum > 0.0 ? (float) weight : 0.0f;
}

/* w^(eighth / 8) */
static double power_of(double w, uint32_t eighth)
{
    const double root = sqrt(sqrt(sqrt(w)));
    double power = 1.0;
    for (uint32_t i = 0; i < eighth; i++) {
        power *= root;
    }
    return power;
}

/* Columns of one layer; column[expert_count] is scratch. */
static void fill_columns(const struct moe_place_view *view, uint32_t layer,
                         const struct columns *columns, struct moe_best *best, double *column)
{
    const uint32_t experts = view->shape.expert_count;
    const double *load = view->load + (size_t) layer * experts;
    uint32_t at = 0;
    double sum = 0.0;
    for (uint32_t expert = 0; expert < experts; expert++) {
        sum += load[expert];
    }
    for (uint32_t eighth = LOWEST_EIGHTH; eighth <= HIGHEST_EIGHTH; eighth++) {
        for (uint32_t expert = 0; expert < experts; expert++) {
            column[expert] = sum > 0.0 ? power_of(load[expert] / sum, eighth) : 0.0;
        }
        put_column(best, at++, column, eighth == 8 ? view->parameters[CALM] : 1.0);
    }
    for (uint32_t tilt = 0; tilt < columns->tilts; tilt++) {
        const uint32_t group_size = experts / view->shape.group_count;
        for (uint32_t expert = 0; expert < experts; expert++) {
            const uint32_t group = expert / group_size;
            const bool hotter = group * columns->tilts / view->shape.group_count == tilt;
            column[expert] = load[expert] * (hotter ? 1.0 + view->parameters[TILT] : 1.0);
        }
        put_column(best, at++, column, 1.0);
    }
    for (uint32_t part = 0; part < columns->parts; part++) {
        const uint32_t begin = (uint32_t) ((uint64_t) part * view->batch_count / columns->parts);
        const uint32_t end = (uint32_t) ((part + 1ULL) * view->batch_count / columns->parts);
        memset(column, 0, experts * sizeof *column);
        for (uint32_t batch = begin; batch < end; batch++) {
            const float *row = moe_place_view_batch(view, batch) + (size_t) layer * experts;
            for (uint32_t expert = 0; expert < experts; expert++) {
                column[expert] += (double) row[expert];
            }
        }
        put_column(best, at++, column, 1.0);
    }
    for (; at < best->column_count; at++) {
        memset(column, 0, experts * sizeof *column);
        put_column(best, at, column, 0.0);
    }
}

/* Mean square of the relative change of a layer's loads from one part of the window to the next,
 * weighted by load: the spread that risk stands for, where the window shows it. */
static double spread_of(const struct moe_best *best, const struct columns *columns)
{
    const uint32_t first = columns->all - columns->parts;
    double sum = 0.0;
    double weight = 0.0;
    for (uint32_t expert = 0; expert < best->expert_count; expert++) {
        const float *load = best->load + (size_t) expert * best->column_count;
        for (uint32_t c = first + 1; c < columns->all; c++) {
            const double mean = 0.5 * ((double) load[c] + (double) load[c - 1]);
            const double step = (double) load[c] - (double) load[c - 1];
            sum += mean > 0.0 ? step * step / mean : 0.0;
            weight += mean;
        }
    }
    return weight > 0.0 ? sum / weight : 0.0;
}

/* Copies of every layer: what the slots hold, and of a budget an even share. */
static void share_copies(const struct moe_place_view *view, uint32_t *copies)
{
    const uint32_t layers = view->shape.layer_count;
    const uint32_t room = view->shape.slot_count - view->shape.expert_count;
    const uint32_t budget = view->replica_budget_total;
    for (uint32_t layer = 0; layer < layers; layer++) {
        const uint32_t share = budget / layers + (layer < budget % layers);
        copies[layer] = budget > 0 && share < room ? share : room;
    }
}

struct work {
    struct moe_best best;
    struct moe_craft start;
    struct columns columns;
    double *column;   /* [expert] */
    uint32_t *copies; /* [layer] */
    uint32_t *slots;  /* [layer][gpu] */
    uint32_t *order;  /* [layer][gpu] */
    uint32_t *total;  /* [gpu] */
    uint16_t *trial;  /* [slot] */
};

/* risk stands for relative errors of 0.3, as between workloads. A window of several parts may show
 * smaller ones, and then risk shrinks as their square. */
#define SPREAD_SQUARE 0.09
enum { SPREAD_PARTS = 4 };

/* Another start is taken only when it is clearly better for the window: a small lead there says
 * nothing of what follows. */
#define NOTICEABLE 1.01

/* Starts are compared by what was observed, where the window shows that; a start that only serves
 * loads that nobody saw is none. */
static double score_start(struct work *work, const uint16_t *slots)
{
    const uint32_t unseen = work->columns.all - work->columns.parts;
    float kept[MOE_BEST_COLUMN_LIMIT];
    memcpy(kept, work->best.weight, sizeof kept);
    if (work->columns.parts >= SPREAD_PARTS) {
        for (uint32_t c = 0; c < unseen; c++) {
            work->best.weight[c] = 0.0f;
        }
    }
    const double score = moe_best_score(&work->best, slots);
    memcpy(work->best.weight, kept, sizeof kept);
    return score;
}

/* Starts that differ in how far an expert's load is divided, each improved a little; the one
 * that then scores best is improved for good. Ties: the first start. */
static void place_layer(const struct moe_place_view *view, uint32_t layer, struct work *work,
                        uint16_t *expert_of_slot)
{
    static const double enough[] = { 0.0, 0.35, 0.55, 0.75, 0.95, 1.07 };
    enum { SAMPLE = 12 };
    const struct moe_placement_shape *shape = &view->shape;
    const size_t first = (size_t) layer * shape->gpu_count;
    const double *load = view->load + (size_t) layer * shape->expert_count;
    const size_t bytes = shape->slot_count * sizeof *expert_of_slot;
    const double limit = view->parameters[EXCHANGES];
    double sum = 0.0;
    double highest = 0.0;
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        sum += load[expert];
    }
    fill_columns(view, layer, &work->columns, &work->best, work->column);
    work->best.risk = (float) view->parameters[RISK];
    if (work->columns.parts >= SPREAD_PARTS) {
        const double seen = spread_of(&work->best, &work->columns) / SPREAD_SQUARE;
        work->best.risk *= (float) (seen < 1.0 ? seen : 1.0);
    }
    for (size_t i = 0; i < sizeof enough / sizeof enough[0]; i++) {
        moe_craft_place_layer(&work->start, load, work->copies[layer],
                              enough[i] * sum / shape->gpu_count, shape->gpu_count,
                              work->slots + first, work->order + first, work->trial);
        (void) moe_best_improve(&work->best, limit < SAMPLE ? (uint32_t) limit : SAMPLE,
                                work->trial);
        const double score = score_start(work, work->trial);
        if (score > highest * NOTICEABLE) {
            highest = score;
            memcpy(expert_of_slot, work->trial, bytes);
        }
    }
    (void) moe_best_improve(&work->best, (uint32_t) limit, expert_of_slot);
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const size_t cells = (size_t) shape->layer_count * shape->gpu_count;
    struct work work = { .columns = count_columns(view) };
    MOE_TRY(moe_best_init(&work.best, scratch, shape, work.columns.all,
                          (float) view->parameters[RISK], err));
    MOE_TRY(moe_craft_init(&work.start, scratch, shape, err));
    work.column = MOE_NEW(scratch, double, shape->expert_count);
    work.copies = MOE_NEW(scratch, uint32_t, shape->layer_count);
    work.slots = MOE_NEW(scratch, uint32_t, cells);
    work.order = MOE_NEW(scratch, uint32_t, cells);
    work.total = MOE_NEW(scratch, uint32_t, shape->gpu_count);
    work.trial = MOE_NEW(scratch, uint16_t, shape->slot_count);
    if (work.column == NULL || work.copies == NULL || work.slots == NULL || work.order == NULL ||
        work.total == NULL || work.trial == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to balance %u layers", shape->layer_count);
    }
    share_copies(view, work.copies);
    moe_craft_deal_slots(shape, work.copies, work.slots, work.order, work.total);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        place_layer(view, layer, &work, moe_placement_layer(plan, layer));
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(best) = {
    MOE_POLICY_HEADER,
    .name = "best",
    .summary = "own: as EPLB, then exchanges of copies that help against sharper, flatter, tilted "
               "and observed loads alike",
    .source = "own (best_solver.h); start as CRAFT's greedy copies and placement",
    .tie_rule = "of equal loads per copy the first expert, of equally loaded GPUs the first, of "
                "equally good exchanges the first pair of slots",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_BATCHES,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

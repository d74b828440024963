/* Best: our own placement. Copies where the expected load per copy is largest, hottest first to
 * the coldest GPU, then exchanges and other copies for as long as they help against the loads that
 * may come instead of the expected one (best_solver.h). These are, as columns:
 *   the window's load
 *   its powers 4/8 .. 11/8: other workloads of a model sharpen or flatten its skew
 *   with one routing group after the other hotter by tilt: under group-limited routing the
 *     experts of a group rise and fall together, and should not share a GPU
 *   what was observed in parts of the window, in the order of time
 *
 * Only the planning window is looked at, and it decides how much caution pays: a window of several
 * batches is cut into folds; with every recipe, FlashLB's plan among them, some layers are planned
 * on all folds but one and scored on that one. Of the recipes that are not behind the best one by
 * more than half the standard error of the difference, the most cautious is taken: what follows
 * differs more from the window than its parts from each other. A window of too few batches gets the
 * most cautious recipe.
 *
 * Powers are taken by square roots and products, which round alike on every machine. */
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/best_solver.h"
#include "policies/solve/craft_solver.h"
#include "policies/solve/flash_solver.h"
#include "sim/base/no_malloc.h"

enum { CAUTION, RISK, UNSEEN, SPREAD, TILT, PARTS, EXCHANGES };
enum { AUTO };

static const struct moe_policy_parameter parameters[] = {
    [CAUTION] = { .name = "caution",
                  .kind = MOE_PARAMETER_CHOICE,
                  .standard = AUTO,
                  .choices = (const char *const[]){ "auto", "given", NULL },
                  .help = "auto: risk, unseen and spread as the window decides; given: as they are "
                          "given",
                  .source = "own" },
    [RISK] = { .name = "risk",
               .kind = MOE_PARAMETER_REAL,
               .standard = 0.3,
               .min = 0.0,
               .max = 20.0,
               .help = "what a copy's uncertainty counts: x + risk x^2 for a share x of a GPU's "
                       "mean load",
               .source = "own" },
    [UNSEEN] = { .name = "unseen",
                 .kind = MOE_PARAMETER_REAL,
                 .standard = 1.0,
                 .min = 0.0,
                 .max = 1000.0,
                 .help = "weight of each column that was not observed: powers and tilts; 1 of the "
                         "others",
                 .source = "own" },
    [SPREAD] = { .name = "spread",
                 .kind = MOE_PARAMETER_REAL,
                 .standard = 0.0,
                 .min = 0.0,
                 .max = 20.0,
                 .help = "how much of the spread between parts of the window counts as risk too",
                 .source = "own" },
    [TILT] = { .name = "tilt",
               .kind = MOE_PARAMETER_REAL,
               .standard = 0.5,
               .min = 0.0,
               .max = 10.0,
               .help = "by how much a routing group may become hotter; 0: groups do not matter",
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
                    .help = "changes of a layer's start at most",
                    .source = "own" },
};

enum { LOWEST_EIGHTH = 4, HIGHEST_EIGHTH = 11, TILT_LIMIT = 16 };

/* How a layer may be planned, from the most cautious way on. The first one is for windows that
 * cannot tell. Its numbers come from recordings that no study scores (tests/study_placement.c,
 * --development), the others are none and all of what a term stands for. */
struct recipe {
    double risk;
    double unseen;
    double spread;
    bool flash;   /* starts with FlashLB's plan instead of CRAFT's */
    bool changed; /* and goes on with changes */
};
static const struct recipe recipes[] = {
    { 0.3, 1.0, 0.0, false, true }, { 0.0, 0.3, 1.0, false, true }, { 0.0, 0.0, 1.0, false, true },
    { 0.0, 0.0, 0.0, true, false }, { 0.0, 0.0, 1.0, true, true },  { 0.0, 0.0, 0.0, false, true },
};
enum {
    RECIPES = sizeof recipes / sizeof recipes[0],
    FOLDS = 4,
    JUDGED_LAYERS = 12,
    PARTS_TO_START = 4, /* observed parts from which starts are compared by these alone */
    SAMPLE = 12,        /* changes of each start before the best one is chosen */
    FLASH_STEPS = 64,
};

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

/* Batches begin .. end-1 are left out; none when they are equal. */
struct fold {
    uint32_t begin;
    uint32_t end;
};

/* Adds batches begin .. end-1 of those that the fold leaves to sum[expert_count]. */
static void add_batches(const struct moe_place_view *view, uint32_t layer, struct fold fold,
                        uint32_t begin, uint32_t end, double *sum)
{
    const uint32_t experts = view->shape.expert_count;
    for (uint32_t i = begin; i < end; i++) {
        const uint32_t batch = i < fold.begin ? i : i + (fold.end - fold.begin);
        const float *row = moe_place_view_batch(view, batch) + (size_t) layer * experts;
        for (uint32_t expert = 0; expert < experts; expert++) {
            sum[expert] += (double) row[expert];
        }
    }
}

/* Columns of one layer with this load; column[expert_count] is scratch. */
static void fill_columns(const struct moe_place_view *view, uint32_t layer, struct fold fold,
                         const double *load, const struct recipe *recipe,
                         const struct columns *columns, struct moe_best *best, double *column)
{
    const uint32_t experts = view->shape.expert_count;
    const uint32_t batches = view->batch_count - (fold.end - fold.begin);
    const uint32_t parts = columns->parts < batches ? columns->parts : batches;
    uint32_t at = 0;
    double sum = 0.0;
    for (uint32_t expert = 0; expert < experts; expert++) {
        sum += load[expert];
    }
    for (uint32_t eighth = LOWEST_EIGHTH; eighth <= HIGHEST_EIGHTH; eighth++) {
        for (uint32_t expert = 0; expert < experts; expert++) {
            column[expert] = sum > 0.0 ? power_of(load[expert] / sum, eighth) : 0.0;
        }
        put_column(best, at++, column, eighth == 8 ? 1.0 : recipe->unseen);
    }
    for (uint32_t tilt = 0; tilt < columns->tilts; tilt++) {
        const uint32_t group_size = experts / view->shape.group_count;
        for (uint32_t expert = 0; expert < experts; expert++) {
            const uint32_t group = expert / group_size;
            const bool hotter = group * columns->tilts / view->shape.group_count == tilt;
            column[expert] = load[expert] * (hotter ? 1.0 + view->parameters[TILT] : 1.0);
        }
        put_column(best, at++, column, recipe->unseen);
    }
    for (uint32_t part = 0; part < parts; part++) {
        memset(column, 0, experts * sizeof *column);
        add_batches(view, layer, fold, (uint32_t) ((uint64_t) part * batches / parts),
                    (uint32_t) ((part + 1ULL) * batches / parts), column);
        put_column(best, at++, column, 1.0);
    }
    for (; at < best->column_count; at++) {
        memset(column, 0, experts * sizeof *column);
        put_column(best, at, column, 0.0);
    }
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
    struct moe_flash flash;
    bool with_flash;
    struct columns columns;
    double *column;   /* [expert] */
    double *load;     /* [expert] of what a fold leaves */
    uint32_t *copies; /* [layer] */
    uint32_t *slots;  /* [layer][gpu] */
    uint32_t *order;  /* [layer][gpu] */
    uint32_t *total;  /* [gpu] */
    uint16_t *trial;  /* [slot] */
    uint16_t *judged; /* [slot] */
};

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
    if (work->columns.parts >= PARTS_TO_START) {
        for (uint32_t c = 0; c < unseen; c++) {
            work->best.weight[c] = 0.0f;
        }
    }
    const double score = moe_best_score(&work->best, slots);
    memcpy(work->best.weight, kept, sizeof kept);
    return score;
}

/* FlashLB's plan on what the fold leaves. */
static void place_flash(const struct moe_place_view *view, uint32_t layer, struct fold fold,
                        struct work *work, uint16_t *expert_of_slot)
{
    const uint32_t experts = view->shape.expert_count;
    const uint32_t batches = view->batch_count - (fold.end - fold.begin);
    const uint32_t steps = batches < FLASH_STEPS ? batches : FLASH_STEPS;
    for (uint32_t step = 0; step < steps; step++) {
        double *x = work->flash.x + (size_t) step * experts;
        for (uint32_t expert = 0; expert < experts; expert++) {
            x[expert] = 1.0; /* as FlashLB does */
        }
        add_batches(view, layer, fold, (uint32_t) ((uint64_t) step * batches / steps),
                    (uint32_t) ((step + 1ULL) * batches / steps), x);
    }
    moe_flash_read(&work->flash, steps);
    (void) moe_flash_search(&work->flash, work->copies[layer]);
    memcpy(expert_of_slot, work->flash.slots, view->shape.slot_count * sizeof *expert_of_slot);
}

/* Starts that differ in how far an expert's load is divided, each improved a little; the one
 * that then scores best. Ties: the first start. */
static void place_craft(const struct moe_place_view *view, uint32_t layer, const double *load,
                        struct work *work, uint16_t *expert_of_slot)
{
    static const double enough[] = { 0.0, 0.35, 0.55, 0.75, 0.95, 1.07 };
    const struct moe_placement_shape *shape = &view->shape;
    const size_t first = (size_t) layer * shape->gpu_count;
    const size_t bytes = shape->slot_count * sizeof *expert_of_slot;
    const double limit = view->parameters[EXCHANGES];
    double sum = 0.0;
    double highest = 0.0;
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        sum += load[expert];
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
}

/* Risks of the experts: what is given, and what parts of the window show. The variance of an
 * expert is drawn towards what its size lets expect: all experts' squared deviations over their
 * squared loads, as if that had been seen in another PRIOR_PARTS parts. */
static void set_risks(struct work *work, const struct recipe *recipe, uint32_t batches)
{
    enum { PRIOR_PARTS = 4 };
    struct moe_best *best = &work->best;
    const uint32_t first = work->columns.all - work->columns.parts;
    const uint32_t parts = work->columns.parts < batches ? work->columns.parts : batches;
    double squares = 0.0;
    double deviations = 0.0;
    for (uint32_t turn = 0; turn < 2; turn++) {
        for (uint32_t expert = 0; expert < best->expert_count; expert++) {
            const float *load = best->load + (size_t) expert * best->column_count + first;
            double mean = 0.0;
            double off = 0.0;
            for (uint32_t c = 0; c < parts; c++) {
                mean += (double) load[c] / parts;
            }
            for (uint32_t c = 0; c < parts; c++) {
                off += ((double) load[c] - mean) * ((double) load[c] - mean);
            }
            if (turn == 0 && parts > 1) {
                squares += mean * mean;
                deviations += off / (parts - 1);
                continue;
            }
            const double usual = squares > 0.0 ? deviations / squares : 0.0;
            const double own = mean > 0.0 ? off / (mean * mean) : 0.0;
            const double square =
                parts > 1 ? (own + PRIOR_PARTS * usual) / (parts - 1 + PRIOR_PARTS) : 0.0;
            best->risk[expert] =
                (float) (recipe->risk + recipe->spread * MOE_BEST_RISK_OF_SQUARE * square);
        }
    }
}

static void place_layer(const struct moe_place_view *view, uint32_t layer, struct fold fold,
                        const struct recipe *recipe, struct work *work, uint16_t *expert_of_slot)
{
    const double *load = view->load + (size_t) layer * view->shape.expert_count;
    if (fold.begin < fold.end) {
        memset(work->load, 0, view->shape.expert_count * sizeof *work->load);
        add_batches(view, layer, fold, 0, view->batch_count - (fold.end - fold.begin), work->load);
        load = work->load;
    }
    fill_columns(view, layer, fold, load, recipe, &work->columns, &work->best, work->column);
    set_risks(work, recipe, view->batch_count - (fold.end - fold.begin));
    if (recipe->flash) {
        place_flash(view, layer, fold, work, expert_of_slot);
    } else {
        place_craft(view, layer, load, work, expert_of_slot);
    }
    if (recipe->changed) {
        (void) moe_best_improve(&work->best, (uint32_t) view->parameters[EXCHANGES],
                                expert_of_slot);
    }
}

/* Balancedness of work->judged for one layer, averaged over the batches of a fold. */
static double judge_layer(const struct moe_place_view *view, uint32_t layer, struct fold fold,
                          struct work *work)
{
    const uint32_t experts = view->shape.expert_count;
    const struct moe_placement plan = {
        .shape = { 1, experts, view->shape.slot_count, view->shape.gpu_count, 1, 1 },
        .expert_of_slot = work->judged,
    };
    double *gpu_load = work->column;
    double sum = 0.0;
    for (uint32_t batch = fold.begin; batch < fold.end; batch++) {
        const float *row = moe_place_view_batch(view, batch) + (size_t) layer * experts;
        double total = 0.0;
        double max = 0.0;
        for (uint32_t expert = 0; expert < experts; expert++) {
            work->load[expert] = (double) row[expert];
        }
        moe_placement_gpu_load(&plan, 0, work->load, gpu_load);
        for (uint32_t gpu = 0; gpu < view->shape.gpu_count; gpu++) {
            total += gpu_load[gpu];
            max = gpu_load[gpu] > max ? gpu_load[gpu] : max;
        }
        sum += max > 0.0 ? total / view->shape.gpu_count / max : 1.0;
    }
    return sum / (fold.end - fold.begin);
}

/* score[fold]: of some layers' plans on all folds but one, on that one. */
static void judge_recipe(const struct moe_place_view *view, const struct recipe *recipe,
                         struct work *work, double score[FOLDS])
{
    const uint32_t all = view->shape.layer_count;
    const uint32_t layers = all < JUDGED_LAYERS ? all : JUDGED_LAYERS;
    for (uint32_t i = 0; i < FOLDS; i++) {
        const struct fold fold = { (uint32_t) ((uint64_t) i * view->batch_count / FOLDS),
                                   (uint32_t) ((i + 1ULL) * view->batch_count / FOLDS) };
        score[i] = 0.0;
        for (uint32_t j = 0; j < layers; j++) {
            const uint32_t layer = (2 * j + 1) * all / (2 * layers);
            place_layer(view, layer, fold, recipe, work, work->judged);
            score[i] += judge_layer(view, layer, fold, work) / layers;
        }
    }
}

/* The most cautious recipe that is not clearly worse than the best one on folds held back. */
static struct recipe choose_recipe(const struct moe_place_view *view, struct work *work)
{
    double score[RECIPES][FOLDS] = { 0 };
    double mean[RECIPES] = { 0 };
    uint32_t top = 0;
    if (view->parameters[CAUTION] != AUTO) {
        const double *p = view->parameters;
        return (struct recipe){ p[RISK], p[UNSEEN], p[SPREAD], false, true };
    }
    if (view->batch_count < FOLDS) {
        return recipes[0];
    }
    for (uint32_t i = 0; i < RECIPES; i++) {
        if (recipes[i].flash && !work->with_flash) {
            continue;
        }
        judge_recipe(view, &recipes[i], work, score[i]);
        for (uint32_t k = 0; k < FOLDS; k++) {
            mean[i] += score[i][k] / FOLDS;
        }
        top = mean[i] > mean[top] ? i : top;
    }
    for (uint32_t i = 0; i < top; i++) {
        const double behind = mean[top] - mean[i];
        double square = 0.0;
        for (uint32_t k = 0; k < FOLDS; k++) {
            const double off = score[top][k] - score[i][k] - behind;
            square += off * off;
        }
        /* 4 FOLDS (FOLDS - 1): half the standard error. */
        if (behind * behind <= square / (4.0 * FOLDS * (FOLDS - 1))) {
            return recipes[i];
        }
    }
    return recipes[top];
}

/* FlashLB's defaults. */
static const struct moe_flash_rule flash_rule = { false, 0.6744897501960817, 4, 8 };

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const size_t cells = (size_t) shape->layer_count * shape->gpu_count;
    struct work work = { .columns = count_columns(view) };
    MOE_TRY(moe_best_init(&work.best, scratch, shape, work.columns.all, err));
    MOE_TRY(moe_craft_init(&work.start, scratch, shape, err));
    work.with_flash = view->batch_count > 0 && view->replica_budget_total == 0;
    if (work.with_flash) {
        MOE_TRY(moe_flash_init(&work.flash, scratch, shape, &flash_rule,
                               view->batch_count < FLASH_STEPS ? view->batch_count : FLASH_STEPS,
                               err));
    }
    work.column = MOE_NEW(scratch, double, shape->slot_count); /* also GPU loads */
    work.load = MOE_NEW(scratch, double, shape->expert_count);
    work.copies = MOE_NEW(scratch, uint32_t, shape->layer_count);
    work.slots = MOE_NEW(scratch, uint32_t, cells);
    work.order = MOE_NEW(scratch, uint32_t, cells);
    work.total = MOE_NEW(scratch, uint32_t, shape->gpu_count);
    work.trial = MOE_NEW(scratch, uint16_t, shape->slot_count);
    work.judged = MOE_NEW(scratch, uint16_t, shape->slot_count);
    if (work.column == NULL || work.copies == NULL || work.slots == NULL || work.order == NULL ||
        work.load == NULL || work.total == NULL || work.trial == NULL || work.judged == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to balance %u layers", shape->layer_count);
    }
    share_copies(view, work.copies);
    moe_craft_deal_slots(shape, work.copies, work.slots, work.order, work.total);
    const struct fold none = { 0, 0 };
    const struct recipe recipe = choose_recipe(view, &work);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        place_layer(view, layer, none, &recipe, &work, moe_placement_layer(plan, layer));
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(best) = {
    MOE_POLICY_HEADER,
    .name = "best",
    .summary = "own: as EPLB, then changes that help against sharper, flatter, tilted and observed "
               "loads alike; parts of the window held back decide how cautiously",
    .source = "own (best_solver.h); start as CRAFT's greedy copies and placement",
    .tie_rule = "of equal loads per copy the first expert, of equally loaded GPUs the first, of "
                "equally good exchanges the first pair of slots",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_BATCHES,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

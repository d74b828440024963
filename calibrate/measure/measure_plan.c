#include "calibrate/measure/measure_plan.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/measure/measure_model.h"
#include "calibrate/timing/timing.h"

/* Estimates, deliberately plain: an H200 at its usual, and what a visit costs besides. They decide
 * nothing but what is said beforehand and whether a visit still fits before the limit. */
static const double VISIT_S = 0.02;
static const double LEAST_S = 0.04;
static const double SETTLE_S = 0.045;     /* three to five short windows */
static const double SETTLE_HARD_S = 0.22; /* most of what comes down to its clock */
static const double BURST_S = 0.15;
static const double REFINE_S = 0.4;
static const double SERIES_S = 0.05;
static const double SUSTAINED_S = 2.5;
static const double BUDGET_S = 0.12;
static const double BEGIN_S = 14.0; /* contexts, ceilings, soak */
static const double SENTINELS_S = 0.7;
static const double SENTINELS_EVERY_S = 30.0;

void moe_measure_plan_finish(struct moe_measure_plan *plan)
{
    for (uint32_t i = 0; i < plan->point_count; i++) {
        free(plan->points[i].rows);
    }
    free(plan->points);
    free(plan->visits);
    plan->points = NULL;
    plan->visits = NULL;
    plan->series_count = 0;
    plan->point_count = 0;
    plan->point_room = 0;
    plan->visit_count = 0;
    plan->visit_room = 0;
    plan->sentinel_count = 0;
}

static enum moe_status grow(void **items, uint32_t *room, uint32_t count, size_t size,
                            struct moe_error *err)
{
    if (count < *room) {
        return MOE_OK;
    }
    const uint32_t wanted = *room == 0 ? 256 : *room * 2;
    void *larger = realloc(*items, wanted * size);
    if (larger == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a plan of %u entries", wanted);
    }
    *items = larger;
    *room = wanted;
    return MOE_OK;
}

static double compute_s(const struct moe_measure_series *series,
                        const struct moe_measure_point *point)
{
    return point->flops / (series->dtype == MOE_EXPERT_FP8 ? 1.1e15 : 6.5e14);
}

static double memory_s(const struct moe_measure_point *point)
{
    return point->bytes / 4.2e12;
}

double moe_measure_compute_share(const struct moe_measure_series *series,
                                 const struct moe_measure_point *point)
{
    return point->bytes > 0.0 ? compute_s(series, point) / memory_s(point) : 0.0;
}

bool moe_measure_is_light(const struct moe_measure_series *series,
                          const struct moe_measure_point *point)
{
    return moe_measure_compute_share(series, point) < 0.25;
}

/* Work that draws the power limit takes long to settle; most other work is settled at once. */
static double estimate(const struct moe_measure_series *series,
                       const struct moe_measure_point *point, double settle_s)
{
    const bool light = moe_measure_is_light(series, point);
    const double once = 8e-6 + memory_s(point) + compute_s(series, point);
    const double least = light ? once * 40.0 : fmax(once * 40.0, LEAST_S);
    const double timed =
        fmin(fmin(once * (double) MOE_TIMING_LIMIT, least), BUDGET_S + once) + 5.0 * once;
    if (point->role == MOE_ROLE_SUSTAINED) {
        return SUSTAINED_S + once * 40.0;
    }
    if (point->role == MOE_ROLE_BURST) {
        return VISIT_S + BURST_S * fmin(3.0, 1.0 + once / 5e-3) + once * 20.0;
    }
    const double choice = series->kind != MOE_MEASURE_GEMM ? 0.0
                          : point->tokens > 1024.0         ? 25.0
                                                           : 90.0;
    return VISIT_S + timed + once * (8.0 + choice) +
           fmin(settle_s, light ? SETTLE_S : SETTLE_HARD_S) + (settle_s > 0.0 ? 2.0 * once : 0.0);
}

enum moe_status moe_measure_plan_add_point(struct moe_measure_plan *plan,
                                           const struct moe_measure_point *point, uint32_t *index,
                                           struct moe_error *err)
{
    const enum moe_status status = grow((void **) &plan->points, &plan->point_room,
                                        plan->point_count, sizeof *plan->points, err);
    if (status != MOE_OK) {
        free(point->rows);
        return status;
    }
    *index = plan->point_count;
    plan->points[plan->point_count] = *point;
    plan->points[plan->point_count++].estimate_s =
        estimate(&plan->series[point->series], point, plan->settle_s);
    return MOE_OK;
}

enum moe_status moe_measure_plan_add_visit(struct moe_measure_plan *plan, uint32_t point,
                                           uint32_t pass, uint32_t tier, struct moe_error *err)
{
    MOE_TRY(grow((void **) &plan->visits, &plan->visit_room, plan->visit_count,
                 sizeof *plan->visits, err));
    plan->visits[plan->visit_count++] = (struct moe_measure_visit){ .point = point,
                                                                    .pass = (uint8_t) pass,
                                                                    .tier = (uint8_t) tier };
    return MOE_OK;
}

enum moe_status moe_measure_expert_point(struct moe_measure_plan *plan, uint32_t series_index,
                                         enum moe_measure_role role, const char *histogram,
                                         const int32_t *rows, uint32_t *index,
                                         struct moe_error *err)
{
    const struct moe_measure_series *series = &plan->series[series_index];
    const struct moe_expert_ffn_shape shape = { series->hidden, series->inter, series->units,
                                                series->dtype, series->activation };
    const struct moe_row_load load = moe_measure_histogram_load(rows, series->units);
    const struct moe_expert_work work = moe_expert_work_count(&shape, &load);
    struct moe_measure_point point = {
        .series = series_index,
        .role = role,
        .tokens = (double) load.row_count / (double) load.active_count,
        .active = load.active_count,
        .row_max = load.row_max,
        .tiles64 = load.tiles64,
        .tiles128 = load.tiles128,
        .bytes = work.weight_bytes + work.row_bytes,
        .flops = work.flops,
        .cold_bytes = work.weight_bytes, /* rows come from the step before */
    };
    const size_t bytes = (size_t) series->units * sizeof *rows;
    size_t length = strlen(histogram);
    length = length < sizeof point.histogram ? length : sizeof point.histogram - 1;
    memcpy(point.histogram, histogram, length);
    point.rows = malloc(bytes);
    if (point.rows == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a histogram");
    }
    memcpy(point.rows, rows, bytes);
    return moe_measure_plan_add_point(plan, &point, index, err);
}

/* Of refinements, about one for each series that has them: the best of at most three. */
static double refine_s(const struct moe_measure_plan *plan)
{
    double sum = 0.0;
    for (uint32_t s = 0; s < plan->series_count; s++) {
        const enum moe_measure_kind kind = plan->series[s].kind;
        sum += kind == MOE_MEASURE_EXPERT || kind == MOE_MEASURE_GEMM ? REFINE_S : 0.0;
    }
    return sum;
}

double moe_measure_plan_tier_s(const struct moe_measure_plan *plan, uint32_t tier)
{
    double sum = 0.0;
    uint32_t last = UINT32_MAX;
    for (uint32_t i = 0; i < plan->visit_count; i++) {
        const struct moe_measure_visit *visit = &plan->visits[i];
        if (visit->tier == tier) {
            const struct moe_measure_point *point = &plan->points[visit->point];
            sum += point->estimate_s + (point->series == last ? 0.0 : SERIES_S);
            last = point->series;
        }
    }
    return tier == MOE_TIER_REFINE ? refine_s(plan) : sum;
}

double moe_measure_plan_total_s(const struct moe_measure_plan *plan)
{
    double sum = 0.0;
    for (uint32_t tier = 0; tier < MOE_TIER_COUNT; tier++) {
        sum += moe_measure_plan_tier_s(plan, tier);
    }
    return BEGIN_S + sum + SENTINELS_S * (2.0 + sum / SENTINELS_EVERY_S);
}

/* Degrees that a model is not measured at, or whose GPUs hold unlike numbers of its experts. */
static void print_degrees(FILE *out, const struct moe_measure_request *request)
{
    for (uint32_t m = 0; m < request->model_count && request->kinds[MOE_MEASURE_EXPERT]; m++) {
        const struct moe_measure_model *model = &moe_measure_models[request->models[m]];
        for (uint32_t i = 0; i < request->ep_count; i++) {
            const int32_t ep = request->ep[i];
            if (ep > model->expert_count) {
                (void) fprintf(out, "left out: %s at --ep %d, which has %d experts\n", model->name,
                               ep, model->expert_count);
            } else if (model->expert_count % ep != 0) {
                (void) fprintf(out,
                               "%s at --ep %d: its %d experts do not divide; measured is the GPU "
                               "that holds %d\n",
                               model->name, ep, model->expert_count,
                               (model->expert_count + ep - 1) / ep);
            }
        }
    }
}

void moe_measure_plan_print(FILE *out, const struct moe_measure_plan *plan,
                            const struct moe_measure_request *request, double limit_s)
{
    static const char *const tiers[MOE_TIER_COUNT] = {
        "own kernels", "around them", "libraries",  "uneven rows",
        "second pass", "bursts",      "refinement", "sustained",
    };
    (void) fprintf(out, "%-44s %6s %7s %6s %8s %8s\n", "series", "anchor", "heldout", "other",
                   "seconds", "GiB");
    for (uint32_t s = 0; s < plan->series_count; s++) {
        uint32_t counts[3] = { 0 };
        double seconds = 0.0;
        for (uint32_t i = 0; i < plan->point_count; i++) {
            const struct moe_measure_point *point = &plan->points[i];
            if (point->series == s) {
                counts[point->role == MOE_ROLE_ANCHOR    ? 0
                       : point->role == MOE_ROLE_HELDOUT ? 1
                                                         : 2]++;
                seconds += point->estimate_s;
            }
        }
        (void) fprintf(out, "%-44s %6u %7u %6u %8.1f %8.1f\n", plan->series[s].name, counts[0],
                       counts[1], counts[2], seconds, plan->series[s].memory_bytes / 0x1p30);
    }
    double sum = BEGIN_S;
    for (uint32_t tier = 0; tier < MOE_TIER_COUNT; tier++) {
        const double seconds = moe_measure_plan_tier_s(plan, tier);
        uint32_t visits = 0;
        for (uint32_t i = 0; i < plan->visit_count; i++) {
            visits += plan->visits[i].tier == tier;
        }
        sum += seconds;
        (void) fprintf(out, "tier %u  %-30s %5u visits %7.1f s, done after about %.0f s%s\n", tier,
                       tiers[tier], visits, seconds, sum,
                       sum > limit_s ? " (beyond --limit: left out as far as need be)" : "");
    }
    (void) fprintf(out, "%u series, %u points, %u visits, about %.0f s on each GPU; plan %016llx\n",
                   plan->series_count, plan->point_count, plan->visit_count,
                   moe_measure_plan_total_s(plan), (unsigned long long) plan->hash);
    print_degrees(out, request);
    if (plan->left_out[0] != '\0') {
        (void) fprintf(out, "left out, too large for the GPU's memory: %s\n", plan->left_out);
    }
}

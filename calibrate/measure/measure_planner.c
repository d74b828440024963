#include "calibrate/measure/measure_planner.h"

#include <stdlib.h>
#include <string.h>

#include "calibrate/measure/measure_grid.h"
#include "calibrate/measure/measure_series.h"
#include "sim/base/hash.h"
#include "sim/base/random.h"

enum { SUSTAINED_LIMIT = 6 };

static uint64_t key_of(uint64_t seed, uint64_t purpose)
{
    return moe_random_key(moe_random_mix(seed) ^ purpose, MOE_RANDOM_TEST);
}

static void shuffle(uint32_t *items, uint32_t count, uint64_t key, uint64_t *draw)
{
    for (uint32_t i = count; i > 1; i--) {
        const uint32_t j = (uint32_t) moe_random_below(key, (*draw)++, i);
        const uint32_t moved = items[i - 1];
        items[i - 1] = items[j];
        items[j] = moved;
    }
}

static uint32_t first_tier(const struct moe_measure_plan *plan, uint32_t point)
{
    const struct moe_measure_series *series = &plan->series[plan->points[point].series];
    const enum moe_measure_role role = plan->points[point].role;
    if (role == MOE_ROLE_SKEW) {
        return MOE_TIER_SKEW;
    }
    if (role == MOE_ROLE_SUSTAINED) {
        return MOE_TIER_SUSTAINED;
    }
    if (role == MOE_ROLE_BURST) {
        return MOE_TIER_BURST;
    }
    if (series->kind != MOE_MEASURE_EXPERT) {
        return MOE_TIER_AROUND;
    }
    return series->is_library ? MOE_TIER_LIBRARY : MOE_TIER_OWN;
}

/* Brings the light points of a series to the front, or to the end, and keeps both parts' order: the
 * clock, which takes 100 ms to recover from heavy work, then has to do so once in two series. */
static void light_before_heavy(const struct moe_measure_plan *plan, uint32_t *members,
                               uint32_t count, bool reversed)
{
    uint32_t front = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct moe_measure_point *point = &plan->points[members[i]];
        if (moe_measure_is_light(&plan->series[point->series], point) == reversed) {
            continue;
        }
        const uint32_t moved = members[i];
        memmove(&members[front + 1], &members[front], (i - front) * sizeof *members);
        members[front++] = moved;
    }
}

/* The visits of one tier: series by series, both in random order, but for the above. */
static enum moe_status add_tier(struct moe_measure_plan *plan, uint32_t tier, uint32_t pass,
                                const uint8_t *wanted, uint64_t seed, struct moe_error *err)
{
    const uint32_t series_count = plan->series_count;
    const uint64_t key = key_of(seed, 100 + tier);
    uint64_t draw = 0;
    uint32_t order[MOE_MEASURE_SERIES_LIMIT];
    uint32_t *members = calloc(plan->point_count, sizeof *members);
    if (members == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a plan");
    }
    for (uint32_t i = 0; i < series_count; i++) {
        order[i] = i;
    }
    shuffle(order, series_count, key, &draw);
    enum moe_status status = MOE_OK;
    for (uint32_t s = 0; s < series_count; s++) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < plan->point_count; i++) {
            if (wanted[i] && plan->points[i].series == order[s]) {
                members[count++] = i;
            }
        }
        shuffle(members, count, key, &draw);
        light_before_heavy(plan, members, count, s % 2 == 1);
        for (uint32_t i = 0; status == MOE_OK && i < count; i++) {
            status = moe_measure_plan_add_visit(plan, members[i], pass, tier, err);
        }
    }
    free(members);
    return status;
}

static enum moe_status add_visits(struct moe_measure_plan *plan, uint64_t seed,
                                  struct moe_error *err)
{
    const uint64_t key = key_of(seed, 1);
    uint8_t *wanted = calloc(plan->point_count, 1);
    enum moe_status status =
        wanted == NULL ? moe_fail(err, MOE_LIMIT, "no memory for a plan") : MOE_OK;
    for (uint32_t tier = 0; status == MOE_OK && tier < MOE_TIER_COUNT; tier++) {
        const bool repeat = tier == MOE_TIER_SECOND;
        for (uint32_t i = 0; i < plan->point_count; i++) {
            const enum moe_measure_role role = plan->points[i].role;
            const uint64_t lot = moe_random_below(key, (uint64_t) tier << 32 | i, 100);
            wanted[i] = role == MOE_ROLE_SENTINEL || i == plan->soak_point || i == plan->burst_point
                            ? 0
                        : repeat ? role != MOE_ROLE_SUSTAINED && lot < plan->repeat_percent
                                 : first_tier(plan, i) == tier;
        }
        status = add_tier(plan, tier, repeat ? 2 : 1, wanted, seed, err);
    }
    free(wanted);
    return status;
}

/* Compute-bound and memory-bound, of a shape that is the same in every run; and the compute-bound
 * one sustained. */
static enum moe_status add_sentinels(const struct moe_measure_request *request,
                                     struct moe_measure_plan *plan, struct moe_error *err)
{
    int32_t rows[1024];
    uint32_t series = 0;
    const int32_t experts = request->sentinel.expert_count;
    const enum moe_expert_dtype dtype =
        request->dtypes[MOE_EXPERT_BF16] ? MOE_EXPERT_BF16 : MOE_EXPERT_FP8;
    MOE_TRY(
        moe_measure_series_expert(plan, &request->sentinel, dtype, "own", request, &series, err));
    const int32_t each[] = { request->sentinel_rows, 1 };
    for (int i = 0; i < 2 && (i == 0 || each[0] != each[1]); i++) {
        moe_measure_histogram_spread(experts, experts, each[i], rows);
        MOE_TRY(moe_measure_expert_point(plan, series, MOE_ROLE_SENTINEL, "uniform", rows,
                                         &plan->sentinels[plan->sentinel_count], err));
        plan->sentinel_count++;
    }
    plan->burst_point = plan->sentinels[0]; /* a card's */
    moe_measure_histogram_spread(experts, experts, request->sentinel_rows, rows);
    return moe_measure_expert_point(plan, series, MOE_ROLE_SUSTAINED, "uniform", rows,
                                    &plan->soak_point, err);
}

/* The series of our kernels with the most arithmetic, spread over the list. */
static enum moe_status add_sustained(const struct moe_measure_request *request,
                                     struct moe_measure_plan *plan, uint32_t expert_count,
                                     struct moe_error *err)
{
    int32_t rows[1024];
    const uint32_t every = expert_count / SUSTAINED_LIMIT + 1;
    for (uint32_t s = 0; s < expert_count; s += every) {
        const struct moe_measure_series *series = &plan->series[s];
        uint32_t index = 0;
        int32_t each = request->rows_max < 512 ? request->rows_max : 512;
        const int32_t most = moe_measure_row_limit(series) / series->units;
        each = each < most ? each : most;
        if (series->is_library || each < 1) {
            continue;
        }
        moe_measure_histogram_spread(series->units, series->units, each, rows);
        MOE_TRY(
            moe_measure_expert_point(plan, s, MOE_ROLE_SUSTAINED, "uniform", rows, &index, err));
    }
    return MOE_OK;
}

static uint64_t hash_of(const struct moe_measure_plan *plan)
{
    struct moe_hash hash;
    moe_hash_init(&hash, 0);
    for (uint32_t i = 0; i < plan->series_count; i++) {
        moe_hash_add_text(&hash, plan->series[i].name);
    }
    for (uint32_t i = 0; i < plan->point_count; i++) {
        const struct moe_measure_point *point = &plan->points[i];
        const double numbers[] = { point->tokens, point->context, point->bytes, point->flops };
        moe_hash_add_u64(&hash, point->series);
        moe_hash_add_u64(&hash, (uint64_t) point->role);
        moe_hash_add_text(&hash, point->histogram);
        moe_hash_add(&hash, numbers, sizeof numbers);
        if (point->rows != NULL) {
            moe_hash_add(&hash, point->rows,
                         (size_t) plan->series[point->series].units * sizeof *point->rows);
        }
    }
    for (uint32_t i = 0; i < plan->visit_count; i++) {
        moe_hash_add_u64(&hash, (uint64_t) plan->visits[i].point << 16 |
                                    (uint64_t) plan->visits[i].pass << 8 | plan->visits[i].tier);
    }
    return moe_hash_value(&hash);
}

static enum moe_status make(const struct moe_measure_request *request,
                            struct moe_measure_plan *plan, struct moe_error *err)
{
    MOE_TRY(moe_measure_series_make(request, plan, err));
    const uint32_t series_count = plan->series_count;
    uint32_t expert_count = 0;
    for (uint32_t s = 0; s < series_count; s++) {
        expert_count += plan->series[s].kind == MOE_MEASURE_EXPERT;
        MOE_TRY(moe_measure_grid_add(request, plan, s, err));
    }
    if (expert_count > 0) {
        MOE_TRY(add_sustained(request, plan, expert_count, err));
    }
    MOE_TRY(add_sentinels(request, plan, err));
    MOE_TRY(moe_measure_expert_point(plan, plan->points[plan->sentinels[0]].series, MOE_ROLE_BURST,
                                     "uniform", plan->points[plan->sentinels[0]].rows,
                                     &plan->burst_point, err));
    MOE_TRY(add_visits(plan, request->seed, err));
    plan->hash = hash_of(plan);
    return MOE_OK;
}

enum moe_status moe_measure_plan_make(const struct moe_measure_request *request,
                                      struct moe_measure_plan *plan, struct moe_error *err)
{
    memset(plan, 0, sizeof *plan);
    plan->settle_s = request->settle_s;
    plan->repeat_percent = request->repeat_percent;
    const enum moe_status status = make(request, plan, err);
    if (status != MOE_OK) {
        moe_measure_plan_finish(plan);
    }
    return status;
}

static enum moe_status make_card(const struct moe_measure_request *request,
                                 struct moe_measure_plan *plan, struct moe_error *err)
{
    enum { PASSES = 3 };
    static const char *const names[] = { "stream-read", "stream-copy", "launch-graph" };
    static const enum moe_measure_kind kinds[] = { MOE_MEASURE_STREAM, MOE_MEASURE_STREAM,
                                                   MOE_MEASURE_LAUNCH };
    MOE_TRY(add_sentinels(request, plan, err));
    for (int i = 0; i < 3; i++) {
        uint32_t series = 0;
        uint32_t point = 0;
        MOE_TRY(moe_measure_series_plain(plan, kinds[i], names[i],
                                         kinds[i] == MOE_MEASURE_STREAM ? "own" : "graph", &series,
                                         err));
        MOE_TRY(moe_measure_plain_point(
            plan, series, MOE_ROLE_SENTINEL,
            kinds[i] == MOE_MEASURE_STREAM ? request->stream_bytes : 64.0, 0.0, &point, err));
    }
    for (uint32_t pass = 1; pass <= PASSES; pass++) {
        for (uint32_t i = 0; i < plan->point_count; i++) {
            /* After the soak, which comes last but one, everything once more: warm. */
            if (i != plan->soak_point || pass == PASSES - 1) {
                MOE_TRY(moe_measure_plan_add_visit(plan, i, pass, pass - 1, err));
            }
        }
    }
    plan->sentinel_count = 0; /* they are the plan */
    plan->hash = hash_of(plan);
    return MOE_OK;
}

enum moe_status moe_measure_plan_card(const struct moe_measure_request *request,
                                      struct moe_measure_plan *plan, struct moe_error *err)
{
    memset(plan, 0, sizeof *plan);
    const enum moe_status status = make_card(request, plan, err);
    if (status != MOE_OK) {
        moe_measure_plan_finish(plan);
    }
    return status;
}

#include "sim/calibration/sample_compare.h"

#include <gsl/gsl_cdf.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/calibration/observation.h"

enum { REPLICATES = 400, LEAST_POINTS = 6 };
static const double significant_p = 0.05;

/* What makes a point the same in two files, and its log time. */
struct item {
    const char *series;
    enum moe_evidence_kind kind;
    const char *histogram;
    double key[4]; /* tokens, active, context, bytes per peer */
    double log_ns;
};

struct pair {
    const char *series;
    enum moe_evidence_kind kind;
    double log_ratio;
};

static int compare_items(const void *left, const void *right)
{
    const struct item *a = left;
    const struct item *b = right;
    int order = strcmp(a->series, b->series);
    for (int i = 0; i < 4 && order == 0; i++) {
        order = (a->key[i] > b->key[i]) - (a->key[i] < b->key[i]);
    }
    order = order == 0 ? strcmp(a->histogram, b->histogram) : order;
    return order;
}

static int compare_items_total(const void *left, const void *right)
{
    const struct item *a = left;
    const struct item *b = right;
    const int order = compare_items(left, right);
    return order != 0 ? order : (a->log_ns > b->log_ns) - (a->log_ns < b->log_ns);
}

/* Points with the median over their columns, sorted; one of several roles of a place. */
static enum moe_status list_items(struct item **out, uint32_t *count,
                                  const struct moe_evidence *evidence, struct moe_arena *arena,
                                  struct moe_error *err)
{
    struct moe_observations seen;
    MOE_TRY(moe_observations_make(&seen, evidence, NULL, arena, err));
    struct item *items = MOE_NEW(arena, struct item, evidence->point_count + 1);
    double *values = MOE_NEW(arena, double, seen.count + 1);
    uint32_t used = 0;
    uint32_t kept = 0;
    if (items == NULL || values == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its points", evidence->name);
    }
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        const uint32_t columns = seen.first[p + 1] - seen.first[p];
        for (uint32_t i = 0; i < columns; i++) {
            values[i] = seen.items[seen.first[p] + i].log_ns;
        }
        if (columns > 0) {
            items[used++] = (struct item){
                .series = evidence->series[point->series].name,
                .kind = evidence->series[point->series].kind,
                .histogram = point->histogram,
                .key = { point->tokens, point->active, point->context, point->bytes_per_peer },
                .log_ns = moe_median(values, columns),
            };
        }
    }
    qsort(items, used, sizeof items[0], compare_items_total);
    for (uint32_t i = 0; i < used; i++) {
        if (kept == 0 || compare_items(&items[i], &items[kept - 1]) != 0) {
            items[kept++] = items[i];
        }
    }
    *out = items;
    *count = kept;
    return MOE_OK;
}

/* The interval that 95 % of the replicates' medians lie in. */
static void bootstrap(struct moe_sample_comparison_row *row, const double *logs, uint32_t count,
                      uint64_t stream, double *scratch)
{
    const uint64_t key = moe_random_key(stream, MOE_RANDOM_BOOTSTRAP);
    double *medians = scratch + count;
    for (uint32_t r = 0; r < REPLICATES; r++) {
        for (uint32_t i = 0; i < count; i++) {
            scratch[i] = logs[moe_random_below(key, (uint64_t) r * count + i, count)];
        }
        medians[r] = moe_median(scratch, count);
    }
    moe_sort(medians, REPLICATES);
    row->low = exp(moe_quantile_sorted(medians, REPLICATES, 0.025));
    row->high = exp(moe_quantile_sorted(medians, REPLICATES, 0.975));
}

static double sign_test(const double *logs, uint32_t count)
{
    uint32_t above = 0;
    uint32_t below = 0;
    for (uint32_t i = 0; i < count; i++) {
        above += logs[i] > 0.0 ? 1 : 0;
        below += logs[i] < 0.0 ? 1 : 0;
    }
    const uint32_t fewer = above < below ? above : below;
    return count < LEAST_POINTS ? 1.0
                                : fmin(1.0, 2.0 * gsl_cdf_binomial_P(fewer, 0.5, above + below));
}

static void fill_row(struct moe_sample_comparison_row *row, const double *logs, uint32_t count,
                     uint64_t stream, double *scratch)
{
    memcpy(scratch, logs, count * sizeof logs[0]);
    row->points = count;
    row->ratio = exp(moe_median(scratch, count));
    row->p = sign_test(logs, count);
    bootstrap(row, logs, count, stream, scratch);
}

struct place {
    uint32_t row;
    double p;
};

static int compare_places(const void *left, const void *right)
{
    const struct place *a = left;
    const struct place *b = right;
    if (a->p != b->p) {
        return a->p < b->p ? -1 : 1;
    }
    return (a->row > b->row) - (a->row < b->row);
}

/* Holm's step-down over the series; classes are made of them and stay as they are. */
static void adjust(struct moe_sample_comparison_row *rows, uint32_t count, struct place *places)
{
    uint32_t used = 0;
    double least = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        if (!rows[i].is_class) {
            places[used++] = (struct place){ i, rows[i].p };
        }
    }
    qsort(places, used, sizeof places[0], compare_places);
    for (uint32_t i = 0; i < used; i++) {
        least = fmax(least, fmin(1.0, places[i].p * (used - i)));
        rows[places[i].row].p = least;
    }
    for (uint32_t i = 0; i < count; i++) {
        rows[i].significant = rows[i].p < significant_p;
    }
}

static uint32_t pair_up(struct pair *pairs, const struct item *a, uint32_t a_count,
                        const struct item *b, uint32_t b_count, struct moe_sample_comparison *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0, k = 0; i < a_count || k < b_count;) {
        const int order = i == a_count ? 1 : k == b_count ? -1 : compare_items(&a[i], &b[k]);
        if (order == 0) {
            pairs[count++] = (struct pair){ a[i].series, a[i].kind, b[k].log_ns - a[i].log_ns };
        }
        out->only_first += order < 0 ? 1 : 0;
        out->only_second += order > 0 ? 1 : 0;
        i += order <= 0 ? 1 : 0;
        k += order >= 0 ? 1 : 0;
    }
    return count;
}

static void make_rows(struct moe_sample_comparison *out, const struct pair *pairs, uint32_t count,
                      double *logs, double *scratch)
{
    for (uint32_t begin = 0; begin < count;) {
        uint32_t end = begin;
        while (end < count && strcmp(pairs[end].series, pairs[begin].series) == 0) {
            logs[end - begin] = pairs[end].log_ratio;
            end++;
        }
        struct moe_sample_comparison_row *row = &out->rows[out->count];
        *row = (struct moe_sample_comparison_row){ .name = pairs[begin].series };
        fill_row(row, logs, end - begin, out->count++, scratch);
        begin = end;
    }
    for (uint32_t kind = 0; kind < MOE_EVIDENCE_KIND_COUNT; kind++) {
        uint32_t used = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (pairs[i].kind == kind) {
                logs[used++] = pairs[i].log_ratio;
            }
        }
        if (used > 0) {
            struct moe_sample_comparison_row *row = &out->rows[out->count];
            *row = (struct moe_sample_comparison_row){ .name = moe_evidence_kind_name(kind),
                                                       .is_class = true };
            fill_row(row, logs, used, out->count++, scratch);
        }
    }
}

enum moe_status moe_sample_compare(struct moe_sample_comparison *out,
                                   const struct moe_evidence *first,
                                   const struct moe_evidence *second, struct moe_arena *arena,
                                   struct moe_error *err)
{
    struct item *a = NULL;
    struct item *b = NULL;
    uint32_t a_count = 0;
    uint32_t b_count = 0;
    struct moe_sample_comparison result = { 0 };
    MOE_TRY(list_items(&a, &a_count, first, arena, err));
    MOE_TRY(list_items(&b, &b_count, second, arena, err));
    struct pair *pairs = MOE_NEW(arena, struct pair, a_count + 1);
    double *logs = MOE_NEW(arena, double, a_count + 1);
    double *scratch = MOE_NEW(arena, double, a_count + REPLICATES + 1);
    const uint32_t row_limit = first->series_count + MOE_EVIDENCE_KIND_COUNT;
    struct place *places = MOE_NEW(arena, struct place, row_limit);
    result.rows = MOE_NEW(arena, struct moe_sample_comparison_row, row_limit);
    if (pairs == NULL || logs == NULL || scratch == NULL || places == NULL || result.rows == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to compare %u points", a_count);
    }
    const uint32_t count = pair_up(pairs, a, a_count, b, b_count, &result);
    if (count == 0) {
        return moe_fail(err, MOE_RANGE, "%s and %s have no point in common", first->name,
                        second->name);
    }
    make_rows(&result, pairs, count, logs, scratch);
    adjust(result.rows, result.count, places);
    *out = result;
    return MOE_OK;
}

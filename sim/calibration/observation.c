#include "sim/calibration/observation.h"

#include <assert.h>
#include <gsl/gsl_sort_double.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One sample's place in the order in which they are reduced. */
struct visit {
    uint32_t point;
    uint32_t run;
    uint32_t gpu; /* of a collective: MOE_OBSERVATION_NO_GPU */
    uint32_t pass;
    uint32_t sample;
};

/* A middle half wider than this has two modes or drifts: one value of it is an accident. */
static const double wide_middle = 1.05;

void moe_sort(double *values, uint32_t count)
{
    gsl_sort(values, 1, count);
}

double moe_median(double *values, uint32_t count)
{
    assert(count > 0);
    moe_sort(values, count);
    return gsl_stats_median_from_sorted_data(values, 1, count);
}

double moe_quantile_sorted(const double *values, uint32_t count, double share)
{
    assert(count > 0);
    return gsl_stats_quantile_from_sorted_data(values, 1, count, share);
}

double moe_sample_us(const struct moe_evidence_sample *sample)
{
    enum { P5 = 1, P25 = 2, P75 = 3, P95 = 4 };
    const double *q = sample->quantile_us;
    if (q[P25] <= 0.0 || q[P75] <= wide_middle * q[P25]) {
        return sample->median_us;
    }
    const double area = 0.20 * (q[P5] + q[P25]) / 2.0 + 0.25 * (q[P25] + sample->median_us) / 2.0 +
                        0.25 * (sample->median_us + q[P75]) / 2.0 + 0.20 * (q[P75] + q[P95]) / 2.0;
    return area / 0.90;
}

static int compare_u32(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

/* A total order: the sample's index decides at last. */
static int compare_visits(const void *left, const void *right)
{
    const struct visit *a = left;
    const struct visit *b = right;
    int order = compare_u32(a->point, b->point);
    order = order != 0 ? order : compare_u32(a->run, b->run);
    order = order != 0 ? order : compare_u32(a->gpu, b->gpu);
    order = order != 0 ? order : compare_u32(a->pass, b->pass);
    return order != 0 ? order : compare_u32(a->sample, b->sample);
}

static struct visit *list_visits(const struct moe_evidence *evidence, struct moe_arena *arena)
{
    struct visit *visits = MOE_NEW(arena, struct visit, evidence->sample_count);
    for (uint32_t i = 0; i < evidence->sample_count && visits != NULL; i++) {
        const struct moe_evidence_sample *sample = &evidence->samples[i];
        const enum moe_evidence_kind kind =
            evidence->series[evidence->points[sample->point].series].kind;
        visits[i] = (struct visit){
            .point = sample->point,
            .run = sample->run,
            .gpu = moe_evidence_is_collective(kind) ? MOE_OBSERVATION_NO_GPU : sample->gpu,
            .pass = sample->pass,
            .sample = i,
        };
    }
    if (visits != NULL) {
        qsort(visits, evidence->sample_count, sizeof visits[0], compare_visits);
    }
    return visits;
}

/* The column of a run and GPU, appended when it is new. */
static uint32_t find_column(struct moe_observation_column *columns, uint32_t *count, uint32_t run,
                            uint32_t gpu)
{
    for (uint32_t i = 0; i < *count; i++) {
        if (columns[i].run == run && columns[i].gpu == gpu) {
            return i;
        }
    }
    columns[*count] = (struct moe_observation_column){ run, gpu };
    return (*count)++;
}

/* What the passes of one point in one column say; passes of a collective are the maximum over
 * their ranks, other visits of one pass (sentinels) stand for themselves. */
static struct moe_observation reduce(const struct moe_evidence *evidence, const double *adjust,
                                     const struct visit *visits, uint32_t count, double *scratch)
{
    struct moe_observation out = { .point = visits[0].point };
    const enum moe_evidence_role role = evidence->points[out.point].role;
    double *mhz = scratch + count;
    uint32_t used = 0;
    uint32_t clocks = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct moe_evidence_sample *sample = &evidence->samples[visits[i].sample];
        const double log_ns =
            log(moe_sample_us(sample) * 1e3) - (adjust == NULL ? 0.0 : adjust[visits[i].sample]);
        const bool same_pass = i > 0 && visits[i].gpu == MOE_OBSERVATION_NO_GPU &&
                               visits[i].pass == visits[i - 1].pass;
        out.bad_flags |= sample->flags & (MOE_EVIDENCE_WRONG | MOE_EVIDENCE_UNPHYSICAL);
        if (sample->mhz > 0.0) {
            mhz[clocks++] = sample->mhz;
        }
        if (same_pass) {
            scratch[used - 1] = fmax(scratch[used - 1], log_ns);
        } else {
            scratch[used++] = log_ns;
        }
    }
    if (role != MOE_EVIDENCE_SENTINEL && used > 1) {
        double least = scratch[0];
        double most = scratch[0];
        out.repeats = used - 1;
        for (uint32_t i = 1; i < used; i++) {
            least = fmin(least, scratch[i]);
            most = fmax(most, scratch[i]);
        }
        out.spread = most - least;
    }
    out.log_ns = moe_median(scratch, used);
    out.mhz = clocks > 0 ? moe_median(mhz, clocks) : 0.0;
    return out;
}

enum moe_status moe_observations_make(struct moe_observations *out,
                                      const struct moe_evidence *evidence, const double *adjust,
                                      struct moe_arena *arena, struct moe_error *err)
{
    const uint32_t total = evidence->sample_count;
    const uint32_t column_limit = evidence->run_count * (evidence->gpu_count + 1);
    struct moe_observation *items = MOE_NEW(arena, struct moe_observation, total);
    struct moe_observation_column *columns =
        MOE_NEW(arena, struct moe_observation_column, column_limit);
    uint32_t *first = MOE_NEW(arena, uint32_t, evidence->point_count + 1);
    double *scratch = MOE_NEW(arena, double, 2 * (size_t) total);
    struct visit *visits = list_visits(evidence, arena);
    if (items == NULL || columns == NULL || first == NULL || scratch == NULL || visits == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its %u samples", evidence->name, total);
    }
    uint32_t column_count = 0;
    uint32_t count = 0;
    uint32_t point = 0;
    for (uint32_t begin = 0; begin < total;) {
        uint32_t end = begin + 1;
        while (end < total && visits[end].point == visits[begin].point &&
               visits[end].run == visits[begin].run && visits[end].gpu == visits[begin].gpu) {
            end++;
        }
        while (point <= visits[begin].point) {
            first[point++] = count;
        }
        items[count] = reduce(evidence, adjust, &visits[begin], end - begin, scratch);
        items[count].column =
            find_column(columns, &column_count, visits[begin].run, visits[begin].gpu);
        count++;
        begin = end;
    }
    while (point <= evidence->point_count) {
        first[point++] = count;
    }
    *out = (struct moe_observations){
        .columns = columns,
        .column_count = column_count,
        .items = items,
        .count = count,
        .first = first,
    };
    return MOE_OK;
}

/* What each sample would have taken at the clock that its point is stated at: in a run that waited
 * until clocks held, the point's own median; otherwise one clock for all. */
#include <math.h>
#include <string.h>

#include "sim/calibration/fitter.h"

/* The roofline that a point's time follows, with its bytes and FLOPs and the clock (MHz) that it
 * is stated at; false when there is none. */
static bool point_work(const struct moe_fitter *fitter, uint32_t index,
                       struct moe_roofline *roofline, double *bytes, double *flops, double *clock)
{
    const struct moe_evidence_point *point = &fitter->evidence->points[index];
    const uint32_t shape_index = fitter->shape_of[point->series];
    const uint32_t line_index = fitter->line_of[point->series];
    if (shape_index != MOE_FITTER_NONE && fitter->shapes[shape_index].shape.count > 0) {
        const struct moe_fitter_shape *shape = &fitter->shapes[shape_index];
        const double weights = moe_shape_weights(&shape->shape);
        *roofline = shape->fit.roofline;
        *bytes = point->active * weights * moe_dtype_bytes(shape->shape.dtype);
        const struct moe_shape_work work = moe_fitter_work(fitter, index, shape->fit.tile_tokens);
        *flops = moe_shape_flops(&shape->shape, &shape->fit, &work);
        *clock = shape->fit.reference_mhz;
        return shape->fit.reference_mhz > 0.0;
    }
    if (line_index != MOE_FITTER_NONE && fitter->lines[line_index].fitted > 0) {
        *roofline = fitter->lines[line_index].roofline;
        *bytes = point->bytes;
        *flops = fitter->share[MOE_FACTOR_COMPUTE][index] > 0.0 ? point->flops : 0.0;
        *clock = fitter->reference_mhz;
        return true;
    }
    return false;
}

/* The median clock of what is bound by arithmetic. */
static double find_reference(const struct moe_fitter *fitter, double *scratch)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < fitter->evidence->sample_count; i++) {
        const struct moe_evidence_sample *sample = &fitter->evidence->samples[i];
        if (fitter->known[sample->point] && sample->mhz > 0.0 &&
            fitter->share[MOE_FACTOR_COMPUTE][sample->point] >= 0.5) {
            scratch[used++] = sample->mhz;
        }
    }
    return used == 0 ? 0.0 : moe_round_digits(moe_median(scratch, used), MOE_FITTER_DIGITS);
}

/* Sums over samples of one point, or over the points of one series. */
struct slope_sums {
    double x;
    double y;
    double count;
    double xx;
    double xy;
};

/* How far the times of each series really follow the shifts that its roofline says: by visits of
 * one point at several clocks, within points. 1 is the prior, worth a clock that varied by 2 %:
 * what writes much or waits at launches follows less. slopes[series_count]. */
static enum moe_status fit_slopes(const struct moe_fitter *fitter, double *slopes,
                                  struct moe_error *err)
{
    static const double prior = 4e-4;
    const struct moe_evidence *evidence = fitter->evidence;
    struct slope_sums *points =
        MOE_NEW(fitter->arena, struct slope_sums, (size_t) evidence->point_count + 1);
    struct slope_sums *series =
        MOE_NEW(fitter->arena, struct slope_sums, (size_t) evidence->series_count + 1);
    if (points == NULL || series == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its clocks", evidence->name);
    }
    for (uint32_t i = 0; i < evidence->sample_count; i++) {
        struct slope_sums *sums = &points[evidence->samples[i].point];
        sums->x += fitter->clock_shift[i];
        sums->y += log(moe_sample_us(&evidence->samples[i]));
        sums->count += 1.0;
    }
    for (uint32_t i = 0; i < evidence->sample_count; i++) {
        const struct moe_evidence_sample *sample = &evidence->samples[i];
        const struct slope_sums *mean = &points[sample->point];
        const double x = fitter->clock_shift[i] - mean->x / mean->count;
        const double y = log(moe_sample_us(sample)) - mean->y / mean->count;
        struct slope_sums *sums = &series[evidence->points[sample->point].series];
        /* Visits that are off by more than clocks can do say nothing of clocks. */
        if (fitter->known[sample->point] && fabs(y) < 0.3) {
            sums->xx += x * x;
            sums->xy += x * y;
        }
    }
    for (uint32_t s = 0; s < evidence->series_count; s++) {
        const double slope = (series[s].xy + prior) / (series[s].xx + prior);
        slopes[s] = fmin(fmax(slope, 0.0), 1.2);
    }
    return MOE_OK;
}

double moe_fitter_clock_of(const struct moe_fitter *fitter, uint32_t point, double mhz)
{
    return fitter->is_settled[point] || fitter->reference_mhz <= 0.0 ? mhz : fitter->reference_mhz;
}

enum moe_status moe_fitter_fit_clock(struct moe_fitter *fitter, struct moe_error *err)
{
    const struct moe_evidence *evidence = fitter->evidence;
    const double reference = find_reference(fitter, fitter->adjust); /* scratch until below */
    double *slopes = MOE_NEW(fitter->arena, double, (size_t) evidence->series_count + 1);
    if (slopes == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its clocks", evidence->name);
    }
    memset(fitter->adjust, 0, evidence->sample_count * sizeof fitter->adjust[0]);
    if (reference <= 0.0) {
        return MOE_OK;
    }
    fitter->reference_mhz = reference;
    for (uint32_t i = 0; i < evidence->sample_count; i++) {
        const struct moe_evidence_sample *sample = &evidence->samples[i];
        struct moe_roofline roofline;
        double bytes = 0.0;
        double flops = 0.0;
        double clock = 0.0;
        const double target =
            fitter->is_settled[sample->point] ? fitter->mhz[sample->point] : reference;
        if (sample->mhz > 0.0 && target > 0.0 &&
            point_work(fitter, sample->point, &roofline, &bytes, &flops, &clock)) {
            fitter->clock_shift[i] =
                log(moe_roofline_ns(&roofline, bytes, flops, sample->mhz / clock) /
                    moe_roofline_ns(&roofline, bytes, flops, target / clock));
        }
    }
    MOE_TRY(fit_slopes(fitter, slopes, err));
    for (uint32_t i = 0; i < evidence->sample_count; i++) {
        fitter->clock_shift[i] *= slopes[evidence->points[evidence->samples[i].point].series];
        fitter->adjust[i] = fitter->clock_shift[i];
    }
    MOE_TRY(
        moe_observations_make(&fitter->even, evidence, fitter->clock_shift, fitter->arena, err));
    fitter->level = fitter->even;
    return MOE_OK;
}

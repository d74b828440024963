#include "sim/calibration/quality.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double large_bytes = 1048576.0;

/* design.md 8; what has no gate there is held to the layer's. */
struct gate {
    double mape;
    double small_mape; /* below 1 MiB */
    double p95;
};

static struct gate gate_of(enum moe_evidence_kind kind)
{
    if (kind == MOE_EVIDENCE_EXPERT || kind == MOE_EVIDENCE_GEMM) {
        return (struct gate){ 0.03, 0.03, 0.08 };
    }
    if (kind == MOE_EVIDENCE_ALL_TO_ALL_V) {
        return (struct gate){ 0.06, 0.06, 1.0 };
    }
    if (moe_evidence_is_collective(kind) || kind == MOE_EVIDENCE_HOST_TO_DEVICE) {
        return (struct gate){ 0.03, 0.05, 0.10 };
    }
    return (struct gate){ 0.05, 0.05, 0.10 };
}

uint32_t moe_quality_errors(const struct moe_fitter *fitter, uint32_t series,
                            enum moe_fit_points points, double *errors, uint32_t *error_points,
                            uint32_t *error_gpus)
{
    const struct moe_evidence *evidence = fitter->evidence;
    const enum moe_evidence_role role =
        points == MOE_FIT_HELDOUT ? MOE_EVIDENCE_HELDOUT : MOE_EVIDENCE_SKEW;
    uint32_t count = 0;
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        if (evidence->points[p].series != series || evidence->points[p].role != role) {
            continue;
        }
        for (uint32_t i = fitter->even.first[p]; i < fitter->even.first[p + 1]; i++) {
            const struct moe_observation *item = &fitter->even.items[i];
            const uint32_t gpu = fitter->even.columns[item->column].gpu;
            double ns = 0.0;
            if (moe_fitter_predict(fitter, p, gpu, &ns)) {
                errors[count] = ns / exp(item->log_ns) - 1.0;
                error_gpus[count] = gpu;
                error_points[count++] = p;
            }
        }
    }
    return count;
}

struct scratch {
    double *errors;
    double *sorted;
    uint32_t *points;
    uint32_t *gpus;
};

static enum moe_status reserve(struct scratch *scratch, const struct moe_fitter *fitter,
                               struct moe_error *err)
{
    const size_t count = (size_t) fitter->seen.count + 1;
    *scratch = (struct scratch){
        .errors = MOE_NEW(fitter->arena, double, count),
        .sorted = MOE_NEW(fitter->arena, double, count),
        .points = MOE_NEW(fitter->arena, uint32_t, count),
        .gpus = MOE_NEW(fitter->arena, uint32_t, count),
    };
    return scratch->errors != NULL && scratch->sorted != NULL && scratch->points != NULL &&
                   scratch->gpus != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "%s: no memory for its errors", fitter->evidence->name);
}

/* Mean of |error| over sizes of one side of 1 MiB; -1 when there are too few to judge. */
static double side_mape(const struct moe_fitter *fitter, const struct scratch *scratch,
                        uint32_t count, bool large, uint32_t least)
{
    double sum = 0.0;
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        if ((fitter->evidence->points[scratch->points[i]].bytes >= large_bytes) == large) {
            sum += fabs(scratch->errors[i]);
            used++;
        }
    }
    return used < least ? -1.0 : sum / used;
}

static void judge(struct moe_quality *row, const struct moe_fitter *fitter,
                  const struct scratch *scratch)
{
    const struct gate gate = gate_of(fitter->evidence->series[row->series].kind);
    const uint32_t count = row->checked;
    double sum = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        const double error = fabs(scratch->errors[i]);
        sum += error;
        scratch->sorted[i] = error;
        if (error > row->worst || i == 0) {
            row->worst = error;
            row->worst_point = fitter->evidence->points[scratch->points[i]].id;
        }
    }
    moe_sort(scratch->sorted, count);
    row->p95 = moe_quantile_sorted(scratch->sorted, count, 0.95);
    memcpy(scratch->sorted, scratch->errors, count * sizeof scratch->sorted[0]);
    row->bias = moe_median(scratch->sorted, count);
    row->mape = sum / count;
    row->gate_mape = gate.mape;
    row->gate_p95 = gate.p95;
    if (gate.small_mape != gate.mape) {
        const double large = side_mape(fitter, scratch, count, true, MOE_QUALITY_LEAST_POINTS);
        const double small = side_mape(fitter, scratch, count, false, MOE_QUALITY_LEAST_POINTS);
        const bool is_small = small / gate.small_mape > large / gate.mape;
        row->gate_mape = is_small || large < 0.0 ? gate.small_mape : gate.mape;
        row->mape = large < 0.0 && small < 0.0 ? row->mape : is_small ? small : large;
    }
    const bool mean_missed = row->mape > row->gate_mape;
    const bool tail_missed = row->p95 > row->gate_p95;
    row->status = mean_missed || tail_missed ? MOE_FIT_MISSED : MOE_FIT_CALIBRATED;
    if (count < MOE_QUALITY_LEAST_POINTS) {
        row->status = MOE_FIT_UNCHECKED;
        (void) snprintf(row->reason, sizeof row->reason, "only %u points to check on", count);
    } else if (row->status == MOE_FIT_MISSED) {
        const struct moe_evidence_point *worst = &fitter->evidence->points[scratch->points[0]];
        for (uint32_t i = 0; i < count; i++) {
            if (fitter->evidence->points[scratch->points[i]].id == row->worst_point) {
                worst = &fitter->evidence->points[scratch->points[i]];
            }
        }
        (void) snprintf(row->reason, sizeof row->reason,
                        "%s%s%s; worst: point %lld, tokens %g, active %u, bytes %g",
                        mean_missed ? "mean" : "", mean_missed && tail_missed ? " and " : "",
                        tail_missed ? "P95" : "", (long long) row->worst_point, worst->tokens,
                        worst->active, worst->bytes);
    }
}

static uint32_t fitted_points(const struct moe_fitter *fitter, uint32_t series)
{
    if (fitter->shape_of[series] != MOE_FITTER_NONE) {
        return fitter->shapes[fitter->shape_of[series]].shape.count;
    }
    if (fitter->exchange_of[series] != MOE_FITTER_NONE) {
        return fitter->exchanges[fitter->exchange_of[series]].fitted;
    }
    if (moe_fitter_decode_of(fitter, series) != NULL) {
        return moe_fitter_decode_of(fitter, series)->count;
    }
    if (fitter->line_of[series] != MOE_FITTER_NONE) {
        return fitter->lines[fitter->line_of[series]].fitted;
    }
    return 0;
}

/* Whether the tables are meant to say anything of the series at all. */
static bool is_predicted(const struct moe_fitter *fitter, uint32_t series)
{
    return fitter->shape_of[series] != MOE_FITTER_NONE ||
           fitter->exchange_of[series] != MOE_FITTER_NONE ||
           fitter->line_of[series] != MOE_FITTER_NONE;
}

enum moe_status moe_quality_check(struct moe_quality *rows, uint32_t *count,
                                  const struct moe_fitter *fitter, struct moe_error *err)
{
    struct scratch scratch;
    struct moe_repeats *repeats =
        MOE_NEW(fitter->arena, struct moe_repeats, (size_t) fitter->evidence->series_count + 1);
    *count = 0;
    MOE_TRY(reserve(&scratch, fitter, err));
    if (repeats == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its errors", fitter->evidence->name);
    }
    MOE_TRY(moe_repeats_count(repeats, fitter->evidence, fitter->arena, err));
    for (uint32_t s = 0; s < fitter->evidence->series_count; s++) {
        const enum moe_evidence_kind kind = fitter->evidence->series[s].kind;
        if (!is_predicted(fitter, s)) {
            continue;
        }
        for (int which = 0; which < 2; which++) {
            struct moe_quality row = {
                .series = s,
                .points = which == 0 ? MOE_FIT_HELDOUT : MOE_FIT_SKEW,
                .status = MOE_FIT_UNCHECKED,
                .fitted = fitted_points(fitter, s),
                .gate_mape = gate_of(kind).mape,
                .gate_p95 = gate_of(kind).p95,
                .repeats = repeats[s],
                .reason = "-",
            };
            row.checked = moe_quality_errors(fitter, s, row.points, scratch.errors, scratch.points,
                                             scratch.gpus);
            if (row.checked > 0) {
                judge(&row, fitter, &scratch);
            } else if (which == 1 || kind == MOE_EVIDENCE_ALL_TO_ALL_V) {
                continue; /* nothing was asked */
            } else {
                (void) snprintf(row.reason, sizeof row.reason, "%s",
                                row.fitted == 0 ? "no points to fit" : "no held-out points");
            }
            rows[(*count)++] = row;
        }
    }
    return MOE_OK;
}

enum moe_status moe_quality_together(struct moe_quality *row, const struct moe_fitter *fitter,
                                     const uint32_t *member_of, uint32_t index,
                                     enum moe_fit_points points, struct moe_error *err)
{
    struct scratch scratch;
    struct moe_quality all = { .points = points, .status = MOE_FIT_UNCHECKED, .reason = "-" };
    bool any = false;
    MOE_TRY(reserve(&scratch, fitter, err));
    for (uint32_t s = 0; s < fitter->evidence->series_count; s++) {
        if (member_of[s] != index) {
            continue;
        }
        if (!any) {
            const struct gate gate = gate_of(fitter->evidence->series[s].kind);
            all.series = s;
            all.fitted = fitted_points(fitter, s);
            all.gate_mape = gate.mape;
            all.gate_p95 = gate.p95;
            any = true;
        }
        all.checked += moe_quality_errors(fitter, s, points, scratch.errors + all.checked,
                                          scratch.points + all.checked, scratch.gpus);
    }
    if (all.checked > 0) {
        judge(&all, fitter, &scratch);
    }
    *row = all;
    return MOE_OK;
}

enum moe_status moe_quality_shape_holds(bool *holds, const struct moe_fitter *fitter,
                                        uint32_t shape, struct moe_error *err)
{
    struct moe_quality all;
    MOE_TRY(moe_quality_together(&all, fitter, fitter->shape_of, shape, MOE_FIT_HELDOUT, err));
    *holds = all.checked > 0 && all.status == MOE_FIT_CALIBRATED;
    return MOE_OK;
}

/* What the fullest expert of uneven rows adds, by anchors of uneven rows. */
#include <math.h>

#include "sim/calibration/fitter.h"
#include "sim/calibration/shape_row.h"

/* Weights that are tried: 0 and eight octaves, so many to one. */
enum { STEPS_OF_TWO = 4, WEIGHTS = 2 + 8 * STEPS_OF_TWO, LEAST_LOADS = 3 };

/* An uneven anchor. */
struct load {
    uint32_t point;
    double log_ns;
};

/* A weight, and what comes of it. */
struct candidate {
    double weight;
    double *errors; /* [load_count], log of predicted over measured */
};

/* Rows that are to be foretold must not be fitted: a held-out or skewed point of the same shape
 * that looks alike. */
static bool is_asked_elsewhere(const struct moe_fitter *fitter, uint32_t index)
{
    const struct moe_evidence *evidence = fitter->evidence;
    const struct moe_evidence_point *point = &evidence->points[index];
    for (uint32_t i = 0; i < evidence->point_count; i++) {
        const struct moe_evidence_point *other = &evidence->points[i];
        if ((other->role == MOE_EVIDENCE_HELDOUT || other->role == MOE_EVIDENCE_SKEW) &&
            fitter->shape_of[other->series] == fitter->shape_of[point->series] &&
            other->active == point->active && other->tokens == point->tokens &&
            other->row_max == point->row_max) {
            return true;
        }
    }
    return false;
}

static uint32_t list_loads(const struct moe_fitter *fitter, uint32_t shape, struct load *loads)
{
    const struct moe_evidence *evidence = fitter->evidence;
    uint32_t count = 0;
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        bool good = point->role == MOE_EVIDENCE_UNEVEN && fitter->shape_of[point->series] == shape;
        for (uint32_t i = fitter->level.first[p]; i < fitter->level.first[p + 1] && good; i++) {
            good = fitter->level.items[i].bad_flags == 0;
        }
        if (good && fitter->level.first[p] < fitter->level.first[p + 1] &&
            !is_asked_elsewhere(fitter, p)) {
            loads[count++] = (struct load){ p, fitter->centre[p] };
        }
    }
    return count;
}

/* The roofline stays as even rows have it; the ratios follow the weight, so that even rows are met
 * as before. (Fitting it anew with each weight foretold skewed loads no better.) */
static enum moe_status try_weight(struct candidate *out, const struct moe_fitter *fitter,
                                  const struct moe_shape *shape,
                                  const struct moe_shape_fit *by_even, const struct load *loads,
                                  uint32_t load_count, struct moe_error *err)
{
    struct moe_shape_fit fit = *by_even;
    fit.roofline.weight = out->weight;
    out->errors = MOE_NEW(fitter->arena, double, load_count);
    if (out->errors == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its uneven rows", shape->name);
    }
    for (uint32_t i = 0; i < load_count; i++) {
        const struct moe_shape_work work = moe_fitter_work(fitter, loads[i].point, fit.tile_tokens);
        const double bytes = work.active * moe_shape_weights(shape) * moe_dtype_bytes(shape->dtype);
        const double ns =
            moe_roofline_ns(&fit.roofline, bytes, moe_shape_flops(shape, &fit, &work), 1.0) *
            moe_shape_uneven_ratio(shape, &fit, &work);
        out->errors[i] = log(ns) - loads[i].log_ns;
    }
    return MOE_OK;
}

/* Sum of squares but for one load; left == count: of all. */
static double squares(const struct candidate *candidate, uint32_t count, uint32_t left)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        sum += i == left ? 0.0 : candidate->errors[i] * candidate->errors[i];
    }
    return sum;
}

static uint32_t best_of(const struct candidate *candidates, uint32_t candidate_count,
                        uint32_t count, uint32_t left)
{
    uint32_t best = 0;
    for (uint32_t c = 1; c < candidate_count; c++) {
        best = squares(&candidates[c], count, left) < squares(&candidates[best], count, left)
                   ? c
                   : best;
    }
    return best;
}

/* Each load foretold by the weight that the others choose; errors[count]. */
static void leave_one_out(double *errors, const struct candidate *candidates, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        errors[i] = candidates[best_of(candidates, WEIGHTS, count, i)].errors[i];
    }
}

/* candidates[WEIGHTS], rising. */
static enum moe_status try_all(struct candidate *candidates, const struct moe_fitter *fitter,
                               const struct moe_shape *shape, const struct moe_shape_fit *by_even,
                               const struct load *loads, uint32_t count, struct moe_error *err)
{
    const double unit = moe_shape_expected_weight(shape);
    for (uint32_t c = 0; c < WEIGHTS; c++) {
        /* From a sixteenth to sixteen times the expected weight. */
        const double multiple = c == 0 ? 0.0 : exp2((c - 1.0) / STEPS_OF_TWO - 4.0);
        candidates[c].weight = moe_round_digits(multiple * unit, MOE_FITTER_DIGITS);
        MOE_TRY(try_weight(&candidates[c], fitter, shape, by_even, loads, count, err));
    }
    return MOE_OK;
}

/* What both need: loads[] and, of at least LEAST_LOADS, room for their errors. */
static enum moe_status begin(struct load **loads, double **left_out, uint32_t *count,
                             const struct moe_fitter *fitter, uint32_t index, struct moe_error *err)
{
    const struct moe_shape *shape = &fitter->shapes[index].shape;
    *loads = MOE_NEW(fitter->arena, struct load, fitter->evidence->point_count + 1);
    *left_out = MOE_NEW(fitter->arena, double, fitter->evidence->point_count + 1);
    if (*loads == NULL || *left_out == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its uneven rows", shape->name);
    }
    *count = shape->op == MOE_SERIES_EXPERT && shape->sm_count > 0 && shape->count > 0
                 ? list_loads(fitter, index, *loads)
                 : 0;
    *count = *count < LEAST_LOADS ? 0 : *count;
    return MOE_OK;
}

enum moe_status moe_fitter_foretell_uneven(double *errors, bool *can,
                                           const struct moe_fitter *fitter, uint32_t index,
                                           struct moe_error *err)
{
    const struct moe_shape *shape = &fitter->shapes[index].shape;
    struct load *loads = NULL;
    double *left_out = NULL;
    uint32_t count = 0;
    MOE_TRY(begin(&loads, &left_out, &count, fitter, index, err));
    *can = count > 0;
    for (uint32_t t = 0; t < MOE_SHAPE_TILES && *can; t++) {
        struct candidate candidates[WEIGHTS] = { 0 };
        struct moe_shape_fit fit;
        MOE_TRY(moe_shape_fit(&fit, shape, moe_shape_tiles[t], MOE_SHAPE_FORETELL_STARTS,
                              fitter->arena, err));
        MOE_TRY(try_all(candidates, fitter, shape, &fit, loads, count, err));
        leave_one_out(left_out, candidates, count);
        errors[t] = 0.0;
        for (uint32_t i = 0; i < count; i++) {
            errors[t] += moe_shape_softened(left_out[i]);
        }
    }
    return MOE_OK;
}

static double root_mean_square(const double *errors, uint32_t count)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        sum += errors[i] * errors[i];
    }
    return sqrt(sum / count);
}

enum moe_status moe_fitter_fit_fullest(struct moe_fitter *fitter, uint32_t index,
                                       struct moe_error *err)
{
    struct moe_fitter_shape *shape = &fitter->shapes[index];
    struct candidate candidates[WEIGHTS] = { 0 };
    struct candidate present = { .weight = shape->fit.roofline.weight };
    struct load *loads = NULL;
    double *left_out = NULL;
    uint32_t count = 0;
    MOE_TRY(begin(&loads, &left_out, &count, fitter, index, err));
    shape->fullest = (struct moe_fitter_fullest){ .loads = count };
    if (count == 0) {
        return MOE_OK;
    }
    MOE_TRY(try_weight(&present, fitter, &shape->shape, &shape->fit, loads, count, err));
    MOE_TRY(try_all(candidates, fitter, &shape->shape, &shape->fit, loads, count, err));
    leave_one_out(left_out, candidates, count);
    shape->fullest.weight_before = present.weight;
    shape->fullest.rms_before = root_mean_square(present.errors, count);
    shape->fullest.rms_left_out = root_mean_square(left_out, count);
    if (shape->fullest.rms_left_out < shape->fullest.rms_before) {
        shape->fit.roofline.weight = candidates[best_of(candidates, WEIGHTS, count, count)].weight;
        shape->fullest.is_used = true;
    }
    return MOE_OK;
}

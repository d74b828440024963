#include "sim/cost/fit.h"

#include <assert.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>
#include <string.h>

#include "sim/cost/curve.h"

enum { PARAMETER_COUNT = 4, ITERATION_LIMIT = 200 };

/* Prior of log t0, logit of bandwidth and peak over their ceilings, log(p - 1): mean and
 * sd. Expert: medians over 250 published series (calibration of TensorRT-LLM's tables: t0
 * 28.7 us, 0.85 of the nominal bandwidth); a p-norm over padded tiles is nearer to the hard
 * maximum than one over tokens. Gemm: a single kernel. */
struct prior {
    double mean[PARAMETER_COUNT];
    double sd[PARAMETER_COUNT];
};

/* Weight of the prior in units of a point's residual: 1 sd of the prior counts as much as
 * this relative error of one point. */
static const double prior_weight = 0.01;

struct problem {
    const struct moe_calibration_series *series;
    const struct moe_calibration_point *points[MOE_FIT_POINT_LIMIT];
    uint32_t count;
    double bandwidth_ceiling;
    double peak_ceiling;
    struct prior prior;
};

static double logit(double share)
{
    return log(share / (1.0 - share));
}

static double share_of(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

static struct prior choose_prior(const struct moe_calibration_series *series)
{
    const bool gemm = series->op == MOE_SERIES_GEMM;
    return (struct prior){
        .mean = { log(gemm ? 5e3 : 28.7e3), logit(gemm ? 0.8 : 0.9), logit(0.7), log(2.0) },
        .sd = { gemm ? 0.7 : 0.3, 0.7, 0.7, 0.7 },
    };
}

static void decode(const struct problem *problem, const double *x, struct moe_calibration_fit *fit)
{
    fit->t0_ns = exp(x[0]);
    fit->bandwidth_bytes_s = problem->bandwidth_ceiling * share_of(x[1]);
    fit->peak_flop_s = problem->peak_ceiling * share_of(x[2]);
    const double p = 1.0 + exp(x[3]);
    fit->p = p < 16.0 ? p : 16.0;
}

static double fitted_ns(const struct moe_calibration_series *series,
                        const struct moe_calibration_fit *fit,
                        const struct moe_calibration_point *point)
{
    struct moe_curve curve;
    moe_curve_from_fit(&curve, series, fit);
    const double weights = moe_calibration_series_weights(series);
    const double rows = ceil(point->tokens / curve.tile_tokens) * curve.tile_tokens;
    return moe_curve_fitted_ns(
        &curve, point->active * weights * moe_dtype_bytes(series->dtype) * curve.ns_per_byte,
        point->active * rows * 2.0 * weights * curve.ns_per_flop);
}

static int residuals(const gsl_vector *x, void *context, gsl_vector *out)
{
    const struct problem *problem = context;
    double values[PARAMETER_COUNT];
    struct moe_calibration_fit fit = { 0 };
    for (size_t i = 0; i < PARAMETER_COUNT; i++) {
        values[i] = gsl_vector_get(x, i);
        gsl_vector_set(out, problem->count + i,
                       (values[i] - problem->prior.mean[i]) / problem->prior.sd[i] * prior_weight);
    }
    decode(problem, values, &fit);
    for (uint32_t i = 0; i < problem->count; i++) {
        const struct moe_calibration_point *point = problem->points[i];
        gsl_vector_set(out, i, log(fitted_ns(problem->series, &fit, point) / point->median_ns));
    }
    return GSL_SUCCESS;
}

void moe_fit_errors(struct moe_fit_result *result, const struct moe_calibration *calibration,
                    const struct moe_calibration_series *series)
{
    result->point_count = 0;
    result->mean_error = 0.0;
    result->worst_error = 0.0;
    for (uint32_t i = 0; i < calibration->point_count; i++) {
        const struct moe_calibration_point *point = &calibration->point_rows[i];
        if (strcmp(point->series, series->name) == 0) {
            const double error =
                fabs(fitted_ns(series, &result->fit, point) / point->median_ns - 1.0);
            result->mean_error += error;
            result->worst_error = error > result->worst_error ? error : result->worst_error;
            result->point_count++;
        }
    }
    if (result->point_count > 0) {
        result->mean_error /= result->point_count;
    }
}

static enum moe_status pose(struct problem *problem, const struct moe_calibration *calibration,
                            const struct moe_calibration_series *series, struct moe_error *err)
{
    const struct moe_calibration_gpu_kind *kind =
        moe_calibration_find_kind(calibration, series->gpu_kind);
    *problem = (struct problem){
        .series = series,
        .bandwidth_ceiling = kind->read_bytes_s,
        .peak_ceiling = series->dtype == MOE_DTYPE_FP8 ? kind->fp8_flop_s : kind->bf16_flop_s,
        .prior = choose_prior(series),
    };
    for (uint32_t i = 0; i < calibration->point_count; i++) {
        const struct moe_calibration_point *point = &calibration->point_rows[i];
        if (strcmp(point->series, series->name) != 0) {
            continue;
        }
        if (problem->count == MOE_FIT_POINT_LIMIT) {
            return moe_fail(err, MOE_RANGE, "%s: series %s has more than %d points",
                            calibration->name, series->name, MOE_FIT_POINT_LIMIT);
        }
        problem->points[problem->count++] = point;
    }
    return problem->count > 0 ? MOE_OK
                              : moe_fail(err, MOE_RANGE, "%s: series %s has no points to fit",
                                         calibration->name, series->name);
}

/* Levenberg-Marquardt with finite differences from the prior's mean. */
static enum moe_status solve(const struct problem *problem, double *x, struct moe_error *err)
{
    gsl_multifit_nlinear_parameters options = gsl_multifit_nlinear_default_parameters();
    gsl_multifit_nlinear_fdf system = {
        .f = residuals,
        .n = problem->count + PARAMETER_COUNT,
        .p = PARAMETER_COUNT,
        .params = (void *) (uintptr_t) problem,
    };
    gsl_multifit_nlinear_workspace *workspace =
        gsl_multifit_nlinear_alloc(gsl_multifit_nlinear_trust, &options, system.n, system.p);
    if (workspace == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a fit of %u points", problem->count);
    }
    int info = 0;
    const gsl_vector_const_view begin =
        gsl_vector_const_view_array(problem->prior.mean, PARAMETER_COUNT);
    (void) gsl_multifit_nlinear_init(&begin.vector, &system, workspace);
    /* Running out of iterations is no failure: the errors of the result say how good it is. */
    (void) gsl_multifit_nlinear_driver(ITERATION_LIMIT, 1e-10, 1e-10, 0.0, NULL, NULL, &info,
                                       workspace);
    const gsl_vector *position = gsl_multifit_nlinear_position(workspace);
    for (size_t i = 0; i < PARAMETER_COUNT; i++) {
        x[i] = gsl_vector_get(position, i);
    }
    gsl_multifit_nlinear_free(workspace);
    return MOE_OK;
}

enum moe_status moe_fit_series(struct moe_fit_result *out,
                               const struct moe_calibration *calibration,
                               const struct moe_calibration_series *series, struct moe_error *err)
{
    struct problem problem;
    double x[PARAMETER_COUNT];
    struct moe_fit_result result = { .fit = { .series = series->name, .source = "" } };
    MOE_TRY(pose(&problem, calibration, series, err));
    MOE_TRY(solve(&problem, x, err));
    decode(&problem, x, &result.fit);
    for (uint32_t i = 0; i < problem.count; i++) {
        result.fit.provenance =
            moe_provenance_worse(result.fit.provenance, problem.points[i]->provenance);
    }
    moe_fit_errors(&result, calibration, series);
    *out = result;
    return MOE_OK;
}

#include "sim/cost/fit.h"

#include <math.h>
#include <string.h>

#include "sim/cost/curve.h"
#include "sim/cost/roofline.h"

/* Expert: medians over 250 published series (calibration of TensorRT-LLM's tables: t0
 * 28.7 us, 0.85 of the nominal bandwidth); a p-norm over padded tiles is nearer to the hard
 * maximum than one over tokens. Gemm: a single kernel. */
static struct moe_roofline_prior choose_prior(const struct moe_calibration_series *series)
{
    const bool gemm = series->op == MOE_SERIES_GEMM;
    return (struct moe_roofline_prior){
        .mean = { log(gemm ? 5e3 : 28.7e3), moe_roofline_logit(gemm ? 0.8 : 0.9),
                  moe_roofline_logit(0.7), log(2.0) },
        .sd = { gemm ? 0.7 : 0.3, 0.7, 0.7, 0.7 },
        .weight = 0.01,
    };
}

static double point_bytes(const struct moe_calibration_series *series,
                          const struct moe_calibration_point *point)
{
    return point->active * moe_calibration_series_weights(series) * moe_dtype_bytes(series->dtype);
}

/* With what the fullest expert adds, where the table says how much that is. */
static double point_flops(const struct moe_calibration *calibration,
                          const struct moe_calibration_series *series,
                          const struct moe_calibration_point *point)
{
    const struct moe_calibration_fullest *fullest =
        moe_calibration_find_fullest(calibration, series->name);
    const double rows = ceil(point->tokens / series->tile_tokens) * series->tile_tokens;
    const double more =
        fullest == NULL ? 0.0 : fullest->weight * fmin(ceil(point->tokens), fullest->rows);
    return (point->active * rows + more) * 2.0 * moe_calibration_series_weights(series);
}

void moe_fit_errors(struct moe_fit_result *result, const struct moe_calibration *calibration,
                    const struct moe_calibration_series *series)
{
    const struct moe_roofline roofline = {
        .t0_ns = result->fit.t0_ns,
        .bandwidth_bytes_s = result->fit.bandwidth_bytes_s,
        .peak_flop_s = result->fit.peak_flop_s,
        .p = result->fit.p,
    };
    result->point_count = 0;
    result->mean_error = 0.0;
    result->worst_error = 0.0;
    for (uint32_t i = 0; i < calibration->point_count; i++) {
        const struct moe_calibration_point *point = &calibration->point_rows[i];
        if (strcmp(point->series, series->name) == 0) {
            const double ns = moe_roofline_ns(&roofline, point_bytes(series, point),
                                              point_flops(calibration, series, point), 1.0);
            const double error = fabs(ns / point->median_ns - 1.0);
            result->mean_error += error;
            result->worst_error = error > result->worst_error ? error : result->worst_error;
            result->point_count++;
        }
    }
    if (result->point_count > 0) {
        result->mean_error /= result->point_count;
    }
}

enum moe_status moe_fit_series(struct moe_fit_result *out,
                               const struct moe_calibration *calibration,
                               const struct moe_calibration_series *series, struct moe_error *err)
{
    const struct moe_calibration_gpu_kind *kind =
        moe_calibration_find_kind(calibration, series->gpu_kind);
    struct moe_roofline_point points[MOE_FIT_POINT_LIMIT];
    struct moe_roofline_problem problem = {
        .points = points,
        .bandwidth_ceiling = kind->read_bytes_s,
        .peak_ceiling = series->dtype == MOE_DTYPE_FP8 ? kind->fp8_flop_s : kind->bf16_flop_s,
        .prior = choose_prior(series),
        .starts = 1,
    };
    struct moe_fit_result result = { .fit = { .series = series->name, .source = "" } };
    for (uint32_t i = 0; i < calibration->point_count; i++) {
        const struct moe_calibration_point *point = &calibration->point_rows[i];
        if (strcmp(point->series, series->name) != 0) {
            continue;
        }
        if (problem.count == MOE_FIT_POINT_LIMIT) {
            return moe_fail(err, MOE_RANGE, "%s: series %s has more than %d points",
                            calibration->name, series->name, MOE_FIT_POINT_LIMIT);
        }
        points[problem.count++] = (struct moe_roofline_point){
            .bytes = point_bytes(series, point),
            .flops = point_flops(calibration, series, point),
            .ns = point->median_ns,
            .clock = 1.0,
        };
        result.fit.provenance = moe_provenance_worse(result.fit.provenance, point->provenance);
    }
    if (problem.count == 0) {
        return moe_fail(err, MOE_RANGE, "%s: series %s has no points to fit", calibration->name,
                        series->name);
    }
    struct moe_roofline roofline;
    MOE_TRY(moe_roofline_fit(&roofline, NULL, &problem, err));
    result.fit.t0_ns = roofline.t0_ns;
    result.fit.bandwidth_bytes_s = roofline.bandwidth_bytes_s;
    result.fit.peak_flop_s = roofline.peak_flop_s;
    result.fit.p = roofline.p;
    moe_fit_errors(&result, calibration, series);
    *out = result;
    return MOE_OK;
}

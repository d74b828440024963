#include "sim/cost/calibration_check.h"

#include <assert.h>
#include <string.h>

#include "sim/cost/calibration.h"

/* Measuring has noise: a median may beat a ceiling measured otherwise by this much. */
static const double read_margin = 1.02;
static const double flop_margin = 1.05;
enum { SEGMENT_LIMIT = 6 };

static const struct moe_calibration_series *find_series(const struct moe_calibration *calibration,
                                                        const char *name)
{
    for (uint32_t i = 0; i < calibration->series_count; i++) {
        if (strcmp(calibration->series_rows[i].name, name) == 0) {
            return &calibration->series_rows[i];
        }
    }
    return NULL;
}

static enum moe_status check_kind(const struct moe_calibration *calibration, const char *table,
                                  uint32_t row, const char *kind, struct moe_error *err)
{
    if (moe_calibration_find_kind(calibration, kind) != NULL) {
        return MOE_OK;
    }
    return moe_fail(err, MOE_RANGE,
                    "%s: table %s, row %u: gpu_kind is '%s', which table gpu_kind does not have",
                    calibration->name, table, row + 1, kind);
}

/* The fastest the hardware could be. Tensor cores take fp4 weights as bf16. */
static double flop_ceiling(const struct moe_calibration_gpu_kind *kind, uint32_t dtype)
{
    return dtype == MOE_DTYPE_FP8 ? kind->fp8_flop_s : kind->bf16_flop_s;
}

static enum moe_status check_series(const struct moe_calibration *calibration,
                                    enum moe_calibration_state state, struct moe_error *err)
{
    for (uint32_t i = 0; i < calibration->series_count; i++) {
        const struct moe_calibration_series *series = &calibration->series_rows[i];
        MOE_TRY(check_kind(calibration, "series", i, series->gpu_kind, err));
        if ((series->hidden == 0) != (series->expert_size == 0)) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table series, row %u: hidden is %u and expert_size %u; both are "
                            "0 (a generic series) or none is",
                            calibration->name, i + 1, series->hidden, series->expert_size);
        }
        if (state == MOE_CALIBRATION_FITTED &&
            moe_calibration_find_fit(calibration, series->name) == NULL) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table series, row %u: '%s' has no row in table fit; "
                            "`moesim cal fit` makes one from its points",
                            calibration->name, i + 1, series->name);
        }
    }
    return MOE_OK;
}

static enum moe_status check_point(const struct moe_calibration *calibration, uint32_t row,
                                   struct moe_error *err)
{
    const struct moe_calibration_point *point = &calibration->point_rows[row];
    const struct moe_calibration_series *series = find_series(calibration, point->series);
    if (series == NULL) {
        return moe_fail(err, MOE_RANGE,
                        "%s: table point, row %u: series is '%s', which table series does not have",
                        calibration->name, row + 1, point->series);
    }
    const double weights = moe_calibration_series_weights(series);
    if (weights == 0.0) {
        return moe_fail(err, MOE_RANGE,
                        "%s: table point, row %u: '%s' is a generic series and can have no points",
                        calibration->name, row + 1, point->series);
    }
    if (series->op == MOE_SERIES_GEMM && point->active != 1) {
        return moe_fail(err, MOE_RANGE, "%s: table point, row %u: active is %u; 1 for a gemm",
                        calibration->name, row + 1, point->active);
    }
    const struct moe_calibration_gpu_kind *kind =
        moe_calibration_find_kind(calibration, series->gpu_kind);
    const double read = point->active * weights * moe_dtype_bytes(series->dtype) /
                        (kind->read_bytes_s * read_margin) * 1e9;
    const double compute = point->active * point->tokens * 2.0 * weights /
                           (flop_ceiling(kind, series->dtype) * flop_margin) * 1e9;
    const double least = read > compute ? read : compute;
    if (point->median_ns < least) {
        return moe_fail(err, MOE_RANGE,
                        "%s: table point, row %u: median_ns is %g; a %s needs %g at least for "
                        "what it reads and computes",
                        calibration->name, row + 1, point->median_ns, kind->name, least);
    }
    return MOE_OK;
}

static enum moe_status check_fits(const struct moe_calibration *calibration, struct moe_error *err)
{
    for (uint32_t i = 0; i < calibration->fit_count; i++) {
        const struct moe_calibration_fit *fit = &calibration->fit_rows[i];
        const struct moe_calibration_series *series = find_series(calibration, fit->series);
        if (series == NULL) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table fit, row %u: series is '%s', which table series does not "
                            "have",
                            calibration->name, i + 1, fit->series);
        }
        const struct moe_calibration_gpu_kind *kind =
            moe_calibration_find_kind(calibration, series->gpu_kind);
        const double read = kind->read_bytes_s * read_margin;
        const double flops = flop_ceiling(kind, series->dtype) * flop_margin;
        if (fit->bandwidth_bytes_s > read) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table fit, row %u: bandwidth_bytes_s is %g; at most %g on a %s",
                            calibration->name, i + 1, fit->bandwidth_bytes_s, read, kind->name);
        }
        if (fit->peak_flop_s > flops) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table fit, row %u: peak_flop_s is %g; at most %g on a %s",
                            calibration->name, i + 1, fit->peak_flop_s, flops, kind->name);
        }
    }
    return MOE_OK;
}

/* Segments of one curve stand together, from 0 on without a gap. */
static enum moe_status check_segments(const struct moe_calibration *calibration,
                                      struct moe_error *err)
{
    uint32_t length = 0;
    for (uint32_t i = 0; i < calibration->segment_count; i++) {
        const struct moe_calibration_segment *segment = &calibration->segment_rows[i];
        const struct moe_calibration_segment *before = i == 0 ? NULL : segment - 1;
        MOE_TRY(check_kind(calibration, "segment", i, segment->gpu_kind, err));
        const bool same = before != NULL && strcmp(before->gpu_kind, segment->gpu_kind) == 0 &&
                          before->op == segment->op && before->link == segment->link &&
                          before->ranks == segment->ranks;
        const double from = same ? before->to_bytes : 0.0;
        length = same ? length + 1 : 1;
        if (segment->from_bytes != from) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table segment, row %u: from_bytes is %g; %g continues its curve",
                            calibration->name, i + 1, segment->from_bytes, from);
        }
        if (segment->to_bytes <= segment->from_bytes || length > SEGMENT_LIMIT) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table segment, row %u: to_bytes is %g; more than from_bytes (%g) "
                            "and at most %d segments a curve are allowed",
                            calibration->name, i + 1, segment->to_bytes, segment->from_bytes,
                            SEGMENT_LIMIT);
        }
    }
    return MOE_OK;
}

static enum moe_status check_parameter(const struct moe_calibration *calibration, uint32_t row,
                                       struct moe_error *err)
{
    static const double ranges[][2] = {
#define MOE_PARAMETER(constant, name, min, max)       { min, max },
#define MOE_PARAMETER_MAYBE(constant, name, min, max) { min, max },
#include "sim/cost/calibration_parameters.def"
#undef MOE_PARAMETER
#undef MOE_PARAMETER_MAYBE
    };
    const struct moe_calibration_parameter *parameter = &calibration->parameter_rows[row];
    MOE_TRY(check_kind(calibration, "parameter", row, parameter->gpu_kind, err));
    for (uint32_t i = 0; i < MOE_PARAMETER_COUNT; i++) {
        if (strcmp(moe_parameter_name(i), parameter->name) != 0) {
            continue;
        }
        if (parameter->value < ranges[i][0] || parameter->value > ranges[i][1]) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table parameter, row %u: value of %s is %g; %g to %g are allowed",
                            calibration->name, row + 1, parameter->name, parameter->value,
                            ranges[i][0], ranges[i][1]);
        }
        return MOE_OK;
    }
    return moe_fail(err, MOE_RANGE,
                    "%s: table parameter, row %u: name is '%s'; allowed are launch.graph_ns, "
                    "host.step_ns and the others of calibration_parameters.def",
                    calibration->name, row + 1, parameter->name);
}

static enum moe_status check_noise(const struct moe_calibration *calibration, struct moe_error *err)
{
    for (uint32_t i = 0; i < calibration->factor_count; i++) {
        const struct moe_calibration_factor *factor = &calibration->factor_rows[i];
        MOE_TRY(check_kind(calibration, "factor", i, factor->gpu_kind, err));
        if (factor->tail_max < factor->tail_min) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table factor, row %u: tail_max is %g; tail_min (%g) or more is "
                            "allowed",
                            calibration->name, i + 1, factor->tail_max, factor->tail_min);
        }
    }
    for (uint32_t i = 0; i < calibration->jitter_count; i++) {
        const struct moe_calibration_jitter *jitter = &calibration->jitter_rows[i];
        MOE_TRY(check_kind(calibration, "jitter", i, jitter->gpu_kind, err));
        if (!(jitter->min <= jitter->p5 && jitter->p5 <= jitter->p25 &&
              jitter->p25 <= jitter->p50 && jitter->p50 <= jitter->p75 &&
              jitter->p75 <= jitter->p95 && jitter->p95 <= jitter->p99)) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table jitter, row %u: the quantiles from min to p99 must not fall",
                            calibration->name, i + 1);
        }
    }
    for (uint32_t i = 0; i < calibration->drift_count; i++) {
        MOE_TRY(check_kind(calibration, "drift", i, calibration->drift_rows[i].gpu_kind, err));
    }
    for (uint32_t i = 0; i < calibration->gpu_count; i++) {
        MOE_TRY(check_kind(calibration, "gpu", i, calibration->gpu_rows[i].gpu_kind, err));
    }
    return MOE_OK;
}

static enum moe_status check_measured(const struct moe_calibration *calibration,
                                      struct moe_error *err)
{
    for (uint32_t i = 0; i < calibration->clock_count; i++) {
        if (find_series(calibration, calibration->clock_rows[i].series) == NULL) {
            return moe_fail(err, MOE_RANGE, "%s: table clock, row %u: no series '%s'",
                            calibration->name, i + 1, calibration->clock_rows[i].series);
        }
    }
    for (uint32_t i = 0; i < calibration->fullest_count; i++) {
        const char *name = calibration->fullest_rows[i].series;
        const struct moe_calibration_series *series = find_series(calibration, name);
        if (series == NULL || series->op != MOE_SERIES_EXPERT) {
            return moe_fail(err, MOE_RANGE, "%s: table fullest, row %u: no expert series '%s'",
                            calibration->name, i + 1, name);
        }
    }
    for (uint32_t i = 0; i < calibration->sustained_count; i++) {
        if (find_series(calibration, calibration->sustained_rows[i].series) == NULL) {
            return moe_fail(err, MOE_RANGE, "%s: table sustained, row %u: no series '%s'",
                            calibration->name, i + 1, calibration->sustained_rows[i].series);
        }
    }
    for (uint32_t i = 0; i < calibration->gpu_interval_count; i++) {
        const struct moe_calibration_gpu_interval *row = &calibration->gpu_interval_rows[i];
        if (row->high < row->low) {
            return moe_fail(err, MOE_RANGE,
                            "%s: table gpu_interval, row %u: high is %g; low (%g) or more is "
                            "allowed",
                            calibration->name, i + 1, row->high, row->low);
        }
    }
    for (uint32_t i = 0; i < calibration->fit_quality_count; i++) {
        MOE_TRY(check_kind(calibration, "fit_quality", i, calibration->fit_quality_rows[i].gpu_kind,
                           err));
    }
    for (uint32_t i = 0; i < calibration->fitting_count; i++) {
        MOE_TRY(check_kind(calibration, "fitting", i, calibration->fitting_rows[i].gpu_kind, err));
    }
    return MOE_OK;
}

static enum moe_status check_decode(const struct moe_calibration *calibration, uint32_t row,
                                    struct moe_error *err)
{
    const struct moe_calibration_decode *decode = &calibration->decode_rows[row];
    const bool latent = decode->kind == MOE_DECODE_MLA;
    MOE_TRY(check_kind(calibration, "decode", row, decode->gpu_kind, err));
    if (latent ? decode->kv_heads != 1 || decode->value_size > decode->head_size
               : decode->q_heads % decode->kv_heads != 0) {
        return moe_fail(err, MOE_RANGE,
                        "%s: table decode, row %u: %u q_heads, %u kv_heads, head_size %u, "
                        "value_size %u; gqa has a multiple of kv_heads, mla one of them and values "
                        "that are part of it",
                        calibration->name, row + 1, decode->q_heads, decode->kv_heads,
                        decode->head_size, decode->value_size);
    }
    const struct moe_calibration_gpu_kind *kind =
        moe_calibration_find_kind(calibration, decode->gpu_kind);
    if (decode->bandwidth_bytes_s > kind->read_bytes_s * read_margin) {
        return moe_fail(err, MOE_RANGE,
                        "%s: table decode, row %u: bandwidth_bytes_s is %g; at most %g on a %s",
                        calibration->name, row + 1, decode->bandwidth_bytes_s,
                        kind->read_bytes_s * read_margin, kind->name);
    }
    return MOE_OK;
}

static enum moe_status check_decode_point(const struct moe_calibration *calibration, uint32_t row,
                                          struct moe_error *err)
{
    const struct moe_calibration_decode_point *point = &calibration->decode_point_rows[row];
    const struct moe_calibration_decode *decode =
        moe_calibration_find_decode(calibration, point->series);
    if (decode == NULL) {
        return moe_fail(err, MOE_RANGE,
                        "%s: table decode_point, row %u: series is '%s', which table decode does "
                        "not have",
                        calibration->name, row + 1, point->series);
    }
    const struct moe_calibration_gpu_kind *kind =
        moe_calibration_find_kind(calibration, decode->gpu_kind);
    const double least = (double) point->sequences * point->context *
                         moe_calibration_decode_bytes(decode) / (kind->read_bytes_s * read_margin) *
                         1e9;
    if (point->median_ns < least) {
        return moe_fail(err, MOE_RANGE,
                        "%s: table decode_point, row %u: median_ns is %g; a %s needs %g at least "
                        "for what it reads",
                        calibration->name, row + 1, point->median_ns, kind->name, least);
    }
    return MOE_OK;
}

enum moe_status moe_calibration_check(const struct moe_calibration *calibration,
                                      enum moe_calibration_state state, struct moe_error *err)
{
    if (calibration->gpu_kind_count == 0) {
        return moe_fail(err, MOE_RANGE, "%s: table gpu_kind has no rows; at least one is needed",
                        calibration->name);
    }
    MOE_TRY(check_series(calibration, state, err));
    MOE_TRY(check_fits(calibration, err));
    for (uint32_t i = 0; i < calibration->point_count; i++) {
        MOE_TRY(check_point(calibration, i, err));
    }
    MOE_TRY(check_segments(calibration, err));
    for (uint32_t i = 0; i < calibration->parameter_count; i++) {
        MOE_TRY(check_parameter(calibration, i, err));
    }
    for (uint32_t i = 0; i < calibration->decode_count; i++) {
        MOE_TRY(check_decode(calibration, i, err));
    }
    for (uint32_t i = 0; i < calibration->decode_point_count; i++) {
        MOE_TRY(check_decode_point(calibration, i, err));
    }
    MOE_TRY(check_noise(calibration, err));
    return check_measured(calibration, err);
}

/* Shapes as rows of the tables that a run reads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/calibration/shape_fit.h"
#include "sim/calibration/shape_row.h"

enum { DIGITS = 7, LEAST_FOLLOWED = 6 };

/* Of a point left out and foretold: within about 4 %. */
static const double near_enough = 0.25;

static enum moe_status no_memory(const struct moe_shape *shape, struct moe_error *err)
{
    return moe_fail(err, MOE_LIMIT, "%s: no memory for its rows", shape->name);
}

static enum moe_status add_point(struct moe_table_builder *builder, const struct moe_shape *shape,
                                 const struct moe_shape_point *from, enum moe_provenance provenance,
                                 const char *source, struct moe_error *err)
{
    struct moe_calibration_point *point = moe_table_builder_row(builder, "point");
    if (point == NULL) {
        return no_memory(shape, err);
    }
    *point = (struct moe_calibration_point){
        .series = shape->name,
        .tokens = from->tokens,
        .active = from->active,
        .median_ns = moe_round_digits(from->ns, DIGITS),
        .provenance = provenance,
        .source = source,
    };
    return MOE_OK;
}

/* Whether the row's inner points, each left out, are foretold better by following the full row than
 * by the line between their neighbours: steps of few active experts need not be those of many. */
static bool follows(const struct moe_shape *shape, const struct moe_shape_fit *fit,
                    struct moe_shape_row row, struct moe_shape_row full)
{
    const struct moe_roofline *roofline = &fit->roofline;
    const double tile = fit->tile_tokens;
    double following = 0.0;
    double straight = 0.0;
    uint32_t used = 0;
    for (uint32_t i = row.begin + 1; i + 1 < row.end; i++) {
        const struct moe_shape_point *p = &shape->points[i];
        double ratio[3];
        double base[3];
        if (moe_shape_row_place(shape, full, p->tokens) != MOE_SHAPE_HAS) {
            continue;
        }
        for (int k = -1; k <= 1; k++) {
            ratio[k + 1] = moe_shape_point_ratio(shape, roofline, &p[k], tile);
            base[k + 1] = moe_shape_row_ratio(shape, roofline, tile, full, p[k].tokens);
        }
        const double from = log2(p[-1].tokens);
        const double share = (log2(p->tokens) - from) / (log2(p[1].tokens) - from);
        const double low = ratio[0] / base[0];
        used++;
        straight += moe_shape_softened(log((ratio[0] + share * (ratio[2] - ratio[0])) / ratio[1]));
        following += moe_shape_softened(
            log((low + share * (ratio[2] / base[2] - low)) * base[1] / ratio[1]));
    }
    return used >= LEAST_FOLLOWED && following < straight && following < used * near_enough;
}

/* Rows of fewer points than the fullest one are given its others. Few active experts are measured at
 * few tokens only (decoding), and of a thin grid both ends of a kernel's cut are missing where the
 * fullest row has them, so a line between its points would run through the step. Each of those
 * points follows the fullest row's ratio: what the row differs by from it is taken linearly in log2
 * tokens between the row's own points, and held beyond its ends. Inside the row that is
 * interpolated, beyond extrapolated. */
static enum moe_status complete_rows(struct moe_table_builder *builder,
                                     const struct moe_shape *shape, const struct moe_shape_fit *fit,
                                     const char *source, struct moe_error *err)
{
    const double tile = fit->tile_tokens;
    const struct moe_shape_row full = moe_shape_row_full(shape);
    for (struct moe_shape_row row = moe_shape_row_next(shape, 0); row.begin < shape->count;
         row = moe_shape_row_next(shape, row.end)) {
        const bool is_following = follows(shape, fit, row, full);
        for (uint32_t i = full.begin; i < full.end && row.begin != full.begin; i++) {
            struct moe_shape_point point = { .tokens = shape->points[i].tokens,
                                             .active = shape->points[row.begin].active };
            const enum moe_shape_place place = moe_shape_row_place(shape, row, point.tokens);
            if (place == MOE_SHAPE_HAS || (place == MOE_SHAPE_BETWEEN && !is_following)) {
                continue;
            }
            point.ns = 1.0;
            point.ns =
                moe_shape_row_followed(shape, &fit->roofline, tile, row, full, point.tokens) /
                moe_shape_point_ratio(shape, &fit->roofline, &point, tile);
            if (moe_shape_is_physical(shape, point.tokens, point.active, point.ns)) {
                MOE_TRY(add_point(
                    builder, shape, &point,
                    place == MOE_SHAPE_BETWEEN
                        ? moe_provenance_worse(MOE_PROVENANCE_INTERPOLATED, shape->provenance)
                        : moe_provenance_outside(shape->provenance),
                    source, err));
            }
        }
    }
    return MOE_OK;
}

enum moe_status moe_shape_rows(struct moe_table_builder *builder, const struct moe_shape *shape,
                               const struct moe_shape_fit *fit, enum moe_provenance provenance,
                               const char *source, struct moe_error *err)
{
    struct moe_calibration_series *series = moe_table_builder_row(builder, "series");
    struct moe_calibration_fit *row = moe_table_builder_row(builder, "fit");
    if (series == NULL || row == NULL) {
        return no_memory(shape, err);
    }
    *series = (struct moe_calibration_series){
        .name = shape->name,
        .gpu_kind = shape->gpu_kind,
        .op = shape->op,
        .hidden = shape->hidden,
        .expert_size = shape->expert_size,
        .gated = shape->gated,
        .dtype = shape->dtype,
        .backend = shape->backend,
        .tile_tokens = fit->tile_tokens,
        .permutation = shape->op == MOE_SERIES_GEMM || shape->permutation_inside ? 1 : 0,
        .provenance = provenance,
        .source = source,
    };
    *row = (struct moe_calibration_fit){
        .series = shape->name,
        .t0_ns = fit->roofline.t0_ns,
        .bandwidth_bytes_s = fit->roofline.bandwidth_bytes_s,
        .peak_flop_s = fit->roofline.peak_flop_s,
        .p = fit->roofline.p,
        .provenance = provenance,
        .source = source,
    };
    for (uint32_t i = 0; i < shape->count; i++) {
        MOE_TRY(add_point(builder, shape, &shape->points[i], shape->provenance, source, err));
    }
    MOE_TRY(complete_rows(builder, shape, fit, source, err));
    if (fit->roofline.weight > 0.0) {
        struct moe_calibration_fullest *fullest = moe_table_builder_row(builder, "fullest");
        if (fullest == NULL) {
            return no_memory(shape, err);
        }
        *fullest = (struct moe_calibration_fullest){
            .series = shape->name,
            .weight = fit->roofline.weight,
            .rows = MOE_SHAPE_FULLEST_ROWS,
            .provenance = provenance,
            .source = source,
        };
    }
    if (fit->reference_mhz > 0.0) {
        struct moe_calibration_clock *clock = moe_table_builder_row(builder, "clock");
        if (clock == NULL) {
            return no_memory(shape, err);
        }
        *clock = (struct moe_calibration_clock){
            .series = shape->name,
            .reference_hz = fit->reference_mhz * 1e6,
            .provenance = MOE_PROVENANCE_MEASURED,
            .source = source,
        };
    }
    return MOE_OK;
}

enum moe_status moe_shape_curve(struct moe_curve *curve, const struct moe_shape *shape,
                                const struct moe_shape_fit *fit, struct moe_arena *arena,
                                struct moe_error *err)
{
    struct moe_table_builder builder;
    const struct moe_curve_key key = {
        .gpu_kind = shape->gpu_kind,
        .op = shape->op,
        .hidden = shape->hidden,
        .expert_size = shape->expert_size,
        .gated = shape->gated,
        .dtype = shape->dtype,
    };
    moe_table_builder_init(&builder, shape->name, arena);
    MOE_TRY(moe_shape_rows(&builder, shape, fit, MOE_PROVENANCE_MEASURED, shape->name, err));
    return moe_curve_init(curve, &builder.calibration, &key, arena, err);
}

double moe_shape_ns(const struct moe_curve *curve, const struct moe_shape *shape,
                    const struct moe_shape_work *work, double memory, double compute)
{
    enum moe_provenance provenance = MOE_PROVENANCE_MEASURED;
    const double weights = moe_shape_weights(shape);
    const double memory_ns =
        work->active * weights * moe_dtype_bytes(shape->dtype) * curve->ns_per_byte;
    const double compute_ns =
        moe_curve_rows(curve, work->tiles, work->fullest) * 2.0 * weights * curve->ns_per_flop;
    return moe_curve_uneven_ratio(curve, work->tokens / work->active, work->active, work->fullest,
                                  &provenance) *
           moe_curve_fitted_ns(curve, memory_ns * memory, compute_ns * compute);
}

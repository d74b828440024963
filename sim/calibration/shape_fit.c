#include "sim/calibration/shape_fit.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/observation.h"

enum { DIGITS = 7, FORETELL_STARTS = 3 };

/* A residual of 5 % begins to count linearly: kernel switches are of that size. */
static const double soft = 0.05;
/* Fits may use the ceilings' margins but must not be refused for a rounding (calibration_check). */
static const double read_margin = 1.015;
static const double flop_margin = 1.04;
/* A point tells the clock of arithmetic when so much of its time follows it. */
static const double compute_bound = 0.5;

double moe_round_digits(double value, int digits)
{
    char text[40];
    (void) snprintf(text, sizeof text, "%.*e", digits - 1, value);
    return strtod(text, NULL);
}

double moe_shape_weights(const struct moe_shape *shape)
{
    const double product = (double) shape->hidden * shape->expert_size;
    return shape->op == MOE_SERIES_GEMM ? product : product * (shape->gated ? 3.0 : 2.0);
}

bool moe_shape_is_physical(const struct moe_shape *shape, double tokens, uint32_t active, double ns)
{
    const double weights = moe_shape_weights(shape) * active;
    const double read =
        weights * moe_dtype_bytes(shape->dtype) / (shape->read_bytes_s * 1.02) * 1e9;
    const double compute = weights * 2.0 * tokens / (shape->flop_s * 1.05) * 1e9;
    return ns >= read && ns >= compute;
}

static double point_bytes(const struct moe_shape *shape, const struct moe_shape_point *point)
{
    return point->active * moe_shape_weights(shape) * moe_dtype_bytes(shape->dtype);
}

static double point_flops(const struct moe_shape *shape, const struct moe_shape_point *point,
                          double tile)
{
    return point->active * ceil(point->tokens / tile) * tile * 2.0 * moe_shape_weights(shape);
}

/* Expert: medians of published whole-op series, less what the own kernels leave out. */
static struct moe_roofline_prior choose_prior(const struct moe_shape *shape)
{
    const bool gemm = shape->op == MOE_SERIES_GEMM;
    return (struct moe_roofline_prior){
        .mean = { log(gemm ? 5e3 : 12e3), moe_roofline_logit(gemm ? 0.8 : 0.9),
                  moe_roofline_logit(0.7), log(2.0) },
        .sd = { 0.7, 0.7, 0.7, 0.7 },
        .weight = 0.01,
    };
}

/* The fit with one tile; clock 0 leaves the clocks out. */
static enum moe_status fit_tile(struct moe_roofline *out, const struct moe_shape *shape,
                                double tile, double clock_mhz, struct moe_roofline_point *points,
                                uint32_t starts, struct moe_error *err)
{
    for (uint32_t i = 0; i < shape->count; i++) {
        const struct moe_shape_point *point = &shape->points[i];
        points[i] = (struct moe_roofline_point){
            .bytes = point_bytes(shape, point),
            .flops = point_flops(shape, point, tile),
            .ns = point->ns,
            .clock = clock_mhz > 0.0 && point->mhz > 0.0 ? point->mhz / clock_mhz : 1.0,
        };
    }
    const struct moe_roofline_problem problem = {
        .points = points,
        .count = shape->count,
        .bandwidth_ceiling = shape->read_bytes_s * read_margin,
        .peak_ceiling = shape->flop_s * flop_margin,
        .prior = choose_prior(shape),
        .soft = soft,
        .starts = starts,
    };
    return moe_roofline_fit(out, NULL, &problem, err);
}

/* The median clock of the points that are bound by arithmetic; 0 when there is none. */
static double reference_clock(const struct moe_shape *shape, const struct moe_roofline *roofline,
                              double tile, double *scratch)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < shape->count; i++) {
        const struct moe_shape_point *point = &shape->points[i];
        const double share = moe_roofline_compute_share(roofline, point_bytes(shape, point),
                                                        point_flops(shape, point, tile), 1.0);
        if (share >= compute_bound && point->mhz > 0.0) {
            scratch[used++] = point->mhz;
        }
    }
    return used == 0 ? 0.0 : moe_median(scratch, used);
}

const uint32_t moe_shape_tiles[MOE_SHAPE_TILES] = { 1, 8, 16, 32, 64, 128, 192, 256 };

/* How well the ratios around each inner point foretell its own, the roofline given: the sum of
 * the softened errors. This is what the tile decides: with the right one the ratio is smooth. */
static double foretelling_error(const struct moe_shape *shape, const struct moe_roofline *roofline,
                                double tile)
{
    double sum = 0.0;
    for (uint32_t i = 1; i + 1 < shape->count; i++) {
        const struct moe_shape_point *p = &shape->points[i];
        double ratio[3];
        if (p[-1].active != p->active || p[1].active != p->active) {
            continue;
        }
        for (int k = -1; k <= 1; k++) {
            ratio[k + 1] = p[k].ns / moe_roofline_ns(roofline, point_bytes(shape, &p[k]),
                                                     point_flops(shape, &p[k], tile), 1.0);
        }
        const double from = log2(p[-1].tokens);
        const double share = (log2(p->tokens) - from) / (log2(p[1].tokens) - from);
        const double foretold = ratio[0] + share * (ratio[2] - ratio[0]);
        const double z = log(foretold / ratio[1]) / soft;
        sum += sqrt(1.0 + z * z) - 1.0;
    }
    return sum;
}

static enum moe_status reserve(struct moe_roofline_point **points, const struct moe_shape *shape,
                               struct moe_arena *arena, struct moe_error *err)
{
    *points = MOE_NEW(arena, struct moe_roofline_point, shape->count);
    return *points != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "%s: no memory for %u points", shape->name, shape->count);
}

enum moe_status moe_shape_foretell(double *errors, const struct moe_shape *shape,
                                   struct moe_arena *arena, struct moe_error *err)
{
    struct moe_roofline_point *points = NULL;
    MOE_TRY(reserve(&points, shape, arena, err));
    for (uint32_t t = 0; t < MOE_SHAPE_TILES; t++) {
        struct moe_roofline roofline;
        MOE_TRY(fit_tile(&roofline, shape, moe_shape_tiles[t], 0.0, points, FORETELL_STARTS, err));
        errors[t] = foretelling_error(shape, &roofline, moe_shape_tiles[t]);
    }
    return MOE_OK;
}

enum moe_status moe_shape_fit(struct moe_shape_fit *out, const struct moe_shape *shape,
                              uint32_t tile_tokens, struct moe_arena *arena, struct moe_error *err)
{
    struct moe_roofline_point *points = NULL;
    struct moe_shape_fit fit = { .tile_tokens = tile_tokens };
    double *scratch = MOE_NEW(arena, double, shape->count);
    MOE_TRY(reserve(&points, shape, arena, err));
    if (scratch == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %u points", shape->name, shape->count);
    }
    MOE_TRY(fit_tile(&fit.roofline, shape, tile_tokens, 0.0, points, MOE_ROOFLINE_STARTS, err));
    const double clock = reference_clock(shape, &fit.roofline, tile_tokens, scratch);
    if (clock > 0.0) {
        fit.reference_mhz = moe_round_digits(clock, DIGITS);
        MOE_TRY(fit_tile(&fit.roofline, shape, tile_tokens, fit.reference_mhz, points,
                         MOE_ROOFLINE_STARTS, err));
    }
    fit.roofline = (struct moe_roofline){
        .t0_ns = moe_round_digits(fit.roofline.t0_ns, DIGITS),
        .bandwidth_bytes_s = moe_round_digits(fit.roofline.bandwidth_bytes_s, DIGITS),
        .peak_flop_s = moe_round_digits(fit.roofline.peak_flop_s, DIGITS),
        .p = moe_round_digits(fit.roofline.p, DIGITS),
    };
    *out = fit;
    return MOE_OK;
}

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

/* The points with one count of active experts: [begin, end). */
struct row {
    uint32_t begin;
    uint32_t end;
};

static struct row next_row(const struct moe_shape *shape, uint32_t begin)
{
    struct row row = { begin, begin };
    while (row.end < shape->count && shape->points[row.end].active == shape->points[begin].active) {
        row.end++;
    }
    return row;
}

static double point_ratio(const struct moe_shape *shape, const struct moe_shape_fit *fit,
                          const struct moe_shape_point *point)
{
    return point->ns / moe_roofline_ns(&fit->roofline, point_bytes(shape, point),
                                       point_flops(shape, point, fit->tile_tokens), 1.0);
}

/* The row's ratio at tokens, as the curve takes it: linear in log2, held at the ends. */
static double row_ratio(const struct moe_shape *shape, const struct moe_shape_fit *fit,
                        struct row row, double tokens)
{
    uint32_t i = row.begin;
    while (i < row.end && shape->points[i].tokens < tokens) {
        i++;
    }
    if (i == row.begin || i == row.end) {
        return point_ratio(shape, fit, &shape->points[i == row.begin ? i : row.end - 1]);
    }
    const struct moe_shape_point *low = &shape->points[i - 1];
    const struct moe_shape_point *high = &shape->points[i];
    const double share = log2(tokens / low->tokens) / log2(high->tokens / low->tokens);
    const double from = point_ratio(shape, fit, low);
    return from + share * (point_ratio(shape, fit, high) - from);
}

/* Few active experts are measured at few tokens only (decoding), and the curve would hold their
 * last ratio where the full row has others. Beyond a row's ends it is given points that follow
 * the ratio of the row with the most points, from where its own ends: extrapolated, as they say. */
static enum moe_status complete_rows(struct moe_table_builder *builder,
                                     const struct moe_shape *shape, const struct moe_shape_fit *fit,
                                     const char *source, struct moe_error *err)
{
    struct row full = { 0, 0 };
    for (struct row row = next_row(shape, 0); row.begin < shape->count;
         row = next_row(shape, row.end)) {
        full = row.end - row.begin >= full.end - full.begin ? row : full;
    }
    for (struct row row = next_row(shape, 0); row.begin < shape->count;
         row = next_row(shape, row.end)) {
        const struct moe_shape_point *first = &shape->points[row.begin];
        const struct moe_shape_point *last = &shape->points[row.end - 1];
        for (uint32_t i = full.begin; i < full.end && row.begin != full.begin; i++) {
            const double tokens = shape->points[i].tokens;
            if (tokens >= first->tokens && tokens <= last->tokens) {
                continue;
            }
            const struct moe_shape_point *end = tokens < first->tokens ? first : last;
            struct moe_shape_point point = { .tokens = tokens, .active = first->active };
            const double follow =
                row_ratio(shape, fit, full, tokens) / row_ratio(shape, fit, full, end->tokens);
            point.ns = 1.0;
            point.ns = point_ratio(shape, fit, end) * follow / point_ratio(shape, fit, &point);
            if (moe_shape_is_physical(shape, tokens, point.active, point.ns)) {
                MOE_TRY(add_point(builder, shape, &point, moe_provenance_outside(shape->provenance),
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

double moe_shape_ns(const struct moe_curve *curve, const struct moe_shape *shape, double tokens,
                    double active, double tiles, double memory, double compute)
{
    enum moe_provenance provenance = MOE_PROVENANCE_MEASURED;
    const double weights = moe_shape_weights(shape);
    const double memory_ns = active * weights * moe_dtype_bytes(shape->dtype) * curve->ns_per_byte;
    const double compute_ns = tiles * curve->tile_tokens * 2.0 * weights * curve->ns_per_flop;
    return moe_curve_ratio(curve, tokens / active, active, &provenance) *
           moe_curve_fitted_ns(curve, memory_ns * memory, compute_ns * compute);
}

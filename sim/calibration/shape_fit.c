#include "sim/calibration/shape_fit.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/observation.h"

enum { DIGITS = 7, FORETELL_STARTS = 3 };

/* A row of LONG_ROW points is long; LEAST_ROWS long ones tell how time goes with active experts,
 * and about LEFT_OUT of them are left out in turn to choose a tile. */
enum { LONG_ROW = 8, LEAST_ROWS = 3, LEFT_OUT = 4, ROW_LIMIT = 64 };

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

/* FLOPs of whole tiles. */
static double tile_flops(const struct moe_shape *shape, const struct moe_shape_point *point,
                         double tile)
{
    return point->active * ceil(point->tokens / tile) * tile * 2.0 * moe_shape_weights(shape);
}

/* FLOPs of the fullest expert's rows: what its weight counts. */
static double fullest_flops(const struct moe_shape *shape, double rows)
{
    return fmin(ceil(rows), MOE_SHAPE_FULLEST_ROWS) * 2.0 * moe_shape_weights(shape);
}

static double point_flops(const struct moe_shape *shape, const struct moe_roofline *roofline,
                          const struct moe_shape_point *point, double tile)
{
    return tile_flops(shape, point, tile) + roofline->weight * fullest_flops(shape, point->tokens);
}

double moe_shape_flops(const struct moe_shape *shape, const struct moe_shape_fit *fit,
                       const struct moe_shape_work *work)
{
    return work->tiles * fit->tile_tokens * 2.0 * moe_shape_weights(shape) +
           fit->roofline.weight * fullest_flops(shape, work->fullest);
}

/* Measured over fitted. */
static double point_ratio(const struct moe_shape *shape, const struct moe_roofline *roofline,
                          const struct moe_shape_point *point, double tile)
{
    return point->ns / moe_roofline_ns(roofline, point_bytes(shape, point),
                                       point_flops(shape, roofline, point, tile), 1.0);
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

/* The row's ratio at tokens, as the curve takes it: linear in log2, held at the ends. */
static double row_ratio(const struct moe_shape *shape, const struct moe_roofline *roofline,
                        double tile, struct row row, double tokens)
{
    uint32_t i = row.begin;
    while (i < row.end && shape->points[i].tokens < tokens) {
        i++;
    }
    if (i == row.begin || i == row.end) {
        return point_ratio(shape, roofline, &shape->points[i == row.begin ? i : row.end - 1], tile);
    }
    const struct moe_shape_point *low = &shape->points[i - 1];
    const struct moe_shape_point *high = &shape->points[i];
    const double share = log2(tokens / low->tokens) / log2(high->tokens / low->tokens);
    const double from = point_ratio(shape, roofline, low, tile);
    return from + share * (point_ratio(shape, roofline, high, tile) - from);
}

/* Rows that are long enough to say how time goes with tokens: at most limit of them. */
static uint32_t long_rows(struct row *rows, uint32_t limit, const struct moe_shape *shape)
{
    uint32_t count = 0;
    for (struct row row = next_row(shape, 0); row.begin < shape->count && count < limit;
         row = next_row(shape, row.end)) {
        if (row.end - row.begin >= LONG_ROW) {
            rows[count++] = row;
        }
    }
    return count;
}

/* Whether the points tell the fullest expert's part from that of the tiles. */
static bool is_weighted(const struct moe_shape *shape)
{
    struct row rows[LEAST_ROWS];
    return shape->op == MOE_SERIES_EXPERT && shape->sm_count > 0 &&
           long_rows(rows, LEAST_ROWS, shape) == LEAST_ROWS;
}

/* Expert: medians of published whole-op series, less what the own kernels leave out. */
static struct moe_roofline_prior choose_prior(const struct moe_shape *shape)
{
    const bool gemm = shape->op == MOE_SERIES_GEMM;
    struct moe_roofline_prior prior = {
        .mean = { log(gemm ? 5e3 : 12e3), moe_roofline_logit(gemm ? 0.8 : 0.9),
                  moe_roofline_logit(0.7), log(2.0) },
        .sd = { 0.7, 0.7, 0.7, 0.7, 1.0 },
        .weight = 0.01,
    };
    if (shape->sm_count > 0) {
        /* A tile goes through both products on one multiprocessor, 256 weight rows at a time,
         * where even work has them all: half of that, since other tiles run beside it. */
        prior.mean[4] =
            log(128.0 * shape->sm_count * ((double) shape->hidden + shape->expert_size) /
                moe_shape_weights(shape));
    }
    return prior;
}

/* The fit with one tile; clock 0 leaves the clocks out. */
static enum moe_status fit_tile(struct moe_roofline *out, const struct moe_shape *shape,
                                double tile, double clock_mhz, struct moe_roofline_point *points,
                                uint32_t starts, struct moe_error *err)
{
    const bool weighted = is_weighted(shape);
    for (uint32_t i = 0; i < shape->count; i++) {
        const struct moe_shape_point *point = &shape->points[i];
        points[i] = (struct moe_roofline_point){
            .bytes = point_bytes(shape, point),
            .flops = tile_flops(shape, point, tile),
            .weighted_flops = weighted ? fullest_flops(shape, point->tokens) : 0.0,
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
        .is_weighted = weighted,
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
        const double share = moe_roofline_compute_share(
            roofline, point_bytes(shape, point), point_flops(shape, roofline, point, tile), 1.0);
        if (share >= compute_bound && point->mhz > 0.0) {
            scratch[used++] = point->mhz;
        }
    }
    return used == 0 ? 0.0 : moe_median(scratch, used);
}

const uint32_t moe_shape_tiles[MOE_SHAPE_TILES] = { 1, 8, 16, 32, 64, 128, 192, 256 };

static double softened(double log_error)
{
    const double z = log_error / soft;
    return sqrt(1.0 + z * z) - 1.0;
}

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
            ratio[k + 1] = point_ratio(shape, roofline, &p[k], tile);
        }
        const double from = log2(p[-1].tokens);
        const double share = (log2(p->tokens) - from) / (log2(p[1].tokens) - from);
        const double foretold = ratio[0] + share * (ratio[2] - ratio[0]);
        sum += softened(log(foretold / ratio[1]));
    }
    return sum;
}

/* How well the other long rows foretell the one that is left out of the roofline. */
static double row_error(const struct moe_shape *shape, const struct moe_roofline *roofline,
                        double tile, const struct row *rows, uint32_t row_count, uint32_t left)
{
    const struct row low = rows[left == 0 ? 1 : left - 1];
    const struct row high = rows[left + 1 < row_count ? left + 1 : left - 1];
    const double from = shape->points[low.begin].active;
    const double to = shape->points[high.begin].active;
    double sum = 0.0;
    for (uint32_t i = rows[left].begin; i < rows[left].end; i++) {
        const struct moe_shape_point *point = &shape->points[i];
        double ratio = row_ratio(shape, roofline, tile, low, point->tokens);
        if (low.begin != high.begin) {
            ratio += log2(point->active / from) / log2(to / from) *
                     (row_ratio(shape, roofline, tile, high, point->tokens) - ratio);
        }
        sum += softened(log(ratio / point_ratio(shape, roofline, point, tile)));
    }
    return sum;
}

/* Over long rows, each left out in turn; of many every so manieth. */
static enum moe_status leave_rows_out(double *error, const struct moe_shape *shape, uint32_t tile,
                                      struct moe_arena *arena, struct moe_error *err)
{
    struct row rows[ROW_LIMIT];
    struct moe_shape rest = *shape;
    const uint32_t row_count = long_rows(rows, ROW_LIMIT, shape);
    const uint32_t step = (row_count + LEFT_OUT - 1) / LEFT_OUT;
    struct moe_shape_point *kept = MOE_NEW(arena, struct moe_shape_point, shape->count);
    struct moe_roofline_point *points = MOE_NEW(arena, struct moe_roofline_point, shape->count);
    if (kept == NULL || points == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %u points", shape->name, shape->count);
    }
    assert(row_count > 1);
    *error = 0.0;
    for (uint32_t left = 0; left < row_count; left += step) {
        struct moe_roofline roofline;
        rest.points = kept;
        rest.count = 0;
        for (uint32_t i = 0; i < shape->count; i++) {
            if (i < rows[left].begin || i >= rows[left].end) {
                kept[rest.count++] = shape->points[i];
            }
        }
        MOE_TRY(fit_tile(&roofline, &rest, tile, 0.0, points, FORETELL_STARTS, err));
        *error += row_error(shape, &roofline, tile, rows, row_count, left);
    }
    return MOE_OK;
}

static enum moe_status reserve(struct moe_roofline_point **points, const struct moe_shape *shape,
                               struct moe_arena *arena, struct moe_error *err)
{
    *points = MOE_NEW(arena, struct moe_roofline_point, shape->count);
    return *points != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "%s: no memory for %u points", shape->name, shape->count);
}

enum moe_status moe_shape_foretell(double *errors, bool *by_rows, const struct moe_shape *shape,
                                   struct moe_arena *arena, struct moe_error *err)
{
    struct row rows[ROW_LIMIT];
    struct moe_roofline_point *points = NULL;
    const uint32_t row_count = long_rows(rows, ROW_LIMIT, shape);
    /* Without one, the others must still be able to tell. */
    *by_rows = is_weighted(shape) && row_count > LEAST_ROWS;
    for (uint32_t t = 0; t < MOE_SHAPE_TILES && *by_rows; t++) {
        MOE_TRY(leave_rows_out(&errors[t], shape, moe_shape_tiles[t], arena, err));
    }
    if (*by_rows) {
        return MOE_OK;
    }
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
        .weight = moe_round_digits(fit.roofline.weight, DIGITS),
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

/* Few active experts are measured at few tokens only (decoding), and the curve would hold their
 * last ratio where the full row has others. Beyond a row's ends it is given points that follow
 * the ratio of the row with the most points, from where its own ends: extrapolated, as they say. */
static enum moe_status complete_rows(struct moe_table_builder *builder,
                                     const struct moe_shape *shape, const struct moe_shape_fit *fit,
                                     const char *source, struct moe_error *err)
{
    const double tile = fit->tile_tokens;
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
            const double follow = row_ratio(shape, &fit->roofline, tile, full, tokens) /
                                  row_ratio(shape, &fit->roofline, tile, full, end->tokens);
            point.ns = 1.0;
            point.ns = point_ratio(shape, &fit->roofline, end, tile) * follow /
                       point_ratio(shape, &fit->roofline, &point, tile);
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
    return moe_curve_ratio(curve, work->tokens / work->active, work->active, &provenance) *
           moe_curve_fitted_ns(curve, memory_ns * memory, compute_ns * compute);
}

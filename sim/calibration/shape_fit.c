#include "sim/calibration/shape_fit.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/observation.h"
#include "sim/calibration/shape_row.h"

enum { DIGITS = 7 };

/* A row of LONG_ROW points is long; LEAST_ROWS long ones tell how time goes with active experts,
 * and about LEFT_OUT of them are left out in turn to choose a tile. */
enum { LONG_ROW = 8, LEAST_ROWS = 3, LEFT_OUT = 4, ROW_LIMIT = 64 };

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

/* Rows that are long enough to say how time goes with tokens: at most limit of them. */
static uint32_t long_rows(struct moe_shape_row *rows, uint32_t limit, const struct moe_shape *shape)
{
    uint32_t count = 0;
    for (struct moe_shape_row row = moe_shape_row_next(shape, 0);
         row.begin < shape->count && count < limit; row = moe_shape_row_next(shape, row.end)) {
        if (row.end - row.begin >= LONG_ROW) {
            rows[count++] = row;
        }
    }
    return count;
}

/* Whether the points tell the fullest expert's part from that of the tiles. */
static bool is_weighted(const struct moe_shape *shape)
{
    struct moe_shape_row rows[LEAST_ROWS];
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
        prior.mean[4] = log(moe_shape_expected_weight(shape));
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
            .bytes = moe_shape_point_bytes(shape, point),
            .flops = moe_shape_tile_flops(shape, point, tile),
            .weighted_flops = weighted ? moe_shape_fullest_flops(shape, point->tokens) : 0.0,
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
        .soft = MOE_SHAPE_SOFT,
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
        const double share =
            moe_roofline_compute_share(roofline, moe_shape_point_bytes(shape, point),
                                       moe_shape_point_flops(shape, roofline, point, tile), 1.0);
        if (share >= compute_bound && point->mhz > 0.0) {
            scratch[used++] = point->mhz;
        }
    }
    return used == 0 ? 0.0 : moe_median(scratch, used);
}

const uint32_t moe_shape_tiles[MOE_SHAPE_TILES] = { 1, 8, 16, 32, 64, 128, 192, 256 };

/* How well the ratios around each inner point foretell its own, the roofline given: the sum of
 * the moe_shape_softened errors. This is what the tile decides: with the right one the ratio is smooth. */
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
            ratio[k + 1] = moe_shape_point_ratio(shape, roofline, &p[k], tile);
        }
        const double from = log2(p[-1].tokens);
        const double share = (log2(p->tokens) - from) / (log2(p[1].tokens) - from);
        const double foretold = ratio[0] + share * (ratio[2] - ratio[0]);
        sum += moe_shape_softened(log(foretold / ratio[1]));
    }
    return sum;
}

/* How well the other long rows foretell the one that is left out of the roofline. */
static double row_error(const struct moe_shape *shape, const struct moe_roofline *roofline,
                        double tile, const struct moe_shape_row *rows, uint32_t row_count,
                        uint32_t left)
{
    const struct moe_shape_row low = rows[left == 0 ? 1 : left - 1];
    const struct moe_shape_row high = rows[left + 1 < row_count ? left + 1 : left - 1];
    const double from = shape->points[low.begin].active;
    const double to = shape->points[high.begin].active;
    double sum = 0.0;
    for (uint32_t i = rows[left].begin; i < rows[left].end; i++) {
        const struct moe_shape_point *point = &shape->points[i];
        double ratio = moe_shape_row_ratio(shape, roofline, tile, low, point->tokens);
        if (low.begin != high.begin) {
            ratio += log2(point->active / from) / log2(to / from) *
                     (moe_shape_row_ratio(shape, roofline, tile, high, point->tokens) - ratio);
        }
        sum += moe_shape_softened(log(ratio / moe_shape_point_ratio(shape, roofline, point, tile)));
    }
    return sum;
}

/* Over long rows, each left out in turn; of many every so manieth. */
static enum moe_status leave_rows_out(double *error, const struct moe_shape *shape, uint32_t tile,
                                      struct moe_arena *arena, struct moe_error *err)
{
    struct moe_shape_row rows[ROW_LIMIT];
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
        MOE_TRY(fit_tile(&roofline, &rest, tile, 0.0, points, MOE_SHAPE_FORETELL_STARTS, err));
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
    struct moe_shape_row rows[ROW_LIMIT];
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
        MOE_TRY(fit_tile(&roofline, shape, moe_shape_tiles[t], 0.0, points,
                         MOE_SHAPE_FORETELL_STARTS, err));
        errors[t] = foretelling_error(shape, &roofline, moe_shape_tiles[t]);
    }
    return MOE_OK;
}

enum moe_status moe_shape_fit(struct moe_shape_fit *out, const struct moe_shape *shape,
                              uint32_t tile_tokens, uint32_t starts, struct moe_arena *arena,
                              struct moe_error *err)
{
    struct moe_roofline_point *points = NULL;
    struct moe_shape_fit fit = { .tile_tokens = tile_tokens };
    double *scratch = MOE_NEW(arena, double, shape->count);
    MOE_TRY(reserve(&points, shape, arena, err));
    if (scratch == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %u points", shape->name, shape->count);
    }
    MOE_TRY(fit_tile(&fit.roofline, shape, tile_tokens, 0.0, points, starts, err));
    const double clock = reference_clock(shape, &fit.roofline, tile_tokens, scratch);
    if (clock > 0.0) {
        fit.reference_mhz = moe_round_digits(clock, DIGITS);
        MOE_TRY(
            fit_tile(&fit.roofline, shape, tile_tokens, fit.reference_mhz, points, starts, err));
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

double moe_shape_expected_weight(const struct moe_shape *shape)
{
    assert(shape->sm_count > 0);
    return 128.0 * shape->sm_count * ((double) shape->hidden + shape->expert_size) /
           moe_shape_weights(shape);
}

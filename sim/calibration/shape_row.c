#include "sim/calibration/shape_row.h"

#include <math.h>

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

double moe_shape_point_bytes(const struct moe_shape *shape, const struct moe_shape_point *point)
{
    return point->active * moe_shape_weights(shape) * moe_dtype_bytes(shape->dtype);
}

double moe_shape_tile_flops(const struct moe_shape *shape, const struct moe_shape_point *point,
                            double tile)
{
    return point->active * ceil(point->tokens / tile) * tile * 2.0 * moe_shape_weights(shape);
}

double moe_shape_fullest_flops(const struct moe_shape *shape, double rows)
{
    return fmin(ceil(rows), MOE_SHAPE_FULLEST_ROWS) * 2.0 * moe_shape_weights(shape);
}

double moe_shape_point_flops(const struct moe_shape *shape, const struct moe_roofline *roofline,
                             const struct moe_shape_point *point, double tile)
{
    return moe_shape_tile_flops(shape, point, tile) +
           roofline->weight * moe_shape_fullest_flops(shape, point->tokens);
}

double moe_shape_flops(const struct moe_shape *shape, const struct moe_shape_fit *fit,
                       const struct moe_shape_work *work)
{
    return work->tiles * fit->tile_tokens * 2.0 * moe_shape_weights(shape) +
           fit->roofline.weight * moe_shape_fullest_flops(shape, work->fullest);
}

double moe_shape_point_ratio(const struct moe_shape *shape, const struct moe_roofline *roofline,
                             const struct moe_shape_point *point, double tile)
{
    return point->ns / moe_roofline_ns(roofline, moe_shape_point_bytes(shape, point),
                                       moe_shape_point_flops(shape, roofline, point, tile), 1.0);
}

struct moe_shape_row moe_shape_row_next(const struct moe_shape *shape, uint32_t begin)
{
    struct moe_shape_row row = { begin, begin };
    while (row.end < shape->count && shape->points[row.end].active == shape->points[begin].active) {
        row.end++;
    }
    return row;
}

double moe_shape_row_ratio(const struct moe_shape *shape, const struct moe_roofline *roofline,
                           double tile, struct moe_shape_row row, double tokens)
{
    uint32_t i = row.begin;
    while (i < row.end && shape->points[i].tokens < tokens) {
        i++;
    }
    if (i == row.begin || i == row.end) {
        return moe_shape_point_ratio(shape, roofline,
                                     &shape->points[i == row.begin ? i : row.end - 1], tile);
    }
    const struct moe_shape_point *low = &shape->points[i - 1];
    const struct moe_shape_point *high = &shape->points[i];
    const double share = log2(tokens / low->tokens) / log2(high->tokens / low->tokens);
    const double from = moe_shape_point_ratio(shape, roofline, low, tile);
    return from + share * (moe_shape_point_ratio(shape, roofline, high, tile) - from);
}

struct moe_shape_row moe_shape_row_full(const struct moe_shape *shape)
{
    struct moe_shape_row full = { 0, 0 };
    for (struct moe_shape_row row = moe_shape_row_next(shape, 0); row.begin < shape->count;
         row = moe_shape_row_next(shape, row.end)) {
        full = row.end - row.begin >= full.end - full.begin ? row : full;
    }
    return full;
}

enum moe_shape_place moe_shape_row_place(const struct moe_shape *shape, struct moe_shape_row row,
                                         double tokens)
{
    const double first = shape->points[row.begin].tokens;
    const double last = shape->points[row.end - 1].tokens;
    for (uint32_t i = row.begin; i < row.end; i++) {
        if (shape->points[i].tokens == tokens) {
            return MOE_SHAPE_HAS;
        }
    }
    return tokens > first && tokens < last ? MOE_SHAPE_BETWEEN : MOE_SHAPE_BEYOND;
}

double moe_shape_row_followed(const struct moe_shape *shape, const struct moe_roofline *roofline,
                              double tile, struct moe_shape_row row, struct moe_shape_row full,
                              double tokens)
{
    double quotient[2] = { 0 };
    double at[2] = { 0 };
    uint32_t high = row.begin;
    while (high + 1 < row.end && shape->points[high].tokens < tokens) {
        high++;
    }
    const uint32_t low = high > row.begin && shape->points[high].tokens > tokens ? high - 1 : high;
    const uint32_t ends[] = { low, high };
    for (int i = 0; i < 2; i++) {
        const struct moe_shape_point *point = &shape->points[ends[i]];
        at[i] = log2(point->tokens);
        quotient[i] = moe_shape_point_ratio(shape, roofline, point, tile) /
                      moe_shape_row_ratio(shape, roofline, tile, full, point->tokens);
    }
    const double share = low == high ? 0.0 : (log2(tokens) - at[0]) / (at[1] - at[0]);
    return (quotient[0] + share * (quotient[1] - quotient[0])) *
           moe_shape_row_ratio(shape, roofline, tile, full, tokens);
}

double moe_shape_softened(double log_error)
{
    const double z = log_error / MOE_SHAPE_SOFT;
    return sqrt(1.0 + z * z) - 1.0;
}

double moe_shape_ratio(const struct moe_shape *shape, const struct moe_shape_fit *fit,
                       double tokens, double active)
{
    const struct moe_shape_row full = moe_shape_row_full(shape);
    struct moe_shape_row rows[2] = { moe_shape_row_next(shape, 0) };
    double ratio[2];
    rows[1] = rows[0];
    while (rows[1].end < shape->count && shape->points[rows[1].begin].active < active) {
        rows[0] = rows[1];
        rows[1] = moe_shape_row_next(shape, rows[1].end);
    }
    const double from = shape->points[rows[0].begin].active;
    const double to = shape->points[rows[1].begin].active;
    for (int i = 0; i < 2; i++) {
        ratio[i] =
            moe_shape_row_place(shape, rows[i], tokens) == MOE_SHAPE_BEYOND
                ? moe_shape_row_followed(shape, &fit->roofline, fit->tile_tokens, rows[i], full,
                                         tokens)
                : moe_shape_row_ratio(shape, &fit->roofline, fit->tile_tokens, rows[i], tokens);
    }
    if (to <= from || active >= to) {
        return ratio[1];
    }
    return ratio[0] + log2(active / from) / log2(to / from) * (ratio[1] - ratio[0]);
}

double moe_shape_uneven_ratio(const struct moe_shape *shape, const struct moe_shape_fit *fit,
                              const struct moe_shape_work *work)
{
    const double mean = work->tokens / work->active;
    const double share = moe_curve_unevenness(mean, work->fullest);
    double sum = 0.0;
    double tiles = 0.0;
    for (uint32_t k = 0; k < MOE_CURVE_PLACES && share > 0.0; k++) {
        const double place = fmax(mean * moe_curve_places[k], 1.0);
        const double weight = ceil(place / fit->tile_tokens);
        sum += weight * moe_shape_ratio(shape, fit, place, work->active);
        tiles += weight;
    }
    return (share > 0.0 ? share * sum / tiles : 0.0) +
           (share < 1.0 ? (1.0 - share) * moe_shape_ratio(shape, fit, mean, work->active) : 0.0);
}

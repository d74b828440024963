#include "sim/calibration/segment_fit.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>

/* Lines are fitted to at least so many points, where there are enough; a gain to so many of each
 * sort. */
enum { LEAST_POINTS = 2, WIDTH = MOE_SEGMENT_FIT_LIMIT + 1 };

static const double least_noise = 0.003;
static const double least_ns_per_byte = 1e-5; /* 1e14 bytes/s: flat */

/* Sums over the first i points, weighted by 1/t^2: squared errors are then relative. Those that
 * begin with r are over the round ones. */
struct sums {
    double w;
    double x;
    double y;
    double xx;
    double xy;
    double yy;
    double r;
    double rx;
    double ry;
    double round_count;
};

struct line {
    double alpha;
    double slope;
    double gain;
    double cost; /* sum of squared relative errors; infinite: there is no such line */
};

static struct sums difference(const struct sums *a, const struct sums *b)
{
    return (struct sums){
        b->w - a->w,   b->x - a->x, b->y - a->y,   b->xx - a->xx, b->xy - a->xy,
        b->yy - a->yy, b->r - a->r, b->rx - a->rx, b->ry - a->ry, b->round_count - a->round_count
    };
}

static double cost_of(const struct sums *s, double alpha, double slope, double gain)
{
    const double plain = s->yy + alpha * alpha * s->w + slope * slope * s->xx - 2.0 * alpha * s->y -
                         2.0 * slope * s->xy + 2.0 * alpha * slope * s->x;
    const double gained =
        gain * (gain * s->r + 2.0 * s->ry - 2.0 * alpha * s->r - 2.0 * slope * s->rx);
    return fmax(plain + gained, 0.0);
}

/* The best line with alpha >= 0 and a slope that is not below flat: the free optimum, or the
 * better of the two borders. */
static struct line best_line(const struct sums *s)
{
    const double determinant = s->w * s->xx - s->x * s->x;
    if (determinant > 1e-12 * s->w * s->xx) {
        const double slope = (s->w * s->xy - s->x * s->y) / determinant;
        const double alpha = (s->y - slope * s->x) / s->w;
        if (alpha >= 0.0 && slope >= least_ns_per_byte) {
            return (struct line){ alpha, slope, 0.0, cost_of(s, alpha, slope, 0.0) };
        }
    }
    const double flat = fmax((s->y - least_ns_per_byte * s->x) / s->w, 0.0);
    const double steep = fmax(s->xy / s->xx, least_ns_per_byte);
    const struct line level = { flat, least_ns_per_byte, 0.0,
                                cost_of(s, flat, least_ns_per_byte, 0.0) };
    const struct line origin = { 0.0, steep, 0.0, cost_of(s, 0.0, steep, 0.0) };
    return level.cost <= origin.cost ? level : origin;
}

/* The free optimum of the three numbers, if it is allowed: the gain is eliminated first. */
static struct line best_gaining_line(const struct sums *s)
{
    const struct line none = { .cost = INFINITY };
    const double w = s->w - s->r;
    const double x = s->x - s->rx;
    const double xx = s->xx - s->rx * s->rx / s->r;
    const double y = s->y - s->ry;
    const double xy = s->xy - s->rx * s->ry / s->r;
    const double determinant = w * xx - x * x;
    if (determinant <= 1e-12 * w * xx) {
        return none;
    }
    const double slope = (w * xy - x * y) / determinant;
    const double alpha = (y - slope * x) / w;
    const double gain = alpha + (slope * s->rx - s->ry) / s->r;
    if (alpha < 0.0 || slope < least_ns_per_byte || gain < 0.0) {
        return none;
    }
    return (struct line){ alpha, slope, gain, cost_of(s, alpha, slope, gain) };
}

/* For k segments, j of them with a gain, and every end the least cost, and how the last one
 * begins. */
struct cell {
    double cost;
    uint32_t begin;
    bool gains;
};

struct table {
    struct cell *cells; /* [(k * WIDTH + j) * (count + 1) + end] */
    struct sums *sum;   /* [count + 1] */
    uint32_t count;
};

static struct cell *cell_of(const struct table *table, uint32_t k, uint32_t j, uint32_t end)
{
    return &table->cells[((size_t) k * WIDTH + j) * (table->count + 1) + end];
}

static struct line line_between(const struct table *table, uint32_t begin, uint32_t end, bool gains)
{
    const struct sums sum = difference(&table->sum[begin], &table->sum[end]);
    if (!gains) {
        return best_line(&sum);
    }
    return sum.round_count < LEAST_POINTS || end - begin - sum.round_count < LEAST_POINTS
               ? (struct line){ .cost = INFINITY }
               : best_gaining_line(&sum);
}

/* The cells of all k and j for a last segment of points begin .. end - 1. */
static void try_segment(const struct table *table, uint32_t begin, uint32_t end)
{
    for (uint32_t gains = 0; gains < 2; gains++) {
        const double more = line_between(table, begin, end, gains == 1).cost;
        for (uint32_t k = 1; k <= MOE_SEGMENT_FIT_LIMIT && more != INFINITY; k++) {
            for (uint32_t j = gains; j <= k; j++) {
                const double cost = cell_of(table, k - 1, j - gains, begin)->cost + more;
                struct cell *best = cell_of(table, k, j, end);
                if (cost < best->cost) {
                    *best = (struct cell){ cost, begin, gains == 1 };
                }
            }
        }
    }
}

static void solve(const struct table *table)
{
    const size_t cells = (size_t) WIDTH * WIDTH * (table->count + 1);
    for (size_t i = 0; i < cells; i++) {
        table->cells[i].cost = INFINITY;
    }
    cell_of(table, 0, 0, 0)->cost = 0.0;
    for (uint32_t end = LEAST_POINTS; end <= table->count; end++) {
        for (uint32_t begin = 0; begin + LEAST_POINTS <= end; begin++) {
            try_segment(table, begin, end);
        }
    }
}

static void choose(const struct table *table, uint32_t most, double noise, uint32_t *segments,
                   uint32_t *gains)
{
    const double n = table->count;
    double least = INFINITY;
    *segments = 1;
    *gains = 0;
    for (uint32_t k = 1; k <= most; k++) {
        for (uint32_t j = 0; j <= k; j++) {
            const double cost = cell_of(table, k, j, table->count)->cost;
            const double criterion = n * log(cost / n + noise * noise) + (3.0 * k + j) * log(n);
            if (cost != INFINITY && criterion < least) {
                least = criterion;
                *segments = k;
                *gains = j;
            }
        }
    }
}

static double boundary(const struct moe_segment_line *a, const struct moe_segment_line *b,
                       const struct moe_segment_point *last, const struct moe_segment_point *next)
{
    const double slopes = a->ns_per_byte - b->ns_per_byte;
    const double crossing = slopes == 0.0 ? 0.0 : (b->alpha_ns - a->alpha_ns) / slopes;
    if (crossing > last->bytes && crossing <= next->bytes) {
        return floor(crossing);
    }
    return last->is_round ? last->bytes + 1.0 : floor(sqrt(last->bytes * next->bytes));
}

static void extract(struct moe_segment_fit *out, const struct table *table,
                    const struct moe_segment_point *points, uint32_t most, double noise)
{
    uint32_t begins[MOE_SEGMENT_FIT_LIMIT + 1];
    bool gaining[MOE_SEGMENT_FIT_LIMIT];
    uint32_t end = table->count;
    uint32_t gains = 0;
    choose(table, most, noise, &out->count, &gains);
    begins[out->count] = end;
    for (uint32_t k = out->count; k > 0; k--) {
        const struct cell *cell = cell_of(table, k, gains, end);
        end = cell->begin;
        begins[k - 1] = end;
        gaining[k - 1] = cell->gains;
        gains -= cell->gains ? 1 : 0;
    }
    for (uint32_t k = 0; k < out->count; k++) {
        const struct line line = line_between(table, begins[k], begins[k + 1], gaining[k]);
        out->lines[k] = (struct moe_segment_line){
            .alpha_ns = line.alpha,
            .ns_per_byte = line.slope,
            .round_gain_ns = line.gain,
            .point_count = begins[k + 1] - begins[k],
            .to_bytes = points[table->count - 1].bytes,
        };
    }
    for (uint32_t k = 0; k + 1 < out->count; k++) {
        const double at = boundary(&out->lines[k], &out->lines[k + 1], &points[begins[k + 1] - 1],
                                   &points[begins[k + 1]]);
        /* Whole bytes: no digits that a machine's logarithm decides. The ends stay exact. */
        out->lines[k].to_bytes = at;
        out->lines[k + 1].from_bytes = at;
    }
}

enum moe_status moe_segment_fit(struct moe_segment_fit *out, const struct moe_segment_point *points,
                                uint32_t count, uint32_t most, double noise,
                                struct moe_arena *arena, struct moe_error *err)
{
    const struct table table = {
        .cells = MOE_NEW(arena, struct cell, (size_t) WIDTH * WIDTH * ((size_t) count + 1)),
        .sum = MOE_NEW(arena, struct sums, (size_t) count + 1),
        .count = count,
    };
    assert(count > 0);
    assert(most >= 1);
    assert(most <= MOE_SEGMENT_FIT_LIMIT);
    if (table.cells == NULL || table.sum == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for segments of %u points", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        const double x = points[i].bytes;
        const double y = points[i].ns;
        const double w = 1.0 / (y * y);
        const double r = points[i].is_round ? w : 0.0;
        const struct sums *s = &table.sum[i];
        table.sum[i + 1] =
            (struct sums){ s->w + w,          s->x + w * x,
                           s->y + w * y,      s->xx + w * x * x,
                           s->xy + w * x * y, s->yy + w * y * y,
                           s->r + r,          s->rx + r * x,
                           s->ry + r * y,     s->round_count + (points[i].is_round ? 1.0 : 0.0) };
    }
    struct moe_segment_fit fit = { .count = 1 };
    if (count < LEAST_POINTS) {
        fit.lines[0] = (struct moe_segment_line){ .to_bytes = points[0].bytes,
                                                  .ns_per_byte = points[0].ns / points[0].bytes,
                                                  .point_count = 1 };
    } else {
        solve(&table);
        extract(&fit, &table, points, most, fmax(noise, least_noise));
    }
    *out = fit;
    return MOE_OK;
}

double moe_segment_fit_ns(const struct moe_segment_fit *fit, double bytes)
{
    uint32_t i = 0;
    while (i + 1 < fit->count && bytes >= fit->lines[i].to_bytes) {
        i++;
    }
    return fit->lines[i].alpha_ns + bytes * fit->lines[i].ns_per_byte;
}

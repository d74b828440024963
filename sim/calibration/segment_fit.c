#include "sim/calibration/segment_fit.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

/* Lines are fitted to at least so many points, where there are enough. */
enum { LEAST_POINTS = 2 };

static const double noise_floor = 0.003;
static const double least_ns_per_byte = 1e-5; /* 1e14 bytes/s: flat */

/* Sums over the first i points, weighted by 1/t^2: squared errors are then relative. */
struct sums {
    double w;
    double x;
    double y;
    double xx;
    double xy;
    double yy;
};

struct line {
    double alpha;
    double slope;
    double cost; /* sum of squared relative errors */
};

static struct sums difference(const struct sums *a, const struct sums *b)
{
    return (struct sums){ b->w - a->w,   b->x - a->x,   b->y - a->y,
                          b->xx - a->xx, b->xy - a->xy, b->yy - a->yy };
}

static double cost_of(const struct sums *s, double alpha, double slope)
{
    const double cost = s->yy + alpha * alpha * s->w + slope * slope * s->xx - 2.0 * alpha * s->y -
                        2.0 * slope * s->xy + 2.0 * alpha * slope * s->x;
    return cost > 0.0 ? cost : 0.0;
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
            return (struct line){ alpha, slope, cost_of(s, alpha, slope) };
        }
    }
    const double flat = fmax((s->y - least_ns_per_byte * s->x) / s->w, 0.0);
    const double steep = fmax(s->xy / s->xx, least_ns_per_byte);
    const struct line level = { flat, least_ns_per_byte, cost_of(s, flat, least_ns_per_byte) };
    const struct line origin = { 0.0, steep, cost_of(s, 0.0, steep) };
    return level.cost <= origin.cost ? level : origin;
}

/* For every number of segments and every end the least cost, and where the last one begins. */
struct table {
    double *cost;     /* [k * (count + 1) + end] */
    uint32_t *begin;  /* likewise */
    struct sums *sum; /* [count + 1] */
    uint32_t count;
};

static struct line line_between(const struct table *table, uint32_t begin, uint32_t end)
{
    const struct sums sum = difference(&table->sum[begin], &table->sum[end]);
    return best_line(&sum);
}

static void solve(const struct table *table)
{
    const uint32_t width = table->count + 1;
    for (uint32_t end = 0; end <= table->count; end++) {
        table->cost[end] = end == 0 ? 0.0 : INFINITY;
    }
    for (uint32_t k = 1; k <= MOE_SEGMENT_FIT_LIMIT; k++) {
        for (uint32_t end = 0; end <= table->count; end++) {
            double *best = &table->cost[k * width + end];
            *best = INFINITY;
            for (uint32_t begin = 0; begin + LEAST_POINTS <= end; begin++) {
                const double before = table->cost[(k - 1) * width + begin];
                if (before == INFINITY) {
                    continue;
                }
                const double cost = before + line_between(table, begin, end).cost;
                if (cost < *best) {
                    *best = cost;
                    table->begin[k * width + end] = begin;
                }
            }
        }
    }
}

static uint32_t choose_count(const struct table *table)
{
    const double n = table->count;
    uint32_t best = 1;
    double least = INFINITY;
    for (uint32_t k = 1; k <= MOE_SEGMENT_FIT_LIMIT; k++) {
        const double cost = table->cost[k * (table->count + 1) + table->count];
        const double criterion = n * log(cost / n + noise_floor * noise_floor) + 3.0 * k * log(n);
        if (cost != INFINITY && criterion < least) {
            least = criterion;
            best = k;
        }
    }
    return best;
}

static double boundary(const struct moe_segment_line *a, const struct moe_segment_line *b,
                       double last, double next)
{
    const double slopes = a->ns_per_byte - b->ns_per_byte;
    const double crossing = slopes == 0.0 ? 0.0 : (b->alpha_ns - a->alpha_ns) / slopes;
    return floor(crossing > last && crossing <= next ? crossing : sqrt(last * next));
}

static void extract(struct moe_segment_fit *out, const struct table *table,
                    const struct moe_segment_point *points, uint32_t count)
{
    uint32_t begins[MOE_SEGMENT_FIT_LIMIT + 1];
    uint32_t end = table->count;
    out->count = count;
    begins[count] = end;
    for (uint32_t k = count; k > 0; k--) {
        end = table->begin[k * (table->count + 1) + end];
        begins[k - 1] = end;
    }
    for (uint32_t k = 0; k < count; k++) {
        const struct line line = line_between(table, begins[k], begins[k + 1]);
        out->lines[k] = (struct moe_segment_line){
            .alpha_ns = line.alpha,
            .ns_per_byte = line.slope,
            .point_count = begins[k + 1] - begins[k],
            .to_bytes = points[table->count - 1].bytes,
        };
    }
    for (uint32_t k = 0; k + 1 < count; k++) {
        const double at = boundary(&out->lines[k], &out->lines[k + 1],
                                   points[begins[k + 1] - 1].bytes, points[begins[k + 1]].bytes);
        /* Whole bytes: no digits that a machine's logarithm decides. The ends stay exact. */
        out->lines[k].to_bytes = at;
        out->lines[k + 1].from_bytes = at;
    }
}

enum moe_status moe_segment_fit(struct moe_segment_fit *out, const struct moe_segment_point *points,
                                uint32_t count, struct moe_arena *arena, struct moe_error *err)
{
    const size_t cells = (size_t) (MOE_SEGMENT_FIT_LIMIT + 1) * (count + 1);
    const struct table table = {
        .cost = MOE_NEW(arena, double, cells),
        .begin = MOE_NEW(arena, uint32_t, cells),
        .sum = MOE_NEW(arena, struct sums, (size_t) count + 1),
        .count = count,
    };
    assert(count > 0);
    if (table.cost == NULL || table.begin == NULL || table.sum == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for segments of %u points", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        const double x = points[i].bytes;
        const double y = points[i].ns;
        const double w = 1.0 / (y * y);
        const struct sums *s = &table.sum[i];
        table.sum[i + 1] = (struct sums){ s->w + w,          s->x + w * x,      s->y + w * y,
                                          s->xx + w * x * x, s->xy + w * x * y, s->yy + w * y * y };
    }
    struct moe_segment_fit fit = { .count = 1 };
    if (count < LEAST_POINTS) {
        fit.lines[0] = (struct moe_segment_line){ 0.0, points[0].bytes, 0.0,
                                                  points[0].ns / points[0].bytes, 1 };
    } else {
        solve(&table);
        extract(&fit, &table, points, choose_count(&table));
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

#include "sim/cost/curve.h"

#include <assert.h>
#include <string.h>

#include "sim/cost/norm.h"

/* Two log2 of tokens nearer than this are the same point: 1e-9 is a billionth of a token. */
static const double same = 1e-9;

double moe_curve_fitted_ns(const struct moe_curve *curve, double memory_ns, double compute_ns)
{
    return curve->t0_ns + moe_norm(memory_ns, compute_ns, curve->p, curve->inverse_p);
}

static enum moe_provenance between(enum moe_provenance a, enum moe_provenance b)
{
    const enum moe_provenance worse = moe_provenance_worse(a, b);
    return worse == MOE_PROVENANCE_MEASURED ? MOE_PROVENANCE_INTERPOLATED : worse;
}

const double moe_curve_places[MOE_CURVE_PLACES] = { 0.59460355750136053, 0.77110541270397041, 1.0,
                                                    1.2968395546510096, 1.6817928305074290 };
const double moe_curve_log_places[MOE_CURVE_PLACES] = { -0.75, -0.375, 0.0, 0.375, 0.75 };

/* The ratio along one row at x = log2 of the tokens per active unit; ratio is one of the row's. */
static double row_ratio(const struct moe_curve_row *row, const double *ratio, double x,
                        enum moe_provenance *provenance)
{
    uint32_t i = 0;
    while (i < row->count && row->log_tokens[i] < x - same) {
        i++;
    }
    if (i == row->count) {
        *provenance = moe_provenance_outside(row->provenance[i - 1]);
        return ratio[i - 1];
    }
    if (row->log_tokens[i] <= x + same) {
        *provenance = row->provenance[i];
        return ratio[i];
    }
    if (i == 0) {
        *provenance = moe_provenance_outside(row->provenance[0]);
        return ratio[0];
    }
    const double from = row->log_tokens[i - 1];
    const double share = (x - from) / (row->log_tokens[i] - from);
    *provenance = between(row->provenance[i - 1], row->provenance[i]);
    return ratio[i - 1] + share * (ratio[i] - ratio[i - 1]);
}

static const double *ratios_of(const struct moe_curve_row *row, bool uneven)
{
    return uneven && row->uneven != NULL ? row->uneven : row->ratio;
}

static double ratio_at(const struct moe_curve *curve, double tokens_per_active, double active,
                       bool uneven, enum moe_provenance *provenance)
{
    if (curve->row_count == 0) {
        *provenance = curve->beyond;
        return 1.0;
    }
    const double x = moe_log2(tokens_per_active);
    uint32_t i = 0;
    while (i < curve->row_count && curve->rows[i].active < active) {
        i++;
    }
    if (i == curve->row_count || (i == 0 && curve->rows[0].active != active)) {
        const struct moe_curve_row *row = &curve->rows[i == 0 ? 0 : i - 1];
        const double ratio = row_ratio(row, ratios_of(row, uneven), x, provenance);
        *provenance = moe_provenance_outside(*provenance);
        return ratio;
    }
    if (curve->rows[i].active == active) {
        return row_ratio(&curve->rows[i], ratios_of(&curve->rows[i], uneven), x, provenance);
    }
    const struct moe_curve_row *low = &curve->rows[i - 1];
    const struct moe_curve_row *high = &curve->rows[i];
    enum moe_provenance high_provenance = MOE_PROVENANCE_MEASURED;
    const double low_ratio = row_ratio(low, ratios_of(low, uneven), x, provenance);
    const double high_ratio = row_ratio(high, ratios_of(high, uneven), x, &high_provenance);
    const double share =
        (moe_log2(active) - low->log_active) / (high->log_active - low->log_active);
    *provenance = between(*provenance, high_provenance);
    return low_ratio + share * (high_ratio - low_ratio);
}

double moe_curve_ratio(const struct moe_curve *curve, double tokens_per_active, double active,
                       enum moe_provenance *provenance)
{
    const double ratio = ratio_at(curve, tokens_per_active, active, false, provenance);
    if (*provenance == MOE_PROVENANCE_INTERPOLATED) {
        *provenance = curve->least;
    }
    return ratio;
}

double moe_curve_uneven_ratio(const struct moe_curve *curve, double tokens_per_active,
                              double active, double fullest, enum moe_provenance *provenance)
{
    const double share = curve->fullest_weight > 0.0 && curve->row_count > 0
                             ? moe_curve_unevenness(tokens_per_active, fullest)
                             : 0.0;
    if (share <= 0.0) {
        return moe_curve_ratio(curve, tokens_per_active, active, provenance);
    }
    double ratio = ratio_at(curve, tokens_per_active, active, true, provenance);
    if (share < 1.0) {
        ratio = share * ratio +
                (1.0 - share) * ratio_at(curve, tokens_per_active, active, false, provenance);
    }
    if (*provenance == MOE_PROVENANCE_INTERPOLATED) {
        *provenance = curve->least;
    }
    return ratio;
}

static const struct moe_calibration_series *choose(const struct moe_calibration *calibration,
                                                   const struct moe_curve_key *key)
{
    const struct moe_calibration_series *generic = NULL;
    for (uint32_t i = 0; i < calibration->series_count; i++) {
        const struct moe_calibration_series *series = &calibration->series_rows[i];
        if (strcmp(series->gpu_kind, key->gpu_kind) != 0 || series->op != key->op ||
            series->dtype != key->dtype) {
            continue;
        }
        if (series->hidden == key->hidden && series->expert_size == key->expert_size &&
            (key->op == MOE_SERIES_GEMM || series->gated == key->gated)) {
            return series;
        }
        if (series->hidden == 0 && generic == NULL) {
            generic = series;
        }
    }
    return generic;
}

void moe_curve_from_fit(struct moe_curve *curve, const struct moe_calibration_series *series,
                        const struct moe_calibration_fit *fit,
                        const struct moe_calibration_fullest *fullest)
{
    *curve = (struct moe_curve){
        .series = series,
        .t0_ns = fit->t0_ns,
        .ns_per_byte = 1e9 / fit->bandwidth_bytes_s,
        .ns_per_flop = 1e9 / fit->peak_flop_s,
        .p = fit->p,
        .inverse_p = 1.0 / fit->p,
        .tile_tokens = series->tile_tokens,
        .fullest_weight = fullest == NULL ? 0.0 : fullest->weight,
        .fullest_rows = fullest == NULL ? 0.0 : fullest->rows,
        .permutation_inside = series->permutation == 1,
        .exact = series->hidden != 0,
        .least = series->provenance == MOE_PROVENANCE_EXTRAPOLATED ? MOE_PROVENANCE_EXTRAPOLATED
                                                                   : MOE_PROVENANCE_INTERPOLATED,
        .beyond = moe_provenance_outside(moe_provenance_worse(series->provenance, fit->provenance)),
    };
}

static double tiles_of(const struct moe_curve *curve, double tokens)
{
    const double whole = (double) (uint64_t) (tokens / curve->tile_tokens);
    return whole * curve->tile_tokens < tokens ? whole + 1.0 : whole;
}

/* Measured over fitted at a point: every active unit has point->tokens tokens. */
static double point_ratio(const struct moe_curve *curve,
                          const struct moe_calibration_series *series,
                          const struct moe_calibration_point *point)
{
    const double weights = moe_calibration_series_weights(series);
    const double tiles = tiles_of(curve, point->tokens);
    const double below = (double) (uint64_t) point->tokens;
    const double fullest = below < point->tokens ? below + 1.0 : below;
    const double memory_ns =
        point->active * weights * moe_dtype_bytes(series->dtype) * curve->ns_per_byte;
    const double compute_ns =
        moe_curve_rows(curve, point->active * tiles, fullest) * 2.0 * weights * curve->ns_per_flop;
    return point->median_ns / moe_curve_fitted_ns(curve, memory_ns, compute_ns);
}

/* The point of the series that comes next after (active, tokens) in that order. */
static const struct moe_calibration_point *next_point(const struct moe_calibration *calibration,
                                                      const char *series,
                                                      const struct moe_calibration_point *after)
{
    const struct moe_calibration_point *best = NULL;
    for (uint32_t i = 0; i < calibration->point_count; i++) {
        const struct moe_calibration_point *point = &calibration->point_rows[i];
        const bool later = after == NULL || point->active > after->active ||
                           (point->active == after->active && point->tokens > after->tokens);
        const bool sooner = best == NULL || point->active < best->active ||
                            (point->active == best->active && point->tokens < best->tokens);
        if (later && sooner && strcmp(point->series, series) == 0) {
            best = point;
        }
    }
    return best;
}

/* The averages around the points of all rows; tokens[] are theirs in the same order. */
static void average_rows(const struct moe_curve *curve, struct moe_curve_row *rows,
                         const double *tokens, double *uneven)
{
    uint32_t at = 0;
    for (uint32_t r = 0; r < curve->row_count; r++) {
        rows[r].uneven = &uneven[at];
        for (uint32_t i = 0; i < rows[r].count; i++, at++) {
            double sum = 0.0;
            double tiles = 0.0;
            for (uint32_t k = 0; k < MOE_CURVE_PLACES; k++) {
                enum moe_provenance ignored = MOE_PROVENANCE_MEASURED;
                const double place = tokens[at] * moe_curve_places[k];
                const double x = rows[r].log_tokens[i] + moe_curve_log_places[k];
                const double weight = tiles_of(curve, place < 1.0 ? 1.0 : place);
                sum += weight * row_ratio(&rows[r], rows[r].ratio, place < 1.0 ? 0.0 : x, &ignored);
                tiles += weight;
            }
            uneven[at] = sum / tiles;
        }
    }
}

static enum moe_status add_points(struct moe_curve *curve,
                                  const struct moe_calibration *calibration,
                                  const struct moe_calibration_series *series,
                                  struct moe_arena *arena, struct moe_error *err)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < calibration->point_count; i++) {
        count += strcmp(calibration->point_rows[i].series, series->name) == 0 ? 1 : 0;
    }
    if (count == 0) {
        return MOE_OK;
    }
    double *log_tokens = MOE_NEW(arena, double, count);
    double *ratio = MOE_NEW(arena, double, count);
    double *tokens = MOE_NEW(arena, double, count);
    double *uneven = MOE_NEW(arena, double, count);
    enum moe_provenance *provenance = MOE_NEW(arena, enum moe_provenance, count);
    struct moe_curve_row *rows = MOE_NEW(arena, struct moe_curve_row, count);
    if (log_tokens == NULL || ratio == NULL || tokens == NULL || uneven == NULL ||
        provenance == NULL || rows == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory left for the cost tables",
                        calibration->name);
    }
    const struct moe_calibration_point *point = NULL;
    struct moe_curve_row *row = NULL;
    for (uint32_t i = 0; i < count; i++) {
        point = next_point(calibration, series->name, point);
        assert(point != NULL);
        tokens[i] = point->tokens;
        log_tokens[i] = moe_log2(point->tokens);
        ratio[i] = point_ratio(curve, series, point);
        provenance[i] = point->provenance;
        if (row == NULL || row->active != point->active) {
            row = &rows[curve->row_count++];
            *row = (struct moe_curve_row){
                .active = point->active,
                .log_active = moe_log2(point->active),
                .log_tokens = &log_tokens[i],
                .ratio = &ratio[i],
                .provenance = &provenance[i],
            };
        }
        row->count++;
    }
    if (curve->fullest_weight > 0.0) {
        average_rows(curve, rows, tokens, uneven);
    }
    curve->rows = rows;
    return MOE_OK;
}

enum moe_status moe_curve_init(struct moe_curve *curve, const struct moe_calibration *calibration,
                               const struct moe_curve_key *key, struct moe_arena *arena,
                               struct moe_error *err)
{
    const struct moe_calibration_series *series = choose(calibration, key);
    if (series == NULL) {
        return moe_fail(err, MOE_RANGE,
                        "%s: no %s series of %s for %ux%u on %s, and no generic one (hidden 0)",
                        calibration->name, key->op == MOE_SERIES_GEMM ? "gemm" : "expert",
                        moe_dtype_name(key->dtype), key->hidden, key->expert_size, key->gpu_kind);
    }
    moe_curve_from_fit(curve, series, moe_calibration_find_fit(calibration, series->name),
                       moe_calibration_find_fullest(calibration, series->name));
    return add_points(curve, calibration, series, arena, err);
}

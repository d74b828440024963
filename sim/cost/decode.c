#include "sim/cost/decode.h"

#include <assert.h>
#include <string.h>

#include "sim/base/split_plan.h"
#include "sim/cost/norm.h"

/* A part's sums are floats, with a largest score and a sum of exponentials beside them. */
static const double PART_BYTES = 4.0;
static const double PART_HEAD_BYTES = 8.0;

static int64_t whole(double value)
{
    const int64_t below = (int64_t) value;
    return (double) below < value ? below + 1 : below;
}

void moe_decode_from_row(struct moe_decode_fit *fit, const struct moe_calibration_decode *row)
{
    *fit = (struct moe_decode_fit){
        .tokens = row->tile_tokens,
        .blocks = row->blocks,
        .slots = row->slots,
        .q_heads = row->q_heads,
        .row_bytes = 2.0 * row->q_heads * ((double) row->head_size + row->value_size),
        .part_bytes = 2.0 * (PART_BYTES * row->value_size + PART_HEAD_BYTES),
        .tile_bytes = row->tile_tokens * moe_calibration_decode_bytes(row) / row->blocks,
        .t0_ns = row->t0_ns,
        .round_ns = row->round_ns,
        .tile_ns = row->tile_ns,
        .ns_per_byte = 1e9 / row->bandwidth_bytes_s,
        .p = row->p,
        .inverse_p = 1.0 / row->p,
        .join_ns = row->join_ns,
        .split_ns = row->split_ns,
        .row_ns = row->row_ns,
    };
}

void moe_decode_plan_make(struct moe_decode_plan *plan, const struct moe_decode_fit *fit,
                          double sequences, double context)
{
    const int64_t count = whole(sequences);
    const int64_t slots = (int64_t) fit->slots;
    const int64_t blocks = count * (int64_t) fit->blocks;
    const int64_t tiles = moe_split_ceil(whole(context), (int64_t) fit->tokens);
    const int64_t splits = moe_split_count(blocks, tiles, slots);
    const int64_t full = blocks * splits / slots;
    const double rows = (double) count * fit->q_heads;
    *plan = (struct moe_decode_plan){
        .splits = (double) splits,
        .each = (double) moe_split_ceil(tiles, splits),
        .full = (double) full,
        .rest = (double) (blocks * splits - full * slots),
        .rows = rows,
        .bytes = (double) count * fit->row_bytes +
                 (splits > 1 ? rows * (double) splits * fit->part_bytes : 0.0),
    };
}

static double round_ns(const struct moe_decode_fit *fit, const struct moe_decode_plan *plan,
                       double blocks, double memory, double compute)
{
    return fit->round_ns +
           plan->each * moe_norm(fit->tile_ns * compute,
                                 blocks * fit->tile_bytes * fit->ns_per_byte * memory, fit->p,
                                 fit->inverse_p);
}

double moe_decode_fitted_ns(const struct moe_decode_fit *fit, const struct moe_decode_plan *plan,
                            double memory, double compute)
{
    double ns = fit->t0_ns + plan->bytes * fit->ns_per_byte * memory;
    if (plan->full > 0.0) {
        ns += plan->full * round_ns(fit, plan, fit->slots, memory, compute);
    }
    if (plan->rest > 0.0) {
        ns += round_ns(fit, plan, plan->rest, memory, compute);
    }
    if (plan->splits > 1.0) {
        ns += fit->join_ns + plan->splits * fit->split_ns + plan->rows * fit->row_ns;
    }
    return ns;
}

double moe_decode_ns(const struct moe_decode *decode, double sequences, double context,
                     double memory, double compute, enum moe_provenance *provenance)
{
    struct moe_decode_plan plan;
    assert(sequences > 0.0 && context > 0.0);
    moe_decode_plan_make(&plan, &decode->fit, sequences, context);
    return moe_curve_ratio(&decode->ratio, context, sequences, provenance) *
           moe_decode_fitted_ns(&decode->fit, &plan, memory, compute);
}

/* The point that comes next after (sequences, context) in that order. */
static const struct moe_calibration_decode_point *
next_point(const struct moe_calibration_decode_point *points, uint32_t count,
           const struct moe_calibration_decode_point *after)
{
    const struct moe_calibration_decode_point *best = NULL;
    for (uint32_t i = 0; i < count; i++) {
        const struct moe_calibration_decode_point *point = &points[i];
        const bool later =
            after == NULL || point->sequences > after->sequences ||
            (point->sequences == after->sequences && point->context > after->context);
        const bool sooner = best == NULL || point->sequences < best->sequences ||
                            (point->sequences == best->sequences && point->context < best->context);
        best = later && sooner ? point : best;
    }
    return best;
}

enum moe_status moe_decode_correct(struct moe_decode *decode,
                                   const struct moe_calibration_decode_point *points,
                                   uint32_t count, struct moe_arena *arena, struct moe_error *err)
{
    double *log_context = MOE_NEW(arena, double, (size_t) count + 1);
    double *ratio = MOE_NEW(arena, double, (size_t) count + 1);
    enum moe_provenance *provenance = MOE_NEW(arena, enum moe_provenance, (size_t) count + 1);
    struct moe_curve_row *rows = MOE_NEW(arena, struct moe_curve_row, (size_t) count + 1);
    if (log_context == NULL || ratio == NULL || provenance == NULL || rows == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %u points of decode attention", count);
    }
    const struct moe_calibration_decode_point *point = NULL;
    struct moe_curve_row *row = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct moe_decode_plan plan;
        point = next_point(points, count, point);
        assert(point != NULL);
        moe_decode_plan_make(&plan, &decode->fit, point->sequences, point->context);
        log_context[i] = moe_log2(point->context);
        ratio[i] = point->median_ns / moe_decode_fitted_ns(&decode->fit, &plan, 1.0, 1.0);
        provenance[i] = (enum moe_provenance) point->provenance;
        if (row == NULL || row->active != point->sequences) {
            row = &rows[decode->ratio.row_count++];
            *row = (struct moe_curve_row){ .active = point->sequences,
                                           .log_active = moe_log2(point->sequences),
                                           .log_tokens = &log_context[i],
                                           .ratio = &ratio[i],
                                           .provenance = &provenance[i] };
        }
        row->count++;
    }
    decode->ratio.rows = rows;
    return MOE_OK;
}

static enum moe_status correct(struct moe_decode *decode, const struct moe_calibration *calibration,
                               struct moe_arena *arena, struct moe_error *err)
{
    uint32_t count = 0;
    struct moe_calibration_decode_point *points = MOE_NEW(
        arena, struct moe_calibration_decode_point, (size_t) calibration->decode_point_count + 1);
    if (points == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory left for the cost tables",
                        calibration->name);
    }
    for (uint32_t i = 0; i < calibration->decode_point_count; i++) {
        const struct moe_calibration_decode_point *point = &calibration->decode_point_rows[i];
        if (strcmp(point->series, decode->series->series) == 0) {
            points[count++] = *point;
        }
    }
    return moe_decode_correct(decode, points, count, arena, err);
}

enum moe_status moe_decode_init(struct moe_decode *decode,
                                const struct moe_calibration *calibration,
                                const struct moe_decode_key *key, struct moe_arena *arena,
                                struct moe_error *err)
{
    *decode = (struct moe_decode){ 0 };
    for (uint32_t i = 0; i < calibration->decode_count && decode->series == NULL; i++) {
        const struct moe_calibration_decode *row = &calibration->decode_rows[i];
        if (strcmp(row->gpu_kind, key->gpu_kind) == 0 && row->kind == key->kind &&
            row->q_heads == key->q_heads && row->kv_heads == key->kv_heads &&
            row->head_size == key->head_size && row->value_size == key->value_size) {
            decode->series = row;
        }
    }
    if (decode->series == NULL) {
        return MOE_OK;
    }
    const enum moe_provenance provenance = (enum moe_provenance) decode->series->provenance;
    moe_decode_from_row(&decode->fit, decode->series);
    decode->ratio.beyond = moe_provenance_outside(provenance);
    decode->ratio.least = provenance == MOE_PROVENANCE_EXTRAPOLATED ? MOE_PROVENANCE_EXTRAPOLATED
                                                                    : MOE_PROVENANCE_INTERPOLATED;
    return correct(decode, calibration, arena, err);
}

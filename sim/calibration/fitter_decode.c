/* Decode attention: a table of its own for each shape that our kernel was measured with. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/fitter.h"

/* What kernels/attention/kv_read.h says of itself: latent heads of a block, by what divides them;
 * columns of a latent key that carry position only; tokens of a tile. */
enum { LATENT_HEADS = 64, LATENT_LEAST_HEADS = 16, LATENT_ROPE = 64, TILE_TOKENS = 64 };

static uint32_t latent_blocks(uint32_t heads)
{
    uint32_t of_block = LATENT_HEADS;
    while (of_block > LATENT_LEAST_HEADS && heads % of_block != 0) {
        of_block /= 2;
    }
    return heads / of_block;
}

/* The shape of a series whose kernel's plan is known; false for all others. */
static bool describe(const struct moe_fitter *fitter, const struct moe_evidence_series *series,
                     struct moe_calibration_decode *row)
{
    const bool latent = series->kind == MOE_EVIDENCE_KV_MLA;
    if ((!latent && series->kind != MOE_EVIDENCE_KV_GQA) || strcmp(series->backend, "own") != 0 ||
        strcmp(series->dtype, "bf16") != 0 || series->units == 0 || series->inter == 0 ||
        (latent ? series->hidden <= LATENT_ROPE || series->inter != 1 ||
                      series->units % LATENT_LEAST_HEADS != 0
                : series->hidden == 0 || series->units % series->inter != 0)) {
        return false;
    }
    *row = (struct moe_calibration_decode){
        .series = series->name,
        .gpu_kind = fitter->gpu_kind,
        .kind = latent ? MOE_DECODE_MLA : MOE_DECODE_GQA,
        .q_heads = series->units,
        .kv_heads = series->inter,
        .head_size = series->hidden,
        .value_size = latent ? series->hidden - LATENT_ROPE : series->hidden,
        .tile_tokens = TILE_TOKENS,
        .blocks = latent ? latent_blocks(series->units) : series->inter,
    };
    return true;
}

/* Whether a held-out point of the series lies at the same place. */
static bool is_held_out(const struct moe_evidence *evidence, const struct moe_evidence_point *point)
{
    for (uint32_t i = 0; i < evidence->point_count; i++) {
        const struct moe_evidence_point *other = &evidence->points[i];
        if (other->role == MOE_EVIDENCE_HELDOUT && other->series == point->series &&
            other->tokens == point->tokens && other->context == point->context) {
            return true;
        }
    }
    return false;
}

static int compare_points(const void *left, const void *right)
{
    const struct moe_calibration_decode_point *a = left;
    const struct moe_calibration_decode_point *b = right;
    if (a->sequences != b->sequences) {
        return a->sequences < b->sequences ? -1 : 1;
    }
    if (a->context != b->context) {
        return a->context < b->context ? -1 : 1;
    }
    return (a->median_ns > b->median_ns) - (a->median_ns < b->median_ns);
}

/* The points that may be fitted, into to; of a place that has several their median. */
static uint32_t collect(const struct moe_fitter *fitter, uint32_t series,
                        const struct moe_calibration_decode *row,
                        struct moe_calibration_decode_point *to)
{
    const struct moe_evidence *evidence = fitter->evidence;
    uint32_t count = 0;
    uint32_t kept = 0;
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        if (!fitter->known[p] || point->series != series || point->tokens < 1.0 ||
            point->context < 1.0 || is_held_out(evidence, point)) {
            continue;
        }
        const double ns = exp(fitter->centre[p]);
        const double least = point->tokens * point->context * moe_calibration_decode_bytes(row) /
                             (1.02 * fitter->read_bytes_s) * 1e9;
        if (ns > least) { /* calibration_check.h would refuse it */
            to[count++] = (struct moe_calibration_decode_point){
                .series = row->series,
                .sequences = (uint32_t) point->tokens,
                .context = (uint32_t) point->context,
                .median_ns = moe_round_digits(ns, MOE_FITTER_DIGITS),
            };
        }
    }
    if (count > 0) {
        qsort(to, count, sizeof to[0], compare_points);
    }
    for (uint32_t begin = 0; begin < count;) {
        uint32_t end = begin + 1;
        while (end < count && to[end].sequences == to[begin].sequences &&
               to[end].context == to[begin].context) {
            end++;
        }
        to[kept++] = to[begin + (end - begin - 1) / 2];
        begin = end;
    }
    return kept;
}

static enum moe_status fit_series(struct moe_fitter *fitter, uint32_t series,
                                  const struct moe_calibration_decode *row, struct moe_error *err)
{
    struct moe_fitter_decode *out = &fitter->decodes[fitter->decode_count];
    struct moe_calibration_decode_point *points = MOE_NEW(
        fitter->arena, struct moe_calibration_decode_point, fitter->evidence->point_count + 1);
    if (points == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for decode attention",
                        fitter->evidence->name);
    }
    const struct moe_decode_problem problem = {
        .points = points,
        .count = collect(fitter, series, row, points),
        .read_bytes_s = fitter->read_bytes_s,
        .flop_s = fitter->bf16_flop_s,
        .sm_count = fitter->evidence->gpus[0].sm_count,
    };
    *out = (struct moe_fitter_decode){ .row = *row, .points = points, .count = problem.count };
    if (problem.count < MOE_DECODE_FIT_LEAST_POINTS || problem.sm_count == 0) {
        return MOE_OK; /* the line of its kind says what can be said */
    }
    MOE_TRY(moe_decode_choose(&out->row, &out->left_out, &problem, fitter->arena, err));
    moe_decode_from_row(&out->decode.fit, &out->row);
    MOE_TRY(moe_decode_correct(&out->decode, points, problem.count, fitter->arena, err));
    fitter->decode_of[series] = fitter->decode_count++;
    return MOE_OK;
}

enum moe_status moe_fitter_fit_decodes(struct moe_fitter *fitter, struct moe_error *err)
{
    const struct moe_evidence *evidence = fitter->evidence;
    const size_t count = (size_t) evidence->series_count + 1;
    fitter->decode_of = MOE_NEW(fitter->arena, uint32_t, count);
    fitter->decodes = MOE_NEW(fitter->arena, struct moe_fitter_decode, count);
    if (fitter->decode_of == NULL || fitter->decodes == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for decode attention", evidence->name);
    }
    for (uint32_t i = 0; i < evidence->series_count; i++) {
        struct moe_calibration_decode row;
        fitter->decode_of[i] = MOE_FITTER_NONE;
        if (describe(fitter, &evidence->series[i], &row)) {
            MOE_TRY(fit_series(fitter, i, &row, err));
        }
    }
    return MOE_OK;
}

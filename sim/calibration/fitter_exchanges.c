/* Operations between GPUs and over the host's link, and what a plain roofline over bytes and
 * FLOPs is enough for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/fitter.h"

/* What the measured series is fitted as; MOE_EVIDENCE_KIND_COUNT: not at all. */
static enum moe_evidence_kind fitted_as(enum moe_evidence_kind kind)
{
    /* An uneven all-to-all is predicted by the even one: its points are never fitted. */
    if (kind == MOE_EVIDENCE_ALL_TO_ALL_V) {
        return MOE_EVIDENCE_ALL_TO_ALL;
    }
    return moe_evidence_is_collective(kind) || kind == MOE_EVIDENCE_HOST_TO_DEVICE
               ? kind
               : MOE_EVIDENCE_KIND_COUNT;
}

static enum moe_status find_exchanges(struct moe_fitter *fitter, struct moe_error *err)
{
    const struct moe_evidence *evidence = fitter->evidence;
    fitter->exchange_of = MOE_NEW(fitter->arena, uint32_t, evidence->series_count + 1);
    fitter->exchanges =
        MOE_NEW(fitter->arena, struct moe_fitter_exchange, evidence->series_count + 1);
    if (fitter->exchange_of == NULL || fitter->exchanges == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its exchanges", evidence->name);
    }
    for (uint32_t i = 0; i < evidence->series_count; i++) {
        const struct moe_evidence_series *series = &evidence->series[i];
        const enum moe_evidence_kind kind = fitted_as(series->kind);
        uint32_t at = 0;
        fitter->exchange_of[i] = MOE_FITTER_NONE;
        if (kind == MOE_EVIDENCE_KIND_COUNT) {
            continue;
        }
        while (at < fitter->exchange_count && (fitter->exchanges[at].kind != kind ||
                                               fitter->exchanges[at].ranks != series->ranks)) {
            at++;
        }
        if (at == fitter->exchange_count) {
            struct moe_fitter_exchange *exchange = &fitter->exchanges[fitter->exchange_count++];
            exchange->kind = kind;
            exchange->ranks = series->ranks;
            exchange->first_series = i;
            (void) snprintf(exchange->name, sizeof exchange->name, "%s-%u",
                            moe_evidence_kind_name(kind), series->ranks);
        }
        fitter->exchange_of[i] = at;
    }
    return MOE_OK;
}

static int compare_points(const void *left, const void *right)
{
    const struct moe_segment_point *a = left;
    const struct moe_segment_point *b = right;
    if (a->bytes != b->bytes) {
        return a->bytes < b->bytes ? -1 : 1;
    }
    return (a->ns > b->ns) - (a->ns < b->ns);
}

static bool is_held_out(const struct moe_fitter *fitter, uint32_t exchange, double bytes)
{
    for (uint32_t i = 0; i < fitter->evidence->point_count; i++) {
        const struct moe_evidence_point *point = &fitter->evidence->points[i];
        if (point->role == MOE_EVIDENCE_HELDOUT && point->bytes == bytes &&
            fitter->exchange_of[point->series] == exchange) {
            return true;
        }
    }
    return false;
}

/* What every rank holds for a peer: rings and channels halve it. */
static bool is_power_of_two(double bytes)
{
    int exponent = 0;
    return frexp(bytes, &exponent) == 0.5;
}

/* How far apart two passes over one point are, in the middle: finer than that no line is fitted. */
static enum moe_status measure_spread(struct moe_fitter *fitter, uint32_t index,
                                      struct moe_error *err)
{
    double *values = MOE_NEW(fitter->arena, double, fitter->level.count + 1);
    uint32_t used = 0;
    if (values == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its exchanges", fitter->evidence->name);
    }
    for (uint32_t i = 0; i < fitter->level.count; i++) {
        const struct moe_observation *item = &fitter->level.items[i];
        if (item->repeats > 0 && fitter->known[item->point] &&
            fitter->exchange_of[fitter->evidence->points[item->point].series] == index) {
            values[used++] = item->spread;
        }
    }
    fitter->exchanges[index].spread = used == 0 ? 0.0 : moe_median(values, used);
    return MOE_OK;
}

/* Copy engines have no protocols to switch between: beside a line for small copies another bend
 * is the host's memory, which was busy while that point was measured. */
static uint32_t line_limit(enum moe_evidence_kind kind)
{
    return kind == MOE_EVIDENCE_HOST_TO_DEVICE || kind == MOE_EVIDENCE_PEER_COPY
               ? 2
               : MOE_SEGMENT_FIT_LIMIT;
}

static enum moe_status fit_exchange(struct moe_fitter *fitter, uint32_t index,
                                    struct moe_error *err)
{
    const struct moe_evidence *evidence = fitter->evidence;
    struct moe_fitter_exchange *exchange = &fitter->exchanges[index];
    struct moe_segment_point *points =
        MOE_NEW(fitter->arena, struct moe_segment_point, evidence->point_count + 1);
    uint32_t count = 0;
    uint32_t kept = 0;
    if (points == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its exchanges", evidence->name);
    }
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        if (!fitter->known[p] || fitter->exchange_of[point->series] != index ||
            evidence->series[point->series].kind == MOE_EVIDENCE_ALL_TO_ALL_V ||
            point->bytes <= 0.0) {
            continue;
        }
        if (is_held_out(fitter, index, point->bytes)) {
            fitter->held_back++;
            continue;
        }
        points[count++] = (struct moe_segment_point){ point->bytes, exp(fitter->centre[p]),
                                                      is_power_of_two(point->bytes_per_peer) };
    }
    if (count == 0) {
        return MOE_OK;
    }
    qsort(points, count, sizeof points[0], compare_points);
    for (uint32_t begin = 0; begin < count;) { /* pairs of GPUs: their median */
        uint32_t end = begin + 1;
        while (end < count && points[end].bytes == points[begin].bytes) {
            end++;
        }
        points[kept++] = points[begin + (end - begin - 1) / 2];
        begin = end;
    }
    MOE_TRY(measure_spread(fitter, index, err));
    MOE_TRY(moe_segment_fit(&exchange->fit, points, kept, line_limit(exchange->kind),
                            exchange->spread, fitter->arena, err));
    for (uint32_t i = 0; i < exchange->fit.count; i++) {
        struct moe_segment_line *line = &exchange->fit.lines[i];
        line->alpha_ns = moe_round_digits(line->alpha_ns, MOE_FITTER_DIGITS);
        line->round_gain_ns = moe_round_digits(line->round_gain_ns, MOE_FITTER_DIGITS);
        line->ns_per_byte = 1e9 / moe_round_digits(1e9 / line->ns_per_byte, MOE_FITTER_DIGITS);
    }
    exchange->fitted = kept;
    return MOE_OK;
}

enum moe_status moe_fitter_fit_exchanges(struct moe_fitter *fitter, struct moe_error *err)
{
    if (fitter->exchange_of == NULL) {
        MOE_TRY(find_exchanges(fitter, err));
    }
    for (uint32_t i = 0; i < fitter->exchange_count; i++) {
        MOE_TRY(fit_exchange(fitter, i, err));
    }
    return moe_fitter_fit_uneven(fitter, err);
}

/* Attention's cores share a fit by kind, as their bytes and FLOPs say what shapes differ in;
 * permutations and the gate are a series each. */
static bool is_shared(enum moe_evidence_kind kind)
{
    return kind == MOE_EVIDENCE_KV_GQA || kind == MOE_EVIDENCE_KV_MLA;
}

static bool is_line(enum moe_evidence_kind kind)
{
    return is_shared(kind) || kind == MOE_EVIDENCE_PERMUTE || kind == MOE_EVIDENCE_COMBINE ||
           kind == MOE_EVIDENCE_GATE || kind == MOE_EVIDENCE_STREAM;
}

static enum moe_status find_lines(struct moe_fitter *fitter, struct moe_error *err)
{
    const struct moe_evidence *evidence = fitter->evidence;
    fitter->line_of = MOE_NEW(fitter->arena, uint32_t, evidence->series_count + 1);
    fitter->lines = MOE_NEW(fitter->arena, struct moe_fitter_line, evidence->series_count + 1);
    if (fitter->line_of == NULL || fitter->lines == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its lines", evidence->name);
    }
    for (uint32_t i = 0; i < evidence->series_count; i++) {
        const struct moe_evidence_series *series = &evidence->series[i];
        uint32_t at = 0;
        fitter->line_of[i] = MOE_FITTER_NONE;
        if (!is_line(series->kind)) {
            continue;
        }
        while (at < fitter->line_count &&
               (fitter->lines[at].kind != series->kind || !is_shared(series->kind))) {
            at++;
        }
        if (at == fitter->line_count) {
            struct moe_fitter_line *line = &fitter->lines[fitter->line_count++];
            line->kind = series->kind;
            line->first_series = i;
            (void) snprintf(line->name, sizeof line->name, "%.60s",
                            is_shared(series->kind) ? moe_evidence_kind_name(series->kind)
                                                    : series->name);
        }
        fitter->line_of[i] = at;
    }
    return MOE_OK;
}

static bool is_held_line(const struct moe_fitter *fitter, uint32_t line, uint32_t index)
{
    const struct moe_evidence_point *point = &fitter->evidence->points[index];
    for (uint32_t i = 0; i < fitter->evidence->point_count; i++) {
        const struct moe_evidence_point *other = &fitter->evidence->points[i];
        if (other->role == MOE_EVIDENCE_HELDOUT && other->bytes == point->bytes &&
            other->flops == point->flops && other->tokens == point->tokens &&
            other->series == point->series && fitter->line_of[other->series] == line) {
            return true;
        }
    }
    return false;
}

static enum moe_status fit_line(struct moe_fitter *fitter, uint32_t index, struct moe_error *err)
{
    const struct moe_evidence *evidence = fitter->evidence;
    struct moe_fitter_line *line = &fitter->lines[index];
    struct moe_roofline_point *points =
        MOE_NEW(fitter->arena, struct moe_roofline_point, evidence->point_count + 1);
    if (points == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its lines", evidence->name);
    }
    /* A permutation reads and writes: what it moves may pass the ceiling of reading alone. */
    struct moe_roofline_problem problem = {
        .points = points,
        .bandwidth_ceiling = 1.05 * fmax(fitter->read_bytes_s, fitter->copy_bytes_s),
        .peak_ceiling = fitter->bf16_flop_s * 1.04,
        .prior = { .mean = { log(4e3), moe_roofline_logit(0.8), moe_roofline_logit(0.6), log(2.0) },
                   .sd = { 1.0, 1.0, 1.0, 0.7 },
                   .weight = 0.005 },
        .soft = 0.05,
        .starts = MOE_ROOFLINE_STARTS,
    };
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        if (!fitter->known[p] || fitter->line_of[point->series] != index || point->bytes <= 0.0) {
            continue;
        }
        if (is_held_line(fitter, index, p)) {
            fitter->held_back++;
            continue;
        }
        points[problem.count++] = (struct moe_roofline_point){
            .bytes = point->bytes,
            .flops = is_shared(line->kind) ? point->flops : 0.0,
            .ns = exp(fitter->centre[p]),
            .clock = 1.0,
        };
    }
    line->fitted = problem.count;
    if (problem.count == 0) {
        return MOE_OK;
    }
    MOE_TRY(moe_roofline_fit(&line->roofline, NULL, &problem, err));
    line->roofline.t0_ns = moe_round_digits(line->roofline.t0_ns, MOE_FITTER_DIGITS);
    line->roofline.bandwidth_bytes_s =
        moe_round_digits(line->roofline.bandwidth_bytes_s, MOE_FITTER_DIGITS);
    line->roofline.peak_flop_s = moe_round_digits(line->roofline.peak_flop_s, MOE_FITTER_DIGITS);
    line->roofline.p = moe_round_digits(line->roofline.p, MOE_FITTER_DIGITS);
    return MOE_OK;
}

enum moe_status moe_fitter_fit_lines(struct moe_fitter *fitter, struct moe_error *err)
{
    if (fitter->line_of == NULL) {
        MOE_TRY(find_lines(fitter, err));
    }
    for (uint32_t i = 0; i < fitter->line_count; i++) {
        MOE_TRY(fit_line(fitter, i, err));
    }
    for (uint32_t p = 0; p < fitter->evidence->point_count; p++) {
        const struct moe_evidence_point *point = &fitter->evidence->points[p];
        const uint32_t index = fitter->line_of[point->series];
        if (index == MOE_FITTER_NONE || fitter->lines[index].fitted == 0) {
            continue;
        }
        const struct moe_roofline *roofline = &fitter->lines[index].roofline;
        const double flops = is_shared(fitter->lines[index].kind) ? point->flops : 0.0;
        fitter->share[MOE_FACTOR_COMPUTE][p] =
            moe_roofline_compute_share(roofline, point->bytes, flops, 1.0);
        fitter->share[MOE_FACTOR_MEMORY][p] =
            moe_roofline_memory_share(roofline, point->bytes, flops, 1.0);
    }
    return MOE_OK;
}

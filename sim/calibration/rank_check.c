#include "sim/calibration/rank_check.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

static const double large_bytes = 1048576.0;

/* What is checked, and as what operation its curve goes. */
static const struct {
    enum moe_evidence_kind kind;
    enum moe_segment_op op;
} checked[] = {
    { MOE_EVIDENCE_ALL_TO_ALL, MOE_SEGMENT_ALL_TO_ALL },
    { MOE_EVIDENCE_ALL_TO_ALL_V, MOE_SEGMENT_ALL_TO_ALL },
    { MOE_EVIDENCE_ALL_GATHER, MOE_SEGMENT_ALL_GATHER },
    { MOE_EVIDENCE_REDUCE_SCATTER, MOE_SEGMENT_REDUCE_SCATTER },
    { MOE_EVIDENCE_ALL_REDUCE, MOE_SEGMENT_ALL_REDUCE },
};

double moe_rank_check_bytes(uint32_t index)
{
    assert(index < MOE_RANK_CHECK_SIZES);
    return ldexp(1.0, 16 + 3 * (int) index);
}

/* Of a kind over so many ranks; an uneven all-to-all goes by the even one's. NULL: never fitted. */
static struct moe_fitter_exchange *find_exchange(const struct moe_fitter *fitter,
                                                 enum moe_evidence_kind kind, uint32_t ranks)
{
    kind = kind == MOE_EVIDENCE_ALL_TO_ALL_V ? MOE_EVIDENCE_ALL_TO_ALL : kind;
    for (uint32_t i = 0; i < fitter->exchange_count; i++) {
        struct moe_fitter_exchange *exchange = &fitter->exchanges[i];
        if (exchange->kind == kind && exchange->ranks == ranks && exchange->fitted > 0) {
            return exchange;
        }
    }
    return NULL;
}

static struct moe_rank_curve ends_of(const struct moe_fitter_exchange *exchange)
{
    return (struct moe_rank_curve){ exchange->ranks, exchange->fit.lines[0].alpha_ns,
                                    exchange->fit.lines[exchange->fit.count - 1].ns_per_byte };
}

/* As a run finds it: from the next smaller curve, or else from published figures. */
static void find_trend(const struct moe_fitter *fitter, enum moe_evidence_kind kind,
                       enum moe_segment_op op, uint32_t from, struct moe_rank_check_row *row)
{
    const struct moe_rank_curve more = ends_of(find_exchange(fitter, kind, from));
    row->trend = moe_rank_trend_published(op);
    for (uint32_t ranks = from - 1; ranks > 1; ranks--) {
        const struct moe_fitter_exchange *below = find_exchange(fitter, kind, ranks);
        if (below != NULL) {
            const struct moe_rank_curve fewer = ends_of(below);
            row->trend = moe_rank_trend_between(op, &fewer, &more);
            row->trend_ranks = ranks;
            return;
        }
    }
}

static struct moe_segment_fit extend(const struct moe_segment_fit *fit,
                                     const struct moe_rank_trend *trend, enum moe_segment_op op,
                                     uint32_t from, uint32_t to)
{
    struct moe_segment_fit out = *fit;
    double alpha_ns[MOE_SEGMENT_FIT_LIMIT];
    double ns_per_byte[MOE_SEGMENT_FIT_LIMIT];
    for (uint32_t i = 0; i < fit->count; i++) {
        alpha_ns[i] = fit->lines[i].alpha_ns;
        ns_per_byte[i] = fit->lines[i].ns_per_byte;
    }
    moe_rank_trend_extend(trend, op, from, to, alpha_ns, ns_per_byte, fit->count);
    for (uint32_t i = 0; i < fit->count; i++) {
        out.lines[i].alpha_ns = alpha_ns[i];
        out.lines[i].ns_per_byte = ns_per_byte[i];
    }
    return out;
}

/* Errors of the points over `to` ranks, were `curve` theirs; their number. */
static uint32_t judge(const struct moe_fitter *fitter, enum moe_evidence_kind kind, uint32_t to,
                      const struct moe_segment_fit *curve, double *errors,
                      struct moe_rank_check_errors *out)
{
    const struct moe_evidence *evidence = fitter->evidence;
    uint32_t count = 0;
    uint32_t large = 0;
    *out = (struct moe_rank_check_errors){ 0 };
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_series *series = &evidence->series[evidence->points[p].series];
        double log_ns = 0.0;
        double mhz = 0.0;
        if (series->kind != kind || series->ranks != to ||
            !moe_fitter_as_measured(fitter, p, &log_ns, &mhz)) {
            continue;
        }
        const double bytes = evidence->points[p].bytes;
        const double ns = kind == MOE_EVIDENCE_ALL_TO_ALL_V ? moe_fitter_uneven_ns(fitter, p, curve)
                                                            : moe_segment_fit_ns(curve, bytes);
        const double error = ns / exp(log_ns) - 1.0;
        errors[count++] = error;
        large += bytes >= large_bytes ? 1 : 0;
        *(bytes >= large_bytes ? &out->large : &out->small) += fabs(error);
        if (fabs(error) > fabs(out->worst)) {
            out->worst = error;
            out->worst_bytes = bytes;
        }
    }
    out->large /= large > 0 ? large : 1;
    out->small /= count > large ? count - large : 1;
    out->bias = count > 0 ? moe_median(errors, count) : 0.0;
    return count;
}

enum moe_status moe_rank_check(const struct moe_sample_fit *fit, uint32_t from, uint32_t to,
                               struct moe_rank_check_row *rows, uint32_t *count,
                               struct moe_error *err)
{
    const struct moe_fitter *fitter = &fit->fitter;
    double *errors = MOE_NEW(fitter->arena, double, fitter->evidence->point_count + 1);
    uint32_t fitted = 0;
    assert(from < to);
    if (errors == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its errors", fitter->evidence->name);
    }
    *count = sizeof checked / sizeof checked[0];
    for (uint32_t i = 0; i < *count; i++) {
        const enum moe_segment_op op = checked[i].op;
        const struct moe_fitter_exchange *exchange = find_exchange(fitter, checked[i].kind, from);
        struct moe_rank_check_row row = { .kind = checked[i].kind, .is_fitted = exchange != NULL };
        if (exchange != NULL) {
            fitted++;
            find_trend(fitter, row.kind, op, from, &row);
            const struct moe_segment_fit curve = extend(&exchange->fit, &row.trend, op, from, to);
            (void) judge(fitter, row.kind, to, &exchange->fit, errors, &row.plain);
            row.points = judge(fitter, row.kind, to, &curve, errors, &row.extended);
            for (uint32_t k = 0; k < MOE_RANK_CHECK_SIZES; k++) {
                row.ns[k] = moe_segment_fit_ns(&curve, moe_rank_check_bytes(k));
            }
        }
        rows[i] = row;
    }
    return fitted > 0 ? MOE_OK
                      : moe_fail(err, MOE_RANGE, "%s: no exchange was measured over %u GPUs",
                                 fitter->evidence->name, from);
}

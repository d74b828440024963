/* Uneven all-to-alls: what sim/cost/cost.h says of them, with rates from anchors alone. */
#include <math.h>
#include <string.h>

#include "sim/calibration/fitter.h"

/* Below, latency hides what a direction costs. */
static const double least_bytes = 1048576.0;

/* A rank's own piece against what the GPU can read, where nothing of it was measured: 8 and 65 MB
 * of own copies in 20.1 and 106.4 us on two H200 of another run, so 0.66 TB/s. */
static const double own_share_of_reading = 0.145;

struct rank_bytes {
    double out;
    double in;
    double own;
};

static double cell(const struct moe_evidence_point *point, uint32_t ranks, uint32_t from,
                   uint32_t to)
{
    int64_t bytes = 0;
    memcpy(&bytes, point->rows + ((size_t) from * ranks + to) * sizeof bytes, sizeof bytes);
    return (double) bytes;
}

static bool has_matrix(const struct moe_evidence_point *point, uint32_t ranks)
{
    return point->rows != NULL && point->rows_bytes == (size_t) ranks * ranks * sizeof(int64_t);
}

static struct rank_bytes bytes_of(const struct moe_evidence_point *point, uint32_t ranks,
                                  uint32_t rank)
{
    struct rank_bytes sum = { .own = cell(point, ranks, rank, rank) };
    for (uint32_t other = 0; other < ranks; other++) {
        sum.out += other == rank ? 0.0 : cell(point, ranks, rank, other);
        sum.in += other == rank ? 0.0 : cell(point, ranks, other, rank);
    }
    return sum;
}

double moe_fitter_busiest(const struct moe_fitter *fitter, uint32_t index)
{
    const struct moe_evidence_point *point = &fitter->evidence->points[index];
    const uint32_t ranks = fitter->evidence->series[point->series].ranks;
    double most = has_matrix(point, ranks) ? 0.0 : point->bytes;
    for (uint32_t rank = 0; rank < ranks && has_matrix(point, ranks); rank++) {
        const struct rank_bytes bytes = bytes_of(point, ranks, rank);
        most = fmax(most, fmax(bytes.out, bytes.in));
    }
    return most;
}

static double rank_ns(const struct moe_segment_fit *even, const struct rank_bytes *bytes,
                      double saving, double own_bytes_s)
{
    const double more = fmax(bytes->out, bytes->in);
    const double empty = even->lines[0].alpha_ns;
    double ns = more > 0.0 ? moe_segment_fit_ns(even, more) : 0.0;
    if (more > 0.0) {
        ns -= fmax(ns - empty, 0.0) * saving * (1.0 - fmin(bytes->out, bytes->in) / more);
    }
    return own_bytes_s > 0.0 && bytes->own > 0.0 ? fmax(ns, empty + bytes->own / own_bytes_s * 1e9)
                                                 : ns;
}

double moe_fitter_uneven_ns(const struct moe_fitter *fitter, uint32_t index,
                            const struct moe_segment_fit *even)
{
    const struct moe_evidence_point *point = &fitter->evidence->points[index];
    const uint32_t ranks = fitter->evidence->series[point->series].ranks;
    double longest = 0.0;
    if (!has_matrix(point, ranks)) {
        return moe_segment_fit_ns(even, point->bytes);
    }
    for (uint32_t rank = 0; rank < ranks; rank++) {
        const struct rank_bytes bytes = bytes_of(point, ranks, rank);
        longest = fmax(longest, rank_ns(even, &bytes, fitter->one_way_saving, fitter->own_bytes_s));
    }
    return longest;
}

/* The least time of the pairs of a kind at so many bytes; 0: nobody measured it. */
static double quickest_ns(const struct moe_fitter *fitter, enum moe_evidence_kind kind,
                          double bytes)
{
    const struct moe_evidence *evidence = fitter->evidence;
    double least = 0.0;
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        if (fitter->known[p] && evidence->points[p].bytes == bytes &&
            evidence->series[evidence->points[p].series].kind == kind) {
            const double ns = exp(fitter->centre[p]);
            least = least == 0.0 || ns < least ? ns : least;
        }
    }
    return least;
}

/* From copies one way and both ways, of each size those of the quickest pair: NCCL lets the two
 * directions of GPUs half the ring apart share channels, which is no property of the links. */
static uint32_t savings_of_pairs(const struct moe_fitter *fitter, double *values)
{
    const struct moe_evidence *evidence = fitter->evidence;
    uint32_t used = 0;
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        const uint32_t series = point->series;
        if (evidence->series[series].kind != MOE_EVIDENCE_P2P_BOTH || !fitter->known[p] ||
            point->bytes < least_bytes ||
            exp(fitter->centre[p]) != quickest_ns(fitter, MOE_EVIDENCE_P2P_BOTH, point->bytes)) {
            continue;
        }
        const struct moe_fitter_exchange *exchange =
            &fitter->exchanges[fitter->exchange_of[series]];
        const double both_ns = exp(fitter->centre[p]);
        const double one_ns = quickest_ns(fitter, MOE_EVIDENCE_P2P, point->bytes);
        const double span =
            both_ns - (exchange->fitted == 0 ? 0.0 : exchange->fit.lines[0].alpha_ns);
        if (one_ns > 0.0 && span > 0.0) {
            values[used++] = (both_ns - one_ns) / span;
        }
    }
    return used;
}

/* From uneven exchanges that were planned as anchors: one busy rank in one direction, or almost
 * everything its sender's own. values take the savings, rates the rates of own copies. */
static void rates_of_anchors(const struct moe_fitter *fitter, double *values, uint32_t *value_count,
                             double *rates, uint32_t *rate_count)
{
    const struct moe_evidence *evidence = fitter->evidence;
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        const struct moe_evidence_series *series = &evidence->series[point->series];
        if (series->kind != MOE_EVIDENCE_ALL_TO_ALL_V || !fitter->known[p] ||
            !has_matrix(point, series->ranks) || point->bytes <= 0.0 ||
            fitter->exchanges[fitter->exchange_of[point->series]].fitted == 0) {
            continue;
        }
        const struct moe_segment_fit *even =
            &fitter->exchanges[fitter->exchange_of[point->series]].fit;
        const double empty = even->lines[0].alpha_ns;
        const double took = exp(fitter->centre[p]);
        struct rank_bytes busiest = { 0 };
        double own = 0.0;
        for (uint32_t rank = 0; rank < series->ranks; rank++) {
            const struct rank_bytes bytes = bytes_of(point, series->ranks, rank);
            own = fmax(own, bytes.own);
            busiest = fmax(bytes.out, bytes.in) > fmax(busiest.out, busiest.in) ? bytes : busiest;
        }
        const double more = fmax(busiest.out, busiest.in);
        const double unused = 1.0 - fmin(busiest.out, busiest.in) / more;
        const double span = moe_segment_fit_ns(even, more) - empty;
        if (own > 4.0 * more && own >= 4.0 * least_bytes && took > empty) {
            rates[(*rate_count)++] = own / (took - empty) * 1e9;
        } else if (unused > 0.5 && more >= least_bytes && span > 0.0 && own < 4.0 * more) {
            values[(*value_count)++] = (empty + span - took) / (span * unused);
        }
    }
}

enum moe_status moe_fitter_fit_uneven(struct moe_fitter *fitter, struct moe_error *err)
{
    const size_t room = (size_t) fitter->evidence->point_count + 1;
    double *values = MOE_NEW(fitter->arena, double, room);
    double *rates = MOE_NEW(fitter->arena, double, room);
    uint32_t value_count = 0;
    uint32_t rate_count = 0;
    if (values == NULL || rates == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its uneven exchanges",
                        fitter->evidence->name);
    }
    rates_of_anchors(fitter, values, &value_count, rates, &rate_count);
    fitter->own_is_measured = rate_count > 0;
    if (value_count == 0) {
        value_count = savings_of_pairs(fitter, values);
    }
    fitter->one_way_saving =
        value_count == 0 ? 0.0 : fmin(fmax(moe_median(values, value_count), 0.0), 0.9);
    fitter->own_bytes_s = rate_count == 0 ? own_share_of_reading * fitter->read_bytes_s
                                          : moe_median(rates, rate_count);
    fitter->one_way_saving = moe_round_digits(fitter->one_way_saving, MOE_FITTER_DIGITS);
    fitter->own_bytes_s = moe_round_digits(fitter->own_bytes_s, MOE_FITTER_DIGITS);
    return MOE_OK;
}

/*
 * Rank check: what the curves over few GPUs foretell for more (sim/cost/rank_trend.h), against
 * what more GPUs did. No point over the larger number of ranks is used for the prediction, so all
 * of them count, anchors and held-out ones alike.
 */
#ifndef MOE_SIM_CALIBRATION_RANK_CHECK_H
#define MOE_SIM_CALIBRATION_RANK_CHECK_H

#include <stdint.h>

#include "sim/calibration/fit_samples.h"
#include "sim/cost/rank_trend.h"

enum { MOE_RANK_CHECK_SIZES = 5, MOE_RANK_CHECK_LIMIT = 8 };

/* Mean relative errors (absolute) below and from 1 MiB; of the curve as it is, and extended. */
struct moe_rank_check_errors {
    double small;
    double large;
    double bias; /* median of signed errors */
    double worst;
    double worst_bytes;
};

struct moe_rank_check_row {
    enum moe_evidence_kind kind;
    bool is_fitted;  /* there is a curve over the fewer ranks; nothing below holds otherwise */
    uint32_t points; /* over the more ranks; 0: never measured */
    struct moe_rank_check_errors plain;
    struct moe_rank_check_errors extended;
    struct moe_rank_trend trend;
    uint32_t trend_ranks;            /* of the smaller curve that it comes from; 0: published */
    double ns[MOE_RANK_CHECK_SIZES]; /* extended, at moe_rank_check_bytes */
};

/* 64 KiB .. 256 MiB, by fours in exponent. */
double moe_rank_check_bytes(uint32_t index);

/* rows[MOE_RANK_CHECK_LIMIT]; *count of them: all operations that go by ranks. fit's arena is used.
 * Errors: MOE_RANGE when nothing was measured over `from` ranks; MOE_LIMIT. */
enum moe_status moe_rank_check(const struct moe_sample_fit *fit, uint32_t from, uint32_t to,
                               struct moe_rank_check_row *rows, uint32_t *count,
                               struct moe_error *err) MOE_MUST_CHECK;

#endif

/*
 * Score of a predictor: what it said of a layer's loads against what followed.
 *
 *   error_share  sum |predicted - actual| / sum actual: the mean absolute error as a share of the
 *                mean load
 *   wrong_share  half of sum |p - actual| / sum actual with p = predicted scaled to the actual
 *                total: the least share of tokens that end at an expert the router did not choose
 *                when tokens are routed by the prediction. The proxy of lost quality for such
 *                policies, from 0 to 1.
 *   hit_rate     how many of the n experts predicted hottest are among the n that were, over n
 * Each is summed over layers and steps before it is divided, so that busy steps weigh more; steps
 * without tokens, and those without a prediction, are left out and counted.
 */
#ifndef MOE_POLICIES_PREDICT_SCORE_H
#define MOE_POLICIES_PREDICT_SCORE_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_predict_score {
    uint32_t expert_count;
    uint32_t top_count; /* n */
    double actual;      /* tokens */
    double error;       /* sum |predicted - actual| */
    double wrong;       /* half of the sum after scaling */
    uint64_t hits;
    uint64_t hottest; /* n summed: what hits could be at most */
    uint64_t scored;  /* layers and steps */
    uint64_t left_out;
    double *row;     /* [2][expert_count] loads in hand */
    uint32_t *order; /* [2][top_count] hottest experts of each */
};

/* top_count is cut to expert_count. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_predict_score_init(struct moe_predict_score *score, struct moe_arena *arena,
                                       uint32_t expert_count, uint32_t top_count,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* One layer of one step: predicted[expert_count] finite and >= 0. Of equally hot experts the
 * lower is hotter. */
void moe_predict_score_add(struct moe_predict_score *score, const float *predicted,
                           const uint32_t *actual);

/* One layer of a whole window, likewise. */
void moe_predict_score_add_window(struct moe_predict_score *score, const double *predicted,
                                  const double *actual);

/* 0 when nothing was scored. */
double moe_predict_score_error_share(const struct moe_predict_score *score);
double moe_predict_score_wrong_share(const struct moe_predict_score *score);
double moe_predict_score_hit_rate(const struct moe_predict_score *score);

#endif

/* The n hottest by insertion into a short sorted list: n is small. */
#include "policies/predict_score.h"

#include <math.h>

#include "sim/base/no_malloc.h"

enum moe_status moe_predict_score_init(struct moe_predict_score *score, struct moe_arena *arena,
                                       uint32_t expert_count, uint32_t top_count,
                                       struct moe_error *err)
{
    *score = (struct moe_predict_score){
        .expert_count = expert_count,
        .top_count = top_count < expert_count ? top_count : expert_count,
        .row = MOE_NEW(arena, double, 2 * (size_t) expert_count),
        .order = MOE_NEW(arena, uint32_t, 2 * (size_t) expert_count),
    };
    if (score->row == NULL || score->order == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to score predictions of %u experts",
                        expert_count);
    }
    return MOE_OK;
}

/* The hottest experts of a row, hottest first. */
static void list_hottest(const struct moe_predict_score *score, const double *row,
                         uint32_t *hottest)
{
    uint32_t count = 0;
    for (uint32_t expert = 0; expert < score->expert_count; expert++) {
        uint32_t hole = count;
        if (count == score->top_count) {
            if (count == 0 || row[expert] <= row[hottest[count - 1]]) {
                continue;
            }
            hole--;
        } else {
            count++;
        }
        for (; hole > 0 && row[hottest[hole - 1]] < row[expert]; hole--) {
            hottest[hole] = hottest[hole - 1];
        }
        hottest[hole] = expert;
    }
}

void moe_predict_score_add_window(struct moe_predict_score *score, const double *predicted,
                                  const double *actual)
{
    double said = 0.0;
    double was = 0.0;
    for (uint32_t expert = 0; expert < score->expert_count; expert++) {
        said += predicted[expert];
        was += actual[expert];
    }
    if (said == 0.0 || was == 0.0) {
        score->left_out++;
        return;
    }
    for (uint32_t expert = 0; expert < score->expert_count; expert++) {
        score->error += fabs(predicted[expert] - actual[expert]);
        score->wrong += fabs(predicted[expert] * (was / said) - actual[expert]) / 2;
    }
    uint32_t *told = score->order;
    uint32_t *true_ones = score->order + score->top_count;
    list_hottest(score, predicted, told);
    list_hottest(score, actual, true_ones);
    for (uint32_t i = 0; i < score->top_count; i++) {
        for (uint32_t j = 0; j < score->top_count; j++) {
            score->hits += told[i] == true_ones[j];
        }
    }
    score->scored++;
    score->actual += was;
    score->hottest += score->top_count;
}

void moe_predict_score_add(struct moe_predict_score *score, const float *predicted,
                           const uint32_t *actual)
{
    double *said = score->row;
    double *was = score->row + score->expert_count;
    for (uint32_t expert = 0; expert < score->expert_count; expert++) {
        said[expert] = (double) predicted[expert];
        was[expert] = actual[expert];
    }
    moe_predict_score_add_window(score, said, was);
}

static double share(double part, double whole)
{
    return whole > 0.0 ? part / whole : 0.0;
}

double moe_predict_score_error_share(const struct moe_predict_score *score)
{
    return share(score->error, score->actual);
}

double moe_predict_score_wrong_share(const struct moe_predict_score *score)
{
    return share(score->wrong, score->actual);
}

double moe_predict_score_hit_rate(const struct moe_predict_score *score)
{
    return share((double) score->hits, (double) score->hottest);
}

/* The n hottest by selection: a key is (load descending, expert ascending), and what sorts below
 * the n-th smallest key is in. n is small, so keeping n keys in order is enough. */
#include "policies/predict_score.h"

#include <math.h>
#include <string.h>

#include "policies/winner_tree.h"
#include "sim/base/no_malloc.h"

enum moe_status moe_predict_score_init(struct moe_predict_score *score, struct moe_arena *arena,
                                       uint32_t expert_count, uint32_t top_count,
                                       struct moe_error *err)
{
    *score = (struct moe_predict_score){
        .expert_count = expert_count,
        .top_count = top_count < expert_count ? top_count : expert_count,
        .order = MOE_NEW(arena, uint64_t, 2 * (size_t) expert_count),
    };
    if (score->order == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to score predictions of %u experts", expert_count);
    }
    return MOE_OK;
}

/* Puts a key among the smallest count of limit; returns the new count. */
static uint32_t keep(uint64_t *order, uint32_t count, uint32_t limit, uint64_t key)
{
    uint32_t hole = count;
    if (count == limit) {
        if (limit == 0 || key > order[limit - 1]) {
            return count;
        }
        hole = limit - 1;
    } else {
        count++;
    }
    for (; hole > 0 && order[hole - 1] > key; hole--) {
        order[hole] = order[hole - 1];
    }
    order[hole] = key;
    return count;
}

static uint32_t count_hits(struct moe_predict_score *score, const float *predicted,
                           const uint32_t *actual)
{
    uint64_t *said = score->order;
    uint64_t *was = score->order + score->expert_count;
    uint32_t said_count = 0;
    uint32_t was_count = 0;
    uint32_t hits = 0;
    for (uint32_t expert = 0; expert < score->expert_count; expert++) {
        const uint64_t rank = moe_winner_rank_descending(predicted[expert] + 0.0f);
        said_count = keep(said, said_count, score->top_count, rank << 32 | expert);
        was_count =
            keep(was, was_count, score->top_count, (uint64_t) ~actual[expert] << 32 | expert);
    }
    for (uint32_t i = 0; i < said_count; i++) {
        for (uint32_t j = 0; j < was_count; j++) {
            hits += (uint32_t) said[i] == (uint32_t) was[j];
        }
    }
    return hits;
}

void moe_predict_score_add(struct moe_predict_score *score, const float *predicted,
                           const uint32_t *actual)
{
    double said = 0.0;
    double was = 0.0;
    for (uint32_t expert = 0; expert < score->expert_count; expert++) {
        said += (double) predicted[expert];
        was += actual[expert];
    }
    if (said == 0.0 || was == 0.0) {
        score->left_out++;
        return;
    }
    double error = 0.0;
    double wrong = 0.0;
    for (uint32_t expert = 0; expert < score->expert_count; expert++) {
        error += fabs((double) predicted[expert] - actual[expert]);
        wrong += fabs((double) predicted[expert] * (was / said) - actual[expert]);
    }
    score->scored++;
    score->actual += was;
    score->error += error;
    score->wrong += wrong / 2;
    score->hits += count_hits(score, predicted, actual);
    score->hottest += score->top_count;
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

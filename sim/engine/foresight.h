/*
 * Foresight: a predictor at work in the replay, and how right it was.
 *
 * Before each layer of each step the predictor is asked what its loads will be; it knows the
 * layer's counts of the step before and the counts of the layer before in this step (a policy
 * that must look further ahead keeps its own memory). Dispatch policies see what it says, and it
 * is scored on what came, in scored steps: policies/predict_score.h says how. Counts are those
 * that the tokens asked for, before any were dropped.
 * Everything is sized when it is set up: nothing is allocated in a step.
 */
#ifndef MOE_SIM_ENGINE_FORESIGHT_H
#define MOE_SIM_ENGINE_FORESIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/composition.h"
#include "policies/predict_score.h"
#include "sim/base/arena.h"

enum { MOE_FORESIGHT_HOTTEST = 8 }; /* experts of a layer that the hit rate looks at */

/* How right predictions were; scored = 0 when there were none. */
struct moe_foresight_score {
    uint64_t scored;    /* layers and steps, or layers of a window */
    double error_share; /* as in policies/predict_score.h */
    double wrong_share;
    double hit_rate;
};

struct moe_foresight {
    const struct moe_composition_part *part; /* NULL: nobody predicts step by step */
    void *state;
    struct moe_placement_shape shape;
    uint64_t seed;
    uint64_t step;
    bool begun;       /* a step has ended: last is filled */
    bool scoring;     /* this step is scored */
    uint32_t *now;    /* [layer][expert] of this step */
    uint32_t *last;   /* [layer][expert] of the step before */
    float *predicted; /* [expert] of the layer in hand */
    struct moe_predict_score score;
};

/* part: predict, with a step method; planning: everything there is. Both outlive the foresight,
 * whose memory comes from arena. Errors: MOE_LIMIT when it is full; what the policy's init
 * returns. */
enum moe_status moe_foresight_init(struct moe_foresight *foresight,
                                   const struct moe_composition_part *part,
                                   const struct moe_place_view *planning, struct moe_arena *arena,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* A step begins; layers follow in ascending order, each once. */
void moe_foresight_begin_step(struct moe_foresight *foresight, uint64_t step, bool scoring);

/* One layer, whose tokens want total[expert_count]. *predicted is what the predictor said, valid
 * until the next call, or NULL where it said nothing yet (all zero). Errors: MOE_POLICY naming
 * policy, layer and expert of a prediction out of range; what the policy returns. */
enum moe_status moe_foresight_layer(struct moe_foresight *foresight, uint32_t layer,
                                    const uint64_t *total, const float **predicted,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* All layers of a step that was counted without a dispatch policy: tokens[layer][slot] and
 * expert_of_slot[layer][slot]; total is room for expert_count. Errors: as moe_foresight_layer. */
enum moe_status moe_foresight_watch(struct moe_foresight *foresight, const uint32_t *tokens,
                                    const uint16_t *expert_of_slot, uint64_t *total,
                                    struct moe_error *err) MOE_MUST_CHECK;

struct moe_foresight_score moe_foresight_result(const struct moe_predict_score *score);

/* Scores loads that a place policy planned on, predicted[layer][expert], against those of the
 * scored window. Errors: MOE_LIMIT when scratch is full. */
enum moe_status moe_foresight_score_window(const struct moe_placement_shape *shape,
                                           const double *predicted, const double *actual,
                                           struct moe_arena *scratch,
                                           struct moe_foresight_score *out,
                                           struct moe_error *err) MOE_MUST_CHECK;

#endif

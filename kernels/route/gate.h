/*
 * The gate: which experts a token goes to and with what weight, from the router's logits.
 *
 *   symbol    shape                      meaning
 *   logits    [token][expert] fp32       finite
 *   bias      [expert] fp32 or NULL      added to the scores for the choice alone (DeepSeek-V3's
 *                                        e_score_correction_bias)
 *   ids       [token][top_k] int32       best first
 *   weights   [token][top_k] fp32
 *
 *   score  = softmax over all experts of the token, or sigmoid, of the logits
 *   choice = score + bias
 *   With more than one group, only experts of the group_keep best of group_count equal groups of
 *   neighbouring experts can be chosen; a group is as good as the sum of its two best choices
 *   (DeepSeek-V3) or as its best one (DeepSeek-V2).
 *   ids    = the top_k largest choices;
 *   weight = score, divided by the sum of the chosen scores when renormalised, times scale.
 * Of equals the lower id (group) comes first. Softmax over the chosen logits alone (Mixtral,
 * gpt-oss) is the renormalised softmax.
 * Sources: DeepSeek-V2, arXiv 2405.04434, section 2.1; DeepSeek-V3 technical report, arXiv
 * 2412.19437, section 2.1.2; the models' public inference code for the two best of a group.
 *
 * Versions, from naive to fast:
 *   1  a thread per token, which reads the logits anew for each place
 *   2  a warp per token: logits are read once, side by side, and stay in registers; a place is
 *      found by two warp-wide reductions over keys that order like the numbers
 *
 * As in kernels.h, results are cudaError_t as int: cudaErrorInvalidValue for what breaks a limit.
 */
#ifndef MOE_KERNELS_GATE_H
#define MOE_KERNELS_GATE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum moe_gate_score { MOE_GATE_SOFTMAX, MOE_GATE_SIGMOID, MOE_GATE_SCORE_COUNT };

enum moe_gate_group {
    MOE_GATE_GROUP_BEST_TWO, /* at least two experts per group */
    MOE_GATE_GROUP_BEST,
    MOE_GATE_GROUP_COUNT
};

enum {
    MOE_GATE_EXPERT_LIMIT = 1024,
    MOE_GATE_TOP_K_LIMIT = 16,
    MOE_GATE_GROUP_LIMIT = 32,
    MOE_GATE_VERSION_COUNT = 2,
};

struct moe_gate {
    int32_t expert_count; /* 1 .. MOE_GATE_EXPERT_LIMIT */
    int32_t top_k;        /* 1 .. MOE_GATE_TOP_K_LIMIT, at most the experts of the kept groups */
    int32_t group_count;  /* 1 .. MOE_GATE_GROUP_LIMIT, divides expert_count; 1: no groups */
    int32_t group_keep;   /* 1 .. group_count */
    enum moe_gate_score score;
    enum moe_gate_group group; /* with more than one group */
    int renormalise;
    float scale;
};

/* token_count at least 1. Asynchronous on stream. */
int moe_gate_choose(const struct moe_gate *gate, int32_t token_count, int32_t *ids_dev,
                    float *weights_dev, const float *logits_dev, const float *bias_dev, int version,
                    void *stream);

#ifdef __cplusplus
}
#endif
#endif

/*
 * Predictive replication: as many copies of an expert as its predicted tokens can use, under a
 * cap of memory.
 *
 * Source: "Fast MoE Inference via Predictive Prefetching and Expert Replication", arXiv
 * 2605.11537; its artifact computes no copies, so the rule is reconstructed from the text:
 * copies = just enough to saturate, min(cap, ceil(n / q)) for n predicted tokens and q tokens
 * that one copy takes before more do not help; while they do not fit, the expert with the
 * fewest tokens per copy gives one up.
 * Two readings:
 *   one GPU with host memory   experts without predicted tokens are not loaded at all, and copies
 *                              run beside each other (least = 0)
 *   expert parallelism         every expert has one copy somewhere, and its others lie on other
 *                              GPUs (least = 1)
 * What is prefetched are the copies that were not there in the batch before
 * (moe_predictive_count_loads).
 */
#ifndef MOE_POLICIES_PREDICTIVE_SOLVER_H
#define MOE_POLICIES_PREDICTIVE_SOLVER_H

#include <stdint.h>

struct moe_predictive_limits {
    double tokens_per_copy; /* q > 0 */
    uint32_t least;         /* copies of every expert: 0 or 1 */
    uint32_t most;          /* cap on the copies of one expert, >= 1 */
};

/* copies[count] that tokens[count], each finite and >= 0, can use: from least to most. Returns
 * their sum. */
uint64_t moe_predictive_want(const double *tokens, uint32_t count,
                             const struct moe_predictive_limits *limits, uint32_t *copies);

/* Takes copies away until room of them are left in all: each from the expert with the fewest
 * tokens per copy among those with more than least; of equal ones (float32) the first. room is
 * at least least * count, sum the copies there are. tree[2 * moe_winner_leaf_count(count)]. */
void moe_predictive_shrink(const double *tokens, uint32_t count, uint32_t least, uint64_t sum,
                           uint64_t room, uint64_t *tree, uint32_t *copies);

/* Copies to load when before[expert_count] are resident and after[expert_count] are wanted. */
uint64_t moe_predictive_count_loads(const uint32_t *before, const uint32_t *after,
                                    uint32_t expert_count);

#endif

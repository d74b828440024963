#include "policies/solve/predictive_solver.h"

#include <assert.h>
#include <math.h>

#include "policies/solve/winner_tree.h"
#include "sim/base/no_malloc.h"

/* The key with which an expert gives up a copy: fewest tokens per copy first. */
static uint64_t key_of(const double *tokens, const uint32_t *copies, uint32_t expert,
                       uint32_t least)
{
    return copies[expert] <= least
               ? MOE_WINNER_NEVER
               : moe_winner_key(
                     moe_winner_rank_ascending((float) (tokens[expert] / copies[expert]) + 0.0f),
                     expert);
}

uint64_t moe_predictive_want(const double *tokens, uint32_t count,
                             const struct moe_predictive_limits *limits, uint32_t *copies)
{
    uint64_t sum = 0;
    assert(limits->tokens_per_copy > 0.0);
    for (uint32_t expert = 0; expert < count; expert++) {
        const double wanted = ceil(tokens[expert] / limits->tokens_per_copy);
        copies[expert] = wanted < limits->most ? (uint32_t) wanted : limits->most;
        copies[expert] = copies[expert] < limits->least ? limits->least : copies[expert];
        sum += copies[expert];
    }
    return sum;
}

void moe_predictive_shrink(const double *tokens, uint32_t count, uint32_t least, uint64_t sum,
                           uint64_t room, uint64_t *tree, uint32_t *copies)
{
    const uint32_t leaf_count = moe_winner_leaf_count(count);
    assert((uint64_t) least * count <= room);
    for (uint32_t i = 0; i < leaf_count; i++) {
        tree[leaf_count + i] = i < count ? key_of(tokens, copies, i, least) : MOE_WINNER_NEVER;
    }
    moe_winner_build(tree, leaf_count);
    for (; sum > room; sum--) {
        assert(moe_winner_top(tree) != MOE_WINNER_NEVER);
        const uint32_t expert = (uint32_t) moe_winner_top(tree);
        copies[expert]--;
        moe_winner_set(tree, leaf_count, expert, key_of(tokens, copies, expert, least));
    }
}

uint64_t moe_predictive_count_loads(const uint32_t *before, const uint32_t *after,
                                    uint32_t expert_count)
{
    uint64_t loads = 0;
    for (uint32_t expert = 0; expert < expert_count; expert++) {
        loads += after[expert] > before[expert] ? after[expert] - before[expert] : 0;
    }
    return loads;
}

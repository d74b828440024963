/*
 * Winner tree: the smallest of many keys, kept up to date under single changes.
 *
 * A complete binary tree of minima over leaf_count keys (a power of two): the root
 * is the smallest key, and changing one leaf repairs its log2(leaf_count) ancestors
 * without a branch that depends on the data. For the tens to hundreds of items that
 * a placement solver looks at, that beats a binary heap, whose comparisons the
 * processor cannot predict.
 *
 * A key is (rank << 32 | index), so keys are unique, the index travels with its key,
 * and of equal ranks the lowest index wins: the tie rule is part of the key.
 * Source: D. E. Knuth, TAOCP 3, section 5.4.1 (trees of losers and winners).
 */
#ifndef MOE_POLICIES_WINNER_TREE_H
#define MOE_POLICIES_WINNER_TREE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The key of a leaf that cannot win: larger than every other. */
#define MOE_WINNER_NEVER UINT64_MAX

/* Leaves that hold item_count items: the next power of two. item_count >= 1. */
static inline uint32_t moe_winner_leaf_count(uint32_t item_count)
{
    uint32_t leaf_count = 1;
    while (leaf_count < item_count) {
        leaf_count *= 2;
    }
    return leaf_count;
}

/* Ranks of loads: ascending order of the integers is ascending order of the loads.
 * load is finite, >= 0 and not -0. */
static inline uint32_t moe_winner_rank_ascending(float load)
{
    uint32_t bits;
    memcpy(&bits, &load, sizeof bits);
    return bits;
}

static inline uint32_t moe_winner_rank_descending(float load)
{
    return ~moe_winner_rank_ascending(load);
}

static inline float moe_winner_load_ascending(uint32_t rank)
{
    float load;
    memcpy(&load, &rank, sizeof load);
    return load;
}

static inline uint64_t moe_winner_key(uint32_t rank, uint32_t index)
{
    return (uint64_t) rank << 32 | index;
}

/* tree[2 * leaf_count]; the caller has filled the leaves tree[leaf_count ..]. */
static inline void moe_winner_build(uint64_t *tree, uint32_t leaf_count)
{
    for (size_t i = leaf_count - 1; i >= 1; i--) {
        tree[i] = tree[2 * i] < tree[2 * i + 1] ? tree[2 * i] : tree[2 * i + 1];
    }
}

/* The smallest key. */
static inline uint64_t moe_winner_top(const uint64_t *tree)
{
    return tree[1];
}

static inline void moe_winner_set(uint64_t *tree, uint32_t leaf_count, uint32_t index, uint64_t key)
{
    uint32_t i = leaf_count + index;
    tree[i] = key;
    while (i > 1) {
        const uint64_t other = tree[i ^ 1];
        key = other < key ? other : key;
        i /= 2;
        tree[i] = key;
    }
}

#endif

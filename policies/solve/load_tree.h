/*
 * Load tree: the smallest of many float64 loads, kept up to date under single changes.
 *
 * The winner tree of policies/solve/winner_tree.h for loads that need all 53 bits: programs that
 * sum and divide in float64 decide ties differently from those that do it in float32. Of
 * equal loads the lowest index wins. For the largest load, store the loads negated; for
 * ties to the highest index, number the leaves backwards.
 */
#ifndef MOE_POLICIES_LOAD_TREE_H
#define MOE_POLICIES_LOAD_TREE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "policies/solve/winner_tree.h" /* moe_winner_leaf_count */

struct moe_load_node {
    double load; /* INFINITY: cannot win */
    uint32_t index;
};

/* tree[2 * leaf_count]: leaf i gets load[i], leaves from count on never win. */
static inline void moe_load_tree_build(struct moe_load_node *tree, uint32_t leaf_count,
                                       const double *load, uint32_t count)
{
    for (uint32_t i = 0; i < leaf_count; i++) {
        tree[leaf_count + i] = (struct moe_load_node){ i < count ? load[i] : INFINITY, i };
    }
    for (size_t i = leaf_count - 1; i >= 1; i--) {
        tree[i] = tree[2 * i + 1].load < tree[2 * i].load ? tree[2 * i + 1] : tree[2 * i];
    }
}

static inline struct moe_load_node moe_load_tree_top(const struct moe_load_node *tree)
{
    return tree[1];
}

static inline void moe_load_tree_set(struct moe_load_node *tree, uint32_t leaf_count,
                                     uint32_t index, double load)
{
    size_t i = (size_t) leaf_count + index;
    tree[i].load = load;
    for (i /= 2; i >= 1; i /= 2) {
        tree[i] = tree[2 * i + 1].load < tree[2 * i].load ? tree[2 * i + 1] : tree[2 * i];
    }
}

#endif

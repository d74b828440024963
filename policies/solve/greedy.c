/* Sorting is by radix over the bits of the loads, or by merging from the bottom where items are
 * few: both stable, without heap or recursion. */
#include "policies/solve/greedy.h"

#include <assert.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum {
    DIGIT_COUNT = 8, /* bytes of a float64 */
    DIGIT_VALUES = 256,
    RADIX_FROM = 96, /* items from which eight histograms pay */
};

enum moe_status moe_greedy_init(struct moe_greedy *greedy, struct moe_arena *arena, uint32_t limit,
                                struct moe_error *err)
{
    *greedy = (struct moe_greedy){
        .tree = MOE_NEW(arena, struct moe_load_node, 2 * (size_t) moe_winner_leaf_count(limit)),
        .load = MOE_NEW(arena, double, limit),
        .order = MOE_NEW(arena, uint32_t, limit),
        .spare = MOE_NEW(arena, uint32_t, limit),
        .limit = limit,
    };
    if (greedy->tree == NULL || greedy->load == NULL || greedy->order == NULL ||
        greedy->spare == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to order %u items", limit);
    }
    return MOE_OK;
}

static void merge(const double *load, const uint32_t *from, uint32_t begin, uint32_t middle,
                  uint32_t end, uint32_t *to)
{
    uint32_t left = begin;
    uint32_t right = middle;
    for (uint32_t i = begin; i < end; i++) {
        const bool take_right =
            left == middle || (right < end && load[from[right]] > load[from[left]]);
        to[i] = take_right ? from[right++] : from[left++];
    }
}

/* Of loads >= 0 the bits have the order of the loads; + 0 turns -0 into 0. */
static uint64_t bits_of(double load)
{
    uint64_t bits;
    load += 0.0;
    memcpy(&bits, &load, sizeof bits);
    return bits;
}

static void merge_sort(const double *load, uint32_t count, uint32_t *order, uint32_t *spare)
{
    uint32_t *from = order;
    uint32_t *to = spare;
    for (uint32_t width = 1; width < count; width *= 2) {
        for (uint32_t begin = 0; begin < count; begin += 2 * width) {
            const uint32_t middle = begin + width < count ? begin + width : count;
            const uint32_t end = begin + 2 * width < count ? begin + 2 * width : count;
            merge(load, from, begin, middle, end, to);
        }
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != order) {
        memcpy(order, from, count * sizeof *order);
    }
}

/* Least significant byte first, the largest value of a byte in front. */
static void radix_sort(const double *load, uint32_t count, uint32_t *order, uint32_t *spare)
{
    uint32_t begin[DIGIT_COUNT][DIGIT_VALUES];
    uint32_t *from = order;
    uint32_t *to = spare;
    memset(begin, 0, sizeof begin);
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t bits = bits_of(load[i]);
        for (uint32_t digit = 0; digit < DIGIT_COUNT; digit++) {
            begin[digit][bits >> (8 * digit) & 0xff]++;
        }
    }
    for (uint32_t digit = 0; digit < DIGIT_COUNT; digit++) {
        if (begin[digit][bits_of(load[0]) >> (8 * digit) & 0xff] == count) {
            continue; /* all agree in this byte */
        }
        uint32_t sum = 0;
        for (uint32_t value = DIGIT_VALUES; value-- > 0;) {
            const uint32_t step = begin[digit][value];
            begin[digit][value] = sum;
            sum += step;
        }
        for (uint32_t i = 0; i < count; i++) {
            to[begin[digit][bits_of(load[from[i]]) >> (8 * digit) & 0xff]++] = from[i];
        }
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != order) {
        memcpy(order, from, count * sizeof *order);
    }
}

void moe_greedy_sort(const double *load, uint32_t count, uint32_t *order, uint32_t *spare)
{
    for (uint32_t i = 0; i < count; i++) {
        order[i] = i;
    }
    if (count < RADIX_FROM) {
        merge_sort(load, count, order, spare);
    } else {
        radix_sort(load, count, order, spare);
    }
}

void moe_greedy_replicate(struct moe_greedy *greedy, const double *load, uint32_t expert_count,
                          uint32_t copy_count, bool highest_wins, uint32_t *copies,
                          uint32_t *expert_of_copy)
{
    const uint32_t leaf_count = moe_winner_leaf_count(expert_count);
    assert(expert_count <= greedy->limit);
    for (uint32_t i = 0; i < expert_count; i++) {
        const uint32_t expert = highest_wins ? expert_count - 1 - i : i;
        greedy->load[i] = -(load[expert] / copies[expert]);
    }
    moe_load_tree_build(greedy->tree, leaf_count, greedy->load, expert_count);
    for (uint32_t copy = 0; copy < copy_count; copy++) {
        const uint32_t leaf = moe_load_tree_top(greedy->tree).index;
        const uint32_t expert = highest_wins ? expert_count - 1 - leaf : leaf;
        copies[expert]++;
        if (expert_of_copy != NULL) {
            expert_of_copy[copy] = expert;
        }
        moe_load_tree_set(greedy->tree, leaf_count, leaf, -(load[expert] / copies[expert]));
    }
}

void moe_greedy_pack(struct moe_greedy *greedy, const double *weight, uint32_t item_count,
                     uint32_t gpu_count, uint32_t capacity, uint32_t *slot_of_item)
{
    const uint32_t leaf_count = moe_winner_leaf_count(gpu_count);
    uint32_t *fill = greedy->spare; /* free again once the items are sorted */
    assert(item_count <= greedy->limit && gpu_count <= greedy->limit);
    assert((uint64_t) gpu_count * capacity >= item_count);
    moe_greedy_sort(weight, item_count, greedy->order, greedy->spare);
    memset(fill, 0, gpu_count * sizeof *fill);
    memset(greedy->load, 0, gpu_count * sizeof *greedy->load);
    moe_load_tree_build(greedy->tree, leaf_count, greedy->load, gpu_count);
    for (uint32_t i = 0; i < item_count; i++) {
        const uint32_t item = greedy->order[i];
        const struct moe_load_node lightest = moe_load_tree_top(greedy->tree);
        const uint32_t rank = fill[lightest.index]++;
        slot_of_item[item] = lightest.index * capacity + rank;
        moe_load_tree_set(greedy->tree, leaf_count, lightest.index,
                          rank + 1 == capacity ? INFINITY : lightest.load + weight[item]);
    }
}

/* Sorting is by radix (or insertion for a handful of items) over unique 64-bit keys,
 * so it is stable and has no data-dependent branches; the lightest pack comes from a
 * winner tree. The sets' trees are independent, which lets the processor overlap them. */
#include "policies/solve/packing.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "policies/solve/winner_tree.h"
#include "sim/base/no_malloc.h"

enum {
    DIGIT_COUNT = 4, /* bytes of a rank */
    DIGIT_VALUES = 256,
    INSERTION_LIMIT = 24, /* below, insertion sort is faster than four histograms */
};

enum moe_status moe_packer_init(struct moe_packer *packer, struct moe_arena *arena,
                                uint32_t item_limit, uint32_t pack_limit, struct moe_error *err)
{
    assert(item_limit >= 1);
    assert(pack_limit >= 1);
    *packer = (struct moe_packer){
        .key = MOE_NEW(arena, uint64_t, item_limit),
        .spare = MOE_NEW(arena, uint64_t, item_limit),
        .tree = MOE_NEW(arena, uint64_t, 4 * (size_t) pack_limit),
        .fill = MOE_NEW(arena, uint32_t, pack_limit),
        .item_limit = item_limit,
        .pack_limit = pack_limit,
    };
    if (packer->key == NULL || packer->spare == NULL || packer->tree == NULL ||
        packer->fill == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to pack %u items into %u packs", item_limit,
                        pack_limit);
    }
    return MOE_OK;
}

static void sort_few(uint64_t *key, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        const uint64_t moved = key[i];
        uint32_t hole = i;
        for (; hole > 0 && key[hole - 1] > moved; hole--) {
            key[hole] = key[hole - 1];
        }
        key[hole] = moved;
    }
}

/* Least significant digit first over the rank's four bytes; the index below needs no
 * pass, because the keys arrive in its order and every pass is stable. */
static const uint64_t *sort_many(uint64_t *key, uint64_t *spare, uint32_t count)
{
    uint32_t begin[DIGIT_COUNT][DIGIT_VALUES];
    memset(begin, 0, sizeof begin);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t digit = 0; digit < DIGIT_COUNT; digit++) {
            begin[digit][key[i] >> (32 + 8 * digit) & 0xff]++;
        }
    }
    for (uint32_t digit = 0; digit < DIGIT_COUNT; digit++) {
        if (begin[digit][key[0] >> (32 + 8 * digit) & 0xff] == count) {
            continue; /* all keys agree in this byte */
        }
        uint32_t sum = 0;
        for (uint32_t value = 0; value < DIGIT_VALUES; value++) {
            const uint32_t step = begin[digit][value];
            begin[digit][value] = sum;
            sum += step;
        }
        for (uint32_t i = 0; i < count; i++) {
            spare[begin[digit][key[i] >> (32 + 8 * digit) & 0xff]++] = key[i];
        }
        uint64_t *swap = key;
        key = spare;
        spare = swap;
    }
    return key;
}

/* Keys of the items, heaviest first, ties in ascending item order. */
static const uint64_t *sort(struct moe_packer *packer, const float *weight, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        packer->key[i] = moe_winner_key(moe_winner_rank_descending(weight[i]), i);
    }
    if (count <= INSERTION_LIMIT) {
        sort_few(packer->key, count);
        return packer->key;
    }
    return sort_many(packer->key, packer->spare, count);
}

static uint32_t limit_of(const struct moe_packing_shape *shape, uint32_t pack)
{
    return shape->limit == NULL ? shape->capacity : shape->limit[pack];
}

static void open_packs(struct moe_packer *packer, const struct moe_packing_shape *shape,
                       uint32_t packs_per_set)
{
    const uint32_t leaf_count = moe_winner_leaf_count(packs_per_set);
    for (uint32_t set = 0; set < shape->set_count; set++) {
        uint64_t *tree = packer->tree + (size_t) set * 2 * leaf_count;
        for (uint32_t pack = 0; pack < leaf_count; pack++) {
            const bool open =
                pack < packs_per_set && limit_of(shape, set * packs_per_set + pack) > 0;
            tree[leaf_count + pack] = open ? moe_winner_key(0, pack) : MOE_WINNER_NEVER;
        }
        moe_winner_build(tree, leaf_count);
    }
    memset(packer->fill, 0, shape->pack_count * sizeof *packer->fill);
}

void moe_packer_pack(struct moe_packer *packer, const struct moe_packing_shape *shape,
                     const float *weight, uint32_t *slot_of_item)
{
    const uint32_t items_per_set = shape->item_count / shape->set_count;
    const uint32_t packs_per_set = shape->pack_count / shape->set_count;
    const uint32_t leaf_count = moe_winner_leaf_count(packs_per_set);
    assert(shape->item_count <= packer->item_limit);
    assert(shape->pack_count <= packer->pack_limit);
    assert(items_per_set * shape->set_count == shape->item_count);
    assert(packs_per_set * shape->set_count == shape->pack_count);
    assert((uint64_t) packs_per_set * shape->capacity >= items_per_set);

    open_packs(packer, shape, packs_per_set);
    const uint64_t *key = sort(packer, weight, shape->item_count);
    for (uint32_t i = 0; i < shape->item_count; i++) {
        const uint32_t item = (uint32_t) key[i];
        const uint32_t set = shape->set_count == 1 ? 0 : item / items_per_set;
        uint64_t *tree = packer->tree + (size_t) set * 2 * leaf_count;
        const uint64_t lightest = moe_winner_top(tree);
        const uint32_t pack_in_set = (uint32_t) lightest;
        const uint32_t pack = set * packs_per_set + pack_in_set;
        const float sum = moe_winner_load_ascending((uint32_t) (lightest >> 32)) + weight[item];
        const uint32_t rank = packer->fill[pack]++;
        slot_of_item[item] = pack * shape->capacity + rank;
        moe_winner_set(tree, leaf_count, pack_in_set,
                       rank + 1 == limit_of(shape, pack)
                           ? MOE_WINNER_NEVER
                           : moe_winner_key(moe_winner_rank_ascending(sum), pack_in_set));
    }
}

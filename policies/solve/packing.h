/*
 * Packing: items in descending order of weight, each into the lightest pack that
 * has room. The step that EPLB (twice), LPT and their relatives share.
 *
 * Numerics are part of the definition: weights and running sums are float32, the
 * sort is stable (of equal weights the earlier item comes first), and of equally
 * light packs the lowest index is taken. Source: balanced_packing of DeepSeek's EPLB
 * (github deepseek-ai/EPLB, eplb.py) with its sort made stable; the short-cut for
 * packs of one item is the caller's, because LPT has none.
 */
#ifndef MOE_POLICIES_PACKING_H
#define MOE_POLICIES_PACKING_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"

/* Scratch of packings of up to item_limit items into up to pack_limit packs. */
struct moe_packer {
    uint64_t *key;   /* [item_limit] (rank << 32 | item), sorted */
    uint64_t *spare; /* [item_limit] */
    uint64_t *tree;  /* [4 * pack_limit]: one winner tree per set of packs */
    uint32_t *fill;  /* [pack_limit] items in the pack */
    uint32_t item_limit;
    uint32_t pack_limit;
};

/* Items and packs in set_count equal, consecutive sets; items of set s go only into
 * packs of set s. */
struct moe_packing_shape {
    uint32_t item_count;
    uint32_t pack_count;
    uint32_t capacity; /* items that a pack takes; pack_count * capacity >= item_count */
    uint32_t set_count;
    /* [pack_count] or NULL: what single packs take, each <= capacity; a set's limits add
     * up to at least its items. Slots are numbered by capacity all the same. */
    const uint32_t *limit;
};

/* Errors: MOE_LIMIT when the arena is full. Limits are at least 1. */
enum moe_status moe_packer_init(struct moe_packer *packer, struct moe_arena *arena,
                                uint32_t item_limit, uint32_t pack_limit,
                                struct moe_error *err) MOE_MUST_CHECK;

/* slot_of_item[item] = pack * capacity + how many items the pack held before.
 * weight[item_count]: finite, >= 0, not -0. */
void moe_packer_pack(struct moe_packer *packer, const struct moe_packing_shape *shape,
                     const float *weight, uint32_t *slot_of_item);

#endif

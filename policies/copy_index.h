/*
 * Copy index: the copies of every expert of one layer, listed expert by expert.
 *
 * Copies are numbered 0 .. copy_count-1; those of expert e are first_copy[e] ..
 * first_copy[e + 1]-1, in ascending order of their slots. What dispatch policies see.
 */
#ifndef MOE_POLICIES_COPY_INDEX_H
#define MOE_POLICIES_COPY_INDEX_H

#include <stdint.h>

#include "policies/placement.h"

struct moe_copy_index {
    uint32_t copy_count;
    uint32_t *first_copy;   /* [expert_count + 1] */
    uint16_t *slot_of_copy; /* [slot_count], copy_count of them in use */
    uint16_t *gpu_of_copy;  /* [slot_count] likewise */
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_copy_index_init(struct moe_copy_index *index,
                                    const struct moe_placement *placement, uint32_t layer,
                                    struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* The same anew, for another placement of the shape that it was made for. */
void moe_copy_index_fill(struct moe_copy_index *index, const struct moe_placement *placement,
                         uint32_t layer);

#endif

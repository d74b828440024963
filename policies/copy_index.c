#include "policies/copy_index.h"

#include <string.h>

#include "sim/base/no_malloc.h"

enum moe_status moe_copy_index_init(struct moe_copy_index *index,
                                    const struct moe_placement *placement, uint32_t layer,
                                    struct moe_arena *arena, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &placement->shape;
    *index = (struct moe_copy_index){
        .first_copy = MOE_NEW(arena, uint32_t, (size_t) shape->expert_count + 1),
        .slot_of_copy = MOE_NEW(arena, uint16_t, shape->slot_count),
        .gpu_of_copy = MOE_NEW(arena, uint16_t, shape->slot_count),
    };
    if (index->first_copy == NULL || index->slot_of_copy == NULL || index->gpu_of_copy == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the copies of %u slots", shape->slot_count);
    }
    moe_copy_index_fill(index, placement, layer);
    return MOE_OK;
}

void moe_copy_index_fill(struct moe_copy_index *index, const struct moe_placement *placement,
                         uint32_t layer)
{
    const struct moe_placement_shape *shape = &placement->shape;
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(shape);
    const uint16_t *expert_of_slot = moe_placement_layer(placement, layer);
    memset(index->first_copy, 0, ((size_t) shape->expert_count + 1) * sizeof *index->first_copy);
    /* Counts, then their running sum, then a fill that moves each expert's end on. */
    uint32_t *end = index->first_copy;
    for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
        if (expert_of_slot[slot] != MOE_SLOT_EMPTY) {
            end[expert_of_slot[slot]]++;
        }
    }
    uint32_t sum = 0;
    for (uint32_t expert = 0; expert <= shape->expert_count; expert++) {
        const uint32_t count = end[expert];
        end[expert] = sum;
        sum += count;
    }
    index->copy_count = sum;
    for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
        if (expert_of_slot[slot] != MOE_SLOT_EMPTY) {
            const uint32_t copy = end[expert_of_slot[slot]]++;
            index->slot_of_copy[copy] = (uint16_t) slot;
            index->gpu_of_copy[copy] = (uint16_t) (slot / slots_per_gpu);
        }
    }
    for (uint32_t expert = shape->expert_count; expert > 0; expert--) {
        end[expert] = end[expert - 1];
    }
    end[0] = 0;
}

#include "sim/engine/online/eviction.h"

#include <assert.h>

#include "sim/base/no_malloc.h"

static uint32_t copies_of(const struct moe_placement *p, const uint16_t *slots, uint16_t expert)
{
    uint32_t copies = 0;
    for (uint32_t i = 0; i < p->shape.slot_count; i++) {
        copies += slots[i] == expert;
    }
    return copies;
}

/* An empty slot on the GPU that has most of them; slot_count when there is none. */
static uint32_t empty_slot(const struct moe_placement *p, const uint16_t *slots, const bool *dead)
{
    const uint32_t each = moe_placement_slots_per_gpu(&p->shape);
    uint32_t best = p->shape.slot_count;
    uint32_t most = 0;
    for (uint32_t gpu = 0; gpu < p->shape.gpu_count; gpu++) {
        uint32_t empty = 0;
        uint32_t last = 0;
        for (uint32_t i = gpu * each; i < (gpu + 1) * each && !dead[gpu]; i++) {
            empty += slots[i] == MOE_SLOT_EMPTY;
            last = slots[i] == MOE_SLOT_EMPTY ? i : last;
        }
        if (empty > most) {
            most = empty;
            best = last;
        }
    }
    return best;
}

/* The highest slot of the expert with most copies, two at least; slot_count when none has. */
static uint32_t spare_slot(const struct moe_placement *p, const uint16_t *slots)
{
    uint16_t expert = 0;
    uint32_t most = 1;
    uint32_t slot = p->shape.slot_count;
    for (uint32_t e = 0; e < p->shape.expert_count; e++) {
        const uint32_t copies = copies_of(p, slots, (uint16_t) e);
        if (copies > most) {
            most = copies;
            expert = (uint16_t) e;
        }
    }
    for (uint32_t i = 0; i < p->shape.slot_count && most > 1; i++) {
        slot = slots[i] == expert ? i : slot;
    }
    return slot;
}

static enum moe_status evict_layer(struct moe_placement *p, uint32_t layer, const bool *dead,
                                   uint32_t *fetched, struct moe_error *err)
{
    const uint32_t each = moe_placement_slots_per_gpu(&p->shape);
    uint16_t *slots = moe_placement_layer(p, layer);
    for (uint32_t i = 0; i < p->shape.slot_count; i++) {
        slots[i] = dead[i / each] ? MOE_SLOT_EMPTY : slots[i];
    }
    for (uint32_t expert = 0; expert < p->shape.expert_count; expert++) {
        if (copies_of(p, slots, (uint16_t) expert) > 0) {
            continue;
        }
        uint32_t slot = empty_slot(p, slots, dead);
        slot = slot == p->shape.slot_count ? spare_slot(p, slots) : slot;
        if (slot == p->shape.slot_count) {
            return moe_fail(err, MOE_POLICY,
                            "the GPUs that remain have too few slots for the %u experts of a "
                            "layer, one each: more slots would let them go on",
                            p->shape.expert_count);
        }
        slots[slot] = (uint16_t) expert;
        assert(each > 0);
        if (fetched != NULL) {
            fetched[slot / each]++;
        }
    }
    return MOE_OK;
}

enum moe_status moe_placement_evict(struct moe_placement *p, const bool *dead, uint32_t *fetched,
                                    struct moe_error *err)
{
    for (uint32_t layer = 0; layer < p->shape.layer_count; layer++) {
        MOE_TRY(evict_layer(p, layer, dead, fetched, err));
    }
    return MOE_OK;
}

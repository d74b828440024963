#include "policies/placement.h"

#include <assert.h>
#include <string.h>

enum moe_status moe_placement_shape_check(const struct moe_placement_shape *s,
                                          struct moe_error *err)
{
    if (s->layer_count == 0 || s->expert_count == 0 || s->gpu_count == 0 || s->node_count == 0 ||
        s->group_count == 0) {
        return moe_fail(err, MOE_RANGE,
                        "layers %u, experts %u, GPUs %u, nodes %u, groups %u: each must be at "
                        "least 1",
                        s->layer_count, s->expert_count, s->gpu_count, s->node_count,
                        s->group_count);
    }
    if (s->gpu_count % s->node_count != 0) {
        return moe_fail(err, MOE_RANGE, "%u GPUs do not divide over %u nodes", s->gpu_count,
                        s->node_count);
    }
    if (s->slot_count % s->gpu_count != 0) {
        const uint32_t below = s->slot_count / s->gpu_count * s->gpu_count;
        return moe_fail(err, MOE_RANGE, "%u slots do not divide over %u GPUs; %u or %u would",
                        s->slot_count, s->gpu_count, below > 0 ? below : s->gpu_count,
                        below + s->gpu_count);
    }
    if (s->slot_count < s->expert_count) {
        return moe_fail(err, MOE_RANGE, "%u slots cannot hold %u experts; at least %u are needed",
                        s->slot_count, s->expert_count, s->expert_count);
    }
    if (s->expert_count % s->group_count != 0) {
        return moe_fail(err, MOE_RANGE, "%u experts do not divide into %u groups", s->expert_count,
                        s->group_count);
    }
    if (s->expert_count >= MOE_SLOT_EMPTY || s->slot_count >= MOE_SLOT_EMPTY) {
        return moe_fail(err, MOE_RANGE, "%u experts, %u slots: at most %u are supported",
                        s->expert_count, s->slot_count, MOE_SLOT_EMPTY - 1);
    }
    return MOE_OK;
}

enum moe_status moe_placement_init(struct moe_placement *placement, struct moe_arena *arena,
                                   const struct moe_placement_shape *shape, struct moe_error *err)
{
    const size_t count = (size_t) shape->layer_count * shape->slot_count;
    uint16_t *slots = MOE_NEW(arena, uint16_t, count);
    if (slots == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for a placement of %zu slots", count);
    }
    memset(slots, 0xff, count * sizeof *slots);
    *placement = (struct moe_placement){ .shape = *shape, .expert_of_slot = slots };
    return MOE_OK;
}

enum moe_status moe_placement_check(const struct moe_placement *placement, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &placement->shape;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint64_t seen[(MOE_SLOT_EMPTY + 63) / 64] = { 0 };
        const uint16_t *slots = moe_placement_layer(placement, layer);
        for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
            const uint16_t expert = slots[slot];
            if (expert == MOE_SLOT_EMPTY) {
                continue;
            }
            if (expert >= shape->expert_count) {
                return moe_fail(err, MOE_POLICY, "layer %u, slot %u holds expert %u of only %u",
                                layer, slot, expert, shape->expert_count);
            }
            seen[expert / 64] |= UINT64_C(1) << (expert % 64);
        }
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            if ((seen[expert / 64] >> (expert % 64) & 1) == 0) {
                return moe_fail(err, MOE_POLICY, "layer %u: expert %u has no slot", layer, expert);
            }
        }
    }
    return MOE_OK;
}

void moe_placement_count_copies(const struct moe_placement *placement, uint32_t layer,
                                uint32_t *copies)
{
    const uint16_t *slots = moe_placement_layer(placement, layer);
    memset(copies, 0, placement->shape.expert_count * sizeof *copies);
    for (uint32_t slot = 0; slot < placement->shape.slot_count; slot++) {
        if (slots[slot] != MOE_SLOT_EMPTY) {
            copies[slots[slot]]++;
        }
    }
}

uint64_t moe_placement_count_moves(const struct moe_placement *from, const struct moe_placement *to)
{
    const size_t count = (size_t) from->shape.layer_count * from->shape.slot_count;
    uint64_t moves = 0;
    assert(to->shape.layer_count == from->shape.layer_count);
    assert(to->shape.slot_count == from->shape.slot_count);
    for (size_t i = 0; i < count; i++) {
        moves += from->expert_of_slot[i] != to->expert_of_slot[i];
    }
    return moves;
}

void moe_placement_gpu_load(const struct moe_placement *placement, uint32_t layer,
                            const double *load, double *gpu_load)
{
    const struct moe_placement_shape *shape = &placement->shape;
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(shape);
    const uint16_t *slots = moe_placement_layer(placement, layer);
    uint32_t copies[MOE_SLOT_EMPTY]; /* 256 KiB of stack, of which expert_count are touched */
    moe_placement_count_copies(placement, layer, copies);
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        double sum = 0.0;
        for (uint32_t i = gpu * slots_per_gpu; i < (gpu + 1) * slots_per_gpu; i++) {
            if (slots[i] != MOE_SLOT_EMPTY) {
                sum += load[slots[i]] / copies[slots[i]];
            }
        }
        gpu_load[gpu] = sum;
    }
}

double moe_placement_balancedness(const struct moe_placement *placement, const double *load,
                                  struct moe_arena *scratch)
{
    const struct moe_placement_shape *shape = &placement->shape;
    double *gpu_load = MOE_NEW(scratch, double, shape->gpu_count);
    double total = 0.0;
    assert(gpu_load != NULL);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        double sum = 0.0;
        double max = 0.0;
        moe_placement_gpu_load(placement, layer, load + (size_t) layer * shape->expert_count,
                               gpu_load);
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            sum += gpu_load[gpu];
            max = gpu_load[gpu] > max ? gpu_load[gpu] : max;
        }
        total += max > 0.0 ? sum / shape->gpu_count / max : 1.0;
    }
    return total / shape->layer_count;
}

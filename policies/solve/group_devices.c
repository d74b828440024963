#include "policies/solve/group_devices.h"

#include <string.h>

#include "sim/base/no_malloc.h"

const char *const moe_group_device_names[] = { "auto", "node", "gpu", NULL };

enum moe_status moe_group_devices_init(struct moe_group_devices *devices, struct moe_arena *arena,
                                       const struct moe_placement *placement,
                                       enum moe_group_device kind, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &placement->shape;
    const bool nodes =
        kind == MOE_GROUP_DEVICE_NODE || (kind == MOE_GROUP_DEVICE_AUTO && shape->node_count > 1);
    const uint32_t count = nodes ? shape->node_count : shape->gpu_count;
    const uint32_t slots_each = shape->slot_count / count;
    uint32_t *seen = MOE_NEW(arena, uint32_t, shape->expert_count); /* 1 + the last device */
    *devices = (struct moe_group_devices){
        .device_count = count,
        .gpus_each = shape->gpu_count / count,
        .expert_count = shape->expert_count,
        .layer_count = shape->layer_count,
        .first_held = MOE_NEW(arena, uint32_t, (size_t) shape->layer_count * count + 1),
        .held = MOE_NEW(arena, uint16_t, (size_t) shape->layer_count * shape->slot_count),
    };
    if (seen == NULL || devices->first_held == NULL || devices->held == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to list the experts of %u devices", count);
    }
    uint32_t held = 0;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const uint16_t *slots = moe_placement_layer(placement, layer);
        memset(seen, 0, shape->expert_count * sizeof *seen);
        for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
            const uint32_t device = slot / slots_each;
            if (slot % slots_each == 0) {
                devices->first_held[layer * count + device] = held;
            }
            if (slots[slot] != MOE_SLOT_EMPTY && seen[slots[slot]] != device + 1) {
                seen[slots[slot]] = device + 1;
                devices->held[held++] = slots[slot];
            }
        }
    }
    devices->first_held[(size_t) shape->layer_count * count] = held;
    return MOE_OK;
}

void moe_group_devices_cover(const struct moe_group_devices *devices, const float *count,
                             double *coverage)
{
    memset(coverage, 0, devices->device_count * sizeof *coverage);
    for (uint32_t layer = 0; layer < devices->layer_count; layer++) {
        const float *row = count + (size_t) layer * devices->expert_count;
        for (uint32_t device = 0; device < devices->device_count; device++) {
            const uint32_t at = layer * devices->device_count + device;
            double sum = 0.0;
            for (uint32_t i = devices->first_held[at]; i < devices->first_held[at + 1]; i++) {
                sum += (double) row[devices->held[i]];
            }
            coverage[device] += sum;
        }
    }
}

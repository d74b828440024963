/*
 * Devices: what a group of requests is seated on, a node or a GPU, and how much of a request's
 * work its experts can do there.
 *
 * Coverage of counts [layer][expert] by a device: their sum over the experts of which it holds a
 * copy, layer by layer. What is not covered has to travel.
 */
#ifndef MOE_POLICIES_GROUP_DEVICES_H
#define MOE_POLICIES_GROUP_DEVICES_H

#include <stdint.h>

#include "policies/placement.h"
#include "policies/policy.h"
#include "policies/solve/group_home.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

/* auto: a node, or a GPU where there is one node. */
enum moe_group_device { MOE_GROUP_DEVICE_AUTO, MOE_GROUP_DEVICE_NODE, MOE_GROUP_DEVICE_GPU };

extern const char *const moe_group_device_names[]; /* auto, node, gpu, NULL */

struct moe_group_devices {
    uint32_t device_count;
    uint32_t gpus_each;
    uint32_t expert_count;
    uint32_t layer_count;
    uint32_t *first_held; /* [layer * device_count + 1] into held */
    uint16_t *held;       /* experts of every layer and device, each once, in order of slots */
};

/* Looks the placement up; it may go afterwards. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_group_devices_init(struct moe_group_devices *devices, struct moe_arena *arena,
                                       const struct moe_placement *placement,
                                       enum moe_group_device kind,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* coverage[device_count] of count[layer][expert]. */
void moe_group_devices_cover(const struct moe_group_devices *devices, const float *count,
                             double *coverage);

/* The parameter that chooses the kind; text says what for. */
#define MOE_GROUP_DEVICES_PARAMETER(text, from)                                             \
    {                                                                                       \
        .name = "devices", .kind = MOE_PARAMETER_CHOICE, .choices = moe_group_device_names, \
        .standard = MOE_GROUP_DEVICE_AUTO, .help = (text), .source = (from)                 \
    }

static inline struct moe_group_home moe_group_devices_home(const struct moe_group_devices *devices,
                                                           uint32_t device)
{
    return (struct moe_group_home){ device * devices->gpus_each,
                                    (device + 1) * devices->gpus_each };
}

#endif

/* The hosts of an expert are the runs of equal GPUs among its copies. */
#include "policies/solve/hosts.h"

#include <assert.h>

#include "sim/base/no_malloc.h"

enum moe_status moe_hosts_init(struct moe_hosts *hosts, struct moe_arena *arena,
                               const struct moe_placement_shape *shape, struct moe_error *err)
{
    *hosts = (struct moe_hosts){
        .expert_count = shape->expert_count,
        .gpu_count = shape->gpu_count,
        .first_host = MOE_NEW(arena, uint32_t, (size_t) shape->expert_count + 1),
        .gpu_of_host = MOE_NEW(arena, uint16_t, shape->slot_count),
        .first_copy_of_host = MOE_NEW(arena, uint32_t, (size_t) shape->slot_count + 1),
        .replicated = MOE_NEW(arena, uint16_t, shape->expert_count),
    };
    if (hosts->first_host == NULL || hosts->gpu_of_host == NULL ||
        hosts->first_copy_of_host == NULL || hosts->replicated == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to look up the hosts of %u experts in %u slots",
                        shape->expert_count, shape->slot_count);
    }
    return MOE_OK;
}

void moe_hosts_build(struct moe_hosts *hosts, const uint32_t *first_copy,
                     const uint16_t *gpu_of_copy)
{
    uint32_t host = 0;
    hosts->first_copy = first_copy;
    hosts->gpu_of_copy = gpu_of_copy;
    hosts->replicated_count = 0;
    for (uint32_t expert = 0; expert < hosts->expert_count; expert++) {
        const uint32_t begin = first_copy[expert];
        const uint32_t end = first_copy[expert + 1];
        hosts->first_host[expert] = host;
        for (uint32_t copy = begin; copy < end; copy++) {
            assert(gpu_of_copy[copy] < hosts->gpu_count);
            if (copy == begin || gpu_of_copy[copy] != gpu_of_copy[copy - 1]) {
                hosts->gpu_of_host[host] = gpu_of_copy[copy];
                hosts->first_copy_of_host[host++] = copy;
            }
        }
        if (end - begin >= 2) {
            hosts->replicated[hosts->replicated_count++] = (uint16_t) expert;
        }
    }
    hosts->first_host[hosts->expert_count] = host;
    hosts->first_copy_of_host[host] = first_copy[hosts->expert_count];
}

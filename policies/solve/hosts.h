/*
 * Hosts: the distinct GPUs on which the copies of every expert of one layer lie.
 *
 * Copies are numbered as a dispatch view numbers them: expert by expert, those of one expert
 * in ascending order of slots and so of GPUs. A host is a GPU with at least one of an expert's
 * copies: two copies on one GPU are one host, because for the GPU's load it is all the same
 * which of them works.
 */
#ifndef MOE_POLICIES_HOSTS_H
#define MOE_POLICIES_HOSTS_H

#include <stdint.h>

#include "policies/placement.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_hosts {
    uint32_t expert_count;
    uint32_t gpu_count;
    uint32_t replicated_count;
    const uint32_t *first_copy;   /* [expert + 1]; the caller's */
    const uint16_t *gpu_of_copy;  /* [copy]; the caller's */
    uint32_t *first_host;         /* [expert + 1] expert e has hosts first_host[e] .. [e + 1]-1 */
    uint16_t *gpu_of_host;        /* [host] ascending within an expert */
    uint32_t *first_copy_of_host; /* [host + 1] */
    uint16_t *replicated;         /* [replicated_count] experts with two copies or more */
};

/* Room for one layer of this shape. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_hosts_init(struct moe_hosts *hosts, struct moe_arena *arena,
                               const struct moe_placement_shape *shape,
                               struct moe_error *err) MOE_MUST_CHECK;

/* Looks one layer up: first_copy[expert_count + 1], gpu_of_copy[copies], at most slot_count of
 * them; both must stay while hosts is used. */
void moe_hosts_build(struct moe_hosts *hosts, const uint32_t *first_copy,
                     const uint16_t *gpu_of_copy);

#endif

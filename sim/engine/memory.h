/*
 * Memory: what one GPU holds, and so how many tokens of KV cache are left (design.md 4).
 *
 *   GPU memory = non-expert weights + expert slots in use (copies included) + reserve + KV
 *
 * Attention is data parallel: every GPU holds all non-expert weights and the KV cache of its
 * own requests. The slots are those of the fullest GPU, so the pool is the least of all.
 */
#ifndef MOE_SIM_ENGINE_MEMORY_H
#define MOE_SIM_ENGINE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/placement.h"
#include "sim/model/model.h"
#include "sim/scenario/scenario.h"

struct moe_memory {
    double gpu_bytes;
    double nonexpert_bytes;
    double slot_bytes; /* of the fullest GPU, all layers */
    double reserve_bytes;
    double kv_bytes; /* what is left; negative when the weights alone do not fit */
    double kv_bytes_per_token;
    double copy_bytes;  /* replicas beyond one copy of each expert, whole cluster */
    uint64_t kv_tokens; /* per GPU */
    bool weights_fit;
};

void moe_memory_of(const struct moe_model *model, const struct moe_cluster *cluster,
                   double gpu_bytes, const struct moe_placement *placement,
                   struct moe_memory *memory);

/* How many requests of tokens_per_request (prompt + output) a GPU's KV pool holds. */
uint64_t moe_memory_largest_batch(const struct moe_memory *memory, double tokens_per_request);

#endif

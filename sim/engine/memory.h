/*
 * Memory: what one GPU holds, and so how many tokens of KV cache are left (design.md 4).
 *
 *   GPU memory = non-expert weights + expert slots in use (copies included) + reserve + KV
 *
 * Every GPU holds all non-expert weights and the KV cache of its own requests; where A GPUs share
 * an attention (attention_ranks), the attention's weights and the KV heads are cut into A parts
 * (a KV head into no less than one; MLA's latent, a KV vector of all heads, index keys and indexers
 * are held by all), and the pool is of all A together. Where KV is compressed (DeepSeek-V4), the
 * windows of running_requests requests are reserved. Layers that draft have the attention, shared
 * experts, slots and cache of the model's MoE layers on average, and a projection of two hidden
 * widths into one. The slots are those of the fullest GPU, so the pool is the least of all.
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
    double slot_bytes;    /* of the fullest GPU, all layers */
    double reserve_bytes; /* with the buffers and windows */
    double kv_bytes;      /* what is left; negative when the weights alone do not fit */
    double kv_bytes_per_token;
    double copy_bytes;  /* replicas beyond one copy of each expert, whole cluster */
    uint64_t kv_tokens; /* per GPU */
    bool weights_fit;
};

/* What a GPU's memory is divided by. */
struct moe_memory_setup {
    const struct moe_model *model;
    const struct moe_cluster *cluster;
    uint32_t attention_ranks; /* >= 1 */
    double gpu_bytes;
    double buffer_bytes;       /* besides the reserve: staging of rebalancing, of prefetching */
    uint32_t running_requests; /* of one GPU, or of those that share an attention */
    uint32_t draft_layers;     /* MoE layers of a module that drafts: weights, slots and cache */
};

void moe_memory_of(const struct moe_memory_setup *setup, const struct moe_placement *placement,
                   struct moe_memory *memory);

/* How many requests of tokens_per_request (prompt + output) a GPU's KV pool holds. */
uint64_t moe_memory_largest_batch(const struct moe_memory *memory, double tokens_per_request);

/* What would hold the weights and the KV cache of a request of so many tokens. */
struct moe_memory_remedy {
    uint32_t slots; /* most slots per layer on as many GPUs; 0: not even one copy of each expert */
    uint32_t gpus;  /* fewest GPUs, whole nodes, without copies; 0: no number of them */
};

void moe_memory_find_remedy(const struct moe_memory_setup *setup,
                            const struct moe_placement_shape *shape, uint64_t tokens,
                            struct moe_memory_remedy *remedy);

#endif

#include "sim/engine/memory.h"

#include "sim/base/no_malloc.h"

void moe_memory_of(const struct moe_model *model, const struct moe_cluster *cluster,
                   double gpu_bytes, const struct moe_placement *placement,
                   struct moe_memory *memory)
{
    const struct moe_placement_shape *shape = &placement->shape;
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(shape);
    const double expert_bytes = moe_model_expert_bytes(model);
    uint64_t used = 0;
    uint64_t fullest = 0;
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        uint64_t here = 0;
        for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
            const uint16_t *slots =
                moe_placement_layer(placement, layer) + (size_t) gpu * slots_per_gpu;
            for (uint32_t i = 0; i < slots_per_gpu; i++) {
                here += slots[i] != MOE_SLOT_EMPTY;
            }
        }
        used += here;
        fullest = here > fullest ? here : fullest;
    }
    const uint64_t singles = (uint64_t) shape->layer_count * shape->expert_count;
    *memory = (struct moe_memory){
        .gpu_bytes = gpu_bytes,
        .nonexpert_bytes = moe_model_nonexpert_bytes(model),
        .slot_bytes = (double) fullest * expert_bytes,
        .reserve_bytes = cluster->reserve_bytes,
        .kv_bytes_per_token = moe_model_kv_bytes_per_token(model),
        .copy_bytes = (double) (used - singles) * expert_bytes,
    };
    memory->kv_bytes =
        gpu_bytes - memory->nonexpert_bytes - memory->slot_bytes - memory->reserve_bytes;
    memory->weights_fit = memory->kv_bytes > 0.0;
    memory->kv_tokens = memory->weights_fit && memory->kv_bytes_per_token > 0.0
                            ? (uint64_t) (memory->kv_bytes / memory->kv_bytes_per_token)
                            : 0;
}

uint64_t moe_memory_largest_batch(const struct moe_memory *memory, double tokens_per_request)
{
    return (uint64_t) ((double) memory->kv_tokens / tokens_per_request);
}

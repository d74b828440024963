#include "sim/engine/memory.h"

#include "sim/base/no_malloc.h"

/* Of the layers that draft, but for their routed experts; attention: bytes of a layer's. */
static double draft_bytes(const struct moe_memory_setup *setup, double attention)
{
    const struct moe_model *model = setup->model;
    const double shared = (model->gated ? 3.0 : 2.0) * model->hidden_size * model->shared_size;
    const double projection = 2.0 * model->hidden_size * model->hidden_size;
    return setup->draft_layers * (attention / setup->attention_ranks +
                                  (shared + projection) * model->dense_bytes_per_weight);
}

/* What of the non-expert weights is attention is cut among the GPUs that share it. */
static double nonexpert_bytes(const struct moe_memory_setup *setup)
{
    const struct moe_model *model = setup->model;
    const double attention = moe_model_all_attention_weights(model) * model->dense_bytes_per_weight;
    return moe_model_nonexpert_bytes(model) + draft_bytes(setup, attention / model->layer_count) -
           attention * (1.0 - 1.0 / setup->attention_ranks);
}

static double kv_bytes_per_token(const struct moe_memory_setup *setup)
{
    const struct moe_model *model = setup->model;
    const double layers = (double) model->kv_layer_count + model->window_layer_count;
    const double whole = moe_model_kv_bytes_per_token(model) *
                         (layers > 0.0 ? 1.0 + setup->draft_layers / layers : 1.0);
    if (model->attention == MOE_ATTENTION_MLA || model->attention == MOE_ATTENTION_SHARED) {
        return whole;
    }
    const uint32_t ranks = setup->attention_ranks;
    const uint32_t heads = (model->kv_head_count + ranks - 1) / ranks;
    const double index = moe_model_index_bytes_per_token(model);
    return (whole - index) * heads / model->kv_head_count + index;
}

/* What is kept beside weights and pool: reserve, buffers, windows of running requests. */
static double kept_bytes(const struct moe_memory_setup *setup)
{
    return setup->cluster->reserve_bytes + setup->buffer_bytes +
           setup->running_requests * moe_model_window_bytes(setup->model);
}

void moe_memory_of(const struct moe_memory_setup *setup, const struct moe_placement *placement,
                   struct moe_memory *memory)
{
    const struct moe_placement_shape *shape = &placement->shape;
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(shape);
    const double expert_bytes = moe_model_expert_bytes(setup->model);
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
        .gpu_bytes = setup->gpu_bytes,
        .nonexpert_bytes = nonexpert_bytes(setup),
        .slot_bytes = (double) fullest * expert_bytes *
                      (1.0 + (double) setup->draft_layers / shape->layer_count),
        .reserve_bytes = kept_bytes(setup),
        .kv_bytes_per_token = kv_bytes_per_token(setup),
        .copy_bytes = (double) (used - singles) * expert_bytes,
    };
    memory->kv_bytes =
        setup->gpu_bytes - memory->nonexpert_bytes - memory->slot_bytes - memory->reserve_bytes;
    memory->weights_fit = memory->kv_bytes > 0.0;
    memory->kv_tokens = memory->weights_fit && memory->kv_bytes_per_token > 0.0
                            ? (uint64_t) (memory->kv_bytes / memory->kv_bytes_per_token)
                            : 0;
}

uint64_t moe_memory_largest_batch(const struct moe_memory *memory, double tokens_per_request)
{
    return (uint64_t) ((double) memory->kv_tokens / tokens_per_request);
}

void moe_memory_find_remedy(const struct moe_memory_setup *setup,
                            const struct moe_placement_shape *shape, uint64_t tokens,
                            struct moe_memory_remedy *remedy)
{
    const double layer_bytes =
        moe_model_expert_bytes(setup->model) * ((double) shape->layer_count + setup->draft_layers);
    const double room = setup->gpu_bytes - nonexpert_bytes(setup) - kept_bytes(setup) -
                        (double) tokens * kv_bytes_per_token(setup);
    const double fitting = room > 0.0 ? room / layer_bytes : 0.0; /* slots of a GPU and layer */
    const uint32_t per_gpu =
        fitting < shape->expert_count ? (uint32_t) fitting : shape->expert_count;
    const uint32_t node = shape->gpu_count / shape->node_count;
    *remedy = (struct moe_memory_remedy){ 0 };
    if (per_gpu == 0) {
        return;
    }
    if ((uint64_t) per_gpu * shape->gpu_count >= shape->expert_count) {
        remedy->slots = per_gpu * shape->gpu_count;
    }
    const uint32_t gpus = (shape->expert_count + per_gpu - 1) / per_gpu;
    remedy->gpus = (gpus + node - 1) / node * node;
}

#include "tests/memory_twin.h"

#include <math.h>

/* Experts of all layers that the fullest GPU holds. */
static uint32_t fullest_gpu(const struct twin_case *c)
{
    const uint32_t gpus = c->cost.nodes * c->cost.gpus_per_node;
    const uint32_t slots_per_gpu = c->slots / gpus;
    uint32_t fullest = 0;
    for (uint32_t g = 0; g < gpus; g++) {
        uint32_t used = 0;
        for (uint32_t l = 0; l < c->cost.model.moe_layers; l++) {
            for (uint32_t s = g * slots_per_gpu; s < (g + 1) * slots_per_gpu; s++) {
                used += c->plan[l][s] != TWIN_EMPTY;
            }
        }
        fullest = used > fullest ? used : fullest;
    }
    return fullest;
}

void memory_twin_find(const struct twin_case *c, struct twin_result *r)
{
    const struct twin_model *m = &c->cost.model;
    const uint32_t fullest = fullest_gpu(c);
    uint32_t longest = 0;
    const double memory = c->memory_bytes > 0 ? c->memory_bytes : cost_twin_memory_bytes(&c->cost);
    const uint32_t temporary = c->dispatch == TWIN_IN_TURN ? 0 : c->fetch_slots;
    const double reserve = c->reserve_bytes + temporary * cost_twin_expert_bytes(m);
    const double left = memory - cost_twin_nonexpert_bytes(m) -
                        fullest * cost_twin_expert_bytes(m) - reserve -
                        c->running_per_gpu * cost_twin_window_bytes(m);
    for (uint32_t i = 0; i < c->requests; i++) {
        const uint32_t length = c->prompt[i] + c->output[i];
        longest = length > longest ? length : longest;
    }
    r->weights_fit = left > 0;
    r->kv_tokens = left > 0 ? (uint64_t) floor(left / cost_twin_kv_bytes(m)) : 0;
    r->fits = r->weights_fit && r->kv_tokens >= longest;
}

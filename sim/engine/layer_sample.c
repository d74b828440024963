#include "sim/engine/layer_sample.h"

#include "sim/base/random.h"

#include "sim/base/no_malloc.h"

enum moe_status moe_layer_sample_init(struct moe_layer_sample *s, uint32_t layer_count,
                                      uint32_t trace_layer_count, uint32_t counted, uint64_t seed,
                                      struct moe_arena *arena, struct moe_error *err)
{
    *s = (struct moe_layer_sample){
        .layer_count = layer_count,
        .counted_count = counted == 0 || counted > layer_count ? layer_count : counted,
        .key = moe_random_key(seed, MOE_RANDOM_LAYER_SAMPLE),
        .order = MOE_NEW(arena, uint32_t, layer_count),
        .source = MOE_NEW(arena, uint32_t, layer_count),
    };
    if (s->order == NULL || s->source == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for a sample of %u layers", layer_count);
    }
    uint32_t at = 0;
    for (uint32_t first = 0; first < trace_layer_count; first++) {
        for (uint32_t layer = first; layer < layer_count; layer += trace_layer_count) {
            s->order[at++] = layer;
        }
    }
    for (uint32_t layer = 0; layer < layer_count; layer++) {
        s->source[layer] = layer;
    }
    return MOE_OK;
}

void moe_layer_sample_begin_step(struct moe_layer_sample *s, uint64_t step)
{
    const uint64_t layers = s->layer_count;
    const uint64_t counted = s->counted_count;
    if (counted == layers) {
        return;
    }
    for (uint64_t j = 0; j < counted; j++) {
        const uint64_t first = j * layers / counted;
        const uint64_t end = (j + 1) * layers / counted;
        const uint64_t drawn = moe_random_below(s->key, step * counted + j, end - first);
        for (uint64_t i = first; i < end; i++) {
            s->source[s->order[i]] = s->order[first + drawn];
        }
    }
}

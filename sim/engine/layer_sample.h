/*
 * Layer sample: in every step the routes of some layers only are counted, and each other layer has
 * the work of one of them. For long runs of large clusters, whose time goes into counting.
 *
 * The layers, in the order (trace layer, layer), are cut into as many runs of neighbours as layers
 * are counted: run j begins at the floor of j * layers / counted. Of each run one layer is counted
 * in a step, draw step * counted + j of MOE_RANDOM_LAYER_SAMPLE; the others of the run have its
 * tokens, copies and prices of that step. So what is counted is counted exactly, a barrier waits
 * for the slowest of all GPUs as ever, and over steps each layer is counted equally often; but the
 * steps' lengths scatter more than they should, since their layers are not independent.
 * Jitter is drawn for every layer. Everything that a layer's own counts are needed for (dispatch
 * and predict policies, online) goes without sampling.
 */
#ifndef MOE_SIM_ENGINE_LAYER_SAMPLE_H
#define MOE_SIM_ENGINE_LAYER_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_layer_sample {
    uint32_t layer_count;
    uint32_t counted_count; /* = layer_count: all */
    uint64_t key;
    uint32_t *order;  /* [layer] */
    uint32_t *source; /* [layer] the layer whose work it has in this step; itself when counted */
};

/* counted 0 or >= layer_count: all layers are counted in every step. Errors: MOE_LIMIT when the
 * arena is full. */
enum moe_status moe_layer_sample_init(struct moe_layer_sample *sample, uint32_t layer_count,
                                      uint32_t trace_layer_count, uint32_t counted, uint64_t seed,
                                      struct moe_arena *arena,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Draws the layers of step number `step`. */
void moe_layer_sample_begin_step(struct moe_layer_sample *sample, uint64_t step);

static inline bool moe_layer_sample_counts(const struct moe_layer_sample *sample, uint32_t layer)
{
    return sample->source[layer] == layer;
}

#endif

/*
 * Drafts: what multi-token prediction costs.
 *
 * A step of a scenario with drafts verifies, of every decoding request, the token sampled last and
 * up to `drafts` more as rows of the main model (serving.h); rejected rows cost what all rows
 * cost, experts included. Behind the main model the step drafts anew, in `drafts` passes of a
 * module of draft_layers MoE layers (DeepSeek-V3's has one; with 0 drafts cost nothing, as those
 * of a look-up do):
 *
 *   main layers ─► head ─► pass 1 ─► head ─► pass 2 ─► head ... ─► host
 *
 * Pass 1 runs all rows of the step, since the module keeps a cache of its own; each further pass
 * runs one row of every request that samples in this step. A pass's layer is a layer of the model:
 * its attention, its exchanges, and experts placed and routed as those of the last MoE layer
 * (assumed); its shared experts too. A row of a further pass takes the routes of the row that its
 * request will run next, at its end those of the last; the copies of experts take these in turns of
 * their own. The head before a pass is that of the rows sampled before it: `before` of the pass's
 * first layer holds it; `after` holds that of the last pass.
 *
 * The module's weights and its cache are in every GPU's memory (memory.h).
 */
#ifndef MOE_SIM_ENGINE_DRAFTS_H
#define MOE_SIM_ENGINE_DRAFTS_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/engine/route_counter.h"
#include "sim/engine/serving/serving.h"

/* Layers that a step runs beyond the model's. */
static inline uint32_t moe_drafts_layer_count(const struct moe_serving *options)
{
    return options->drafts * options->draft_layers;
}

struct moe_drafts {
    uint32_t layer_count;             /* of all passes together; 0: nothing is drafted at a cost */
    uint32_t pass_layers;             /* of one */
    struct moe_replay_map map;        /* the last layer's */
    struct moe_route_counter counter; /* of one layer: rows of a further pass */
    struct moe_token_work *rank;      /* [rank] of a further pass */
    struct moe_token_work *own;       /* [gpu] */
};

struct moe_drafts_setup {
    const struct moe_serving *options;
    const struct moe_replay_map *map; /* outlives the drafts */
    const struct moe_placement *placement;
    uint32_t top_k;
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_drafts_init(struct moe_drafts *drafts, const struct moe_drafts_setup *setup,
                                struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* The last layer is placed anew. */
void moe_drafts_replan(struct moe_drafts *drafts, const struct moe_placement *placement);

/* What the planned step's further passes run: counts, rank and own. Errors: as moe_trace_read. */
enum moe_status moe_drafts_count(struct moe_drafts *drafts, struct moe_serving_state *serving,
                                 struct moe_error *err) MOE_MUST_CHECK;

#endif

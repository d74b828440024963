/*
 * Route split: the tokens of each expert over its copies, as a dispatch policy decides.
 *
 * A step's rows are seen twice. The first pass counts what every source GPU wants of every
 * expert (after the gate that is known, an all-gather of counts away); then the policy turns each
 * layer's demand into quotas, which are checked; the second pass delivers: the tokens of a source
 * GPU, in its order, take the copies of an expert in ascending order of their slots, each until
 * its quota for that source is used. What a dropping policy left without a quota is counted.
 *
 * Where there are temporary slots (fetcher.h) the policy first names the copies that it has brought
 * for the layer and this step, and the quotas count them too.
 *
 * A policy that works in turn has no split: route_counter.h does that in one pass.
 * Everything is sized when it is set up: nothing is allocated in a step.
 */
#ifndef MOE_SIM_ENGINE_ROUTE_SPLIT_H
#define MOE_SIM_ENGINE_ROUTE_SPLIT_H

#include <stdint.h>

#include "policies/composition.h"
#include "policies/copy_index.h"
#include "sim/base/arena.h"
#include "sim/engine/fetcher.h"
#include "sim/engine/foresight.h"
#include "sim/engine/replay_map.h"

/* Where an expert's tokens go in one layer: to its only slot, or as quotas say. */
struct moe_split_way {
    uint16_t slot; /* MOE_SLOT_EMPTY: listed */
    uint16_t model_expert;
    uint32_t listed; /* its number among the layer's listed experts */
};

/* One layer's copies, and of those experts that are listed (with several copies, or all where
 * tokens may be dropped) what each source may still send. */
struct moe_split_layer {
    struct moe_copy_index index;
    struct moe_split_way *way; /* [trace expert] */
    uint32_t listed_count;
    uint32_t listed_copies;
    uint32_t *first_listed;     /* [listed_count + 1] into listed copies */
    uint32_t *expert_of_listed; /* [listed_count] model expert */
    uint32_t *left;             /* [source GPU][listed copy] tokens, this step */
    uint32_t *cursor;           /* [source GPU][listed expert] copy that takes the next token */
};

struct moe_route_split {
    struct moe_arena arena; /* of all below */
    const struct moe_composition_part *part;
    void *state;
    struct moe_placement_shape shape; /* with the temporary slots */
    const struct moe_replay_map *map;
    struct moe_fetcher *fetcher; /* NULL: the copies stay as they are */
    uint32_t trace_layer_count;
    uint32_t top_k;
    const struct moe_policy_speed *speed;
    const struct moe_policy_topology *topology;
    struct moe_foresight *foresight; /* NULL: the policy sees no prediction */
    uint64_t seed;
    struct moe_split_layer *layers; /* [layer] */
    uint32_t *listed_of;            /* [expert] scratch */
    uint32_t *demand;               /* [layer][source GPU][model expert], this step */
    uint64_t *total;                /* [expert] of the layer in hand */
    uint32_t *quota;                /* [source GPU][copy] of the layer in hand */
    bool delivering;                /* which pass it is */
    uint64_t dropped;               /* assignments without a quota, since init */
};

struct moe_route_split_setup {
    const struct moe_composition_part *part; /* dispatch; outlives the split */
    const struct moe_place_view *planning;   /* everything there is; outlives the split */
    const struct moe_placement *placement;   /* with the temporary slots, empty */
    const struct moe_replay_map *map;        /* outlives the split */
    struct moe_fetcher *fetcher;             /* NULL: nothing is fetched; outlives the split */
    uint32_t top_k;
    struct moe_arena *state_arena; /* for the policy's own memory */
};

/* Errors: MOE_LIMIT when memory is short; what the policy's init returns. */
enum moe_status moe_route_split_init(struct moe_route_split *split,
                                     const struct moe_route_split_setup *setup,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_route_split_finish(struct moe_route_split *split);

/* Forgets the last step; rows are counted from here on. */
void moe_route_split_begin(struct moe_route_split *split);

/* First pass: rows[token_count] of one source GPU, as for the counter. */
void moe_route_split_count(struct moe_route_split *split, uint32_t source_gpu,
                           const uint16_t *const *rows, uint32_t token_count);

/* Asks the predictor, when there is one whose step has begun, and the policy for every layer's
 * quotas; rows are delivered from here on. Errors: as moe_foresight_layer; MOE_POLICY
 * naming policy, layer, source and expert where quotas are not what was asked for. */
enum moe_status moe_route_split_solve(struct moe_route_split *split, uint64_t step,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Second pass: the slot that takes the next token of a trace expert (known), MOE_SLOT_EMPTY when
 * it is dropped. */
static inline uint32_t moe_route_split_take(struct moe_route_split *split, uint32_t layer,
                                            uint32_t source_gpu, uint16_t trace_expert)
{
    const struct moe_split_layer *l = &split->layers[layer];
    const struct moe_split_way *way = &l->way[trace_expert];
    if (way->slot != MOE_SLOT_EMPTY) {
        return way->slot;
    }
    uint32_t *left = l->left + (size_t) source_gpu * l->listed_copies;
    uint32_t *cursor = l->cursor + (size_t) source_gpu * l->listed_count + way->listed;
    const uint32_t end = l->first_listed[way->listed + 1];
    while (*cursor < end && left[*cursor] == 0) {
        *cursor += 1;
    }
    if (*cursor == end) {
        split->dropped++;
        return MOE_SLOT_EMPTY;
    }
    left[*cursor]--;
    const uint32_t copy =
        l->index.first_copy[way->model_expert] + *cursor - l->first_listed[way->listed];
    return l->index.slot_of_copy[copy];
}

#endif

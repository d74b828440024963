/*
 * Replay map: which trace layer each MoE layer of the model replays, and under which
 * relabelling of the experts.
 *
 * A model may have more MoE layers than the trace. Model layer l replays trace layer
 * l modulo the trace's layer count; from the second time round the expert ids go through
 * a seeded permutation that keeps routing groups whole (whole groups change places, and
 * experts change places inside their group), so that repeated layers are not copies of
 * each other. The permutation depends on the layer alone, not on the run's seed: the
 * replayed model is one model. Labelled "assumed" in every report (design.md 2).
 *
 * The permutation of model layer l: key = moe_random_key(l, MOE_RANDOM_LAYER_PERMUTATION);
 * expert i of group g becomes expert inside[i] of group groups[g], where groups is the
 * shuffle of 0 .. groups-1 with counter base 0, inside that of 0 .. group size-1 with base
 * (g + 1) << 32. Shuffle (here and in workload.h): for i = count down to 2 the items i-1
 * and moe_random_below(key, base + i, i) change places. One group when the groups do not
 * divide the experts.
 */
#ifndef MOE_SIM_ENGINE_REPLAY_MAP_H
#define MOE_SIM_ENGINE_REPLAY_MAP_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "traces/trace_store.h"

struct moe_replay_map {
    uint32_t layer_count; /* MoE layers of the model */
    uint32_t trace_layer_count;
    uint32_t expert_count;
    uint16_t *expert; /* [layer][trace expert] -> model expert */
};

static inline uint32_t moe_replay_map_trace_layer(const struct moe_replay_map *map, uint32_t layer)
{
    return layer % map->trace_layer_count;
}

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_replay_map_init(struct moe_replay_map *map, const struct moe_trace_model *trace,
                                    uint32_t layer_count, struct moe_arena *arena,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* Token counts of rows first_row .. first_row+row_count-1 of the trace, added to
 * counts[trace layer][trace expert]; unknown ids are added to *unknown.
 * rows: room for MOE_REPLAY_BLOCK_ROWS rows. Errors: as moe_trace_read. */
enum { MOE_REPLAY_BLOCK_ROWS = 1024 };
enum moe_status moe_replay_count(struct moe_trace *trace, uint64_t first_row, uint64_t row_count,
                                 uint16_t *rows, uint64_t *counts, uint64_t *unknown,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* counts of the trace's layers as load[model layer][model expert]. */
void moe_replay_expand(const struct moe_replay_map *map, const uint64_t *counts, double *load);

#endif

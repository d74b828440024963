#include "sim/engine/replay_map.h"

#include "sim/base/random.h"

#include "sim/base/no_malloc.h"

/* A permutation of first .. first+count-1 by Fisher and Yates. */
static void permute(uint16_t *items, uint32_t count, uint64_t key, uint64_t counter)
{
    for (uint32_t i = 0; i < count; i++) {
        items[i] = (uint16_t) i;
    }
    for (uint32_t i = count; i > 1; i--) {
        const uint32_t j = (uint32_t) moe_random_below(key, counter + i, i);
        const uint16_t held = items[i - 1];
        items[i - 1] = items[j];
        items[j] = held;
    }
}

static void relabel(uint16_t *expert, uint32_t layer, uint32_t expert_count, uint32_t group_count,
                    uint16_t *scratch)
{
    const uint64_t key = moe_random_key(layer, MOE_RANDOM_LAYER_PERMUTATION);
    const uint32_t group_size = expert_count / group_count;
    uint16_t *groups = scratch;
    uint16_t *inside = scratch + group_count;
    permute(groups, group_count, key, 0);
    for (uint32_t group = 0; group < group_count; group++) {
        permute(inside, group_size, key, (uint64_t) (group + 1) << 32);
        for (uint32_t i = 0; i < group_size; i++) {
            expert[group * group_size + i] = (uint16_t) (groups[group] * group_size + inside[i]);
        }
    }
}

enum moe_status moe_replay_map_init(struct moe_replay_map *map, const struct moe_trace_model *trace,
                                    uint32_t layer_count, struct moe_arena *arena,
                                    struct moe_error *err)
{
    const uint32_t experts = trace->expert_count;
    const uint32_t groups = experts % trace->group_count == 0 ? trace->group_count : 1;
    uint16_t *expert = MOE_NEW(arena, uint16_t, (size_t) layer_count * experts);
    uint16_t *scratch = MOE_NEW(arena, uint16_t, (size_t) experts + groups);
    if (expert == NULL || scratch == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the replay map of %u layers", layer_count);
    }
    for (uint32_t layer = 0; layer < layer_count; layer++) {
        uint16_t *row = expert + (size_t) layer * experts;
        if (layer < trace->layer_count) {
            for (uint32_t i = 0; i < experts; i++) {
                row[i] = (uint16_t) i;
            }
        } else {
            relabel(row, layer, experts, groups, scratch);
        }
    }
    *map = (struct moe_replay_map){ .layer_count = layer_count,
                                    .trace_layer_count = trace->layer_count,
                                    .expert_count = experts,
                                    .expert = expert };
    return MOE_OK;
}

enum moe_status moe_replay_count(struct moe_trace *trace, uint64_t first_row, uint64_t row_count,
                                 uint16_t *rows, uint64_t *counts, uint64_t *unknown,
                                 struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    const uint64_t end = first_row + row_count;
    for (uint64_t row = first_row; row < end;) {
        const uint64_t n = end - row < MOE_REPLAY_BLOCK_ROWS ? end - row : MOE_REPLAY_BLOCK_ROWS;
        MOE_TRY(moe_trace_read(trace, row, n, rows, err));
        const uint16_t *id = rows;
        for (uint64_t i = 0; i < n; i++) {
            uint64_t *layer = counts;
            for (uint32_t l = 0; l < model->layer_count; l++, layer += model->expert_count) {
                for (uint32_t k = 0; k < model->top_k; k++, id++) {
                    if (*id == MOE_EXPERT_UNKNOWN) {
                        *unknown += 1;
                    } else {
                        layer[*id]++;
                    }
                }
            }
        }
        row += n;
    }
    return MOE_OK;
}

void moe_replay_expand(const struct moe_replay_map *map, const uint64_t *counts, double *load)
{
    for (uint32_t layer = 0; layer < map->layer_count; layer++) {
        const uint64_t *from =
            counts + (size_t) moe_replay_map_trace_layer(map, layer) * map->expert_count;
        const uint16_t *to = map->expert + (size_t) layer * map->expert_count;
        for (uint32_t i = 0; i < map->expert_count; i++) {
            load[(size_t) layer * map->expert_count + to[i]] = (double) from[i];
        }
    }
}

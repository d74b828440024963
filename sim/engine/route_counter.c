#include "sim/engine/route_counter.h"

#include <assert.h>
#include <string.h>

#include "traces/trace_store.h"

#include "sim/base/no_malloc.h"

enum { MASK_GPU_LIMIT = 64 };

/* Links the slots of each expert into a ring in ascending order; an expert's turn begins at
 * its first slot. last[expert] is scratch. */
static void index_layer(struct moe_route_counter *c, const struct moe_replay_map *map,
                        const struct moe_placement *placement, uint32_t layer, uint16_t *first,
                        uint16_t *last)
{
    const uint32_t experts = c->trace_expert_count;
    const uint16_t *expert_of_slot = moe_placement_layer(placement, layer);
    const uint16_t *model_expert = map->expert + (size_t) layer * experts;
    uint16_t *next = c->next_slot + (size_t) layer * c->slot_count;
    uint16_t *turn = c->turn + (size_t) layer * experts;
    memset(first, 0xff, experts * sizeof *first);
    for (uint32_t slot = 0; slot < c->slot_count; slot++) {
        const uint16_t expert = expert_of_slot[slot];
        if (expert == MOE_SLOT_EMPTY) {
            continue;
        }
        if (first[expert] == MOE_SLOT_EMPTY) {
            first[expert] = (uint16_t) slot;
        } else {
            next[last[expert]] = (uint16_t) slot;
        }
        next[slot] = first[expert];
        last[expert] = (uint16_t) slot;
    }
    for (uint32_t i = 0; i < experts; i++) {
        turn[i] = first[model_expert[i]];
        assert(turn[i] != MOE_SLOT_EMPTY);
    }
}

enum moe_status moe_route_counter_init(struct moe_route_counter *c,
                                       const struct moe_replay_map *map,
                                       const struct moe_placement *placement, uint32_t top_k,
                                       struct moe_arena *arena, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &placement->shape;
    const size_t layers = shape->layer_count;
    const size_t pairs = (size_t) shape->gpu_count * shape->gpu_count;
    assert(shape->layer_count == map->layer_count);
    assert(shape->expert_count == map->expert_count);
    *c = (struct moe_route_counter){
        .layer_count = shape->layer_count,
        .trace_layer_count = map->trace_layer_count,
        .trace_expert_count = map->expert_count,
        .top_k = top_k,
        .slot_count = shape->slot_count,
        .gpu_count = shape->gpu_count,
        .gpus_per_node = shape->gpu_count / shape->node_count,
        .slots_per_gpu = moe_placement_slots_per_gpu(shape),
        .turn = MOE_NEW(arena, uint16_t, layers * map->expert_count),
        .next_slot = MOE_NEW(arena, uint16_t, layers * shape->slot_count),
        .gpu_of_slot = MOE_NEW(arena, uint16_t, shape->slot_count),
        .slot_tokens = MOE_NEW(arena, uint32_t, layers * shape->slot_count),
        .pair_tokens = MOE_NEW(arena, uint32_t, layers * pairs),
        .stamp = MOE_NEW(arena, uint64_t, shape->gpu_count),
        .received = MOE_NEW(arena, uint32_t, (size_t) 2 * shape->gpu_count),
    };
    uint16_t *first = MOE_NEW(arena, uint16_t, (size_t) 2 * map->expert_count);
    if (c->turn == NULL || c->next_slot == NULL || c->gpu_of_slot == NULL ||
        c->slot_tokens == NULL || c->pair_tokens == NULL || c->stamp == NULL ||
        c->received == NULL || first == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the counts of %u layers and %u GPUs",
                        shape->layer_count, shape->gpu_count);
    }
    for (uint32_t slot = 0; slot < c->slot_count; slot++) {
        c->gpu_of_slot[slot] = (uint16_t) (slot / c->slots_per_gpu);
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        index_layer(c, map, placement, layer, first, first + map->expert_count);
    }
    c->scratch = first;
    return MOE_OK;
}

void moe_route_counter_replan(struct moe_route_counter *c, const struct moe_replay_map *map,
                              const struct moe_placement *placement, uint32_t layer)
{
    index_layer(c, map, placement, layer, c->scratch, c->scratch + c->trace_expert_count);
}

static uint32_t node_count(const struct moe_route_counter *c)
{
    return c->gpu_count / c->gpus_per_node;
}

enum moe_status moe_route_counter_count_nodes(struct moe_route_counter *c, struct moe_arena *arena,
                                              struct moe_error *err)
{
    const size_t cells = (size_t) c->layer_count * c->gpu_count * node_count(c);
    c->node_tokens = MOE_NEW(arena, uint32_t, cells);
    c->node_stamp = MOE_NEW(arena, uint64_t, node_count(c));
    return c->node_tokens != NULL && c->node_stamp != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for the counts of %u nodes", node_count(c));
}

void moe_route_counter_split_by(struct moe_route_counter *c, struct moe_route_split *split)
{
    c->split = split;
}

void moe_route_counter_count_choices(struct moe_route_counter *c)
{
    assert(c->node_tokens == NULL);
    c->each_choice = true;
}

static bool is_counted(const struct moe_route_counter *c, uint32_t layer)
{
    return c->sample == NULL || moe_layer_sample_counts(c->sample, layer);
}

void moe_route_counter_begin_step(struct moe_route_counter *c)
{
    if (c->split != NULL) {
        moe_route_split_begin(c->split);
    }
    const size_t pairs = (size_t) c->gpu_count * c->gpu_count;
    const size_t cells = (size_t) c->gpu_count * node_count(c);
    for (uint32_t layer = 0; layer < c->layer_count; layer++) {
        if (!is_counted(c, layer)) {
            continue;
        }
        if (c->node_tokens != NULL) {
            memset(c->node_tokens + layer * cells, 0, cells * sizeof *c->node_tokens);
        }
        memset(c->slot_tokens + (size_t) layer * c->slot_count, 0,
               c->slot_count * sizeof *c->slot_tokens);
        memset(c->pair_tokens + layer * pairs, 0, pairs * sizeof *c->pair_tokens);
    }
}

/* What the kernels of one layer work on. */
struct layer_view {
    uint16_t *turn;
    const uint16_t *next_slot;
    const uint16_t *gpu_of_slot;
    uint32_t *slot_tokens;
    uint32_t *pair_row; /* [destination GPU] of the source */
    uint32_t *node_row; /* [node] of the source, or NULL */
    uint32_t gpus_per_node;
    uint32_t node_count;
    bool each_choice;
    size_t row_offset; /* of the trace layer in a token's row */
    uint32_t top_k;
};

/* The slot whose turn it is; the turn passes on. Without a branch on the number of copies:
 * whether the next token's expert is a replicated one is not predictable. */
static inline uint32_t take_turn(const struct layer_view *v, uint16_t expert)
{
    const uint32_t slot = v->turn[expert];
    v->turn[expert] = v->next_slot[slot];
    return slot;
}

static uint64_t count_top1(const struct layer_view *v, const uint16_t *const *rows, uint32_t count)
{
    uint64_t unknown = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint16_t id = rows[i][v->row_offset];
        if (id == MOE_EXPERT_UNKNOWN) {
            unknown++;
            continue;
        }
        const uint32_t slot = take_turn(v, id);
        const uint32_t gpu = v->gpu_of_slot[slot];
        v->slot_tokens[slot]++;
        v->pair_row[gpu]++;
        if (v->node_row != NULL) {
            v->node_row[gpu / v->gpus_per_node]++;
        }
    }
    return unknown;
}

static uint64_t count_each(const struct layer_view *v, const uint16_t *const *rows, uint32_t count)
{
    uint64_t unknown = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint16_t *row = rows[i] + v->row_offset;
        for (uint32_t k = 0; k < v->top_k; k++) {
            if (row[k] == MOE_EXPERT_UNKNOWN) {
                unknown++;
                continue;
            }
            const uint32_t slot = take_turn(v, row[k]);
            v->slot_tokens[slot]++;
            v->pair_row[v->gpu_of_slot[slot]]++;
        }
    }
    return unknown;
}

static uint64_t count_mask(const struct layer_view *v, const uint16_t *const *rows, uint32_t count)
{
    const uint64_t node_mask = UINT64_MAX >> (MASK_GPU_LIMIT - v->gpus_per_node);
    uint64_t unknown = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint16_t *row = rows[i] + v->row_offset;
        uint64_t seen = 0;
        for (uint32_t k = 0; k < v->top_k; k++) {
            const uint16_t id = row[k];
            if (id == MOE_EXPERT_UNKNOWN) {
                unknown++;
                continue;
            }
            const uint32_t slot = take_turn(v, id);
            const uint32_t gpu = v->gpu_of_slot[slot];
            v->slot_tokens[slot]++;
            /* No branch on whether the GPU was seen: it is not predictable. */
            v->pair_row[gpu] += (uint32_t) (~seen >> gpu & 1);
            seen |= UINT64_C(1) << gpu;
        }
        if (v->node_row != NULL) {
            for (uint32_t node = 0; node < v->node_count; node++, seen >>= v->gpus_per_node - 1) {
                v->node_row[node] += (seen & node_mask) != 0;
                seen >>= 1; /* in two shifts: a node may have all 64 GPUs */
            }
        }
    }
    return unknown;
}

static uint64_t count_general(const struct layer_view *v, const uint16_t *const *rows,
                              uint32_t count, uint64_t *stamp, uint64_t *node_stamp,
                              uint64_t stamp_next)
{
    uint64_t unknown = 0;
    for (uint32_t i = 0; i < count; i++, stamp_next++) {
        const uint16_t *row = rows[i] + v->row_offset;
        for (uint32_t k = 0; k < v->top_k; k++) {
            const uint16_t id = row[k];
            if (id == MOE_EXPERT_UNKNOWN) {
                unknown++;
                continue;
            }
            const uint32_t slot = take_turn(v, id);
            const uint32_t gpu = v->gpu_of_slot[slot];
            v->slot_tokens[slot]++;
            v->pair_row[gpu] += stamp[gpu] != stamp_next;
            stamp[gpu] = stamp_next;
            if (v->node_row != NULL) {
                const uint32_t node = gpu / v->gpus_per_node;
                v->node_row[node] += node_stamp[node] != stamp_next;
                node_stamp[node] = stamp_next;
            }
        }
    }
    return unknown;
}

/* By the split's quotas, one layer. */
static uint64_t count_split(struct moe_route_counter *c, const struct layer_view *v, uint32_t layer,
                            uint32_t source_gpu, const uint16_t *const *rows, uint32_t count)
{
    uint64_t unknown = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint16_t *row = rows[i] + v->row_offset;
        const uint64_t stamp = ++c->stamp_next;
        for (uint32_t k = 0; k < v->top_k; k++) {
            if (row[k] == MOE_EXPERT_UNKNOWN) {
                unknown++;
                continue;
            }
            const uint32_t slot = moe_route_split_take(c->split, layer, source_gpu, row[k]);
            if (slot == MOE_SLOT_EMPTY) {
                continue;
            }
            const uint32_t gpu = v->gpu_of_slot[slot];
            v->slot_tokens[slot]++;
            v->pair_row[gpu] += v->each_choice || c->stamp[gpu] != stamp;
            c->stamp[gpu] = stamp;
            if (v->node_row != NULL) {
                const uint32_t node = gpu / v->gpus_per_node;
                v->node_row[node] += c->node_stamp[node] != stamp;
                c->node_stamp[node] = stamp;
            }
        }
    }
    return unknown;
}

void moe_route_counter_add(struct moe_route_counter *c, uint32_t source_gpu,
                           const uint16_t *const *rows, uint32_t token_count)
{
    const size_t pairs = (size_t) c->gpu_count * c->gpu_count;
    if (token_count == 0) {
        return;
    }
    if (c->split != NULL && !c->split->delivering) {
        moe_route_split_count(c->split, source_gpu, rows, token_count);
        return;
    }
    for (uint32_t layer = 0; layer < c->layer_count; layer++) {
        if (!is_counted(c, layer)) {
            continue;
        }
        const struct layer_view view = {
            .turn = c->turn + (size_t) layer * c->trace_expert_count,
            .next_slot = c->next_slot + (size_t) layer * c->slot_count,
            .gpu_of_slot = c->gpu_of_slot,
            .slot_tokens = c->slot_tokens + (size_t) layer * c->slot_count,
            .pair_row = c->pair_tokens + layer * pairs + (size_t) source_gpu * c->gpu_count,
            .node_row =
                c->node_tokens == NULL
                    ? NULL
                    : c->node_tokens + ((size_t) layer * c->gpu_count + source_gpu) * node_count(c),
            .gpus_per_node = c->gpus_per_node,
            .node_count = node_count(c),
            .each_choice = c->each_choice,
            .row_offset =
                (size_t) ((c->first_trace_layer + layer) % c->trace_layer_count) * c->top_k,
            .top_k = c->top_k,
        };
        if (c->split != NULL) {
            c->unknown += count_split(c, &view, layer, source_gpu, rows, token_count);
        } else if (c->top_k == 1) {
            c->unknown += count_top1(&view, rows, token_count);
        } else if (c->each_choice) {
            c->unknown += count_each(&view, rows, token_count);
        } else if (c->gpu_count <= MASK_GPU_LIMIT) {
            c->unknown += count_mask(&view, rows, token_count);
        } else {
            c->unknown +=
                count_general(&view, rows, token_count, c->stamp, c->node_stamp, c->stamp_next + 1);
            c->stamp_next += token_count;
        }
        c->assignments += (uint64_t) token_count * c->top_k;
    }
}

static void expert_work(const struct moe_route_counter *c, uint32_t layer, uint32_t tile_tokens,
                        struct moe_expert_work *expert)
{
    const uint32_t *tokens = moe_route_counter_slots(c, layer);
    for (uint32_t gpu = 0; gpu < c->gpu_count; gpu++) {
        uint32_t sum = 0;
        uint32_t active = 0;
        uint32_t tiles = 0;
        uint32_t fullest = 0;
        for (uint32_t i = 0; i < c->slots_per_gpu; i++, tokens++) {
            sum += *tokens;
            active += *tokens > 0;
            tiles += (*tokens + tile_tokens - 1) / tile_tokens;
            fullest = *tokens > fullest ? *tokens : fullest;
        }
        expert[gpu] = (struct moe_expert_work){
            .tokens = sum, .active = active, .tiles = tiles, .fullest = fullest
        };
    }
}

/* Every copy goes straight to its GPU. What GPUs receive is summed as whole numbers, row by row,
 * before it is turned into work; a source without a token is passed over. */
static void direct_exchange(const struct moe_route_counter *c, const uint32_t *pair,
                            struct moe_exchange_work *dispatch)
{
    const uint32_t gpus = c->gpu_count;
    uint32_t *all_in = c->received;
    uint32_t *near_in = c->received + gpus;
    memset(all_in, 0, (size_t) 2 * gpus * sizeof *all_in);
    for (uint32_t source = 0; source < gpus; source++, pair += gpus) {
        const uint32_t near_begin = source / c->gpus_per_node * c->gpus_per_node;
        const uint32_t near_end = near_begin + c->gpus_per_node;
        uint32_t near_out = 0;
        uint32_t out = 0;
        for (uint32_t to = 0; to < gpus; to++) {
            out += pair[to];
        }
        if (out == 0) {
            continue;
        }
        for (uint32_t to = 0; to < gpus; to++) {
            all_in[to] += pair[to];
        }
        for (uint32_t to = near_begin; to < near_end; to++) {
            near_out += pair[to];
            near_in[to] += pair[to];
        }
        all_in[source] -= pair[source]; /* what stays is in neither */
        near_in[source] -= pair[source];
        dispatch[source].near_out = near_out - pair[source];
        dispatch[source].near_own = pair[source];
        dispatch[source].far_out = out - near_out;
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        dispatch[gpu].near_in = near_in[gpu];
        dispatch[gpu].far_in = all_in[gpu] - near_in[gpu];
    }
}

/* One copy per node, passed on inside it. What GPUs receive is summed as whole numbers, row by
 * row, before it is turned into work. */
static void hierarchical_exchange(const struct moe_route_counter *c, const uint32_t *pair,
                                  const uint32_t *node_tokens, struct moe_exchange_work *dispatch)
{
    const uint32_t nodes = node_count(c);
    const uint32_t gpus = c->gpu_count;
    uint32_t *near_in = c->received;
    memset(near_in, 0, gpus * sizeof *near_in);
    for (uint32_t source = 0; source < gpus; source++, node_tokens += nodes, pair += gpus) {
        const uint32_t home = source / c->gpus_per_node;
        const uint32_t place = source % c->gpus_per_node;
        uint32_t any = 0;
        for (uint32_t node = 0; node < nodes; node++) {
            any |= node_tokens[node];
        }
        if (any == 0) {
            continue; /* it sends nothing anywhere */
        }
        for (uint32_t to = 0; to < gpus; to++) {
            near_in[to] += pair[to];
        }
        for (uint32_t node = 0; node < nodes; node++) {
            const uint32_t first = node * c->gpus_per_node;
            const uint32_t relay = first + place; /* the source itself at home */
            uint32_t there = 0;
            for (uint32_t to = first; to < first + c->gpus_per_node; to++) {
                there += pair[to];
            }
            near_in[relay] -= pair[relay];
            dispatch[relay].near_own += pair[relay];
            dispatch[relay].near_out += there - pair[relay];
            if (node != home) {
                dispatch[source].far_out += node_tokens[node];
                dispatch[relay].far_in += node_tokens[node];
            }
        }
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        dispatch[gpu].near_in = near_in[gpu];
    }
}

void moe_route_counter_work(const struct moe_route_counter *c, uint32_t layer, uint32_t tile_tokens,
                            struct moe_expert_work *expert, struct moe_exchange_work *dispatch)
{
    const size_t gpus = c->gpu_count;
    const uint32_t *pair = c->pair_tokens + layer * gpus * gpus;
    expert_work(c, layer, tile_tokens, expert);
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        dispatch[gpu] = (struct moe_exchange_work){ 0 };
    }
    if (c->node_tokens == NULL) {
        direct_exchange(c, pair, dispatch);
    } else {
        hierarchical_exchange(c, pair, c->node_tokens + layer * gpus * node_count(c), dispatch);
    }
}

#include "sim/engine/route_split.h"

#include <assert.h>
#include <string.h>

#include "traces/trace_store.h"

#include "sim/base/no_malloc.h"

enum { PART_TOKENS = UINT16_MAX, LARGE_PARTS = 1 << 11 };

/* Parts of a layer: each copy of every source, one for what is dropped of an expert, and of quotas
 * beyond PART_TOKENS the further ones (a source has at most 2^20 tokens of 64 choices, 2^26 in
 * all). */
static size_t part_limit(const struct moe_placement_shape *shape, bool drops)
{
    const size_t source = shape->slot_count + (drops ? shape->expert_count : 0) + LARGE_PARTS;
    return shape->gpu_count * source;
}

/* Says where every expert's tokens go. */
static void find_ways(struct moe_route_split *s, uint32_t layer)
{
    struct moe_split_layer *l = &s->layers[layer];
    const uint32_t experts = s->shape.expert_count;
    const bool drops = s->part->policy->dispatch->may_drop;
    l->listed_count = 0;
    for (uint32_t expert = 0; expert < experts; expert++) {
        if (drops || l->index.first_copy[expert + 1] - l->index.first_copy[expert] > 1) {
            l->listed[l->listed_count++] = (uint16_t) expert;
        }
    }
    for (uint32_t i = 0; i < experts; i++) {
        const uint16_t expert = s->map->expert[(size_t) layer * experts + i];
        const uint32_t first = l->index.first_copy[expert];
        const bool listed = drops || l->index.first_copy[expert + 1] - first > 1;
        l->way[i] = (struct moe_split_way){
            .slot = listed ? MOE_SLOT_EMPTY : l->index.slot_of_copy[first],
            .model_expert = expert,
        };
    }
}

static enum moe_status init_layer(struct moe_route_split *s, const struct moe_placement *placement,
                                  uint32_t layer, struct moe_error *err)
{
    struct moe_split_layer *l = &s->layers[layer];
    const uint32_t experts = s->shape.expert_count;
    MOE_TRY(moe_copy_index_init(&l->index, placement, layer, &s->arena, err));
    l->way = MOE_NEW(&s->arena, struct moe_split_way, experts);
    l->listed = MOE_NEW(&s->arena, uint16_t, experts);
    l->part = MOE_NEW(&s->arena, struct moe_split_part,
                      part_limit(&s->shape, s->part->policy->dispatch->may_drop));
    if (l->way == NULL || l->listed == NULL || l->part == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the quotas of %u slots", s->shape.slot_count);
    }
    find_ways(s, layer);
    return MOE_OK;
}

static size_t bytes_needed(const struct moe_placement_shape *shape, bool drops)
{
    const size_t layers = shape->layer_count;
    const size_t gpus = shape->gpu_count;
    const size_t experts = shape->expert_count;
    const size_t slots = shape->slot_count;
    const size_t layer = experts * (sizeof(struct moe_split_way) + 16) + slots * 4 +
                         gpus * experts * sizeof(uint32_t) +
                         part_limit(shape, drops) * sizeof(struct moe_split_part) + 512;
    return layers * (layer + sizeof(struct moe_split_layer)) + gpus * slots * 4 + experts * 16 +
           4096;
}

enum moe_status moe_route_split_init(struct moe_route_split *s,
                                     const struct moe_route_split_setup *setup,
                                     struct moe_error *err)
{
    const struct moe_policy *policy = setup->part->policy;
    const struct moe_placement_shape *shape = &setup->placement->shape;
    const size_t gpus = shape->gpu_count;
    struct moe_place_view shown;
    double unused[MOE_POLICY_PARAMETER_LIMIT];
    struct moe_place_view planning = *setup->planning;
    planning.parameters = setup->part->values;
    *s = (struct moe_route_split){
        .part = setup->part,
        .shape = *shape,
        .map = setup->map,
        .fetcher = setup->fetcher,
        .trace_layer_count = setup->map->trace_layer_count,
        .top_k = setup->top_k,
    };
    MOE_TRY(moe_policy_show(policy, &planning, &shown, unused, err));
    s->speed = shown.speed;
    s->topology = shown.topology;
    s->seed = shown.seed;
    MOE_TRY(moe_arena_init(&s->arena, bytes_needed(shape, policy->dispatch->may_drop), err));
    s->layers = MOE_NEW(&s->arena, struct moe_split_layer, shape->layer_count);
    s->demand = MOE_NEW(&s->arena, uint32_t, shape->layer_count * gpus * shape->expert_count);
    s->total = MOE_NEW(&s->arena, uint64_t, shape->expert_count);
    s->quota = MOE_NEW(&s->arena, uint32_t, gpus * shape->slot_count);
    if (s->layers == NULL || s->demand == NULL || s->total == NULL || s->quota == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to split the tokens of %u layers",
                        shape->layer_count);
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        MOE_TRY(init_layer(s, setup->placement, layer, err));
    }
    if (policy->dispatch->init == NULL) {
        return MOE_OK;
    }
    struct moe_error reason = { 0 };
    const enum moe_status status =
        policy->dispatch->init(&shown, setup->placement, setup->state_arena, &s->state, &reason);
    return status == MOE_OK
               ? MOE_OK
               : moe_fail(err, status, "dispatch policy %s: %s", policy->name, reason.text);
}

void moe_route_split_finish(struct moe_route_split *s)
{
    moe_arena_finish(&s->arena);
}

void moe_route_split_begin(struct moe_route_split *s)
{
    memset(s->demand, 0,
           (size_t) s->shape.layer_count * s->shape.gpu_count * s->shape.expert_count *
               sizeof *s->demand);
    s->delivering = false;
}

void moe_route_split_count(struct moe_route_split *s, uint32_t source_gpu,
                           const uint16_t *const *rows, uint32_t token_count)
{
    uint32_t trace_layer = 0;
    for (uint32_t layer = 0; layer < s->shape.layer_count; layer++) {
        const struct moe_split_way *way = s->layers[layer].way;
        uint32_t *demand =
            s->demand + ((size_t) layer * s->shape.gpu_count + source_gpu) * s->shape.expert_count;
        for (uint32_t i = 0; i < token_count; i++) {
            const uint16_t *row = rows[i] + (size_t) trace_layer * s->top_k;
            for (uint32_t k = 0; k < s->top_k; k++) {
                if (row[k] != MOE_EXPERT_UNKNOWN) {
                    demand[way[row[k]].model_expert]++;
                }
            }
        }
        trace_layer = trace_layer + 1 == s->trace_layer_count ? 0 : trace_layer + 1;
    }
}

/* So many tokens for a slot, from part number count on. Returns the next number. */
static inline uint32_t add_parts(struct moe_split_part *part, uint32_t count, uint16_t slot,
                                 uint32_t tokens)
{
    for (; tokens > PART_TOKENS; tokens -= PART_TOKENS) {
        part[count++] = (struct moe_split_part){ slot, PART_TOKENS };
    }
    /* Without a branch on whether there are any: most quotas are 0, and not predictably. */
    part[count] = (struct moe_split_part){ slot, (uint16_t) tokens };
    return count + (tokens > 0);
}

/* The checked quotas become parts. */
static void part_quotas(const struct moe_route_split *s, uint32_t layer)
{
    struct moe_split_layer *l = &s->layers[layer];
    const uint32_t experts = s->shape.expert_count;
    uint32_t *demand = s->demand + (size_t) layer * s->shape.gpu_count * experts;
    uint32_t count = 0;
    for (uint32_t source = 0; source < s->shape.gpu_count; source++, demand += experts) {
        const uint32_t *quota = s->quota + (size_t) source * l->index.copy_count;
        for (uint32_t i = 0; i < l->listed_count; i++) {
            const uint32_t expert = l->listed[i];
            const uint32_t first = l->index.first_copy[expert];
            const uint32_t end = l->index.first_copy[expert + 1];
            uint32_t left = demand[expert];
            demand[expert] = count;
            for (uint32_t copy = first; left > 0 && copy < end; copy++) {
                count = add_parts(l->part, count, l->index.slot_of_copy[copy], quota[copy]);
                left -= quota[copy];
            }
            count = add_parts(l->part, count, MOE_SLOT_EMPTY, left);
        }
    }
    assert(count < part_limit(&s->shape, s->part->policy->dispatch->may_drop));
}

static struct moe_dispatch_view view_of(const struct moe_route_split *s, uint64_t step,
                                        uint32_t layer, const float *predicted)
{
    const struct moe_copy_index *index = &s->layers[layer].index;
    return (struct moe_dispatch_view){
        .shape = s->shape,
        .step = step,
        .layer = layer,
        .fetch_limit = s->fetcher == NULL ? 0 : s->fetcher->limit,
        .predicted = predicted,
        .copy_count = index->copy_count,
        .first_copy = index->first_copy,
        .slot_of_copy = index->slot_of_copy,
        .gpu_of_copy = index->gpu_of_copy,
        .demand = s->demand + (size_t) layer * s->shape.gpu_count * s->shape.expert_count,
        .expert_total = s->total,
        .speed = s->speed,
        .topology = s->topology,
        .parameters = s->part->values,
        .seed = s->seed,
    };
}

/* The layer's temporary copies of the last step give way to those of this one. */
static enum moe_status fetch(struct moe_route_split *s, uint32_t layer,
                             struct moe_dispatch_view *view, struct moe_error *err)
{
    struct moe_copy_index *index = &s->layers[layer].index;
    bool changed = moe_fetcher_clear(s->fetcher, layer, index);
    view->copy_count = index->copy_count;
    MOE_TRY(moe_fetcher_ask(s->fetcher, s->part->policy, s->state, view, index, err));
    changed = changed || s->fetcher->count[layer] > 0;
    view->copy_count = index->copy_count;
    if (changed) {
        find_ways(s, layer);
    }
    return MOE_OK;
}

enum moe_status moe_route_split_solve(struct moe_route_split *s, uint64_t step,
                                      struct moe_error *err)
{
    const uint32_t experts = s->shape.expert_count;
    for (uint32_t layer = 0; layer < s->shape.layer_count; layer++) {
        const uint32_t *demand = s->demand + (size_t) layer * s->shape.gpu_count * experts;
        const float *predicted = NULL;
        uint64_t dropped = 0;
        memset(s->total, 0, experts * sizeof *s->total);
        for (uint32_t source = 0; source < s->shape.gpu_count; source++) {
            for (uint32_t expert = 0; expert < experts; expert++) {
                s->total[expert] += demand[(size_t) source * experts + expert];
            }
        }
        if (s->foresight != NULL) {
            MOE_TRY(moe_foresight_layer(s->foresight, layer, s->total, &predicted, err));
        }
        struct moe_dispatch_view view = view_of(s, step, layer, predicted);
        if (s->fetcher != NULL) {
            MOE_TRY(fetch(s, layer, &view, err));
        }
        MOE_TRY(moe_policy_split(s->part->policy, s->state, &view, s->quota, &dropped, err));
        part_quotas(s, layer);
    }
    s->delivering = true;
    return MOE_OK;
}

#include "sim/engine/route_split.h"

#include <assert.h>
#include <string.h>

#include "traces/trace_store.h"

#include "sim/base/no_malloc.h"

static bool is_listed(const struct moe_route_split *s, uint32_t copies)
{
    return copies > 1 || s->part->policy->dispatch->may_drop;
}

/* Lists the experts whose tokens are split, in the order of the model's numbers, and says where
 * those of the others go. */
static void list_layer(struct moe_route_split *s, uint32_t layer)
{
    struct moe_split_layer *l = &s->layers[layer];
    const uint32_t experts = s->shape.expert_count;
    l->listed_count = 0;
    l->listed_copies = 0;
    for (uint32_t expert = 0; expert < experts; expert++) {
        const uint32_t copies = l->index.first_copy[expert + 1] - l->index.first_copy[expert];
        if (is_listed(s, copies)) {
            s->listed_of[expert] = l->listed_count;
            l->first_listed[l->listed_count] = l->listed_copies;
            l->expert_of_listed[l->listed_count++] = expert;
            l->listed_copies += copies;
        }
    }
    l->first_listed[l->listed_count] = l->listed_copies;
    for (uint32_t i = 0; i < experts; i++) {
        const uint16_t expert = s->map->expert[(size_t) layer * experts + i];
        const uint32_t first = l->index.first_copy[expert];
        const bool listed = is_listed(s, l->index.first_copy[expert + 1] - first);
        l->way[i] = (struct moe_split_way){
            .slot = listed ? MOE_SLOT_EMPTY : l->index.slot_of_copy[first],
            .model_expert = expert,
            .listed = listed ? s->listed_of[expert] : 0,
        };
    }
}

/* What is fetched may list any expert and fill any slot. */
static enum moe_status init_layer(struct moe_route_split *s, const struct moe_placement *placement,
                                  uint32_t layer, struct moe_error *err)
{
    struct moe_split_layer *l = &s->layers[layer];
    const uint32_t experts = s->shape.expert_count;
    const size_t gpus = s->shape.gpu_count;
    MOE_TRY(moe_copy_index_init(&l->index, placement, layer, &s->arena, err));
    l->way = MOE_NEW(&s->arena, struct moe_split_way, experts);
    l->first_listed = MOE_NEW(&s->arena, uint32_t, (size_t) experts + 1);
    l->expert_of_listed = MOE_NEW(&s->arena, uint32_t, experts);
    if (l->way == NULL || l->first_listed == NULL || l->expert_of_listed == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to split the tokens of %u experts", experts);
    }
    list_layer(s, layer);
    const uint32_t copies = s->fetcher == NULL ? l->listed_copies : s->shape.slot_count;
    const uint32_t listed = s->fetcher == NULL ? l->listed_count : experts;
    l->left = MOE_NEW(&s->arena, uint32_t, gpus * copies);
    l->cursor = MOE_NEW(&s->arena, uint32_t, gpus * listed);
    return l->left != NULL && l->cursor != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for the quotas of %u copies", copies);
}

static size_t bytes_needed(const struct moe_placement_shape *shape)
{
    const size_t layers = shape->layer_count;
    const size_t gpus = shape->gpu_count;
    const size_t experts = shape->expert_count;
    const size_t slots = shape->slot_count;
    const size_t layer = experts * (sizeof(struct moe_split_way) + 16) + slots * 4 +
                         gpus * (slots + 2 * experts) * 4 + 512;
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
    MOE_TRY(moe_arena_init(&s->arena, bytes_needed(shape), err));
    s->layers = MOE_NEW(&s->arena, struct moe_split_layer, shape->layer_count);
    s->demand = MOE_NEW(&s->arena, uint32_t, shape->layer_count * gpus * shape->expert_count);
    s->total = MOE_NEW(&s->arena, uint64_t, shape->expert_count);
    s->quota = MOE_NEW(&s->arena, uint32_t, gpus * shape->slot_count);
    s->listed_of = MOE_NEW(&s->arena, uint32_t, shape->expert_count);
    if (s->layers == NULL || s->demand == NULL || s->total == NULL || s->quota == NULL ||
        s->listed_of == NULL) {
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

/* The checked quotas become what is left of each listed copy. */
static void open_quotas(const struct moe_route_split *s, struct moe_split_layer *l)
{
    for (uint32_t source = 0; source < s->shape.gpu_count; source++) {
        const uint32_t *quota = s->quota + (size_t) source * l->index.copy_count;
        uint32_t *left = l->left + (size_t) source * l->listed_copies;
        uint32_t *cursor = l->cursor + (size_t) source * l->listed_count;
        for (uint32_t i = 0; i < l->listed_count; i++) {
            const uint32_t copies = l->first_listed[i + 1] - l->first_listed[i];
            cursor[i] = l->first_listed[i];
            memcpy(left + l->first_listed[i], quota + l->index.first_copy[l->expert_of_listed[i]],
                   copies * sizeof *left);
        }
    }
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
        list_layer(s, layer);
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
        open_quotas(s, &s->layers[layer]);
    }
    s->delivering = true;
    return MOE_OK;
}

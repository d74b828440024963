#include "sim/engine/drafts.h"

#include "sim/base/no_malloc.h"

/* The last layer of a placement as a placement of one layer. */
static struct moe_placement last_layer(const struct moe_placement *placement)
{
    struct moe_placement last = *placement;
    last.expert_of_slot = moe_placement_layer(placement, placement->shape.layer_count - 1);
    last.shape.layer_count = 1;
    return last;
}

enum moe_status moe_drafts_init(struct moe_drafts *d, const struct moe_drafts_setup *setup,
                                struct moe_arena *arena, struct moe_error *err)
{
    const struct moe_replay_map *map = setup->map;
    const uint32_t gpus = setup->placement->shape.gpu_count;
    const struct moe_placement last = last_layer(setup->placement);
    *d = (struct moe_drafts){
        .layer_count = moe_drafts_layer_count(setup->options),
        .pass_layers = setup->options->draft_layers,
        .map = *map,
        .rank = MOE_NEW(arena, struct moe_token_work, gpus),
        .own = MOE_NEW(arena, struct moe_token_work, gpus),
    };
    if (d->rank == NULL || d->own == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the drafts of %u GPUs", gpus);
    }
    d->map.layer_count = 1;
    d->map.expert = map->expert + (size_t) (map->layer_count - 1) * map->expert_count;
    MOE_TRY(moe_route_counter_init(&d->counter, &d->map, &last, setup->top_k, arena, err));
    d->counter.first_trace_layer = moe_replay_map_trace_layer(map, map->layer_count - 1);
    if (setup->options->exchange == MOE_EXCHANGE_HIERARCHICAL) {
        return moe_route_counter_count_nodes(&d->counter, arena, err);
    }
    if (setup->options->exchange == MOE_EXCHANGE_LOW_LATENCY) {
        moe_route_counter_count_choices(&d->counter);
    }
    return MOE_OK;
}

void moe_drafts_replan(struct moe_drafts *d, const struct moe_placement *placement)
{
    const struct moe_placement last = last_layer(placement);
    if (d->layer_count > 0) {
        moe_route_counter_replan(&d->counter, &d->map, &last, 0);
    }
}

enum moe_status moe_drafts_count(struct moe_drafts *d, struct moe_serving_state *serving,
                                 struct moe_error *err)
{
    if (d->layer_count == 0) {
        return MOE_OK;
    }
    const uint32_t ranks = serving->setup.options->attention_ranks;
    moe_serving_plan_drafts(serving, d->rank);
    for (uint32_t gpu = 0; gpu < d->counter.gpu_count; gpu++) {
        d->own[gpu] = d->rank[gpu / ranks];
    }
    moe_route_counter_begin_step(&d->counter);
    return d->layer_count > d->pass_layers ? moe_serving_route_drafts(serving, &d->counter, err)
                                           : MOE_OK;
}

#include "sim/engine/overlap/halves_step.h"

#include <assert.h>
#include <string.h>

#include "sim/engine/serving/graph_pad.h"

#include "sim/base/no_malloc.h"

/* Arrays of counts, of the counter's own or of a half's. */
struct counts {
    uint32_t *array[3];
    size_t items[3];
};

static struct counts counts_of(const struct moe_route_counter *c)
{
    const size_t pairs = (size_t) c->layer_count * c->gpu_count * c->gpu_count;
    return (struct counts){
        .array = { c->slot_tokens, c->pair_tokens, c->node_tokens },
        .items = { (size_t) c->layer_count * c->slot_count, pairs,
                   c->node_tokens == NULL ? 0 : pairs / c->gpus_per_node },
    };
}

size_t moe_halves_bytes(const struct moe_placement_shape *s)
{
    const size_t gpus = s->gpu_count;
    const size_t cell = gpus * (2 * 400 + 8 * 80);
    const size_t counts =
        2 * (gpus * gpus * 4 + gpus * s->node_count * 4 + (size_t) s->slot_count * 4);
    return ((size_t) 1 << 20) + s->layer_count * (cell + counts + 1024) +
           gpus * (2 * MOE_CAUSE_SUBSETS + 20 * MOE_STRAGGLER_VARIANTS + 256) * 8;
}

static enum moe_status view_counter(struct moe_route_counter *view,
                                    const struct moe_route_counter *counter,
                                    struct moe_arena *arena, struct moe_error *err)
{
    const struct counts sizes = counts_of(counter);
    *view = *counter;
    view->slot_tokens = MOE_NEW(arena, uint32_t, sizes.items[0]);
    view->pair_tokens = MOE_NEW(arena, uint32_t, sizes.items[1]);
    view->node_tokens = sizes.items[2] == 0 ? NULL : MOE_NEW(arena, uint32_t, sizes.items[2]);
    return view->slot_tokens != NULL && view->pair_tokens != NULL &&
                   (sizes.items[2] == 0 || view->node_tokens != NULL)
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for the counts of half a step");
}

enum moe_status moe_halves_step_init(struct moe_halves_step *h,
                                     const struct moe_halves_setup *setup, struct moe_arena *arena,
                                     struct moe_error *err)
{
    const struct moe_step_options *o = setup->step;
    const struct moe_overlap_factors measured = moe_cost_overlap(o->cost);
    const size_t gpus = o->gpu_count;
    const struct moe_halves_pace pace = {
        .gpu_count = o->gpu_count,
        .common_exit = o->serving->common_exit,
        .compute =
            o->serving->overlap_compute > 0.0 ? o->serving->overlap_compute : measured.compute,
        .comm = o->serving->overlap_comm > 0.0 ? o->serving->overlap_comm : measured.comm,
    };
    *h = (struct moe_halves_step){
        .active = true,
        .variant = MOE_NEW(arena, moe_time_ns, (size_t) 20 * MOE_STRAGGLER_VARIANTS * gpus),
        .compute = MOE_NEW(arena, moe_time_ns, MOE_CAUSE_SUBSETS * gpus),
        .comm = MOE_NEW(arena, moe_time_ns, MOE_CAUSE_SUBSETS * gpus),
    };
    MOE_TRY(moe_halves_init(&h->timeline, &pace, o->layer_count, arena, err));
    if (setup->attribution) {
        MOE_TRY(moe_halves_init(&h->lane, &pace, o->layer_count, arena, err));
    }
    for (uint32_t i = 0; i < 2; i++) {
        MOE_TRY(moe_step_init(&h->half[i], o, arena, err));
        MOE_TRY(view_counter(&h->counter[i], setup->counter, arena, err));
        h->rank[i] = MOE_NEW(arena, struct moe_token_work, setup->rank_count);
        h->work[i] = MOE_NEW(arena, struct moe_token_work, gpus);
        if (setup->attribution) {
            MOE_TRY(moe_step_times_init(&h->own[i], o->layer_count, o->gpu_count, o->serving, arena,
                                        err));
        }
    }
    return h->variant != NULL && h->compute != NULL && h->comm != NULL && h->rank[0] != NULL &&
                   h->rank[1] != NULL && h->work[0] != NULL && h->work[1] != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for steps in halves on %u GPUs", o->gpu_count);
}

void moe_halves_cut(struct moe_halves_step *h, const struct moe_serving_state *serving,
                    const struct moe_token_work *rank)
{
    const struct moe_serving *options = serving->setup.options;
    h->now = h->active;
    for (uint32_t i = 0; i < serving->setup.rank_count && h->now; i++) {
        h->now = rank[i].tokens >= options->overlap_tokens && rank[i].tokens >= 2.0;
    }
    if (h->now) {
        moe_serving_halve(serving, h->rank);
    }
}

enum moe_status moe_halves_route(struct moe_halves_step *h, struct moe_serving_state *serving,
                                 struct moe_route_counter *counter, struct moe_error *err)
{
    const struct counts all = counts_of(counter);
    const struct counts first = counts_of(&h->counter[0]);
    const struct counts second = counts_of(&h->counter[1]);
    MOE_TRY(moe_serving_route_half(serving, 0, counter, err));
    for (uint32_t i = 0; i < 3 && all.items[i] > 0; i++) {
        memcpy(first.array[i], all.array[i], all.items[i] * sizeof *all.array[i]);
    }
    MOE_TRY(moe_serving_route_half(serving, 1, counter, err));
    for (uint32_t i = 0; i < 3; i++) {
        for (size_t at = 0; at < all.items[i]; at++) {
            second.array[i][at] = all.array[i][at] - first.array[i][at];
        }
    }
    return MOE_OK;
}

uint64_t moe_halves_pad(struct moe_halves_step *h, const struct moe_serving *options)
{
    const uint32_t gpus = h->half[0].gpu_count;
    const uint32_t ranks = gpus / options->attention_ranks;
    uint64_t padded = 0;
    for (uint32_t i = 0; i < 2; i++) {
        padded += moe_graph_pad(options, ranks, h->rank[i]);
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            h->work[i][gpu] = h->rank[i][gpu / options->attention_ranks];
        }
    }
    return padded;
}

moe_time_ns moe_halves_play(struct moe_halves_step *h, const struct moe_step *whole,
                            struct moe_straggler *straggler)
{
    const struct moe_step_times *const times[] = { &h->half[0].times, &h->half[1].times };
    for (uint32_t i = 0; i < 2; i++) {
        moe_step_price_part(&h->half[i], whole, h->work[i], &h->counter[i], straggler != NULL);
    }
    if (straggler != NULL) {
        moe_halves_add_to_straggler(h, straggler);
        moe_step_end_straggler(whole, straggler);
    }
    return moe_halves_run(&h->timeline, times, whole->times.after);
}

void moe_halves_sensitivity(struct moe_halves_step *h, const struct moe_step *whole,
                            struct moe_sensitivity *sensitivity)
{
    const struct moe_step_prices prices = moe_step_prices(whole);
    for (uint32_t number = 0; number < MOE_SENSITIVITY_LANES; number++) {
        struct moe_step_times lane[2];
        struct moe_step_times after;
        const struct moe_step_times *const both[] = { &lane[0], &lane[1] };
        const enum moe_cost_part part = (enum moe_cost_part)(number / 2);
        const bool ends = part == MOE_COST_HEAD || part == MOE_COST_HOST;
        for (uint32_t i = 0; i < 2; i++) {
            const struct moe_step_prices own = moe_step_prices(&h->half[i]);
            moe_sensitivity_lane(&h->half[i].times, &h->own[i], &own, number, &lane[i]);
        }
        after = whole->times;
        if (ends) {
            moe_sensitivity_lane(&whole->times, &sensitivity->times, &prices, number, &after);
        }
        sensitivity->time_ns[number] += moe_halves_run(&h->lane, both, after.after);
    }
}

void moe_halves_path(const struct moe_halves_step *h, const struct moe_step *whole,
                     struct moe_critical_path *path)
{
    const struct moe_step_times *const times[] = { &h->half[0].times, &h->half[1].times };
    const struct moe_price_sources all = moe_step_sources(whole);
    const struct moe_price_sources sources[] = { moe_step_sources(&h->half[0]),
                                                 moe_step_sources(&h->half[1]) };
    moe_halves_critical(&h->timeline, times, whole->times.after, &all, sources, path);
}

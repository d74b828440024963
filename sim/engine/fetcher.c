#include "sim/engine/fetcher.h"

#include <string.h>

#include "sim/base/no_malloc.h"

bool moe_fetcher_is_wanted(const struct moe_scenario *scenario,
                           const struct moe_composition *composition)
{
    return scenario->fetch.slots > 0 &&
           composition->part[MOE_POLICY_DISPATCH].policy->dispatch->fetch != NULL;
}

double moe_fetcher_buffer_bytes(const struct moe_scenario *scenario,
                                const struct moe_composition *composition)
{
    return moe_fetcher_is_wanted(scenario, composition)
               ? scenario->fetch.slots * moe_model_expert_bytes(&scenario->model)
               : 0.0;
}

size_t moe_fetcher_bytes(const struct moe_scenario *scenario)
{
    const struct moe_placement_shape shape = moe_scenario_shape(scenario);
    const size_t gpus = shape.gpu_count;
    const size_t temporary = gpus * scenario->fetch.slots;
    const size_t layer =
        12 * (shape.slot_count + temporary) + 16 + gpus * (sizeof(struct moe_exchange_work));
    return shape.layer_count * layer + temporary * sizeof(struct moe_dispatch_fetch) + gpus * 16 +
           ((size_t) 4 << 10);
}

/* Every GPU's lasting slots, then its temporary ones. */
static enum moe_status widen(struct moe_fetcher *f, const struct moe_placement *lasting,
                             struct moe_arena *arena, struct moe_error *err)
{
    struct moe_placement_shape shape = lasting->shape;
    const uint64_t slots = shape.slot_count + (uint64_t) f->limit * shape.gpu_count;
    if (slots >= MOE_SLOT_EMPTY) {
        return moe_fail(err, MOE_RANGE,
                        "fetch.slots: %u on each of %u GPUs and %u lasting slots make %llu; at "
                        "most %u are allowed",
                        f->limit, shape.gpu_count, shape.slot_count, (unsigned long long) slots,
                        MOE_SLOT_EMPTY - 1U);
    }
    shape.slot_count = (uint32_t) slots;
    f->lasting_slots = moe_placement_slots_per_gpu(&lasting->shape);
    MOE_TRY(moe_placement_init(&f->wide, arena, &shape, err));
    for (uint32_t layer = 0; layer < shape.layer_count; layer++) {
        const uint16_t *from = moe_placement_layer(lasting, layer);
        uint16_t *to = moe_placement_layer(&f->wide, layer);
        for (uint32_t gpu = 0; gpu < shape.gpu_count; gpu++) {
            memcpy(to, from, f->lasting_slots * sizeof *to);
            from += f->lasting_slots;
            to += f->lasting_slots + f->limit;
        }
    }
    return MOE_OK;
}

enum moe_status moe_fetcher_init(struct moe_fetcher *f, const struct moe_scenario *scenario,
                                 const struct moe_composition *composition,
                                 const struct moe_placement *lasting, const struct moe_cost *cost,
                                 struct moe_arena *arena, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &lasting->shape;
    const size_t gpus = shape->gpu_count;
    const size_t layers = shape->layer_count;
    *f = (struct moe_fetcher){ 0 };
    if (!moe_fetcher_is_wanted(scenario, composition)) {
        return MOE_OK;
    }
    *f = (struct moe_fetcher){
        .limit = scenario->fetch.slots,
        .relay = scenario->fetch.relay,
        .exposed = 1.0 - scenario->fetch.overlap,
        .cost = cost,
        .count = MOE_NEW(arena, uint32_t, layers),
        .near_count = MOE_NEW(arena, uint32_t, layers),
        .traffic = MOE_NEW(arena, struct moe_exchange_work, layers * gpus),
        .even_balance = MOE_NEW(arena, double, layers),
        .answer = MOE_NEW(arena, struct moe_dispatch_fetch, gpus * scenario->fetch.slots),
        .used = MOE_NEW(arena, uint32_t, gpus),
        .gpu_load = MOE_NEW(arena, double, gpus),
        .account = { .slots = scenario->fetch.slots,
                     .expert_bytes = moe_model_expert_bytes(&scenario->model) },
    };
    if (f->count == NULL || f->near_count == NULL || f->traffic == NULL ||
        f->even_balance == NULL || f->answer == NULL || f->used == NULL || f->gpu_load == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %u temporary slots on each of %u GPUs",
                        scenario->fetch.slots, shape->gpu_count);
    }
    return widen(f, lasting, arena, err);
}

bool moe_fetcher_clear(struct moe_fetcher *f, uint32_t layer, struct moe_copy_index *index)
{
    const struct moe_placement_shape *shape = &f->wide.shape;
    uint16_t *row = moe_placement_layer(&f->wide, layer);
    if (f->count[layer] == 0) {
        return false;
    }
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        row += f->lasting_slots;
        memset(row, 0xff, f->limit * sizeof *row); /* MOE_SLOT_EMPTY */
        row += f->limit;
    }
    memset(f->traffic + (size_t) layer * shape->gpu_count, 0,
           shape->gpu_count * sizeof *f->traffic);
    f->count[layer] = 0;
    f->near_count[layer] = 0;
    moe_copy_index_build(index, shape, moe_placement_layer(&f->wide, layer));
    return true;
}

/* The lighter of two who may send; GPUs come in any order. */
static uint32_t lighter(const struct moe_exchange_work *traffic, uint32_t best, uint32_t gpu)
{
    if (best == UINT32_MAX) {
        return gpu;
    }
    const double a = traffic[gpu].near_out + traffic[gpu].far_out;
    const double b = traffic[best].near_out + traffic[best].far_out;
    return a < b || (a <= b && gpu < best) ? gpu : best;
}

/* Who sends copy number at of the answer. */
static void send(struct moe_fetcher *f, const struct moe_copy_index *index, uint32_t layer,
                 uint32_t at)
{
    const struct moe_placement_shape *shape = &f->wide.shape;
    struct moe_exchange_work *traffic = f->traffic + (size_t) layer * shape->gpu_count;
    const uint32_t each = shape->gpu_count / shape->node_count;
    const uint32_t expert = f->answer[at].expert;
    const uint32_t to = f->answer[at].gpu;
    uint32_t near = UINT32_MAX;
    uint32_t far = UINT32_MAX;
    for (uint32_t copy = index->first_copy[expert]; copy < index->first_copy[expert + 1]; copy++) {
        const uint32_t gpu = index->gpu_of_copy[copy];
        uint32_t *best = gpu / each == to / each ? &near : &far;
        *best = lighter(traffic, *best, gpu);
    }
    for (uint32_t i = 0; f->relay && i < at; i++) {
        if (f->answer[i].expert == expert) {
            uint32_t *best = f->answer[i].gpu / each == to / each ? &near : &far;
            *best = lighter(traffic, *best, f->answer[i].gpu);
        }
    }
    if (near != UINT32_MAX) {
        traffic[near].near_out++;
        traffic[to].near_in++;
        f->near_count[layer]++;
    } else {
        traffic[far].far_out++;
        traffic[to].far_in++;
    }
}

/* mean/max GPU load of evenly shared tokens. */
static double even_balance(struct moe_fetcher *f, const struct moe_copy_index *index,
                           const uint64_t *total)
{
    const uint32_t gpus = f->wide.shape.gpu_count;
    double max = 0.0;
    double sum = 0.0;
    memset(f->gpu_load, 0, gpus * sizeof *f->gpu_load);
    for (uint32_t expert = 0; expert < f->wide.shape.expert_count; expert++) {
        const uint32_t first = index->first_copy[expert];
        const uint32_t end = index->first_copy[expert + 1];
        const double share = (double) total[expert] / (end - first);
        for (uint32_t copy = first; copy < end; copy++) {
            f->gpu_load[index->gpu_of_copy[copy]] += share;
        }
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        sum += f->gpu_load[gpu];
        max = f->gpu_load[gpu] > max ? f->gpu_load[gpu] : max;
    }
    return max > 0.0 ? sum / gpus / max : 1.0;
}

enum moe_status moe_fetcher_ask(struct moe_fetcher *f, const struct moe_policy *policy, void *state,
                                const struct moe_dispatch_view *view, struct moe_copy_index *index,
                                struct moe_error *err)
{
    const uint32_t layer = view->layer;
    const uint32_t each = f->lasting_slots + f->limit;
    uint16_t *row = moe_placement_layer(&f->wide, layer);
    uint32_t count = 0;
    f->even_balance[layer] = even_balance(f, index, view->expert_total);
    MOE_TRY(moe_policy_fetch(policy, state, view, f->answer, &count, err));
    if (count == 0) {
        return MOE_OK;
    }
    memset(f->used, 0, f->wide.shape.gpu_count * sizeof *f->used);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t gpu = f->answer[i].gpu;
        send(f, index, layer, i);
        row[gpu * each + f->lasting_slots + f->used[gpu]++] = f->answer[i].expert;
    }
    f->count[layer] = count;
    moe_copy_index_build(index, &f->wide.shape, row);
    return MOE_OK;
}

static struct moe_duration transfers(const struct moe_fetcher *f, uint32_t layer, uint32_t gpu)
{
    const struct moe_exchange_work *w = &f->traffic[(size_t) layer * f->wide.shape.gpu_count + gpu];
    const double near = w->near_in > w->near_out ? w->near_in : w->near_out;
    const double far = w->far_in > w->far_out ? w->far_in : w->far_out;
    return moe_cost_bulk_copy(f->cost, near * f->account.expert_bytes,
                              far * f->account.expert_bytes);
}

struct moe_duration moe_fetcher_exposed(const struct moe_fetcher *f, uint32_t layer, uint32_t gpu,
                                        const struct moe_gpu_factor *factor)
{
    struct moe_duration duration = { 0.0, MOE_PROVENANCE_MEASURED };
    if (f->limit > 0 && f->count[layer] > 0) {
        duration = transfers(f, layer, gpu);
        duration.ns = duration.ns * factor->comm * f->exposed;
    }
    return duration;
}

void moe_fetcher_account(struct moe_fetcher *f, moe_time_ns exposed_ns)
{
    struct moe_fetch_account *account = &f->account;
    for (uint32_t layer = 0; layer < f->wide.shape.layer_count; layer++) {
        double longest = 0.0;
        account->even_balance += f->even_balance[layer];
        if (f->count[layer] == 0) {
            continue;
        }
        for (uint32_t gpu = 0; gpu < f->wide.shape.gpu_count; gpu++) {
            const double ns = transfers(f, layer, gpu).ns;
            longest = ns > longest ? ns : longest;
        }
        account->layer_steps++;
        account->near_copies += f->near_count[layer];
        account->far_copies += f->count[layer] - f->near_count[layer];
        account->transfer_ns += longest;
    }
    account->exposed_ns += exposed_ns;
}

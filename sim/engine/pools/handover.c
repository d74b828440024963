#include "sim/engine/pools/handover.h"

#include <assert.h>

#include "sim/cost/curve.h"
#include "sim/engine/step_times.h"
#include "sim/model/model.h"

#include "sim/base/no_malloc.h"

size_t moe_handover_bytes(uint64_t total, uint32_t rank_count)
{
    return (size_t) total *
               (sizeof(struct moe_handover_item) + sizeof(struct moe_handover_release)) +
           (size_t) rank_count * 2 * sizeof(moe_time_ns) + 4096;
}

enum moe_status moe_handover_init(struct moe_handover *h, const struct moe_handover_setup *setup,
                                  struct moe_arena *arena, struct moe_error *err)
{
    const struct moe_model *model = &setup->scenario->model;
    *h = (struct moe_handover){
        .scenario = setup->scenario,
        .cost = setup->cost,
        .layers = (double) model->kv_layer_count + model->window_layer_count,
        .total = setup->total,
        .items = MOE_NEW(arena, struct moe_handover_item, setup->total),
        .sender_free = MOE_NEW(arena, moe_time_ns, setup->prefill_ranks),
        .receiver_free = MOE_NEW(arena, moe_time_ns, setup->decode_ranks),
        .releases = MOE_NEW(arena, struct moe_handover_release, setup->total),
    };
    return h->items != NULL && h->sender_free != NULL && h->receiver_free != NULL &&
                   h->releases != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room to hand over %llu requests",
                          (unsigned long long) setup->total);
}

struct moe_duration moe_handover_price(const struct moe_handover *h, uint32_t prompt_tokens)
{
    const double bytes = moe_model_kv_bytes(&h->scenario->model, prompt_tokens) /
                         h->scenario->serving.attention_ranks;
    return h->scenario->cluster.node_count > 1 ? moe_cost_bulk_copy(h->cost, 0.0, bytes)
                                               : moe_cost_bulk_copy(h->cost, bytes, 0.0);
}

/* What is left to send once the prompt was read. */
static moe_time_ns left_of(const struct moe_handover *h, const struct moe_handover_item *item,
                           moe_time_ns whole_ns)
{
    if (h->scenario->pools.transfer == MOE_POOL_TRANSFER_AFTER || h->layers < 1.0) {
        return whole_ns;
    }
    const moe_time_ns least = moe_time_round_up((double) whole_ns / h->layers);
    const moe_time_ns left = whole_ns - (item->read_ns - item->admitted_ns);
    return left > least ? left : least;
}

moe_time_ns moe_handover_begin(struct moe_handover *h, uint64_t number, uint32_t rank,
                               moe_time_ns now_ns)
{
    struct moe_handover_item *item = &h->items[number];
    struct moe_handover_account *a = &h->account;
    const struct moe_duration price = moe_handover_price(h, item->arrival.prompt_tokens);
    const moe_time_ns whole_ns = moe_time_round_up(price.ns);
    const moe_time_ns left_ns = left_of(h, item, whole_ns);
    moe_time_ns begin_ns = now_ns;
    assert(number < h->total);
    begin_ns = h->sender_free[item->rank] > begin_ns ? h->sender_free[item->rank] : begin_ns;
    begin_ns = h->receiver_free[rank] > begin_ns ? h->receiver_free[rank] : begin_ns;
    const moe_time_ns ready_ns = begin_ns + left_ns;
    h->sender_free[item->rank] = ready_ns;
    h->receiver_free[rank] = ready_ns;
    item->seat_ns = now_ns;
    h->releases[h->release_count++] =
        (struct moe_handover_release){ ready_ns, item->kv_held, item->rank };
    a->count++;
    a->bytes += moe_model_kv_bytes(&h->scenario->model, item->arrival.prompt_tokens);
    a->place_ns += now_ns - item->read_ns;
    a->queue_ns += begin_ns - now_ns;
    a->send_ns += left_ns;
    a->beside_ns += whole_ns - left_ns;
    a->longest_ns =
        ready_ns - item->read_ns > a->longest_ns ? ready_ns - item->read_ns : a->longest_ns;
    a->source = moe_provenance_worse(a->source, price.provenance);
    return ready_ns;
}

/* The earliest of those under way, the first of equal ones. */
static uint64_t earliest(const struct moe_handover *h)
{
    uint64_t best = 0;
    for (uint64_t i = 1; i < h->release_count; i++) {
        best = h->releases[i].ready_ns < h->releases[best].ready_ns ? i : best;
    }
    return best;
}

bool moe_handover_next_release(const struct moe_handover *h, moe_time_ns *ready_ns)
{
    if (h->release_count == 0) {
        return false;
    }
    *ready_ns = h->releases[earliest(h)].ready_ns;
    return true;
}

bool moe_handover_take_release(struct moe_handover *h, moe_time_ns now_ns,
                               struct moe_handover_release *release)
{
    if (h->release_count == 0) {
        return false;
    }
    const uint64_t at = earliest(h);
    if (h->releases[at].ready_ns > now_ns) {
        return false;
    }
    *release = h->releases[at];
    h->releases[at] = h->releases[--h->release_count];
    return true;
}

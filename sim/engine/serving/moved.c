/* Caches that come from elsewhere, or go there. */
#include "sim/engine/serving/batch.h"

#include <assert.h>

#include "sim/base/no_malloc.h"

void moe_moved_land(struct moe_serving_state *s, uint32_t rank, moe_time_ns now_ns)
{
    struct moe_sequence *q = moe_batch_sequences(s, rank);
    for (uint32_t i = 0; i < s->running_per_gpu && s->arriving[rank] > 0; i++, q++) {
        if (q->running && q->arriving && q->ready_ns <= now_ns) {
            q->arriving = false;
            s->arriving[rank]--;
        }
    }
}

void moe_moved_seat(struct moe_serving_state *s, uint32_t rank, struct moe_sequence *q,
                    moe_time_ns now_ns)
{
    const struct moe_serving_moved *moved = s->setup.moved;
    moe_time_ns first_ns = 0;
    moved->seat(moved->context, rank, &q->arrival, now_ns, &q->ready_ns, &first_ns);
    assert(q->ready_ns >= now_ns);
    q->arriving = true;
    q->hit_tokens = 0;
    q->done_rows = q->prompt_tokens;
    q->known_rows = q->prompt_tokens + 1;
    q->first_token_ns = first_ns;
    q->last_token_ns = first_ns;
    s->arriving[rank]++;
    s->moved_rows += q->prompt_tokens;
    if (moe_batch_pages(s)) {
        q->kv_held = moe_batch_round(s, q->prompt_tokens);
        s->kv_used[rank] += q->kv_held;
        assert(s->kv_used[rank] <= s->kv_tokens);
    }
}

void moe_serving_keep(struct moe_serving_state *s, uint32_t rank, uint64_t kv_tokens)
{
    s->leaving[rank] += kv_tokens;
    s->kv_used[rank] += kv_tokens;
}

void moe_serving_release(struct moe_serving_state *s, uint32_t rank, uint64_t kv_tokens)
{
    assert(s->leaving[rank] >= kv_tokens);
    s->leaving[rank] -= kv_tokens;
    s->kv_used[rank] -= kv_tokens;
}

bool moe_serving_next_ready(const struct moe_serving_state *s, moe_time_ns *ready_ns)
{
    bool any = false;
    for (uint32_t rank = 0; rank < s->setup.rank_count; rank++) {
        const struct moe_sequence *q = moe_batch_sequences(s, rank);
        for (uint32_t i = 0; i < s->running_per_gpu && s->arriving[rank] > 0; i++, q++) {
            if (q->running && q->arriving && (!any || q->ready_ns < *ready_ns)) {
                *ready_ns = q->ready_ns;
                any = true;
            }
        }
    }
    return any;
}

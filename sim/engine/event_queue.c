#include "sim/engine/event_queue.h"

#include <assert.h>

#include "sim/base/no_malloc.h"

enum { HEAP_ARITY = 4, RANK_SHIFT = 56 };

static_assert(MOE_EVENT_KIND_COUNT <= 256, "the rank has eight bits");
static_assert(sizeof(struct moe_event) == 32, "two events to a cache line");

static bool before(const struct moe_event *a, const struct moe_event *b)
{
    return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->order < b->order;
}

enum moe_status moe_event_queue_init(struct moe_event_queue *queue, struct moe_arena *arena,
                                     size_t capacity, struct moe_error *err)
{
    assert(capacity > 0);
    *queue = (struct moe_event_queue){ .capacity = capacity };
    queue->heap = MOE_NEW(arena, struct moe_event, capacity);
    if (queue->heap == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %zu events", capacity);
    }
    return MOE_OK;
}

enum moe_status moe_event_queue_push(struct moe_event_queue *queue, moe_time_ns time_ns,
                                     enum moe_event_kind kind, uint32_t subject, uint64_t detail,
                                     struct moe_error *err)
{
    assert(time_ns >= queue->now_ns);
    assert(kind < MOE_EVENT_KIND_COUNT);
    assert(queue->sequence < (UINT64_C(1) << RANK_SHIFT));
    if (queue->count == queue->capacity) {
        return moe_fail(err, MOE_LIMIT, "more than %zu events pending", queue->capacity);
    }
    const struct moe_event event = {
        .time_ns = time_ns,
        .order = (uint64_t) kind << RANK_SHIFT | queue->sequence++,
        .kind = kind,
        .subject = subject,
        .detail = detail,
    };
    size_t hole = queue->count++;
    while (hole > 0) {
        const size_t parent = (hole - 1) / HEAP_ARITY;
        if (!before(&event, &queue->heap[parent])) {
            break;
        }
        queue->heap[hole] = queue->heap[parent];
        hole = parent;
    }
    queue->heap[hole] = event;
    if (queue->count > queue->peak_count) {
        queue->peak_count = queue->count;
    }
    return MOE_OK;
}

static size_t first_child(const struct moe_event_queue *queue, size_t parent)
{
    const size_t begin = parent * HEAP_ARITY + 1;
    const size_t end = begin + HEAP_ARITY < queue->count ? begin + HEAP_ARITY : queue->count;
    size_t best = begin;
    for (size_t child = begin + 1; child < end; child++) {
        if (before(&queue->heap[child], &queue->heap[best])) {
            best = child;
        }
    }
    return best;
}

bool moe_event_queue_pop(struct moe_event_queue *queue, struct moe_event *out)
{
    if (queue->count == 0) {
        return false;
    }
    *out = queue->heap[0];
    assert(out->time_ns >= queue->now_ns);
    queue->now_ns = out->time_ns;

    const struct moe_event last = queue->heap[--queue->count];
    size_t hole = 0;
    while (hole * HEAP_ARITY + 1 < queue->count) {
        const size_t child = first_child(queue, hole);
        if (!before(&queue->heap[child], &last)) {
            break;
        }
        queue->heap[hole] = queue->heap[child];
        hole = child;
    }
    queue->heap[hole] = last;
    return true;
}

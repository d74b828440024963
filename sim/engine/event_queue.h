/*
 * Event queue: which event happens next, and in which order when several
 * happen at the same nanosecond.
 *
 * A 4-ary min-heap in one flat array, ordered by (time_ns, rank, sequence):
 *   time_ns   when
 *   rank      the event kind's place among events of one instant (see enum)
 *   sequence  the order of pushing, so equal events leave first in, first out
 * No two keys are equal, so a run does not depend on the heap's shape.
 *
 * push and pop take O(log n) time; nothing is allocated after init.
 * Source: D. B. Johnson, "Priority queues with update and finding minimum
 * spanning trees", Inf. Process. Lett. 4(3), 1975 (the d-ary heap).
 */
#ifndef MOE_SIM_ENGINE_EVENT_QUEUE_H
#define MOE_SIM_ENGINE_EVENT_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/base/time.h"

/* In the order in which they are handled within one instant: what ends frees
 * resources before what begins asks for them, and a report sees a settled state. */
enum moe_event_kind {
    MOE_EVENT_TRANSFER_DONE,
    MOE_EVENT_COMPUTE_DONE,
    MOE_EVENT_REQUEST_ARRIVES,
    MOE_EVENT_SAMPLE_METRICS,
    MOE_EVENT_KIND_COUNT
};

struct moe_event {
    moe_time_ns time_ns;
    uint64_t order; /* rank << 56 | sequence; set by push */
    uint32_t kind;  /* enum moe_event_kind */
    uint32_t subject;
    uint64_t detail;
};

struct moe_event_queue {
    struct moe_event *heap;
    size_t count;
    size_t capacity;
    size_t peak_count;
    uint64_t sequence;
    moe_time_ns now_ns; /* time of the last event popped */
};

/* Takes room for capacity events from arena. Errors: MOE_LIMIT. */
enum moe_status moe_event_queue_init(struct moe_event_queue *queue, struct moe_arena *arena,
                                     size_t capacity, struct moe_error *err) MOE_MUST_CHECK;

/* Adds an event at time_ns >= now_ns (asserted). Errors: MOE_LIMIT when full;
 * the queue is then unchanged. */
enum moe_status moe_event_queue_push(struct moe_event_queue *queue, moe_time_ns time_ns,
                                     enum moe_event_kind kind, uint32_t subject, uint64_t detail,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Moves the next event into *out and the clock to its time. False when empty. */
bool moe_event_queue_pop(struct moe_event_queue *queue, struct moe_event *out);

#endif

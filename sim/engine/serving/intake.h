/*
 * Intake: who comes in, one after the other in the order of arrival (sim/arrival/arrival.h).
 *
 * Two sources behind one face: the run's stream of arrivals, or a list (tests). Where requests have
 * priorities, those that have come wait in a queue per class; class 0 goes first. Priorities say
 * who is admitted next, not who is preempted.
 */
#ifndef MOE_SIM_ENGINE_SERVING_INTAKE_H
#define MOE_SIM_ENGINE_SERVING_INTAKE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "sim/arrival/arrival.h"
#include "sim/base/arena.h"
#include "sim/base/time.h"

struct moe_intake {
    struct moe_arrival_stream *stream; /* NULL: the list is the source */
    const struct moe_arrival *list;    /* [count], arrival_ns not descending; outlives the intake */
    uint64_t count;
    uint64_t next;
    uint32_t class_count;       /* of priorities; 0, 1: none are told apart */
    struct moe_arrival *queued; /* [queued_room] all that ever came, in order of arrival */
    uint32_t *behind;           /* [queued_room] the next of its class, + 1; 0: none */
    uint64_t queued_room;
    uint32_t queued_used;
    uint32_t first[MOE_ARRIVAL_PRIORITY_LIMIT]; /* that wait, + 1; 0: none */
    uint32_t last[MOE_ARRIVAL_PRIORITY_LIMIT];
    struct moe_arrival *returned; /* [returned_room] lost ones that come anew, before all others */
    uint64_t returned_room;       /* a ring */
    uint64_t returned_first;
    uint64_t returned_count;
};

/* The class of those waiting that goes first; class_count: nobody waits in a class. */
static inline uint32_t moe_intake_class(const struct moe_intake *intake)
{
    uint32_t class = 0;
    while (class < intake->class_count && intake->first[class] == 0) {
        class ++;
    }
    return class;
}

/* The next one from the source itself. */
static inline const struct moe_arrival *moe_intake_source(const struct moe_intake *intake)
{
    if (intake->stream != NULL) {
        return moe_arrival_peek(intake->stream);
    }
    return intake->next < intake->count ? &intake->list[intake->next] : NULL;
}

/* The next one, arrived or still to arrive; NULL after the last. Valid until the next take. */
static inline const struct moe_arrival *moe_intake_next(const struct moe_intake *intake)
{
    if (intake->returned_count > 0) {
        return &intake->returned[intake->returned_first];
    }
    const uint32_t class = moe_intake_class(intake);
    return class < intake->class_count ? &intake->queued[intake->first[class] - 1]
                                       : moe_intake_source(intake);
}

/* The next one, when it has arrived by now_ns; else NULL. */
static inline const struct moe_arrival *moe_intake_peek(const struct moe_intake *intake,
                                                        moe_time_ns now_ns)
{
    const struct moe_arrival *next = moe_intake_next(intake);
    return next != NULL && next->arrival_ns <= now_ns ? next : NULL;
}

static inline void moe_intake_advance(struct moe_intake *intake)
{
    if (intake->stream != NULL) {
        moe_arrival_take(intake->stream);
    } else {
        intake->next++;
    }
}

/* Goes on to the one after it; there must be one to take. */
static inline void moe_intake_take(struct moe_intake *intake)
{
    const uint32_t class = moe_intake_class(intake);
    if (intake->returned_count > 0) {
        intake->returned_first = (intake->returned_first + 1) % intake->returned_room;
        intake->returned_count--;
    } else if (class < intake->class_count) {
        intake->first[class] = intake->behind[intake->first[class] - 1];
    } else {
        moe_intake_advance(intake);
    }
}

/* Room for classes of priority: at most so many requests come. Errors: MOE_LIMIT. */
static inline enum moe_status moe_intake_tell_apart(struct moe_intake *intake, uint32_t class_count,
                                                    uint64_t requests, struct moe_arena *arena,
                                                    struct moe_error *err)
{
    intake->class_count = class_count;
    intake->queued_room = requests;
    intake->queued = MOE_NEW(arena, struct moe_arrival, requests);
    intake->behind = MOE_NEW(arena, uint32_t, requests);
    return intake->queued != NULL && intake->behind != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for the priorities of %llu requests",
                          (unsigned long long) requests);
}

/* Those that have come by now_ns into the queues of their classes, where there are classes. */
static inline void moe_intake_sort(struct moe_intake *intake, moe_time_ns now_ns)
{
    const struct moe_arrival *next;
    while (intake->class_count > 1 && (next = moe_intake_source(intake)) != NULL &&
           next->arrival_ns <= now_ns) {
        const uint32_t class = next->priority;
        const uint32_t place = ++intake->queued_used;
        assert(place <= intake->queued_room);
        assert(class < intake->class_count);
        intake->queued[place - 1] = *next;
        if (intake->first[class] == 0) {
            intake->first[class] = place;
        } else {
            intake->behind[intake->last[class] - 1] = place;
        }
        intake->last[class] = place;
        moe_intake_advance(intake);
    }
}

/* One that was taken comes anew; there must be room. */
static inline void moe_intake_return(struct moe_intake *intake, const struct moe_arrival *arrival)
{
    assert(intake->returned_count < intake->returned_room);
    intake->returned[(intake->returned_first + intake->returned_count++) % intake->returned_room] =
        *arrival;
}

/* Whether the next one, arrived or not, is one to score: there is one, and it is. */
static inline bool moe_intake_scores_next(const struct moe_intake *intake)
{
    const struct moe_arrival *next = moe_intake_next(intake);
    return next != NULL && next->scored;
}

/* Whether requests come in over time, so that latencies count from their arrival. */
static inline bool moe_intake_is_open(const struct moe_intake *intake)
{
    return intake->stream == NULL || !intake->stream->is_closed_loop;
}

#endif

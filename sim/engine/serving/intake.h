/*
 * Intake: who comes in, one after the other in the order of arrival (sim/arrival/arrival.h).
 *
 * Two sources behind one face: the run's stream of arrivals, or a list (tests).
 */
#ifndef MOE_SIM_ENGINE_SERVING_INTAKE_H
#define MOE_SIM_ENGINE_SERVING_INTAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/arrival/arrival.h"
#include "sim/base/time.h"

struct moe_intake {
    struct moe_arrival_stream *stream; /* NULL: the list is the source */
    const struct moe_arrival *list;    /* [count], arrival_ns not descending; outlives the intake */
    uint64_t count;
    uint64_t next;
};

/* The next one, arrived or still to arrive; NULL after the last. Valid until the next take. */
static inline const struct moe_arrival *moe_intake_next(const struct moe_intake *intake)
{
    if (intake->stream != NULL) {
        return moe_arrival_peek(intake->stream);
    }
    return intake->next < intake->count ? &intake->list[intake->next] : NULL;
}

/* The next one, when it has arrived by now_ns; else NULL. */
static inline const struct moe_arrival *moe_intake_peek(const struct moe_intake *intake,
                                                        moe_time_ns now_ns)
{
    const struct moe_arrival *next = moe_intake_next(intake);
    return next != NULL && next->arrival_ns <= now_ns ? next : NULL;
}

/* Goes on to the one after it; there must be one to take. */
static inline void moe_intake_take(struct moe_intake *intake)
{
    if (intake->stream != NULL) {
        moe_arrival_take(intake->stream);
    } else {
        intake->next++;
    }
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

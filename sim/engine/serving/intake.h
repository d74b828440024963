/*
 * Intake: what comes in, one request after the other in the order of arrival.
 *
 * Two sources behind one face: the workload, a closed loop whose requests are all there from the
 * start (workload.h), or a list of requests with their arrival times, which comes in over time.
 */
#ifndef MOE_SIM_ENGINE_SERVING_INTAKE_H
#define MOE_SIM_ENGINE_SERVING_INTAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/time.h"
#include "sim/engine/workload.h"

/* A request as it comes in. Its lengths need not be those of the trace's request whose routes it
 * takes: these are repeated within their phase (serving.h). */
struct moe_incoming {
    moe_time_ns arrival_ns; /* 0 in a closed loop */
    uint32_t request;       /* its number in the trace */
    uint32_t prompt_tokens; /* >= 1 */
    uint32_t output_tokens; /* >= 1 */
    uint32_t hit_tokens;    /* of the prompt, from its begin: cached when it comes; < prompt */
    uint32_t domain;
    bool scored;
};

struct moe_intake {
    struct moe_workload *workload;   /* NULL: the list is the source */
    const struct moe_incoming *list; /* [count], arrival_ns not descending; outlives the intake */
    uint64_t count;
    uint64_t next;
};

/* The next request, when it has arrived by now_ns, without taking it. */
bool moe_intake_peek(const struct moe_intake *intake, moe_time_ns now_ns,
                     struct moe_incoming *incoming);
/* Takes it; there must be one. */
void moe_intake_take(struct moe_intake *intake);

/* When the next one arrives; false when no more come. */
bool moe_intake_next(const struct moe_intake *intake, moe_time_ns *arrival_ns);

/* Whether the next request, arrived or not, is one to score: there is one, and it is. */
bool moe_intake_scores_next(const struct moe_intake *intake);

/* Whether requests come in over time. */
static inline bool moe_intake_is_open(const struct moe_intake *intake)
{
    return intake->workload == NULL;
}

#endif

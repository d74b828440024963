/*
 * Count twin: what the routes of one step's tokens ask of each GPU, once more from the words
 * of route_counter.h, token by token.
 */
#ifndef MOE_TESTS_COUNT_TWIN_H
#define MOE_TESTS_COUNT_TWIN_H

#include <stdint.h>

#include "tests/engine_twin.h"

struct twin_counted {
    uint32_t turn[TWIN_LAYERS][TWIN_EXPERTS];             /* tokens of an expert so far */
    uint32_t slot[TWIN_LAYERS][TWIN_SLOTS];               /* tokens, this step */
    uint32_t copies[TWIN_LAYERS][TWIN_GPUS][TWIN_GPUS];   /* [source][destination] */
    uint32_t nodes[TWIN_LAYERS][TWIN_GPUS][TWIN_GPUS];    /* [source][destination node] */
    uint32_t want[TWIN_LAYERS][TWIN_GPUS][TWIN_EXPERTS];  /* tokens of a source, this step */
    uint32_t taken[TWIN_LAYERS][TWIN_GPUS][TWIN_EXPERTS]; /* of them given to a copy or dropped */
    uint32_t slots; /* of a layer, temporary ones included; likewise the next two */
    uint32_t slots_per_gpu;
    uint16_t plan[TWIN_LAYERS][TWIN_SLOTS];
    struct twin_exchange moved[TWIN_LAYERS][TWIN_GPUS]; /* experts, not tokens */
    uint32_t fetched[TWIN_LAYERS];
    uint32_t fetched_near[TWIN_LAYERS];
    double even[TWIN_LAYERS]; /* balance without what was fetched */
    uint64_t step;
    uint64_t assignments;
    uint64_t unknown;
    uint64_t dropped;
};

/* Forgets the step, not the turns and totals. */
void count_twin_begin(struct twin_counted *counted, uint64_t step);

/* A row that will be processed on a GPU: what it wants. All of a step's before the first
 * count_twin_row. */
void count_twin_want(struct twin_counted *counted, const struct twin_case *c, uint32_t gpu,
                     uint32_t row);

/* A row of the trace, processed on a GPU. fetch_twin_layer has made every layer's plan. */
void count_twin_row(struct twin_counted *counted, const struct twin_case *c, uint32_t gpu,
                    uint32_t row);

struct twin_expert_work {
    double tokens;
    double active;
    double tiles;
};

struct twin_expert_work count_twin_expert(const struct twin_counted *counted,
                                          const struct twin_case *c, uint32_t layer, uint32_t gpu);
/* In the case's exchange mode. */
struct twin_exchange count_twin_exchange(const struct twin_counted *counted,
                                         const struct twin_case *c, uint32_t layer, uint32_t gpu);

#endif

/*
 * Halves twin: a plain list scheduler over the two resources of every rank, from the words of
 * sim/engine/overlap/halves.h only. It knows no rounds: it walks from event to event, starts
 * whatever may start, and works off what runs at the speed of the moment.
 */
#ifndef MOE_TESTS_HALVES_TWIN_H
#define MOE_TESTS_HALVES_TWIN_H

#include <stdbool.h>
#include <stdint.h>

enum { HALVES_RANKS = 8, HALVES_LAYERS = 5, HALVES_OPERATIONS = 4 * HALVES_LAYERS };

struct halves_case {
    uint32_t ranks;
    uint32_t layers;
    bool common_exit;
    double compute_factor;
    double comm_factor;
    int64_t compute[HALVES_OPERATIONS][HALVES_RANKS]; /* alone, in the order they are run */
    int64_t exchange[HALVES_OPERATIONS][HALVES_RANKS];
    int64_t after[HALVES_RANKS];
};

struct halves_outcome {
    int64_t length;
    int64_t open[HALVES_OPERATIONS]; /* when exchanges begin */
    int64_t idle[HALVES_OPERATIONS + 1];
    int64_t hidden; /* both resources at work, summed over ranks */
};

void halves_twin_run(const struct halves_case *c, struct halves_outcome *out);

#endif

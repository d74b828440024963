/*
 * Serving twin: paged KV cache, arrivals over time, preemption and both batch orders, once more
 * and plainly, from the words of sim/engine/serving/serving.h only. Every page is a box with
 * its owner's name on it, every queue a plain list; no time is saved anywhere.
 */
#ifndef MOE_TESTS_SERVING_TWIN_H
#define MOE_TESTS_SERVING_TWIN_H

#include <stdbool.h>
#include <stdint.h>

enum { TWIN_CLIENTS = 48, TWIN_RANKS = 4, TWIN_SEATS = 6, TWIN_PAGES = 64 };

struct twin_client {
    int64_t arrival;
    uint32_t prompt;
    uint32_t output;
    uint32_t hit;
    uint32_t priority; /* class; 0 goes first */
};

struct twin_scene {
    uint32_t ranks;
    uint32_t seats;
    uint32_t step_tokens;
    uint32_t page;
    uint32_t pages; /* of a rank */
    bool prefill_first;
    bool least_output;
    double output_reserve;
    uint32_t clients;
    struct twin_client client[TWIN_CLIENTS]; /* by arrival */
};

/* What one client does in one step; rows 0: nothing. */
struct twin_turn {
    uint32_t rank;
    uint32_t from; /* first row */
    uint32_t rows;
};

struct twin_schedule {
    bool seated[TWIN_CLIENTS];
    bool away[TWIN_CLIENTS]; /* preempted */
    bool gone[TWIN_CLIENTS];
    uint32_t rank[TWIN_CLIENTS];
    uint32_t done[TWIN_CLIENTS];
    uint32_t known[TWIN_CLIENTS];
    uint32_t line[TWIN_RANKS][TWIN_CLIENTS]; /* who runs, by admission */
    uint32_t in_line[TWIN_RANKS];
    uint32_t pile[TWIN_RANKS][TWIN_CLIENTS]; /* who was preempted, the last on top */
    uint32_t on_pile[TWIN_RANKS];
    uint32_t owner[TWIN_RANKS][TWIN_PAGES]; /* client + 1; 0: free */
    uint32_t left[TWIN_RANKS];              /* of the budget */
    bool shut[TWIN_RANKS];                  /* nobody joins in this step */
    uint32_t next_rank;
    uint32_t preemptions;
    struct twin_turn turn[TWIN_CLIENTS];
};

void serving_twin_begin(struct twin_schedule *schedule);

/* Plans the step that begins at now; returns its rows. */
uint32_t serving_twin_plan(struct twin_schedule *s, const struct twin_scene *c, int64_t now);

/* The step is over; returns the tokens sampled. */
uint32_t serving_twin_end(struct twin_schedule *s, const struct twin_scene *c);

#endif

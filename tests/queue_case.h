/*
 * Queue case: the whole engine as a queue whose waiting times theory knows.
 *
 * One GPU, Poisson arrivals, requests drawn one by one with replacement, no noise. One server:
 * one request runs at a time and is a single step that reads its prompt, the step's length in
 * proportion to the prompt; so the engine is M/G/1 with the law of the prompts. Several servers:
 * as many requests run at once, a step takes 1 ms whatever it holds, and a request stays for as
 * many steps as it has output tokens: M/M/c, but for the start, which waits for the step in
 * progress to end.
 */
#ifndef MOE_TESTS_QUEUE_CASE_H
#define MOE_TESTS_QUEUE_CASE_H

#include <stdint.h>

#include "sim/engine/study.h"

enum { QUEUE_SEED_LIMIT = 64 };

enum queue_law {
    QUEUE_EXPONENTIAL, /* M: cv 1 */
    QUEUE_FIXED,       /* D: cv 0 */
    QUEUE_LOGNORMAL,   /* G: cv 2 */
};

struct queue_case {
    enum queue_law law;
    uint32_t servers;
    double rho;
    uint32_t arrivals; /* of a run */
    uint32_t seeds;    /* at most QUEUE_SEED_LIMIT */
    uint32_t tokens;   /* mean of a request; with several servers as many steps */
};

struct queue_answer {
    double service_s;           /* mean, measured with an almost idle server */
    double service_cv;          /* likewise */
    double theory_s;            /* mean wait before service */
    struct moe_estimate wait_s; /* the engine's, 95 % over seeds */
    struct moe_estimate little; /* number in the system over rate x time in it */
    uint32_t saturated;         /* seeds called so */
};

/* Runs the case from stores that it makes in a folder of its own; ends the program on an error. */
struct queue_answer queue_case_run(const struct queue_case *c);

/* M/M/1: the largest rate at which 99 of 100 requests are through within limit_services mean
 * services, by the search of `moesim goodput`; by theory time in the system is exponential with
 * rate mu - lambda, so that the answer is mu - ln 100 / limit. c->rho is not used. */
struct moe_estimate queue_case_goodput(const struct queue_case *c, double limit_services,
                                       double *theory_rate);

/* Mean wait of M/G/1 (Pollaczek and Khinchine), and of M/M/c (Erlang's C). rate per second. */
double queue_theory_single(double rate, double service_s, double service_cv);
double queue_theory_several(double rate, double service_s, uint32_t servers);

#endif

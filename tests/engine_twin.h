/*
 * Engine twin: one policy's plan under one seed, from the first request to the last, once
 * more and plainly, from the words of the headers in sim/engine and sim/cost. It includes
 * none of them: its cases are plain arrays, its only loan is the counter-based random
 * numbers, whose draws are part of what a run is.
 */
#ifndef MOE_TESTS_ENGINE_TWIN_H
#define MOE_TESTS_ENGINE_TWIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/cost_twin.h"
#include "tests/step_twin.h"
#include "tests/workload_twin.h"

enum {
    TWIN_SLOTS = 128, /* with temporary ones */
    TWIN_TOP_K = 4,
    TWIN_TRACE_LAYERS = 4,
    TWIN_REQUESTS = 40,
    TWIN_CASE_ROWS = 2000,
    TWIN_RUNNING = 6,
    TWIN_PASSES = 3,
    TWIN_SAMPLES = TWIN_REQUESTS * TWIN_PASSES,
    TWIN_STEPS = TWIN_CASE_ROWS * TWIN_PASSES,
    TWIN_UNKNOWN = 0xffff,
    TWIN_EMPTY = 0xffff
};

enum { TWIN_EXACT, TWIN_PADDED, TWIN_RELAYED, TWIN_EACH };
/* Who gives the copies of an expert their tokens. TWIN_UNEVEN: of n copies, copy j has weight
 * 1 + (j + source + step + layer) % n, and tokens of a source, in their order, fill the copies in
 * ascending order up to the rounded-down sums of their shares. TWIN_CAPPED: the same, but no copy
 * takes more than 2 tokens of an odd expert from one source: the rest is dropped. */
enum { TWIN_IN_TURN, TWIN_UNEVEN, TWIN_CAPPED };
/* Who is admitted next. TWIN_SHORTEST: of the first three that wait (scored and planned ones
 * apart), the shortest prompt that fits somewhere, the earlier of equal ones, to the GPU with
 * most free seats, the lower of equal ones. */
enum { TWIN_OFFERED, TWIN_SHORTEST };
enum { TWIN_WARMUP, TWIN_SCORED, TWIN_DRAIN, TWIN_PHASES };

struct twin_case {
    struct cost_twin cost; /* model, nodes, gpus_per_node and the calibration */
    double memory_bytes;   /* 0 = as the calibration says */
    double reserve_bytes;
    uint32_t slots; /* of a layer, without temporary ones */
    uint32_t running_per_gpu;
    uint32_t step_tokens;
    double plan_share;
    uint32_t passes;
    uint32_t exchange; /* in the order of enum moe_exchange_mode */
    bool common_exit;
    bool serial;
    bool noise;
    uint32_t dispatch; /* TWIN_IN_TURN, ... */
    uint32_t group;    /* TWIN_OFFERED, ... */
    /* Temporary slots of a GPU, for the policy of tests/fetch_twin.h; 0: it does not fetch. */
    uint32_t fetch_slots;
    double fetch_overlap;
    bool fetch_relay;
    uint64_t seed;

    uint32_t trace_layers;
    uint32_t requests;
    uint32_t prompt[TWIN_REQUESTS];
    uint32_t output[TWIN_REQUESTS];
    uint32_t first_row[TWIN_REQUESTS];
    uint32_t rows;
    uint16_t route[TWIN_CASE_ROWS][TWIN_TRACE_LAYERS][TWIN_TOP_K];

    uint16_t plan[TWIN_LAYERS][TWIN_SLOTS];
};

struct twin_account {
    uint64_t steps;
    uint64_t tokens;
    uint64_t outputs;
    uint64_t requests;
    uint64_t assignments;
    int64_t time;
};

/* Durations, each as often as it counts. */
struct twin_samples {
    uint32_t count;
    int64_t ns[TWIN_STEPS];
};

struct twin_result {
    bool weights_fit;
    bool fits;
    uint64_t kv_tokens;
    bool nothing_scored;
    struct twin_account account[TWIN_PHASES];
    uint64_t unknown;
    uint64_t dropped;
    int64_t path[TWIN_PARTS][TWIN_SOURCES];
    double balancedness;
    double imbalance;
    double mean_load;
    double max_load;
    double no_copy_load;
    uint64_t layer_steps;
    double near_copies;
    double far_copies;
    double local_copies;
    uint64_t fetched_near;
    uint64_t fetched_far;
    uint64_t fetching_layers;
    double transfer;
    int64_t fetch_exposed;
    double even_balance;
    struct twin_samples step;
    struct twin_samples ttft;
    struct twin_samples itl;
    struct twin_samples tpot;
    struct twin_samples e2e;
    int64_t idle;
    uint64_t barriers;
    int64_t cause_idle[TWIN_CAUSES];
    int64_t subset_idle[TWIN_SUBSETS];
    int64_t subset_time[TWIN_SUBSETS];
    int64_t lane_time[TWIN_LANES];
    struct twin_factor factor[TWIN_GPUS];
    uint64_t gpu_last[TWIN_GPUS];
    int64_t gpu_lead[TWIN_GPUS];
    uint64_t gpu_tokens[TWIN_LAYERS][TWIN_GPUS];
    int64_t layer_idle[TWIN_LAYERS];
    double layer_max[TWIN_LAYERS];
    double layer_mean[TWIN_LAYERS];
    uint64_t expert_tokens[TWIN_LAYERS][TWIN_EXPERTS];
    int64_t expert_lead[TWIN_LAYERS][TWIN_EXPERTS];
};

void engine_twin_run(const struct twin_case *c, struct twin_result *result);

#endif

/* EPLB of DeepSeek-V3's size: 58 layers x 256 experts -> 288 slots on 32 GPUs of 4 nodes.
 * Loads: p ~ 1 / (rank + 2)^0.8 times a factor in [0.75, 1.25], hottest expert shuffled per
 * layer, 10^7 tokens, whole counts; drawn from counters, so every run solves the same.
 * Prints the best and the median wall time of a solve on one thread, and its balancedness.
 * For comparison, on another machine: the published torch program needs 208 ms
 * (hierarchical) and 547 ms (global), vLLM's numpy port 24 ms, TensorRT-LLM's C++ 2 ms. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "policies/eplb_solver.h"
#include "sim/base/random.h"

enum { LAYERS = 58, EXPERTS = 256, REPEATS = 101 };

static double seconds(void)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
}

static void draw_loads(double *load)
{
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        uint32_t rank[EXPERTS];
        const uint64_t counter = (uint64_t) layer << 32;
        for (uint32_t i = 0; i < EXPERTS; i++) {
            const uint64_t j = moe_random_below(key, counter + i, i + 1);
            rank[i] = i;
            rank[i] = rank[j];
            rank[j] = i;
        }
        for (uint32_t i = 0; i < EXPERTS; i++) {
            const double factor = 0.75 + 0.5 * moe_random_uniform(key, counter + EXPERTS + i);
            load[layer * EXPERTS + i] = floor(4e5 * factor / pow(rank[i] + 2.0, 0.8));
        }
    }
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *) a;
    const double y = *(const double *) b;
    return (x > y) - (x < y);
}

static int measure(const char *name, uint32_t group_count, const double *load)
{
    const struct moe_placement_shape shape = { .layer_count = LAYERS,
                                               .expert_count = EXPERTS,
                                               .slot_count = 288,
                                               .gpu_count = 32,
                                               .node_count = 4,
                                               .group_count = group_count };
    struct moe_arena plans;
    struct moe_arena scratch;
    struct moe_placement plan;
    double times[REPEATS];
    if (moe_arena_init(&plans, 1 << 20, NULL) != MOE_OK ||
        moe_arena_init(&scratch, 1 << 20, NULL) != MOE_OK ||
        moe_placement_init(&plan, &plans, &shape, NULL) != MOE_OK) {
        return 1;
    }
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        const double begin = seconds();
        moe_arena_reset(&scratch);
        if (moe_eplb_place(&shape, load, &scratch, &plan, NULL) != MOE_OK) {
            return 1;
        }
        times[repeat] = seconds() - begin;
    }
    qsort(times, REPEATS, sizeof *times, compare);
    moe_arena_reset(&scratch);
    (void) printf("%-12s best %6.3f ms  median %6.3f ms  balancedness %.4f  scratch %zu bytes\n",
                  name, times[0] * 1e3, times[REPEATS / 2] * 1e3,
                  moe_placement_balancedness(&plan, load, &scratch), scratch.peak_bytes);
    moe_arena_finish(&plans);
    moe_arena_finish(&scratch);
    return 0;
}

int main(void)
{
    static double load[LAYERS * EXPERTS];
    draw_loads(load);
    return measure("hierarchical", 8, load) + measure("global", 1, load) == 0 ? EXIT_SUCCESS
                                                                              : EXIT_FAILURE;
}

/* EPLB from DeepSeek-V3's size, 58 layers x 256 experts -> 288 slots on 32 GPUs of 4 nodes, to
 * 896 experts and 1,024 GPUs. Loads: p ~ 1 / (rank + 2)^0.8 times a factor in [0.75, 1.25],
 * hottest expert shuffled per layer, 10^7 tokens, whole counts; drawn from counters, so every run
 * solves the same. Prints the best and the median processor time of a solve on one thread, and
 * its balancedness; fails when a bar is missed by the best time.
 * For comparison, on another machine: the published torch program needs 208 ms
 * (hierarchical) and 547 ms (global), vLLM's numpy port 24 ms, TensorRT-LLM's C++ 2 ms. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "policies/solve/eplb_solver.h"
#include "sim/base/random.h"
#include "tests/bench/bar.h"

enum { LAYERS = 58, EXPERT_LIMIT = 896, REPEATS = 101 };

static void draw_loads(double *load, uint32_t expert_count)
{
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        uint32_t rank[EXPERT_LIMIT];
        const uint64_t counter = (uint64_t) layer << 32;
        for (uint32_t i = 0; i < expert_count; i++) {
            const uint64_t j = moe_random_below(key, counter + i, i + 1);
            rank[i] = i;
            rank[i] = rank[j];
            rank[j] = i;
        }
        for (uint32_t i = 0; i < expert_count; i++) {
            const double factor = 0.75 + 0.5 * moe_random_uniform(key, counter + expert_count + i);
            load[layer * expert_count + i] = floor(4e5 * factor / pow(rank[i] + 2.0, 0.8));
        }
    }
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *) a;
    const double y = *(const double *) b;
    return (x > y) - (x < y);
}

static int measure(const char *name, struct moe_placement_shape shape, double bar_ms)
{
    static double load[LAYERS * EXPERT_LIMIT];
    draw_loads(load, shape.expert_count);
    struct moe_arena plans;
    struct moe_arena scratch;
    struct moe_placement plan;
    double times[REPEATS];
    if (moe_arena_init(&plans, 4 << 20, NULL) != MOE_OK ||
        moe_arena_init(&scratch, 1 << 20, NULL) != MOE_OK ||
        moe_placement_init(&plan, &plans, &shape, NULL) != MOE_OK) {
        return 1;
    }
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        const double begin = bar_seconds();
        moe_arena_reset(&scratch);
        if (moe_eplb_place(&shape, load, &scratch, &plan, NULL) != MOE_OK) {
            return 1;
        }
        times[repeat] = bar_seconds() - begin;
    }
    qsort(times, REPEATS, sizeof *times, compare);
    moe_arena_reset(&scratch);
    (void) printf("%-12s %3u experts -> %4u slots, %4u GPUs, %2u groups: best %6.3f ms  median "
                  "%6.3f ms  balancedness %.4f  scratch %zu bytes\n",
                  name, shape.expert_count, shape.slot_count, shape.gpu_count, shape.group_count,
                  times[0] * 1e3, times[REPEATS / 2] * 1e3,
                  moe_placement_balancedness(&plan, load, &scratch), scratch.peak_bytes);
    moe_arena_finish(&plans);
    moe_arena_finish(&scratch);
    char what[96];
    (void) snprintf(what, sizeof what, "EPLB %s, %d x %u -> %u on %u GPUs", name, LAYERS,
                    shape.expert_count, shape.slot_count, shape.gpu_count);
    return bar_row(what, times[0] * 1e3, bar_ms, "ms",
                   bar_ms == 1.0 ? "torch 208 (hierarchical) and 547 ms, numpy 24 ms, "
                                   "TensorRT-LLM's C++ 2.0 ms"
                                 : "none");
}

int main(void)
{
    static const struct {
        const char *name;
        struct moe_placement_shape shape;
        double bar_ms;
    } rows[] = {
        { "hierarchical", { LAYERS, 256, 288, 32, 4, 8 }, 1.0 },
        { "global", { LAYERS, 256, 288, 32, 4, 1 }, 1.0 },
        { "EP144", { LAYERS, 256, 288, 144, 18, 8 }, 0.0 },
        { "global", { LAYERS, 384, 512, 256, 32, 1 }, 5.0 },
        { "global", { LAYERS, 512, 1024, 512, 64, 1 }, 0.0 },
        { "global", { LAYERS, 896, 1024, 512, 64, 1 }, 0.0 },
        { "global", { LAYERS, 896, 2048, 1024, 128, 1 }, 0.0 },
    };
    int missed = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        missed += measure(rows[i].name, rows[i].shape, rows[i].bar_ms);
    }
    return missed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

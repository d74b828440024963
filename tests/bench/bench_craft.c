/* CRAFT's whole plan: 3,000 profiled batches of 58 layers x 256 experts on 64 GPUs, budget of a
 * slot per layer and GPU searched for its knee; then the same of other sizes. On one thread.
 * The batches of layers repeat with a period of 4 so that they fit in memory; every layer is
 * replayed in full. Prints processor time. The paper states about 10 s for its own program. */
#include <stdio.h>
#include <stdlib.h>

#include "policies/solve/craft_solver.h"
#include "sim/base/random.h"
#include "tests/bench/bar.h"

enum { PERIOD = 4, LAYERS = 58 };

static int measure(uint32_t experts, uint32_t gpus, uint32_t batch_count, double bar_s)
{
    const uint32_t slots = (experts + gpus - 1) / gpus * gpus + gpus;
    const struct moe_placement_shape shape = { LAYERS, experts, slots, gpus, gpus / 8, 1 };
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    const size_t stride = (size_t) PERIOD * experts;
    const uint32_t budget = LAYERS * gpus;
    struct moe_arena arena;
    struct moe_craft craft;
    double total[PERIOD * 1024] = { 0 };
    if (moe_arena_init(&arena, (stride * batch_count * 4 + (size_t) budget * 70 + (32 << 20)),
                       NULL) != MOE_OK) {
        return 1;
    }
    float *batches = MOE_NEW(&arena, float, stride *batch_count);
    double *gain = MOE_NEW(&arena, double, budget + 1);
    uint8_t *choice = MOE_NEW(&arena, uint8_t, (size_t) LAYERS * (budget + 1));
    for (size_t i = 0; i < stride * batch_count; i++) {
        const double hot = 1.0 + 30.0 / (1.0 + (double) (i % stride * 2654435761u % experts));
        batches[i] = (float) (hot * moe_random_uniform(key, i) * 16.0);
        total[i % stride] += (double) batches[i];
    }
    const double begin = bar_seconds();
    if (moe_craft_init(&craft, &arena, &shape, NULL) != MOE_OK) {
        return 1;
    }
    double *balance = MOE_NEW(&arena, double, (size_t) LAYERS *craft.option_count);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        const size_t first = (size_t) (layer % PERIOD) * experts;
        moe_craft_estimate(&craft, total + first, batches + first, stride, batch_count,
                           balance + (size_t) layer * craft.option_count);
    }
    const double replayed = bar_seconds();
    moe_craft_allocate(&craft, balance, budget, gain, choice);
    const uint32_t knee = moe_craft_knee(gain, gpus, LAYERS, 1.0);
    const double done = bar_seconds();
    (void) printf("%4u experts, %4u GPUs, %4u batches: replay %8.1f ms, knapsack %6.1f ms; "
                  "knee R=%u, gain %.3f\n",
                  experts, gpus, batch_count, (replayed - begin) * 1e3, (done - replayed) * 1e3,
                  knee, gain[(size_t) knee * gpus] / LAYERS);
    moe_arena_finish(&arena);
    char what[96];
    (void) snprintf(what, sizeof what, "CRAFT, %u profiling batches, %d layers x %u, %u GPUs",
                    batch_count, LAYERS, experts, gpus);
    return bar_row(what, done - begin, bar_s, "s",
                   bar_s > 0.0 ? "its authors' own about 10 s" : "none");
}

int main(void)
{
    return measure(256, 64, 3000, 1.0) + measure(384, 64, 3000, 0.0) +
                       measure(896, 1024, 300, 0.0) ==
                   0
               ? EXIT_SUCCESS
               : EXIT_FAILURE;
}

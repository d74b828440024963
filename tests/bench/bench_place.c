/* Solve times of the larger place policies on one thread: 58 layers of 256 experts on 32 GPUs
 * with 288 slots, then 384 experts on 64 GPUs with 448 slots; 16 planning batches. Affinity
 * learns from 1,024 requests of 8 tokens whose experts depend on their kind. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "policies/policy.h"
#include "sim/base/random.h"

enum { LAYERS = 58, BATCHES = 16, REQUESTS = 1024, TOKENS = 8, TOP_K = 8, EXPERT_LIMIT = 384 };

static float batches[BATCHES * LAYERS * EXPERT_LIMIT];
static double load[LAYERS * EXPERT_LIMIT];
static uint16_t expert[(size_t) REQUESTS * TOKENS * LAYERS * TOP_K];
static uint32_t request[REQUESTS * TOKENS];
static uint8_t phase[REQUESTS * TOKENS];
static uint32_t first_token[REQUESTS + 1];

static double seconds(void)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
}

static void draw(uint32_t experts)
{
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    const size_t cells = (size_t) LAYERS * experts;
    for (size_t i = 0; i < cells; i++) {
        load[i] = 0.0;
    }
    for (size_t i = 0; i < BATCHES * cells; i++) {
        const double hot = 1.0 + 30.0 / (1.0 + (double) (i % cells * 2654435761U % experts));
        batches[i] = (float) (hot * (0.5 + moe_random_uniform(key, i)) * 100.0);
        load[i % cells] += (double) batches[i];
    }
    for (uint32_t token = 0; token < REQUESTS * TOKENS; token++) {
        request[token] = token / TOKENS;
        phase[token] = token % TOKENS < TOKENS / 2 ? MOE_ROUTE_PREFILL : MOE_ROUTE_DECODE;
        first_token[token / TOKENS + 1] = token + 1;
        for (size_t i = 0; i < (size_t) LAYERS * TOP_K; i++) {
            const uint32_t kind = token / TOKENS % 8;
            const uint64_t drawn =
                moe_random_below(key + 2, (uint64_t) token * 1000 + i, experts / 2);
            expert[(size_t) token * LAYERS * TOP_K + i] =
                (uint16_t) ((drawn + kind * experts / 8) % experts);
        }
    }
}

static int measure(const char *name, const struct moe_place_view *view)
{
    enum { REPEATS = 3 };
    const struct moe_policy *policy = NULL;
    struct moe_arena plans;
    struct moe_arena scratch;
    struct moe_placement plan;
    struct moe_error err = { 0 };
    double best = 1e9;
    if (moe_policy_find(MOE_POLICY_PLACE, name, &policy, &err) != MOE_OK ||
        moe_arena_init(&plans, 1 << 20, &err) != MOE_OK ||
        moe_arena_init(&scratch, (size_t) 256 << 20, &err) != MOE_OK ||
        moe_placement_init(&plan, &plans, &view->shape, &err) != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        moe_arena_reset(&scratch);
        for (size_t i = 0; i < (size_t) view->shape.layer_count * view->shape.slot_count; i++) {
            plan.expert_of_slot[i] = MOE_SLOT_EMPTY;
        }
        const double begin = seconds();
        if (moe_policy_place(policy, view, &scratch, &plan, &err) != MOE_OK) {
            (void) fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        const double spent = seconds() - begin;
        best = spent < best ? spent : best;
    }
    const size_t peak = scratch.peak_bytes;
    moe_arena_reset(&scratch);
    (void) printf("%3u experts, %3u slots, %2u GPUs: %-10s %9.2f ms  balancedness %.4f  scratch "
                  "%6.1f MiB\n",
                  view->shape.expert_count, view->shape.slot_count, view->shape.gpu_count, name,
                  best * 1e3, moe_placement_balancedness(&plan, view->load, &scratch),
                  (double) peak / (1 << 20));
    moe_arena_finish(&plans);
    moe_arena_finish(&scratch);
    return 0;
}

static int measure_all(uint32_t experts, uint32_t gpus)
{
    static const char *const names[] = {
        "eplb", "craft", "vibe", "affinity", "predictive", "best"
    };
    static const double tokens[3] = { 0.0, 1000.0, 100000.0 };
    static double time_ns[64 * 3];
    const struct moe_policy_speed speed = { 3, tokens, time_ns };
    const struct moe_policy_routes routes = { .token_count = (uint64_t) REQUESTS * TOKENS,
                                              .request_count = REQUESTS,
                                              .planned_requests = REQUESTS,
                                              .top_k = TOP_K,
                                              .expert = expert,
                                              .request = request,
                                              .phase = phase,
                                              .first_token = first_token };
    const struct moe_place_view view = { .shape = { LAYERS, experts, experts + gpus, gpus, gpus / 8,
                                                    8 },
                                         .seed = 1,
                                         .load = load,
                                         .batch_count = BATCHES,
                                         .batches = batches,
                                         .routes = &routes,
                                         .speed = &speed };
    int failed = 0;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        time_ns[3 * (size_t) gpu] = 5000.0;
        time_ns[3 * (size_t) gpu + 1] = 20000.0 + 100.0 * (gpu % 8);
        time_ns[3 * (size_t) gpu + 2] = 1000000.0 * (1.0 + 0.01 * (gpu % 8));
    }
    draw(experts);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        failed += measure(names[i], &view);
    }
    return failed;
}

int main(void)
{
    return measure_all(256, 32) + measure_all(384, 64) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

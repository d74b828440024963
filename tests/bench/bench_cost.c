/* Time per call of the cost functions that the engine calls for every rank and layer
 * (expert, exchange) or for every rank (attention): ns per call, best of 5. Work varies from
 * call to call, so that no branch is learnt and nothing is hoisted. */
#include <stdio.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/base/wall_clock.h"
#include "sim/cost/calibration.h"
#include "sim/cost/cost.h"

enum { WORK_COUNT = 1024, CALL_COUNT = 1000000 };

static struct moe_expert_work experts[WORK_COUNT];
static struct moe_exchange_work exchanges[WORK_COUNT];
static struct moe_token_work tokens[WORK_COUNT];

static double call(const struct moe_cost *cost, int which, uint32_t i)
{
    const struct moe_gpu_factor factor = { 1.01, 1.02, 1.0 };
    switch (which) {
    case 0:
        return moe_cost_expert(cost, &experts[i], &factor).ns;
    case 1:
        return moe_cost_exchange(cost, MOE_COST_DISPATCH, &exchanges[i], &factor).ns;
    default:
        return moe_cost_attention(cost, &tokens[i], &factor).ns;
    }
}

static void make_work(void)
{
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    for (uint64_t i = 0; i < WORK_COUNT; i++) {
        const double active = 1.0 + (double) moe_random_below(key, 8 * i, 40);
        const double each = 1.0 + (double) moe_random_below(key, 8 * i + 1, 300);
        experts[i] = (struct moe_expert_work){ active * each, active, active * (each / 8.0 + 1.0),
                                               2.0 * each };
        exchanges[i] = (struct moe_exchange_work){
            (double) moe_random_below(key, 8 * i + 2, 2000),
            (double) moe_random_below(key, 8 * i + 3, 2000),
            (double) moe_random_below(key, 8 * i + 4, 2000),
            (double) moe_random_below(key, 8 * i + 5, 2000),
            0.0,
        };
        const double rows = 1.0 + (double) moe_random_below(key, 8 * i + 6, 2000);
        tokens[i] = (struct moe_token_work){
            .tokens = rows, .sampled = 32, .kv_read = 40000, .score_pairs = 40000 + rows * 500.0
        };
    }
}

/* ns per call; adds the durations to *sum, so that none is left out. */
static double time_calls(const struct moe_cost *cost, int which, double *sum)
{
    const double begin = moe_wall_clock_s();
    for (uint32_t i = 0; i < CALL_COUNT; i++) {
        *sum += call(cost, which, i % WORK_COUNT);
    }
    return (moe_wall_clock_s() - begin) / CALL_COUNT * 1e9;
}

int main(void)
{
    static const char *const names[] = { "expert", "exchange", "attention" };
    const struct moe_cluster cluster = { .node_count = 4, .gpus_per_node = 8, .gpu = "H200" };
    struct moe_arena arena;
    struct moe_model model;
    struct moe_error err = { 0 };
    const struct moe_calibration *calibration = NULL;
    struct moe_cost *cost = NULL;
    if (moe_arena_init(&arena, 1 << 20, &err) != MOE_OK ||
        moe_model_load(&model, "deepseek-v3", &err) != MOE_OK ||
        moe_calibration_load(&calibration, "", &arena, &err) != MOE_OK ||
        moe_cost_init(&cost, calibration, &model, &cluster, &arena, &err) != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    make_work();
    for (int which = 0; which < 3; which++) {
        double best = 1e9;
        double sum = 0.0;
        for (int repeat = 0; repeat < 5; repeat++) {
            const double ns = time_calls(cost, which, &sum);
            best = ns < best ? ns : best;
        }
        (void) printf("%-10s %6.1f ns (mean duration %.1f us)\n", names[which], best,
                      sum / 5e3 / CALL_COUNT);
    }
    moe_arena_finish(&arena);
    return 0;
}

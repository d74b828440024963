#include "calibrate/bench/contest.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <stdio.h>

#include "sim/base/random.h"

enum moe_status moe_contest_absorb(const struct moe_graph_timer *timer, enum moe_status status,
                                   const struct moe_error *own, char *failure, size_t failure_size,
                                   struct moe_error *err)
{
    if (status == MOE_OK) {
        return MOE_OK;
    }
    (void) snprintf(failure, failure_size, "%.190s", own->text);
    if (!moe_graph_timer_stuck(timer)) {
        (void) cudaGetLastError();
        if (status != MOE_DEVICE || cudaDeviceSynchronize() == cudaSuccess) {
            return MOE_OK;
        }
    }
    if (err != NULL) {
        *err = *own;
    }
    return status;
}

static bool all_enough(const struct moe_contender *contenders, uint32_t count, double budget_s)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!moe_graph_enough(&contenders[i].work, budget_s)) {
            return false;
        }
    }
    return true;
}

static void shuffle(uint32_t *order, uint32_t count, uint64_t key, uint64_t *draw)
{
    for (uint32_t i = count; i > 1; i--) {
        const uint32_t j = (uint32_t) moe_random_below(key, (*draw)++, i);
        const uint32_t moved = order[i - 1];
        order[i - 1] = order[j];
        order[j] = moved;
    }
}

enum moe_status moe_contest_run(struct moe_graph_timer *timer, struct moe_contender *contenders,
                                uint32_t count, double budget_s, uint64_t seed,
                                struct moe_error *err)
{
    assert(count <= MOE_CONTEST_LIMIT);
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    uint64_t draw = 0;
    uint32_t order[MOE_CONTEST_LIMIT];
    for (uint32_t i = 0; i < count; i++) {
        order[i] = i;
        contenders[i].work.given_up = contenders[i].work.set_count == 0;
    }
    while (!all_enough(contenders, count, budget_s)) {
        shuffle(order, count, key, &draw);
        for (uint32_t i = 0; i < count; i++) {
            struct moe_contender *contender = &contenders[order[i]];
            struct moe_error own = { 0 };
            if (moe_graph_enough(&contender->work, budget_s)) {
                continue;
            }
            const enum moe_status status = moe_graph_batch(timer, &contender->work, &own);
            contender->work.given_up = status != MOE_OK;
            MOE_TRY(moe_contest_absorb(timer, status, &own, contender->failure,
                                       contender->failure_size, err));
        }
    }
    return MOE_OK;
}

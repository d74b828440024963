#include "calibrate/bench/move_contest.h"

#include <assert.h>
#include <stdio.h>

/* Once outside of any capture, so that the kernel is loaded and a refusal is told. */
static enum moe_status enter(struct moe_graph_timer *timer, const struct moe_move_family *family,
                             void *context, struct moe_contender *contender, struct moe_error *err)
{
    struct moe_error own = { 0 };
    enum moe_status status = family->launch(context, 0, moe_graph_timer_stream(timer), &own);
    if (status == MOE_OK) {
        status = moe_graph_wait(timer, family->name, &own);
    }
    if (status == MOE_OK && family->in_stream) {
        moe_graph_plain(family->launch, context, &contender->work);
    } else if (status == MOE_OK) {
        status = moe_graph_capture(timer, family->launch, context, 1, &contender->work, &own);
    }
    return moe_contest_absorb(timer, status, &own, contender->failure, contender->failure_size,
                              err);
}

static void fill(struct moe_bench_move *move, const struct moe_graph_work *work)
{
    if (move->refusal[0] != '\0' || work->count == 0) {
        return;
    }
    move->measured = true;
    moe_timing_summarise(work->us, work->count, &move->timing);
    move->mhz = moe_graph_mhz(work);
    if (work->reading_count > 0) {
        move->watts = work->watts_sum / (double) work->reading_count;
    }
}

enum moe_status moe_move_contest(struct moe_graph_timer *timer,
                                 const struct moe_move_family *family, double budget_s,
                                 uint64_t seed, struct moe_bench_moves *moves,
                                 struct moe_error *err)
{
    struct moe_contender contenders[MOE_CONTEST_LIMIT] = { 0 };
    struct moe_bench_move *const first = &moves->items[moves->count];
    enum moe_status status = MOE_OK;
    uint32_t count = 0;
    assert(family->variant_count <= MOE_CONTEST_LIMIT);
    while (status == MOE_OK && count < family->variant_count &&
           moves->count < MOE_BENCH_MOVE_LIMIT) {
        const struct moe_move_variant *variant = &family->variants[count];
        struct moe_bench_move *move = &moves->items[moves->count++];
        *move = (struct moe_bench_move){ .is_library = variant->is_library,
                                         .bytes = family->bytes,
                                         .tokens = family->tokens };
        (void) snprintf(move->family, sizeof move->family, "%s", family->name);
        (void) snprintf(move->size, sizeof move->size, "%s", family->size);
        (void) snprintf(move->variant, sizeof move->variant, "%s", variant->name);
        contenders[count].failure = move->refusal;
        contenders[count].failure_size = sizeof move->refusal;
        status = enter(timer, family, variant->context, &contenders[count], err);
        count++;
    }
    if (status == MOE_OK) {
        status = moe_contest_run(timer, contenders, count, budget_s, seed, err);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (status == MOE_OK) {
            fill(&first[i], &contenders[i].work);
        }
        if (!moe_graph_timer_stuck(timer)) {
            moe_graph_release(&contenders[i].work);
        }
    }
    return status;
}

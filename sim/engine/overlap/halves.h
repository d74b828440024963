/*
 * Halves: the timeline of a step whose tokens run in two halves, so that the exchanges of one are
 * hidden behind the arithmetic of the other (two-batch overlap; vLLM: dual-batch overlap).
 *
 * Every rank has two resources, one that computes and one that exchanges; each works off its
 * operations one after the other, in an order that is the same on all ranks. With halves A and B,
 * of layer l:
 *
 *   computing   before A_l, before B_l, experts A_l, experts B_l, before A_l+1, ...
 *   exchanging  dispatch A_l, dispatch B_l, combine A_l, combine B_l, dispatch A_l+1, ...
 *
 * Number both from 0. Computing C_j needs C_j-1 and the exchange before it in its own half, E_j-2
 * (own rank); exchange E_j needs C_j and E_j-1 of all ranks, and opens when the last rank has
 * both: barrier j. So C_j+1 begins on a rank at the moment the rank arrives at barrier j, and
 * beside E_j nothing but C_j+1 can run: a step is a row of rounds, round j being E_j and C_j+1.
 * The last round has only an exchange; then comes `after`, of both halves, and the step's end.
 * experts holds the shared experts, which run right before the routed ones (step_times.h, serial).
 *
 * Interference: while a rank computes and its data moves, its arithmetic takes `compute` times
 * and its data `comm` times as long as alone. Whichever ends first does so after its rest times
 * its factor, rounded up to whole ns; what is left of the other, its rest less that time over its
 * own factor, goes on alone and is rounded up again. A rank that waits for others at a barrier
 * moves no data.
 *
 * A rank is idle at a barrier while it has arrived, others have not, and C_j+1 is over too. With
 * all ranks alike nobody is. Who is last, and its lead, are those of the arrivals.
 */
#ifndef MOE_SIM_ENGINE_OVERLAP_HALVES_H
#define MOE_SIM_ENGINE_OVERLAP_HALVES_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/engine/step_times.h"
#include "sim/engine/timeline.h"

/* What holds in every round of a run. */
struct moe_halves_pace {
    uint32_t gpu_count;
    bool common_exit;
    double compute; /* factors of interference, > 0 */
    double comm;
};

/* Where every rank is. */
struct moe_halves_clock {
    moe_time_ns *compute; /* [gpu] end of its last arithmetic */
    moe_time_ns *comm;    /* [gpu] end of its last exchange */
};

/* One round: the exchange, and what is computed beside it, first[gpu] + then[gpu]; either NULL:
 * nothing. */
struct moe_halves_work {
    const moe_time_ns *exchange;
    const moe_time_ns *first;
    const moe_time_ns *then;
};

/* How long ranks moved data, and how long of that they computed too; summed over ranks. */
struct moe_halves_use {
    moe_time_ns exchange_ns;
    moe_time_ns hidden_ns;
};

/* Plays one round from clock to clock and adds to *use. */
struct moe_barrier moe_halves_round(const struct moe_halves_pace *pace,
                                    const struct moe_halves_work *work,
                                    const struct moe_halves_clock *clock,
                                    struct moe_halves_use *use);

static inline uint32_t moe_halves_barrier_count(uint32_t layer_count)
{
    return 4 * layer_count + 1;
}

/* A step in halves, with what the walk back along its critical path needs. */
struct moe_halves {
    struct moe_halves_pace pace;
    uint32_t layer_count;
    moe_time_ns *compute; /* [4 layers + 1][gpu] clock before round j; the last: after all rounds */
    moe_time_ns *comm;
    struct moe_barrier *barriers; /* [moe_halves_barrier_count] barrier j of round j; the last is
                                   * the step's end */
    moe_time_ns *clock;           /* [gpu] scratch */
    struct moe_halves_use use;    /* of the step last played */
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_halves_init(struct moe_halves *halves, const struct moe_halves_pace *pace,
                                uint32_t layer_count, struct moe_arena *arena,
                                struct moe_error *err) MOE_MUST_CHECK;

/* Plays a step: half[2] in durations (their after is not read), after[gpu] of all its tokens.
 * Returns its length. */
moe_time_ns moe_halves_run(struct moe_halves *halves, const struct moe_step_times *const half[2],
                           const moe_time_ns *after);

/* Walks back from the end of the step last played along what each barrier waited for, and adds
 * every stretch to *path as it lasted (with interference); what it adds sums to the step's
 * length. Of an exchange and arithmetic that end at once the exchange is walked along; its source
 * is that of the rank, with a common exit of the first rank with the longest duration. Experts
 * are divided between SHARED (rounded down) and EXPERT in proportion to their durations. */
void moe_halves_critical(const struct moe_halves *halves,
                         const struct moe_step_times *const half[2], const moe_time_ns *after,
                         const struct moe_price_sources *whole,
                         const struct moe_price_sources sources[2], struct moe_critical_path *path);

#endif

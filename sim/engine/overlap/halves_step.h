/*
 * Halves of a step: who is in which half, what each half's work costs, and everything that a step
 * in one piece has beside its timeline (halves.h): causes of waiting, sensitivity, the audit.
 *
 * A rank's rows, in the order in which they are routed, are cut in two: the first half has one
 * more when their number is odd. A request's chunk may be cut; its second part then reads what the
 * first has written. Rows of all ranks' first halves take the turns of copied experts before
 * those of the second halves. Each half is padded to captured graphs by itself.
 *
 * A step runs in halves when every rank has at least overlap_tokens rows (two at least), else in
 * one piece. The one piece is priced too, so that a report can say what the halves gain or cost.
 * Both halves meet the same noise: that of the rank, layer and stretch.
 */
#ifndef MOE_SIM_ENGINE_OVERLAP_HALVES_STEP_H
#define MOE_SIM_ENGINE_OVERLAP_HALVES_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/engine/overlap/halves.h"
#include "sim/engine/route_counter.h"
#include "sim/engine/sensitivity.h"
#include "sim/engine/serving/serving.h"
#include "sim/engine/step.h"
#include "sim/engine/straggler.h"

/* What steps in halves came to; of the scored phase. */
struct moe_halves_account {
    uint64_t steps;
    moe_time_ns time_ns;      /* of them */
    moe_time_ns one_piece_ns; /* the same batches in one piece */
    struct moe_halves_use use;
};

struct moe_halves_step {
    bool active; /* the scenario asks for halves */
    bool now;    /* this step runs in halves */
    struct moe_halves timeline;
    struct moe_halves lane; /* sensitivity: its timeline and durations */
    struct moe_step_times own[2];
    struct moe_step half[2];
    struct moe_route_counter counter[2]; /* views of the run's with counts of their own */
    struct moe_token_work *rank[2];      /* [rank] as serving plans it */
    struct moe_token_work *work[2];      /* [gpu] */
    moe_time_ns *variant;                /* [parity][half][stretch][variant][gpu] of straggler */
    moe_time_ns *compute;                /* [subset][gpu] */
    moe_time_ns *comm;                   /* [subset][gpu] */
};

struct moe_halves_setup {
    const struct moe_step_options *step;
    const struct moe_route_counter *counter; /* of the run, which outlives the halves */
    uint32_t rank_count;
    bool attribution;
};

/* Bytes that init takes from its arena, about. */
size_t moe_halves_bytes(const struct moe_placement_shape *shape);

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_halves_step_init(struct moe_halves_step *halves,
                                     const struct moe_halves_setup *setup, struct moe_arena *arena,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Cuts the planned step, where it is to run in halves: sets now. */
void moe_halves_cut(struct moe_halves_step *halves, const struct moe_serving_state *serving,
                    const struct moe_token_work *rank);

/* Feeds the cut step's routes to the run's counter, half after half, and keeps what each half
 * counted. Errors: as moe_trace_read. */
enum moe_status moe_halves_route(struct moe_halves_step *halves, struct moe_serving_state *serving,
                                 struct moe_route_counter *counter,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Rows added by padding both halves. */
uint64_t moe_halves_pad(struct moe_halves_step *halves, const struct moe_serving *options);

/* Prices both halves of the step that `whole` holds in one piece, and plays them. straggler NULL:
 * no nominal prices are made; else the step is begun in it, and added to it. Returns the length. */
moe_time_ns moe_halves_play(struct moe_halves_step *halves, const struct moe_step *whole,
                            struct moe_straggler *straggler);

/* The waiting of the priced step under every subset of causes, between the straggler's begin_step
 * and end_step. */
void moe_halves_add_to_straggler(struct moe_halves_step *halves, struct moe_straggler *straggler);

/* The step last played in every lane, into sensitivity's sums. */
void moe_halves_sensitivity(struct moe_halves_step *halves, const struct moe_step *whole,
                            struct moe_sensitivity *sensitivity);

/* Of the step last played, as moe_timeline_critical. */
void moe_halves_path(const struct moe_halves_step *halves, const struct moe_step *whole,
                     struct moe_critical_path *path);

/* What must hold after the cut: both halves together are each rank's rows, what they attend to and
 * sample. Before padding. Errors: MOE_LIMIT with the breach. */
enum moe_status moe_halves_audit_rows(const struct moe_halves_step *halves,
                                      const struct moe_token_work *rank, uint32_t rank_count,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* What must hold of the step last played: both halves together are the slots' tokens; each half
 * sends what it receives; the path accounts for step_ns; no rank moves data for longer than that,
 * nor hides more. Errors: as moe_halves_audit_rows. */
enum moe_status moe_halves_audit(const struct moe_halves_step *halves, const struct moe_step *whole,
                                 const struct moe_route_counter *counter, moe_time_ns step_ns,
                                 struct moe_error *err) MOE_MUST_CHECK;

#endif

/*
 * Timeline: from the durations of a step to who waited for whom.
 *
 * Two implementations of one contract: moe_timeline_run is arithmetic over the barriers
 * (the fast path), moe_timeline_events plays every start and end through the event queue
 * and can write them down (`--detail`). They agree to the nanosecond; a test holds them to
 * it. Barriers of a step: 2 * layer (dispatch), 2 * layer + 1 (combine), and the last one
 * is the end of the step.
 */
#ifndef MOE_SIM_ENGINE_TIMELINE_H
#define MOE_SIM_ENGINE_TIMELINE_H

#include <stdint.h>
#include <stdio.h>

#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/engine/event_queue.h"
#include "sim/engine/step_times.h"

struct moe_barrier {
    moe_time_ns open_ns; /* when the last rank arrives, from the step's start */
    moe_time_ns idle_ns; /* sum over ranks of the time waited: GPUs x (max - mean) */
    moe_time_ns lead_ns; /* how much later the last rank came than the one before it; 0 when
                          * several come last together, and with one rank */
    uint32_t last_rank;  /* the first of those that arrive last */
};

static inline uint32_t moe_barrier_count(uint32_t layer_count)
{
    return 2 * layer_count + 1;
}

/* One layer's durations, each [gpu_count]. */
struct moe_layer_times {
    uint32_t gpu_count;
    bool common_exit;
    enum moe_shared_mode shared_mode;
    const moe_time_ns *before;
    const moe_time_ns *shared;
    const moe_time_ns *dispatch;
    const moe_time_ns *expert;
    const moe_time_ns *combine;
};

/* Moves clock[gpu_count] from the layer's begin to its end; pair[0] is the dispatch
 * barrier, pair[1] the combine barrier. */
void moe_timeline_layer(const struct moe_layer_times *layer, moe_time_ns *clock,
                        struct moe_barrier pair[2]);

/* The barrier that opens when the last of arrive[gpu_count] is there. */
struct moe_barrier moe_timeline_barrier(const moe_time_ns *arrive, uint32_t gpu_count);

/* The whole step. clock[gpu_count] is scratch. barriers[moe_barrier_count(layer_count)].
 * Returns the step's length. */
moe_time_ns moe_timeline_run(const struct moe_step_times *times, moe_time_ns *clock,
                             struct moe_barrier *barriers);

/* Where time went, by part and by where its price came from. */
struct moe_critical_path {
    moe_time_ns ns[MOE_COST_PART_COUNT][MOE_PROVENANCE_COUNT];
};

/* What the walk needs to know of the prices behind the durations. */
struct moe_price_sources {
    const struct moe_token_prices *tokens; /* [gpu] */
    const uint8_t *dispatch;               /* [layer][gpu] enum moe_provenance */
    const uint8_t *expert;                 /* [layer][gpu] */
    const uint8_t *combine;                /* [layer][gpu] */
    uint32_t dense_layer_count;
};

/* Walks back from the step's end along what each barrier waited for and adds every stretch
 * to *path; what it adds sums to the step's length.
 *   after     HOST is the host's price rounded up, at most all of it; the rest is HEAD
 *   combine   of the rank walked along; with a common exit, of the first longest rank
 *   expert    of the last rank of the combine barrier
 *   then      what that rank's expert waited for: its own shared expert when that ended
 *             after the data was there (the walk stays on this rank: SHARED, then its own
 *             before), else the time between data and expert (serial mode) as SHARED, the
 *             dispatch (as combine), and before of the last rank of the dispatch barrier
 *   before    DENSE and GATE in proportion to the GPU's prices, each rounded down; the rest is
 *             ATTENTION */
void moe_timeline_critical(const struct moe_step_times *times, const struct moe_barrier *barriers,
                           const struct moe_price_sources *sources, struct moe_critical_path *path);

/* The two stretches that hold several parts, divided as above: before with `dense` dense layers in
 * it, and after. part: the rank's own prices, by part. */
void moe_critical_add_before(struct moe_critical_path *path, moe_time_ns total,
                             const struct moe_duration *part, uint32_t dense);
void moe_critical_add_after(struct moe_critical_path *path, moe_time_ns total,
                            const struct moe_duration *part);

/* The same timeline, event by event. */
struct moe_event_rank {
    moe_time_ns data_ns;   /* when the dispatched tokens are there; -1 before that */
    moe_time_ns shared_ns; /* when the shared expert is done; -1 before that */
};

struct moe_event_player {
    struct moe_event_queue queue;
    struct moe_event_rank *rank; /* [gpu] */
    FILE *log;                   /* NULL: none. CSV "step,time_ns,gpu,layer,event,duration_ns" */
    moe_time_ns start_ns;        /* when the step begins; only labels the log */
    uint64_t step;               /* likewise */
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_event_player_init(struct moe_event_player *player, uint32_t gpu_count,
                                      FILE *log, struct moe_arena *arena,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Plays one step: barriers[moe_barrier_count(layer_count)] and its length.
 * Errors: MOE_IO when the log cannot be written. */
enum moe_status moe_timeline_events(const struct moe_step_times *times,
                                    struct moe_event_player *player, struct moe_barrier *barriers,
                                    moe_time_ns *step_ns, struct moe_error *err) MOE_MUST_CHECK;

#endif

/*
 * Straggler: why ranks wait, split exactly by cause.
 *
 * At every barrier the ranks wait for the last one. Their waiting, summed over ranks and
 * barriers, is GPUs x (max - mean): the excess. Five causes can produce it; each can be
 * switched off by replaying the same batches with every rank given the mean of what the
 * cause makes unequal:
 *   routing   every rank has the mean expert time of the layer
 *   batch     every rank has the mean time for its own tokens (attention, gate, shared, head)
 *   hardware  every GPU has factor 1
 *   jitter    no per-step noise and no drift
 *   comm      every rank has the mean time in each collective
 * A stretch has one own cause: before, shared and after batch; expert routing; dispatch and
 * combine comm. A rank's duration is its price (nominal, or real while hardware is on), or
 * with the own cause off the mean over ranks of the nominal prices, times real / nominal of
 * the rank while hardware is on (1 where nominal is 0); times its jitter while jitter is on;
 * then rounded up to whole ns. With all five off nobody waits. The step is replayed for all 32
 * subsets of causes, and each cause gets its Shapley value: its mean marginal contribution over all
 * orders in which causes can be switched on. The values sum to the excess; whole nanoseconds are
 * apportioned by largest remainder over the values rounded down (first cause wins ties), so the
 * printed parts do too; a cause that hides another's waiting has a negative value.
 *
 * The subsets also give each step's length with causes absent: what removing one would win.
 * Source: L. S. Shapley, "A value for n-person games", 1953; design.md 7.
 */
#ifndef MOE_SIM_ENGINE_STRAGGLER_H
#define MOE_SIM_ENGINE_STRAGGLER_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/engine/step_times.h"

enum moe_cause {
    MOE_CAUSE_ROUTING,
    MOE_CAUSE_BATCH,
    MOE_CAUSE_HARDWARE,
    MOE_CAUSE_JITTER,
    MOE_CAUSE_COMM,
    MOE_CAUSE_COUNT
};

enum { MOE_CAUSE_SUBSETS = 1 << MOE_CAUSE_COUNT, MOE_CAUSE_ALL = MOE_CAUSE_SUBSETS - 1 };

const char *moe_cause_name(enum moe_cause cause);

/* One stretch of one layer on every GPU, in ns: as it is, and with hardware factor 1.
 * The mean over GPUs of the latter is what neutralising the stretch's own cause gives. */
struct moe_stretch_prices {
    const double *real;    /* [gpu] with the GPU's factors */
    const double *nominal; /* [gpu] with factor 1 */
    const double *jitter;  /* [gpu] time factors */
};

struct moe_straggler {
    uint32_t gpu_count;
    bool common_exit;
    enum moe_shared_mode shared_mode;
    moe_time_ns *clock;   /* [subset][gpu], within the step */
    moe_time_ns *variant; /* [stretch 6][own cause][hardware][jitter][gpu] scratch */
    moe_time_ns idle_ns[MOE_CAUSE_SUBSETS]; /* summed over the steps */
    moe_time_ns time_ns[MOE_CAUSE_SUBSETS];
    moe_time_ns step_idle_ns[MOE_CAUSE_SUBSETS];
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_straggler_init(struct moe_straggler *straggler, uint32_t gpu_count,
                                   const struct moe_serving *serving, struct moe_arena *arena,
                                   struct moe_error *err) MOE_MUST_CHECK;

void moe_straggler_begin_step(struct moe_straggler *straggler);
void moe_straggler_add_layer(struct moe_straggler *straggler,
                             const struct moe_stretch_prices *before,
                             const struct moe_stretch_prices *shared,
                             const struct moe_stretch_prices *dispatch,
                             const struct moe_stretch_prices *expert,
                             const struct moe_stretch_prices *combine);
/* Ends the step and adds it to the sums. */
void moe_straggler_end_step(struct moe_straggler *straggler,
                            const struct moe_stretch_prices *after);

/* For other timelines than that of one layer after the other (overlap/): the durations that a
 * stretch can have, own cause x hardware x jitter, each absent (0) or present (1), into
 * out[MOE_STRAGGLER_VARIANTS][gpu_count], and which of them a subset of causes takes. Such a
 * timeline leaves its ranks' times in clock and its idle time in step_idle_ns, by subset, between
 * begin_step and end_step. */
enum { MOE_STRAGGLER_VARIANTS = 8 };
void moe_straggler_price(const struct moe_stretch_prices *prices, uint32_t gpu_count,
                         moe_time_ns *out);
uint32_t moe_straggler_variant(enum moe_cause cause, uint32_t subset);

/* Splits idle_ns (one value per subset, bit c set when cause c is on) into parts[MOE_CAUSE_COUNT]
 * that sum to idle_ns[MOE_CAUSE_ALL] - idle_ns[0]. */
void moe_straggler_split(const moe_time_ns idle_ns[MOE_CAUSE_SUBSETS],
                         moe_time_ns parts[MOE_CAUSE_COUNT]);

#endif

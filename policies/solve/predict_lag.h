/*
 * Lag: what was known some steps ago, for predictors that must look further ahead than the
 * engine's last known step: rows of counts come out as many pushes later as asked for.
 *
 * One row per stream: a layer's counts from step to step, or one stream of layers within a step.
 */
#ifndef MOE_POLICIES_PREDICT_LAG_H
#define MOE_POLICIES_PREDICT_LAG_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_predict_lag {
    uint32_t stream_count;
    uint32_t width; /* numbers of a row */
    uint32_t limit; /* the longest lag */
    uint32_t *row;  /* [stream][limit + 1][width] */
    uint64_t *seen; /* [stream] rows pushed */
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_predict_lag_init(struct moe_predict_lag *lag, struct moe_arena *arena,
                                     uint32_t stream_count, uint32_t width, uint32_t limit,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Adds a row and returns the one that came back pushes ago (0: this one), or NULL when there was
 * none yet. back <= limit (asserted). The row returned stays until the next push. */
const uint32_t *moe_predict_lag_push(struct moe_predict_lag *lag, uint32_t stream,
                                     const uint32_t *row, uint32_t back);

/* The row that came back pushes before the newest, or NULL when there is none. */
const uint32_t *moe_predict_lag_at(const struct moe_predict_lag *lag, uint32_t stream,
                                   uint32_t back);

/* Forgets a stream's rows. */
void moe_predict_lag_reset(struct moe_predict_lag *lag, uint32_t stream);

#endif

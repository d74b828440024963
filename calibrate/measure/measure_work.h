/*
 * Measured works: how points of each kind of series are run on the current GPU, each kind behind
 * one struct of functions.
 *
 * A work holds the operands of one series, made once for all its points and kept while they are
 * measured; a point is then set, run, judged and left.
 */
#ifndef MOE_CALIBRATE_MEASURE_WORK_H
#define MOE_CALIBRATE_MEASURE_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "calibrate/blas/blas.h"
#include "calibrate/measure/measure_plan.h"
#include "calibrate/timing/graph_timer.h"
#include "sim/base/error.h"

struct moe_measure_tools {
    struct moe_graph_timer *timer;
    struct moe_blas *blas;
    double cache_bytes;
    uint64_t seed;
};

/* Largest among the points of a series, also of those that a refinement may add. */
struct moe_measure_extent {
    double tokens;
    double tokens_context; /* largest product of both */
    int64_t rows;          /* expert: of all experts together */
};

/* What is timed: launch(context, set, stream) for sets 0 .. set_count - 1 in turn. */
struct moe_measure_launch {
    moe_graph_launch launch;
    void *context;
    uint32_t set_count;
};

struct moe_measure_verdict {
    double error; /* relative; -1: only looked at whether everything was written */
    bool wrong;
    char why[160]; /* when wrong */
};

struct moe_measure_work {
    /* Operands of the series. Errors: MOE_LIMIT when the GPU has no room now; MOE_UNSUPPORTED when
     * it can't do this at all; others as they come. On error nothing is held. */
    enum moe_status (*open)(const struct moe_measure_tools *tools,
                            const struct moe_measure_series *series,
                            const struct moe_measure_extent *extent, void **state,
                            struct moe_error *err);

    /* Prepares a point; the one before has been left. Errors: MOE_UNSUPPORTED: not this point. */
    enum moe_status (*set)(void *state, const struct moe_measure_point *point,
                           struct moe_measure_launch *out, struct moe_error *err);

    /* Overwrites what the launch is to write with bytes that are no number. */
    enum moe_status (*poison)(void *state, const struct moe_measure_point *point,
                              struct moe_error *err);

    /* Judges what the launch of set 0 left; the stream is idle. */
    enum moe_status (*judge)(void *state, const struct moe_measure_point *point,
                             struct moe_measure_verdict *out, struct moe_error *err);

    void (*leave)(void *state); /* NULL: nothing to give back after a point */
    void (*close)(void *state);
};

extern const struct moe_measure_work moe_measure_work_expert;
extern const struct moe_measure_work moe_measure_work_gemm;
extern const struct moe_measure_work moe_measure_work_route; /* permute, combine, gate */
extern const struct moe_measure_work moe_measure_work_kv;
extern const struct moe_measure_work moe_measure_work_stream; /* launch, too */

/* By kind. */
const struct moe_measure_work *moe_measure_work_of(enum moe_measure_kind kind);

/* Allocations of one work, given back together. */
enum { MOE_MEASURE_BUFFER_LIMIT = 160 };
struct moe_measure_buffers {
    void *owned[MOE_MEASURE_BUFFER_LIMIT];
    uint32_t count;
};

/* At least 16 bytes in *out (a void ** of any pointer). Errors: MOE_LIMIT, MOE_DEVICE. */
enum moe_status moe_measure_take(struct moe_measure_buffers *buffers, double bytes, void *out,
                                 struct moe_error *err);
void moe_measure_give(struct moe_measure_buffers *buffers);

#endif

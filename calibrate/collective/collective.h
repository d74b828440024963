/*
 * Everything that needs several GPUs or links, measured: exchanges by NCCL, copies between GPUs and
 * from the host, and what exchanges and expert GEMMs cost each other. Plan: collective_plan.h; one
 * measurement: collective_visit.h; several nodes: bootstrap.h.
 */
#ifndef MOE_CALIBRATE_COLLECTIVE_H
#define MOE_CALIBRATE_COLLECTIVE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "calibrate/collective/bootstrap.h"
#include "calibrate/collective/collective_plan.h"
#include "calibrate/device/nvml.h"
#include "sim/base/error.h"

struct moe_sample_store; /* samples/sample_store.h; only where the build found SQLite */

struct moe_collective_options {
    const uint32_t
        *devices;          /* [device_count] CUDA's numbers of the GPUs that this process drives */
    uint32_t device_count; /* 1 .. MOE_LANE_LIMIT; the same in every process */
    const struct moe_nvml *nvml; /* NULL: none */
    uint64_t seed;
    double limit_s; /* of wall time, from the call on; what does not fit is left out and counted */
    double begin_s; /* CLOCK_MONOTONIC when the run began: what begin_s of samples is told from */
    int64_t first_seq;
    double raw_share; /* of the samples keep their single times too, by seed; 0 .. 1 */
    bool ops[MOE_COLLECTIVE_OP_COUNT];
    struct moe_overlap_shape overlap;
    int64_t least_bytes;
    int64_t most_bytes;
    const volatile sig_atomic_t *stop; /* NULL, or: end after the visit under way once it is set */
    FILE *progress;                    /* NULL: silent */
};

/* All operations that this build can carry out, for these GPUs; no limit. */
struct moe_collective_options moe_collective_options_all(const uint32_t *devices, uint32_t count);

struct moe_collective_outcome {
    struct moe_collective_plan plan; /* with medians; the caller frees it */
    uint32_t visit_count;
    uint32_t left_out; /* points that the limit, or a stop, left without a time */
    double seconds;
};

/* The plan that moe_collective_measure would follow. boot may be NULL: one process.
 * Errors: as moe_collective_plan_make. */
enum moe_status moe_collective_plan_for(const struct moe_collective_options *options,
                                        const struct moe_bootstrap *boot,
                                        struct moe_collective_plan *out,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* Budget of timed calls that a visit is planned with. */
#define MOE_COLLECTIVE_BUDGET_S 0.15

/* Measures and stores into store (NULL: nowhere) as samples of run. boot may be NULL. In process 0
 * all samples are stored, in others none. On an error what was stored stays, and *out has what was
 * measured. GPUs whose work did not end (MOE_DEVICE, "did not end within") are of no more use: the
 * program should _Exit. Errors: MOE_DEVICE, MOE_LIMIT, MOE_RANGE; what the store says. */
enum moe_status moe_collective_measure(struct moe_sample_store *store, int64_t run,
                                       const struct moe_collective_options *options,
                                       const struct moe_bootstrap *boot,
                                       struct moe_collective_outcome *out,
                                       struct moe_error *err) MOE_MUST_CHECK;

#endif

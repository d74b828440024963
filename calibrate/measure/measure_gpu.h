/*
 * Measured GPU: the visits of one GPU, by one thread.
 */
#ifndef MOE_CALIBRATE_MEASURE_GPU_H
#define MOE_CALIBRATE_MEASURE_GPU_H

#include <stdint.h>

#include "calibrate/bench/bench_result.h"
#include "calibrate/measure/measure_run.h"
#include "calibrate/measure/measure_work.h"

enum { MOE_MEASURE_OPEN_LIMIT = 12 };

struct moe_measure_open_series {
    const struct moe_measure_work *work;
    void *state;
    uint32_t series;
    uint64_t used; /* for giving up the one unused for longest */
};

struct moe_measure_gpu {
    struct moe_measure_run *run;
    uint32_t rank; /* index in run->devices */
    struct moe_measure_tools tools;
    struct moe_bench_ceilings ceilings;
    double boost_mhz;
    struct moe_measure_open_series open[MOE_MEASURE_OPEN_LIMIT];
    uint32_t open_count;
    uint64_t clock;      /* of `used` */
    double *median_us;   /* [point]: of the first pass; 0: not yet */
    uint8_t *done;       /* [point]: bit per pass */
    uint32_t point_room; /* of both */
    int64_t seq;
    double pace; /* how long visits take over their estimates */
    struct moe_graph_work work;
    bool was_heavy;       /* the visit before drew the power limit, or may have */
    uint32_t last_series; /* of the visit before */
    double last_mhz;      /* of the visit before */
    double last_watts;
    enum moe_status status;
    struct moe_error err;
};

/* Everything of this GPU from its context to its end; the thread's function. */
void *moe_measure_gpu_main(void *context); /* a struct moe_measure_gpu */

/* One visit; *median_us may be NULL and stays as it is when the point can't be measured. flags is
 * added to what the visit finds. Errors: MOE_DEVICE, the store's. */
enum moe_status moe_measure_gpu_visit(struct moe_measure_gpu *gpu, uint32_t point, uint32_t pass,
                                      const char *flags, double *median_us, struct moe_error *err);

/* Gives back the operands of all series. */
void moe_measure_gpu_forget(struct moe_measure_gpu *gpu);

#endif

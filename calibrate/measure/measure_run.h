/*
 * Measure run: a plan carried out on some GPUs at once, a thread for each, its samples in a store.
 *
 * All GPUs visit the same points in the same order. What the threads share is here; what belongs to
 * one GPU is in measure_gpu.h, and who starts them in measure_threads.h. The time limit holds for
 * everything from begin_s on: before a visit its estimate, corrected by how the visits before kept
 * to theirs, must fit into what is left.
 */
#ifndef MOE_CALIBRATE_MEASURE_RUN_H
#define MOE_CALIBRATE_MEASURE_RUN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "calibrate/device/device.h"
#include "calibrate/device/nvml.h"
#include "calibrate/measure/measure_plan.h"
#include "calibrate/samples/sample_store.h"
#include "sim/base/error.h"
#include "sim/base/progress.h"

enum { MOE_MEASURE_GPU_LIMIT = 64 };

struct moe_measure_run {
    /* Set by the caller. */
    struct moe_sample_store *store;
    struct moe_measure_plan *plan; /* the refinement adds to it */
    struct moe_measure_request request;
    uint32_t gpu_count;
    uint32_t devices[MOE_MEASURE_GPU_LIMIT]; /* CUDA's numbers */
    const char *command;                     /* as sample_run.command */
    const char *version;                     /* of moecal */
    double begin_s;                          /* when the program began, of moe_wall_clock_s */
    double limit_s;                          /* of everything since begin_s */
    double reserve_s;                        /* of it, for what comes after this part */
    double soak_s;                           /* of a sustained visit */
    double rest_s;                           /* before a visit that is to be a burst; 0: none */
    double settle_s;                         /* most that a visit waits for its clock to hold */
    double raw_share;       /* of the samples whose single times are kept, 0 .. 1 */
    bool is_card;           /* no soak at the beginning, no refinement */
    uint32_t product_size;  /* of the ceilings' matrices */
    int64_t link_bytes_max; /* largest message of the links; 0: as they have it */
    uint32_t test_kill;     /* tests: the process ends by itself after so many samples; 0: never */

    /* Filled by moe_measure_run_open. */
    struct moe_nvml *nvml; /* NULL: none */
    struct moe_device gpus[MOE_MEASURE_GPU_LIMIT];
    char cuda[32];
    char cublas[32];
    char nccl[32];
    int64_t id;                             /* sample_run.id */
    int64_t gpu_ids[MOE_MEASURE_GPU_LIMIT]; /* sample_gpu.id */
    double earlier_s;                       /* begin_s of samples counts on from a resumed run's */
    bool resumed;

    /* Shared by the threads. */
    uint32_t point_room; /* points of the plan, and those that refinement may add */
    int64_t *point_ids;  /* [point_room], plan->point_count of them stored */
    int64_t *series_ids;
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    uint32_t waiting;
    uint32_t generation;
    uint32_t present; /* threads that still take part */
    atomic_bool stop; /* a signal, or a GPU lost */
    atomic_uint sample_count;
    atomic_uint wrong_count;
    atomic_uint skipped_count; /* visits without time left */
    uint32_t note_count;
    char note[400]; /* the first thing that went wrong without ending the run; "" */
    struct moe_progress progress;
};

/* Looks at the devices, opens the run in the store (or an unfinished one of the same plan on the
 * same GPUs) and stores the plan. On error nothing is held.
 * Errors: MOE_RANGE when the store holds an unfinished run of another plan, or runs of another set
 * of GPUs; as the store's. */
enum moe_status moe_measure_run_open(struct moe_measure_run *run,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Ends the run in the store when it was whole. Errors: the store's. */
enum moe_status moe_measure_run_end(struct moe_measure_run *run,
                                    struct moe_error *err) MOE_MUST_CHECK;
void moe_measure_run_close(struct moe_measure_run *run);

/* Waits until every thread that still takes part is here. False when the run is to stop. */
bool moe_measure_run_meet(struct moe_measure_run *run);

/* Stores a point and room for its id; called while no other thread works on the plan. */
enum moe_status moe_measure_run_store_point(struct moe_measure_run *run, uint32_t index,
                                            struct moe_error *err);

/* Notes why a point could not be measured, or not rightly; the first is kept word by word. */
void moe_measure_run_note(struct moe_measure_run *run, uint32_t point, const char *what);

/* Seconds left for visits. */
double moe_measure_run_left_s(const struct moe_measure_run *run);

#endif

#include "calibrate/measure/measure_threads.h"

#include <stdio.h>
#include <stdlib.h>

#include "calibrate/measure/measure_gpu.h"
#include "calibrate/measure/nvml_sampler.h"

/* What an earlier call of the same run has measured already. */
static enum moe_status load_done(struct moe_measure_run *run, struct moe_measure_gpu *gpu,
                                 struct moe_error *err)
{
    for (uint32_t i = 0; run->resumed && i < run->plan->point_count; i++) {
        for (int32_t pass = 1; pass <= 3; pass++) {
            double us = 0.0;
            MOE_TRY(moe_sample_find_median(run->store, run->id, run->gpu_ids[gpu->rank],
                                           run->point_ids[i], pass, &us, err));
            gpu->done[i] |= (uint8_t) (us > 0.0 ? 1U << pass : 0U);
            gpu->median_us[i] = pass == 1 ? us : gpu->median_us[i];
        }
    }
    if (run->resumed) {
        char sql[160];
        (void) snprintf(sql, sizeof sql,
                        "SELECT 1 + max(seq) FROM sample WHERE run = %lld AND gpu = %lld",
                        (long long) run->id, (long long) run->gpu_ids[gpu->rank]);
        return moe_database_scalar(moe_sample_store_database(run->store), sql, 0, &gpu->seq, err);
    }
    return MOE_OK;
}

static enum moe_status make_gpus(struct moe_measure_run *run, struct moe_measure_gpu *gpus,
                                 struct moe_error *err)
{
    const uint32_t room = run->point_room;
    for (uint32_t i = 0; i < run->gpu_count; i++) {
        gpus[i].run = run;
        gpus[i].rank = i;
        gpus[i].pace = 1.0;
        gpus[i].point_room = room;
        gpus[i].median_us = calloc(room, sizeof *gpus[i].median_us);
        gpus[i].done = calloc(room, sizeof *gpus[i].done);
        if (gpus[i].median_us == NULL || gpus[i].done == NULL) {
            return moe_fail(err, MOE_LIMIT, "no memory for %u points", room);
        }
        MOE_TRY(load_done(run, &gpus[i], err));
    }
    return MOE_OK;
}

/* Starts a thread per GPU and waits for all; the first failure is told. */
static enum moe_status run_threads(struct moe_measure_run *run, struct moe_measure_gpu *gpus,
                                   struct moe_error *err)
{
    pthread_t threads[MOE_MEASURE_GPU_LIMIT];
    uint32_t started = 0;
    enum moe_status status = MOE_OK;
    run->present = run->gpu_count;
    for (; started < run->gpu_count; started++) {
        if (pthread_create(&threads[started], NULL, moe_measure_gpu_main, &gpus[started]) != 0) {
            atomic_store(&run->stop, true);
            status = moe_fail(err, MOE_LIMIT, "no thread for GPU %u", run->devices[started]);
            (void) pthread_mutex_lock(&run->lock);
            run->present = started; /* those not started are not waited for */
            (void) pthread_cond_broadcast(&run->arrived);
            (void) pthread_mutex_unlock(&run->lock);
            break;
        }
    }
    for (uint32_t i = 0; i < started; i++) {
        (void) pthread_join(threads[i], NULL);
    }
    for (uint32_t i = 0; i < started && status == MOE_OK; i++) {
        if (gpus[i].status != MOE_OK) {
            status = gpus[i].status;
            if (err != NULL) {
                *err = gpus[i].err;
            }
        }
    }
    return status;
}

enum moe_status moe_measure_threads_run(struct moe_measure_run *run, struct moe_error *err)
{
    struct moe_nvml_sampler *sampler = NULL;
    struct moe_measure_gpu *gpus = calloc(run->gpu_count, sizeof *gpus);
    if (gpus == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %u GPUs", run->gpu_count);
    }
    enum moe_status status = make_gpus(run, gpus, err);
    if (status == MOE_OK) {
        status = moe_nvml_sampler_start(run, &sampler, err);
    }
    if (status == MOE_OK) {
        moe_progress_begin(&run->progress, stderr, "measuring", "visits", 0,
                           run->plan->visit_count);
        status = run_threads(run, gpus, err);
        moe_progress_end(&run->progress);
    }
    moe_nvml_sampler_stop(sampler);
    for (uint32_t i = 0; i < run->gpu_count; i++) {
        free(gpus[i].median_us);
        free(gpus[i].done);
    }
    free(gpus);
    return status;
}

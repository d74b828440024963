#include "calibrate/measure/nvml_sampler.h"

#include <stdlib.h>
#include <time.h>

#include "sim/base/wall_clock.h"

static const long PERIOD_NS = 50000000;

struct moe_nvml_sampler {
    struct moe_measure_run *run;
    struct moe_nvml_gpu *gpus[MOE_MEASURE_GPU_LIMIT];
    pthread_t thread;
    atomic_bool stop;
};

static void *sample(void *context)
{
    struct moe_nvml_sampler *sampler = context;
    struct moe_measure_run *run = sampler->run;
    const struct timespec period = { .tv_nsec = PERIOD_NS };
    enum moe_status status = MOE_OK;
    while (status == MOE_OK && !atomic_load(&sampler->stop)) {
        for (uint32_t i = 0; status == MOE_OK && i < run->gpu_count; i++) {
            struct moe_nvml_load load;
            moe_nvml_read_load(run->nvml, sampler->gpus[i], &load);
            const struct moe_sample_nvml reading = {
                .run = run->id,
                .gpu = run->gpu_ids[i],
                .t_s = moe_wall_clock_s() - run->begin_s + run->earlier_s,
                .sm_mhz = (double) load.sm_clock_mhz,
                .memory_mhz = -1.0,
                .watts = (double) load.power_mw / 1e3,
                .celsius = (double) load.celsius,
                .throttle = (int64_t) load.throttle,
            };
            status = moe_sample_add_nvml(run->store, &reading, NULL);
        }
        (void) nanosleep(&period, NULL);
    }
    return NULL;
}

enum moe_status moe_nvml_sampler_start(struct moe_measure_run *run, struct moe_nvml_sampler **out,
                                       struct moe_error *err)
{
    *out = NULL;
    if (run->nvml == NULL) {
        return MOE_OK;
    }
    struct moe_nvml_sampler *sampler = calloc(1, sizeof *sampler);
    if (sampler == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a sampler");
    }
    sampler->run = run;
    enum moe_status status = MOE_OK;
    for (uint32_t i = 0; status == MOE_OK && i < run->gpu_count; i++) {
        status = moe_nvml_find(run->nvml, run->gpus[i].pci_bus_id, &sampler->gpus[i], err);
    }
    if (status == MOE_OK && pthread_create(&sampler->thread, NULL, sample, sampler) != 0) {
        status = moe_fail(err, MOE_LIMIT, "no thread for the sensors");
    }
    if (status != MOE_OK) {
        free(sampler);
        return status;
    }
    *out = sampler;
    return MOE_OK;
}

void moe_nvml_sampler_stop(struct moe_nvml_sampler *sampler)
{
    if (sampler == NULL) {
        return;
    }
    atomic_store(&sampler->stop, true);
    (void) pthread_join(sampler->thread, NULL);
    free(sampler);
}

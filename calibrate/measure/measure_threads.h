/*
 * Measure threads: carries out an opened run, a thread for each GPU (measure_gpu.h) and one for the
 * sensors (nvml_sampler.h).
 */
#ifndef MOE_CALIBRATE_MEASURE_THREADS_H
#define MOE_CALIBRATE_MEASURE_THREADS_H

#include "calibrate/measure/measure_run.h"

/* Measures until done, stopped or out of time. Errors: MOE_DEVICE when a GPU is lost; what was
 * measured is in the store. */
enum moe_status moe_measure_threads_run(struct moe_measure_run *run,
                                        struct moe_error *err) MOE_MUST_CHECK;

#endif

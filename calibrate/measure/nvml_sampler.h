/*
 * NVML sampler: a thread that reads the sensors of all GPUs of a run 20 times a second and stores
 * what they say. Its own failures end only the readings.
 */
#ifndef MOE_CALIBRATE_NVML_SAMPLER_H
#define MOE_CALIBRATE_NVML_SAMPLER_H

#include "calibrate/measure/measure_run.h"
#include "sim/base/error.h"

struct moe_nvml_sampler; /* opaque */

/* *out is NULL, and nothing runs, when the run has no NVML. Errors: MOE_LIMIT; MOE_DEVICE when NVML
 * does not know a GPU. */
enum moe_status moe_nvml_sampler_start(struct moe_measure_run *run, struct moe_nvml_sampler **out,
                                       struct moe_error *err) MOE_MUST_CHECK;
void moe_nvml_sampler_stop(struct moe_nvml_sampler *sampler); /* NULL is allowed */

#endif

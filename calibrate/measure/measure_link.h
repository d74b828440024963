/*
 * Measured links: what takes several GPUs, or the host, after each GPU has been measured alone.
 */
#ifndef MOE_CALIBRATE_MEASURE_LINK_H
#define MOE_CALIBRATE_MEASURE_LINK_H

#include <signal.h>

#include "calibrate/measure/measure_run.h"
#include "sim/base/error.h"

/* Before anything is measured: notes NCCL's version for the record and keeps its multicast off.
 * Errors: MOE_RANGE when the environment asks for multicast. */
enum moe_status moe_measure_link_prepare(struct moe_measure_run *run,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Measures into the store of the run, within what is left of its time. stop: as of a signal.
 * Errors: MOE_DEVICE, the store's. */
enum moe_status moe_measure_link(struct moe_measure_run *run, const volatile sig_atomic_t *stop,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Seconds to keep for it; 0 where there is nothing to measure for so many GPUs. */
double moe_measure_link_reserve_s(const struct moe_measure_run *run);

#endif

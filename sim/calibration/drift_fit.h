/*
 * Drift: how a GPU's speed wanders while it is measured, from the sentinel point that is
 * visited again and again.
 *
 * Each sequence (one GPU in one run) is an Ornstein-Uhlenbeck process seen through noise:
 * the log time at t is mean + x(t) + noise, x(t) with standard deviation sigma and memory
 * exp(-dt / tau). The three numbers are those of the greatest likelihood (Kalman filter,
 * Nelder-Mead from fixed starts).
 */
#ifndef MOE_SIM_CALIBRATION_DRIFT_FIT_H
#define MOE_SIM_CALIBRATION_DRIFT_FIT_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"

struct moe_drift_visit {
    uint32_t sequence; /* rising */
    double t_s;        /* rising within a sequence */
    double log_ns;
};

struct moe_drift_fit {
    double tau_s;
    double sigma; /* of log time */
    double noise; /* of log time, from visit to visit */
    bool found;   /* whether the drift stands out of the noise (likelihood ratio, 99 %) */
};

enum { MOE_DRIFT_LEAST_VISITS = 8 };

/* visits[count], count >= MOE_DRIFT_LEAST_VISITS. Errors: MOE_LIMIT. */
enum moe_status moe_drift_fit(struct moe_drift_fit *out, const struct moe_drift_visit *visits,
                              uint32_t count, struct moe_error *err) MOE_MUST_CHECK;

#endif

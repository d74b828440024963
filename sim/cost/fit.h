/*
 * Fit: the four parameters of a series' smooth roofline (calibration.h, table fit) from its
 * points, by least squares of log(fitted / measured).
 *
 * Few points cannot tell four parameters apart, so each parameter also has a prior, worth a
 * fraction of one point: series with many points ignore it, those with one or two
 * take from it what the points do not say. Ceilings bound bandwidth and peak.
 * The rows that this makes are written into the CSV table, so a run never fits: the last
 * digits of an iteration differ between machines.
 */
#ifndef MOE_SIM_COST_FIT_H
#define MOE_SIM_COST_FIT_H

#include "sim/base/error.h"
#include "sim/cost/calibration.h"

enum { MOE_FIT_POINT_LIMIT = 256 };

struct moe_fit_result {
    struct moe_calibration_fit fit; /* source empty; provenance the worst of the points' */
    uint32_t point_count;
    double mean_error; /* mean and largest |fitted / measured - 1| before the correction */
    double worst_error;
};

/* Errors: MOE_RANGE when the series has no points or more than MOE_FIT_POINT_LIMIT;
 * MOE_LIMIT without memory. */
enum moe_status moe_fit_series(struct moe_fit_result *out,
                               const struct moe_calibration *calibration,
                               const struct moe_calibration_series *series,
                               struct moe_error *err) MOE_MUST_CHECK;

/* The errors of a given fit over its series' points. */
void moe_fit_errors(struct moe_fit_result *result, const struct moe_calibration *calibration,
                    const struct moe_calibration_series *series);

#endif

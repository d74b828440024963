/*
 * Calibration report: what a calibration holds, for people and for programs.
 * JSON schema "moesim.calibration/1": name, facts {provenance: rows}, and one array per
 * table with its columns as keys; series carry their fit's errors besides.
 */
#ifndef MOE_SIM_COST_CALIBRATION_REPORT_H
#define MOE_SIM_COST_CALIBRATION_REPORT_H

#include <stdio.h>

#include "sim/base/error.h"
#include "sim/cost/calibration.h"

/* Errors: MOE_IO when out cannot be written, MOE_LIMIT without memory. */
enum moe_status moe_calibration_report_text(const struct moe_calibration *calibration, FILE *out,
                                            struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_calibration_report_json(const struct moe_calibration *calibration, FILE *out,
                                            struct moe_error *err) MOE_MUST_CHECK;

#endif

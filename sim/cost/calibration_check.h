/*
 * Calibration check: what no single cell can show. References between tables, the
 * completeness of what a GPU kind needs, the order of segments and quantiles, and physics:
 * no point and no fit faster than the kind's ceilings.
 */
#ifndef MOE_SIM_COST_CALIBRATION_CHECK_H
#define MOE_SIM_COST_CALIBRATION_CHECK_H

#include "sim/base/error.h"
#include "sim/cost/calibration.h"

/* Errors: MOE_RANGE naming file, table, row, column, value and what is allowed. */
enum moe_status moe_calibration_check(const struct moe_calibration *calibration,
                                      enum moe_calibration_state state,
                                      struct moe_error *err) MOE_MUST_CHECK;

#endif

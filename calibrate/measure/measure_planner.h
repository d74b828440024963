/*
 * Measure planner: makes a plan (measure_plan.h) of a request: its series, their points, the
 * sentinels, and the visits in their order.
 */
#ifndef MOE_CALIBRATE_MEASURE_PLANNER_H
#define MOE_CALIBRATE_MEASURE_PLANNER_H

#include "calibrate/measure/measure_plan.h"

/* Makes the plan; on error it is empty. Errors: MOE_LIMIT; MOE_RANGE when nothing is asked for,
 * when there are too many series, or when a shape of --shape does not fit into memory (one of a
 * model is left out and named in left_out, unless nothing else is left). */
enum moe_status moe_measure_plan_make(const struct moe_measure_request *request,
                                      struct moe_measure_plan *plan,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Sentinels alone, in the order in which `moecal card` takes them: see verb_card.c. */
enum moe_status moe_measure_plan_card(const struct moe_measure_request *request,
                                      struct moe_measure_plan *plan,
                                      struct moe_error *err) MOE_MUST_CHECK;

#endif

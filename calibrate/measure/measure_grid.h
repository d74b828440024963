/*
 * Measure grid: the points of one series.
 *
 * Experts: rows per active expert at powers of two and on both sides of the kernels' tile edges
 * (64, 128, 192), besides a quarter and half of the experts active at 1, 4 and 16 rows, as decoding
 * leaves them; held-out: odd sizes, any number of active experts, two random histograms; skew at 8
 * and 64 rows. Series of one shape with other numbers of local experts are fitted together, so that
 * one has all the sizes and the others two thirds of them. Products: powers of two and from 16 on
 * their middles. Everything else: powers of two or four, held-out between them at random.
 */
#ifndef MOE_CALIBRATE_MEASURE_GRID_H
#define MOE_CALIBRATE_MEASURE_GRID_H

#include "calibrate/measure/measure_plan.h"

/* Appends the points of plan->series[series]. Errors: MOE_LIMIT. */
enum moe_status moe_measure_grid_add(const struct moe_measure_request *request,
                                     struct moe_measure_plan *plan, uint32_t series,
                                     struct moe_error *err);

/* A point of a kind other than experts: tokens and context as the columns; the rest is derived. */
enum moe_status moe_measure_plain_point(struct moe_measure_plan *plan, uint32_t series,
                                        enum moe_measure_role role, double tokens, double context,
                                        uint32_t *index, struct moe_error *err) MOE_MUST_CHECK;

#endif

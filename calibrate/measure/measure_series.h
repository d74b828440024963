/*
 * Measure series: the shapes that the models of a request need, each once.
 */
#ifndef MOE_CALIBRATE_MEASURE_SERIES_H
#define MOE_CALIBRATE_MEASURE_SERIES_H

#include "calibrate/measure/measure_plan.h"

/* Fills plan->series. Expert series come first, those of the libraries at three shapes only: the
 * smallest, the middle and the largest expert. Errors: as moe_measure_plan_make. */
enum moe_status moe_measure_series_make(const struct moe_measure_request *request,
                                        struct moe_measure_plan *plan, struct moe_error *err);

/* The series of an expert shape, added when it is not there yet. Errors: MOE_RANGE for more than
 * MOE_MEASURE_SERIES_LIMIT. */
enum moe_status moe_measure_series_expert(struct moe_measure_plan *plan,
                                          const struct moe_bench_shape *shape,
                                          enum moe_expert_dtype dtype, const char *backend,
                                          const struct moe_measure_request *request,
                                          uint32_t *index, struct moe_error *err);

/* stream-read, stream-write, stream-copy, launch-graph. */
enum moe_status moe_measure_series_plain(struct moe_measure_plan *plan, enum moe_measure_kind kind,
                                         const char *name, const char *backend, uint32_t *index,
                                         struct moe_error *err);

/* Rows that one point of an expert series may have in all. */
int32_t moe_measure_row_limit(const struct moe_measure_series *series);

#endif

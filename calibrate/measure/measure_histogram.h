/*
 * Measure histograms: rows per expert of a measured point, by name.
 *
 *   uniform      every expert the same
 *   half         every second expert the same, the others none; quarter: every fourth
 *   hot8x        one expert, in the middle, 8 times what each other one gets
 *   zipf1.0/1.2  the r-th hottest of a shuffled order gets a share of r^-1.0 or r^-1.2
 *   half-empty   as half: every second expert nothing, the others double; so the same rows in all
 *   random-N     shares drawn from a flat Dirichlet distribution by seed N
 *
 * For half and quarter rows_per_expert counts for active experts; for the others it is the mean
 * over all experts, so that the cost of skew is not mixed with that of more work.
 */
#ifndef MOE_CALIBRATE_MEASURE_HISTOGRAM_H
#define MOE_CALIBRATE_MEASURE_HISTOGRAM_H

#include <stdint.h>

#include "calibrate/expert/row_histogram.h"

enum { MOE_MEASURE_HISTOGRAM_NAME = 16 };

/* Fills rows[expert_count]. Shares are rounded by largest remainder, ties to the lower expert.
 * name is one of the above (asserted); expert_count 1 .. 1024, product below 2^31. */
void moe_measure_histogram_make(const char *name, int32_t expert_count, int32_t rows_per_expert,
                                int32_t *rows);

/* A histogram of active experts with rows each, spread evenly: what uniform, half and quarter are,
 * and held-out points of any number of active experts. */
void moe_measure_histogram_spread(int32_t expert_count, int32_t active, int32_t rows_each,
                                  int32_t *rows);

/* What decides the time of a call besides its number of rows. */
struct moe_row_load moe_measure_histogram_load(const int32_t *rows, int32_t expert_count);

#endif

/*
 * Levels: how much slower one GPU (in one run) is than the others, from points that several
 * of them measured.
 *
 *   value(cell) = centre(row) + share(cell) * effect(column) + noise
 *
 * by medians in turn over rows and over columns (a robust two-way fit): one odd time moves
 * nothing. Only differences can be known, so the effects' median over all columns is 0.
 * Source: calibration.md 5.5; J. W. Tukey, Exploratory Data Analysis, 1977, on median polish.
 */
#ifndef MOE_SIM_CALIBRATION_LEVEL_H
#define MOE_SIM_CALIBRATION_LEVEL_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_level_cell {
    uint32_t row;
    uint32_t column;
    double value;
    double share; /* > 0 */
};

struct moe_level_problem {
    const struct moe_level_cell *cells; /* sorted by row */
    uint32_t count;
    uint32_t row_count;
    uint32_t column_count;
};

enum { MOE_LEVEL_REPLICATES = 200 };

/* effects[column_count]; a column without cells gets 0. Errors: MOE_LIMIT. */
enum moe_status moe_level_fit(double *effects, const struct moe_level_problem *problem,
                              struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* The same for MOE_LEVEL_REPLICATES draws of row_count rows with replacement, under seed:
 * effects[replicate * column_count + column]. Errors: MOE_LIMIT. */
enum moe_status moe_level_bootstrap(double *effects, const struct moe_level_problem *problem,
                                    uint64_t seed, struct moe_arena *arena,
                                    struct moe_error *err) MOE_MUST_CHECK;

#endif

/*
 * Cost sources: which table each part of a step takes its times from, and how far the fit of
 * that table was from points that it had not seen.
 */
#ifndef MOE_SIM_COST_COST_SOURCE_H
#define MOE_SIM_COST_COST_SOURCE_H

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/cost/cost.h"

struct moe_calibration_fit_quality;

/* Several parts may share a table: each is named once, under its first part. */
struct moe_cost_source {
    enum moe_cost_part part;
    const char *table; /* a series, "all_to_all-8", "attention core of MLA" */
    enum moe_provenance provenance;
    const char *source;                                /* as the calibration says it */
    const struct moe_calibration_fit_quality *heldout; /* NULL: was not checked */
    const struct moe_calibration_fit_quality *skew;
};

/* In the order of the parts. *sources lives in the arena, its texts in the calibration that the
 * cost was made from. Errors: MOE_LIMIT. */
enum moe_status moe_cost_sources(const struct moe_cost_source **sources, uint32_t *count,
                                 const struct moe_cost *cost,
                                 const struct moe_calibration *calibration, struct moe_arena *arena,
                                 struct moe_error *err) MOE_MUST_CHECK;

#endif

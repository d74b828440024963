/*
 * Bounds: how evenly a layer's load could be spread at best.
 *
 * Both are lower bounds of the load of the fullest GPU when an expert's load is split
 * evenly over its copies; a balancedness (mean / max) is bounded from above by mean /
 * bound. They hold for every placement that the words name, whatever its solver.
 *   perfect   mean GPU load. Reached only when every GPU gets the same.
 *   no copy   max(mean, hottest expert): without copies some GPU carries all of the
 *             hottest expert. LPT is within 4/3 - 1/(3 GPUs) of the optimum that this
 *             bounds (R. L. Graham, 1969), as long as no slot limit binds.
 */
#ifndef MOE_POLICIES_BOUNDS_H
#define MOE_POLICIES_BOUNDS_H

#include <stdint.h>

#include "policies/placement.h"

/* Mean GPU load of one layer. load[expert_count] >= 0, gpu_count >= 1. */
double moe_bound_perfect(const double *load, uint32_t expert_count, uint32_t gpu_count);

/* max(mean, hottest expert) of one layer: every placement without copies. */
double moe_bound_no_copy(const double *load, uint32_t expert_count, uint32_t gpu_count);

/* The largest balancedness that a placement without copies can have: mean over layers
 * of moe_bound_perfect / moe_bound_no_copy; a layer without load counts as 1, as in
 * moe_placement_balancedness. load[layer_count][expert_count]. */
double moe_bound_no_copy_balancedness(const struct moe_placement_shape *shape, const double *load);

#endif

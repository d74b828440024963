/*
 * Expert reference: the right answer on a few rows of a case, and how far a backend is from it.
 *
 * The rows are the first, the last, those at the ends of the fullest expert, and others spread
 * between; that every other row was written at all is seen by the poison put there before.
 */
#ifndef MOE_CALIBRATE_EXPERT_REFERENCE_H
#define MOE_CALIBRATE_EXPERT_REFERENCE_H

#include <stdint.h>

#include "calibrate/expert/expert_data.h"
#include "sim/base/error.h"

enum { MOE_EXPERT_REFERENCE_ROWS = 8 };

struct moe_expert_reference; /* opaque */

/* Computed on the GPU in float64 with the weights of set 0 (kernels/expert/expert_rows.h).
 * Errors: MOE_DEVICE, MOE_LIMIT. */
enum moe_status moe_expert_reference_create(const struct moe_expert_case *kase,
                                            enum moe_expert_scaling scaling,
                                            struct moe_expert_reference **out,
                                            struct moe_error *err) MOE_MUST_CHECK;
void moe_expert_reference_destroy(struct moe_expert_reference *reference); /* NULL is allowed */

struct moe_expert_verdict {
    double error; /* |out - right| / |right| over the rows; infinite when out has a NaN there */
    uint64_t unwritten; /* cells of the whole out that are no number */
};

/* Judges what lies in the data's out. Errors: MOE_DEVICE, MOE_LIMIT. */
enum moe_status moe_expert_reference_judge(const struct moe_expert_reference *reference,
                                           const struct moe_expert_case *kase,
                                           struct moe_expert_verdict *out,
                                           struct moe_error *err) MOE_MUST_CHECK;

/* Largest error of a right backend: roundings of bf16 at three places, and in fp8 those of the
 * requantised intermediate, whose last bit may fall to either side. */
double moe_expert_error_limit(enum moe_expert_dtype dtype);

#endif

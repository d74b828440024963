/*
 * Merge: the samples of several calibration files in one, so that larger sets, other days and
 * other cards are fitted together. Points that runs share (sentinels at least) tie their levels.
 *
 * GPUs are the same by UUID, series by name, points by what makes them unique, runs by start,
 * command and seed. A run that is in both files is taken once. The fitted tables are left out:
 * they would not be of these samples.
 */
#ifndef MOE_SIM_CALIBRATION_SAMPLE_MERGE_H
#define MOE_SIM_CALIBRATION_SAMPLE_MERGE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"

struct moe_sample_merge {
    uint32_t runs;      /* in the result */
    uint32_t duplicate; /* runs that were there already */
    uint32_t samples;
    uint32_t gpus;
    uint32_t untied; /* runs without a point that another has: their levels are their own */
};

/* paths[count], count >= 2. All or nothing; an existing out_path is refused unless overwrite.
 * Errors: those of moe_evidence_read for every input; MOE_RANGE for GPUs of several kinds, a
 * series or point that means something else in two files, an existing output. */
enum moe_status moe_sample_merge(struct moe_sample_merge *out, const char *const *paths,
                                 uint32_t count, const char *out_path, bool overwrite,
                                 struct moe_error *err) MOE_MUST_CHECK;

#endif

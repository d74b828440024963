/*
 * Verification of a calibration file with samples: everything is read, nothing is repaired.
 *
 * Damage is what makes figures wrong: a bad cell, a reference to nothing, two samples of one
 * visit, tables that were fitted from other samples. A finding is true to the measurement but
 * worth knowing: a run cut off, samples faster than the ceilings, a GPU without sentinels.
 */
#ifndef MOE_SIM_CALIBRATION_SAMPLE_VERIFY_H
#define MOE_SIM_CALIBRATION_SAMPLE_VERIFY_H

#include <stdint.h>

#include "sim/base/error.h"
#include "sim/calibration/repeats.h"

enum moe_sample_check {
    MOE_SAMPLE_CHECK_CELLS,   /* schema, ranges, references */
    MOE_SAMPLE_CHECK_VISITS,  /* no two samples of one point, run, GPU, pass and time */
    MOE_SAMPLE_CHECK_TABLES,  /* the fitted tables, where there are any, can be read */
    MOE_SAMPLE_CHECK_FITTING, /* and were made of these samples */
    MOE_SAMPLE_CHECK_PHYSICS, /* no sample above its run's ceilings but is flagged so */
    MOE_SAMPLE_CHECK_RUNS,    /* every run ended in order */
    MOE_SAMPLE_CHECK_HELDOUT, /* every series that is fitted has held-out points */
    MOE_SAMPLE_CHECK_TIES,    /* every run shares points with another, so levels can be tied */
    MOE_SAMPLE_CHECK_REPEATS, /* nine of ten later passes are within 1.5 % of the first */
    MOE_SAMPLE_CHECK_COUNT
};

struct moe_sample_verdict {
    uint32_t count;         /* how often; 0: all is well */
    struct moe_error first; /* text alone counts */
};

struct moe_sample_verification {
    struct moe_sample_verdict verdicts[MOE_SAMPLE_CHECK_COUNT];
    uint32_t samples;
    struct moe_repeats repeats[MOE_EVIDENCE_KIND_COUNT]; /* by kind */
    struct moe_repeats all_repeats;
};

/* What is checked, and what it means when that is not so. */
const char *moe_sample_check_text(enum moe_sample_check check);
const char *moe_sample_check_broken(enum moe_sample_check check);
int moe_sample_check_is_damage(enum moe_sample_check check);

/* Errors: those of opening the file; what is wrong inside is the verification's. */
enum moe_status moe_sample_verify(struct moe_sample_verification *out, const char *path,
                                  struct moe_error *err) MOE_MUST_CHECK;

#endif

/*
 * Fit of samples: from what moecal measured (evidence.h) to the tables that a run reads
 * (sim/cost/calibration_tables.def), with an error measured on points that were never fitted.
 *
 * What was not measured comes from a base calibration with its own provenance; for another
 * kind of GPU than the base's it becomes assumed. Of several backends of a shape the fastest
 * over their common points stands first, which is the one that runs use, unless one is asked
 * for by name.
 *
 * The same samples give the same tables to the byte on one machine. Between machines the last
 * digits of logarithms and of iterated fits may differ; stored numbers are rounded to seven
 * digits, which hides most of that but cannot hide all.
 */
#ifndef MOE_SIM_CALIBRATION_FIT_SAMPLES_H
#define MOE_SIM_CALIBRATION_FIT_SAMPLES_H

#include "sim/calibration/fitter.h"
#include "sim/calibration/quality.h"
#include "sim/calibration/table_builder.h"

struct moe_sample_fit_options {
    const char *backend; /* stands first where a shape has it; NULL: the fastest */
};

struct moe_sample_fit {
    struct moe_fitter fitter;
    struct moe_table_builder builder; /* the complete calibration */
    struct moe_quality *quality;      /* [quality_count] */
    uint32_t quality_count;
    uint32_t missed;
    uint32_t unchecked;
};

/* Arena bytes that are enough for the evidence. */
size_t moe_sample_fit_bytes(const struct moe_evidence *evidence);

/* The arena, the evidence and the base must live as long as *out.
 * Errors: MOE_RANGE when the samples are of several kinds of GPU or lack what tables need;
 * MOE_LIMIT without memory. */
enum moe_status moe_sample_fit_make(struct moe_sample_fit *out, const struct moe_evidence *evidence,
                                    const struct moe_calibration *base,
                                    const struct moe_sample_fit_options *options,
                                    struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Writes the tables into the calibration at path (which holds the samples), or, when out_path
 * is not NULL, into a copy of it there; all or nothing. What a run would refuse is refused
 * before anything is written. Errors: as moe_database_open and moe_calibration_read; MOE_RANGE
 * when out_path exists and overwrite is not set. */
enum moe_status moe_sample_fit_write(const struct moe_sample_fit *fit, const char *path,
                                     const char *out_path, bool overwrite,
                                     struct moe_error *err) MOE_MUST_CHECK;

#endif

/*
 * Fit report: what `moesim fit` and `moesim cal info` say about samples and their fit, as text
 * for a terminal or as Markdown tables.
 */
#ifndef MOE_SIM_CALIBRATION_FIT_REPORT_H
#define MOE_SIM_CALIBRATION_FIT_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "sim/calibration/fit_samples.h"

/* Runs, GPUs and series that the samples are of. */
void moe_fit_report_evidence(const struct moe_evidence *evidence, bool markdown, FILE *out);

/* From the tables alone: errors on points that were not fitted, by series, and how GPUs
 * differ. Says nothing when there are no such rows. */
void moe_fit_report_tables(const struct moe_calibration *calibration, bool markdown, FILE *out);

/* How often passes repeat, by kind (kinds[MOE_EVIDENCE_KIND_COUNT]) and all together, by both
 * readings of repeats.h. */
void moe_fit_report_repeats(const struct moe_repeats *kinds, const struct moe_repeats *all,
                            bool markdown, FILE *out);

/* What only a fit just made knows: errors by GPU, repeats, drift, what was left out.
 * Errors: MOE_LIMIT. */
enum moe_status moe_fit_report_details(struct moe_sample_fit *fit, bool markdown, FILE *out,
                                       struct moe_error *err) MOE_MUST_CHECK;

#endif

/*
 * Report: a study put into one form, for a terminal, a program or a pull request.
 *
 * To add a form: write report_NAME.c with a `const struct moe_report moe_report_NAME` and
 * add its line to report.def. A report is a pure function of the study and the options:
 * the same study gives the same bytes (no wall time, no host, no path but those that the
 * scenario names).
 */
#ifndef MOE_SIM_REPORT_REPORT_H
#define MOE_SIM_REPORT_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "sim/engine/step_profile.h"
#include "sim/engine/study.h"

/* For people; forms that programs read (json, csv) always hold everything. */
struct moe_report_options {
    bool all_policies;  /* stragglers of every policy, not of the baseline and the best only */
    const char *chosen; /* defaults that `moesim compare` chose, one sentence; NULL: none */
    /* Measured steps to set beside the simulated ones, in forms for programs too; NULL: none. */
    const struct moe_overlay *overlay;
};

struct moe_report {
    const char *name;
    const char *summary; /* one line for the help */

    /* Mandatory. Writes the whole report. Errors: MOE_IO when out fails, MOE_LIMIT when
     * there is no memory. */
    enum moe_status (*write)(const struct moe_study *study,
                             const struct moe_report_options *options, FILE *out,
                             struct moe_error *err);
};

/* All forms, in the order of report.def: reports[*count]. */
const struct moe_report *const *moe_report_list(size_t *count);

/* By name. Errors: MOE_RANGE listing the names there are. */
enum moe_status moe_report_find(const char *name, const struct moe_report **out,
                                struct moe_error *err) MOE_MUST_CHECK;

/* The status of a stream after writing: MOE_IO when it failed. */
enum moe_status moe_report_stream_status(FILE *out, struct moe_error *err) MOE_MUST_CHECK;

/* The JSON report as text, which the caller frees: what run.db keeps and `moesim repeat`
 * compares. Errors: MOE_LIMIT when there is no memory. */
enum moe_status moe_report_json_text(const struct moe_study *study, char **text,
                                     struct moe_error *err) MOE_MUST_CHECK;

#endif

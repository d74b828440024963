/*
 * Study command: what `moesim run`, `moesim compare` and `moesim repeat` share. Checks that
 * the outputs can be written, makes the study, reports it on stdout and keeps it in run.db.
 */
#ifndef MOE_SIM_COMMAND_STUDY_COMMAND_H
#define MOE_SIM_COMMAND_STUDY_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/options.h"
#include "sim/engine/study.h"
#include "sim/report/report.h"
#include "sim/scenario/scenario.h"

enum { MOE_STUDY_OPTION_COUNT = 12 };

struct moe_study_command {
    struct moe_scenario scenario;
    struct moe_option_list sets; /* --set, then --seeds */
    const char *format;
    const char *output; /* run.db, or NULL */
    const char *detail; /* event log, or NULL */
    const char *times;  /* measured steps, or NULL */
    uint32_t threads;
    uint32_t seeds; /* 0: as the scenario says */
    uint32_t detail_steps;
    bool overwrite;
    bool audit;
    struct moe_option_list slow; /* --slow gpu=N:FACTOR */
    struct moe_report_options report;
    struct moe_overlay overlay; /* read from times; report.overlay points to it */
    char seeds_set[24];         /* "seeds=N" */
    char slow_set[2048];        /* "hardware.events=slow gpu=N by=FACTOR,..." */
};

/* Defaults. */
void moe_study_command_init(struct moe_study_command *command);

/* The options that run and compare share, pointing into command: options[COUNT]. */
void moe_study_command_options(struct moe_study_command *command,
                               struct moe_option options[MOE_STUDY_OPTION_COUNT]);

/* After parsing: --slow and --seeds become the last overrides (--slow in place of the scenario's
 * events); the form of the report is checked.
 * Errors: MOE_RANGE. */
enum moe_status moe_study_command_settle(struct moe_study_command *command,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* The forms of the report, for --help. */
void moe_study_command_print_forms(void);

/* Makes the study of command->scenario and writes what was asked for: the report on stdout,
 * run.db and the event log whole or not at all, one line of speed on stderr.
 * Errors: whatever the study and its outputs report. */
enum moe_status moe_study_command_run(struct moe_study_command *command,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* "N runs in X s, ..." on stderr. */
void moe_study_command_print_speed(const struct moe_study *study);

#endif

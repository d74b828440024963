/* `moesim repeat RUN.db`: the stored study once more, and whether the report is the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/command/command.h"
#include "sim/command/study_command.h"
#include "sim/cost/calibration_hash.h"
#include "sim/report/figure.h"
#include "sim/report/json_difference.h"
#include "sim/report/run_store.h"

enum { CALIBRATION_BYTES = 64 << 20 };

/* The trace must hold what the run replayed: another one would be another study. */
static enum moe_status check_trace(const struct moe_scenario *scenario,
                                   const struct moe_run_record *record, struct moe_error *err)
{
    struct moe_trace *trace = NULL;
    MOE_TRY(moe_trace_open(&trace, scenario->trace_path, err));
    const uint64_t hash = moe_trace_hash(trace);
    moe_trace_close(trace);
    if (hash == record->trace_hash) {
        return MOE_OK;
    }
    return moe_fail(err, MOE_RANGE,
                    "%.200s: the trace has hash %s, the stored run replayed %s; --trace names "
                    "another file",
                    scenario->trace_path, moe_figure_hash(hash).text,
                    moe_figure_hash(record->trace_hash).text);
}

static enum moe_status check_calibration(const struct moe_scenario *scenario,
                                         const struct moe_run_record *record, struct moe_error *err)
{
    struct moe_arena arena = { 0 };
    const struct moe_calibration *calibration = NULL;
    MOE_TRY(moe_arena_init(&arena, CALIBRATION_BYTES, err));
    enum moe_status status =
        moe_calibration_load(&calibration, scenario->calibration_path, &arena, err);
    if (status == MOE_OK && moe_calibration_hash(calibration) != record->calibration_hash) {
        status =
            moe_fail(err, MOE_RANGE,
                     "calibration %.200s has hash %s, the stored run used %s (made by moesim "
                     "%s); --calibration names another file",
                     calibration->name, moe_figure_hash(moe_calibration_hash(calibration)).text,
                     moe_figure_hash(record->calibration_hash).text, record->program_version);
    }
    moe_arena_finish(&arena);
    return status;
}

static enum moe_status replace_path(char *path, const char *given, const char *option,
                                    struct moe_error *err)
{
    if (given != NULL && strlen(given) >= MOE_SCENARIO_PATH_BYTES) {
        return moe_fail(err, MOE_RANGE, "%s: a path of %zu bytes; at most %d are allowed", option,
                        strlen(given), MOE_SCENARIO_PATH_BYTES - 1);
    }
    if (given != NULL) {
        (void) snprintf(path, MOE_SCENARIO_PATH_BYTES, "%s", given);
    }
    return MOE_OK;
}

/* Byte for byte; where not, the first place that differs. */
static enum moe_status compare(const struct moe_run_record *record, const struct moe_study *study,
                               const char *path, struct moe_error *err)
{
    char *report = NULL;
    char difference[360];
    MOE_TRY(moe_report_json_text(study, &report, err));
    enum moe_status status = MOE_OK;
    if (strcmp(report, record->report) == 0) {
        (void) printf("identical: %s repeats to the byte\n", path);
    } else {
        moe_json_difference(record->report, report, difference, sizeof difference);
        status = moe_fail(err, MOE_GATE, "%.100s differs: %s", path,
                          difference[0] != '\0' ? difference : "in layout only");
    }
    free(report);
    return status;
}

static enum moe_status repeat(const struct moe_run_record *record, struct moe_scenario *scenario,
                              const char *path, uint32_t threads, struct moe_error *err)
{
    struct moe_study *study = NULL;
    const struct moe_study_options options = {
        .threads = threads,
        .progress = isatty(STDERR_FILENO) == 1,
    };
    MOE_TRY(check_trace(scenario, record, err));
    MOE_TRY(check_calibration(scenario, record, err));
    if (strcmp(record->program_version, MOE_VERSION) != 0) {
        (void) fprintf(stderr, "made by moesim %s; this is %s\n", record->program_version,
                       MOE_VERSION);
    }
    MOE_TRY(moe_study_create(&study, scenario, &options, err));
    moe_study_command_print_speed(study);
    const enum moe_status status = compare(record, study, path, err);
    moe_study_destroy(study);
    return status;
}

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    const char *path = NULL;
    const char *trace = NULL;
    const char *calibration = NULL;
    uint32_t threads = 0;
    const struct moe_option options[] = {
        { "trace", MOE_OPTION_TEXT, &trace, "T.db", "where the same trace lies now", 0, 0 },
        { "calibration", MOE_OPTION_TEXT, &calibration, "CAL.db",
          "where the same calibration lies now", 0, 0 },
        { "threads", MOE_OPTION_COUNT, &threads, "N", "runs at a time; 0 = one per processor", 0,
          1024 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals inputs = { .items = &path, .min = 1, .max = 1, .what = "RUN.db" };
    struct moe_run_record record;
    struct moe_scenario scenario;
    if (moe_command_wants_help(argc, argv)) {
        (void) puts(
            "usage: moesim repeat RUN.db [OPTION ...]\n"
            "  exit 0: the report is the same to the byte; 3: the first difference is named");
        moe_options_print(stdout, options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &inputs, argc, argv, err));
    MOE_TRY(moe_run_store_read(&record, path, err));
    enum moe_status status = moe_scenario_parse(&scenario, record.scenario, path, err);
    if (status == MOE_OK) {
        status = replace_path(scenario.trace_path, trace, "--trace", err);
    }
    if (status == MOE_OK) {
        status = replace_path(scenario.calibration_path, calibration, "--calibration", err);
    }
    if (status == MOE_OK) {
        status = repeat(&record, &scenario, path, threads, err);
    }
    moe_run_record_finish(&record);
    return status;
}

const struct moe_command moe_command_repeat = {
    .name = "repeat",
    .summary = "run a stored study again and compare the reports",
    .run = run,
};

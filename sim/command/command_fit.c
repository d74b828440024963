/* moesim fit: samples to cost tables, or a CSV table's points to its rows of table fit. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/calibration/fit_report.h"
#include "sim/command/cal_command.h"
#include "sim/command/command.h"
#include "sim/cost/fit.h"

enum { CSV_ARENA_BYTES = 64 << 20 };

static enum moe_status print_fits(const struct moe_calibration *calibration, struct moe_error *err)
{
    (void) puts("table,fit,series,t0_ns,bandwidth_bytes_s,peak_flop_s,p,provenance,source");
    for (uint32_t i = 0; i < calibration->series_count; i++) {
        const struct moe_calibration_series *series = &calibration->series_rows[i];
        struct moe_fit_result result;
        if (series->hidden == 0) {
            continue; /* generic: its parameters are somebody's choice */
        }
        MOE_TRY(moe_fit_series(&result, calibration, series, err));
        (void) printf("fit,%s,%.0f,%.4g,%.4g,%.4g,%s,\"moesim cal fit: %u points, mean error "
                      "%.1f %%, worst %.1f %%\"\n",
                      series->name, result.fit.t0_ns, result.fit.bandwidth_bytes_s,
                      result.fit.peak_flop_s, result.fit.p,
                      moe_provenance_name(result.fit.provenance), result.point_count,
                      100.0 * result.mean_error, 100.0 * result.worst_error);
    }
    return MOE_OK;
}

struct request {
    const char *path;
    const char *output;
    const char *base;
    const char *format;
    bool overwrite;
    bool gate;
    struct moe_sample_fit_options options;
};

static enum moe_status fit_csv(const struct request *request, struct moe_error *err)
{
    struct moe_arena arena;
    const struct moe_calibration *calibration = NULL;
    if (request->output != NULL || request->overwrite || request->gate ||
        request->options.backend != NULL || strcmp(request->base, "builtin") != 0 ||
        strcmp(request->format, "text") != 0) {
        return moe_fail(
            err, MOE_RANGE,
            "%s: is no store of samples, so its fits are only printed; -o, --overwrite, "
            "--gate, --base, --backend and --format are for such a store",
            request->path);
    }
    MOE_TRY(moe_arena_init(&arena, CSV_ARENA_BYTES, err));
    enum moe_status status = moe_calibration_parse_file(&calibration, request->path,
                                                        MOE_CALIBRATION_UNFITTED, &arena, err);
    if (status == MOE_OK) {
        status = print_fits(calibration, err);
    }
    moe_arena_finish(&arena);
    return status;
}

static enum moe_status report(struct moe_sample_fit *fit, const struct request *request,
                              struct moe_error *err)
{
    const bool markdown = strcmp(request->format, "markdown") == 0;
    moe_fit_report_evidence(fit->fitter.evidence, markdown, stdout);
    moe_fit_report_tables(&fit->builder.calibration, markdown, stdout);
    MOE_TRY(moe_fit_report_details(fit, markdown, stdout, err));
    return MOE_OK;
}

static enum moe_status fit_evidence(const struct moe_evidence *evidence,
                                    const struct request *request, struct moe_error *err)
{
    struct moe_arena arena;
    const struct moe_calibration *base = NULL;
    struct moe_sample_fit fit;
    MOE_TRY(moe_arena_init(&arena, moe_sample_fit_bytes(evidence), err));
    enum moe_status status = moe_calibration_load(&base, request->base, &arena, err);
    if (status == MOE_OK) {
        status = moe_sample_fit_make(&fit, evidence, base, &request->options, &arena, err);
    }
    if (status == MOE_OK) {
        status =
            moe_sample_fit_write(&fit, request->path, request->output, request->overwrite, err);
    }
    if (status == MOE_OK) {
        status = report(&fit, request, err);
    }
    if (status == MOE_OK && request->gate && fit.missed > 0) {
        status = moe_fail(err, MOE_GATE, "%u of %u series and kinds of points missed their gate",
                          fit.missed, fit.quality_count);
    }
    moe_arena_finish(&arena);
    return status;
}

/* SQLite's files say so in their first bytes; anything else is taken for a CSV table. */
enum moe_status moe_cal_command_is_database(const char *path, bool *out, struct moe_error *err)
{
    char head[16] = "";
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
    }
    const size_t bytes = fread(head, 1, sizeof head, file);
    (void) fclose(file);
    *out = bytes == sizeof head && memcmp(head, "SQLite format 3", sizeof head) == 0;
    return MOE_OK;
}

enum moe_status moe_cal_command_fit(int argc, char **argv, struct moe_error *err)
{
    struct request request = { .base = "builtin", .format = "text" };
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &request.output, "OUT.cal.db",
          "write samples and tables there, and leave the input as it is", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &request.overwrite, NULL, "replace OUT when it exists", 0,
          0 },
        { "gate", MOE_OPTION_FLAG, &request.gate, NULL,
          "exit code 3 when a series misses its gate (the tables are written all the same)", 0, 0 },
        { "base", MOE_OPTION_TEXT, &request.base, "CAL",
          "where what was not measured comes from, with its own provenance", 0, 0 },
        { "backend", MOE_OPTION_TEXT, &request.options.backend, "NAME",
          "the backend that runs use where a shape has several (without: the fastest)", 0, 0 },
        { "format", MOE_OPTION_TEXT, &request.format, "FORMAT", "text or markdown", 0, 0 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals positionals = {
        .items = &request.path, .min = 1, .max = 1, .what = "S.cal.db"
    };
    struct moe_evidence evidence;
    bool database = false;
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim fit S.cal.db [OPTION ...]\n"
                    "  Makes the tables that runs read from moecal's samples, in the same file,\n"
                    "  and prints the error on points that were never fitted: about a minute for\n"
                    "  20,000 samples.\n"
                    "       moesim fit TABLE.csv\n"
                    "  Prints the rows of table fit for the series of a CSV table.");
        moe_options_print(stdout, options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &positionals, argc, argv, err));
    if (strcmp(request.format, "text") != 0 && strcmp(request.format, "markdown") != 0) {
        return moe_fail(err, MOE_RANGE, "--format: '%s'; allowed: text markdown", request.format);
    }
    MOE_TRY(moe_cal_command_is_database(request.path, &database, err));
    if (!database) {
        return fit_csv(&request, err);
    }
    MOE_TRY(moe_evidence_load(&evidence, request.path, err));
    const enum moe_status status = fit_evidence(&evidence, &request, err);
    moe_evidence_finish(&evidence);
    return status;
}

const struct moe_command moe_command_fit = {
    .name = "fit",
    .summary = "cost tables from moecal's samples, with their held-out error",
    .run = moe_cal_command_fit,
};

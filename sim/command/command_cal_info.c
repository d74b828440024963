/* moesim cal info: samples, tables, or both. */
#include <stdio.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/calibration/fit_report.h"
#include "sim/command/cal_command.h"
#include "sim/command/command.h"
#include "sim/cost/calibration_report.h"

enum { ARENA_BYTES = 256 << 20 };

static enum moe_status has_table(struct moe_database *db, const char *table, bool *out,
                                 struct moe_error *err)
{
    char sql[120];
    int64_t count = 0;
    (void) snprintf(sql, sizeof sql,
                    "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '%s'",
                    table);
    MOE_TRY(moe_database_scalar(db, sql, 0, &count, err));
    *out = count != 0;
    return MOE_OK;
}

static enum moe_status look_inside(const char *path, bool *samples, bool *tables,
                                   struct moe_error *err)
{
    struct moe_database db;
    int64_t rows = 0;
    MOE_TRY(moe_database_open(&db, &moe_calibration_database, path, MOE_DATABASE_READ, err));
    enum moe_status status = has_table(&db, "sample", samples, err);
    if (status == MOE_OK) {
        status = has_table(&db, "gpu_kind", tables, err);
    }
    if (status == MOE_OK && *samples) {
        status = moe_database_scalar(&db, "SELECT count(*) FROM sample", 0, &rows, err);
        *samples = rows > 0;
    }
    moe_database_close(&db);
    return status;
}

static enum moe_status print_samples(const char *path, bool markdown, struct moe_error *err)
{
    struct moe_evidence evidence;
    MOE_TRY(moe_evidence_load(&evidence, path, err));
    moe_fit_report_evidence(&evidence, markdown, stdout);
    moe_evidence_finish(&evidence);
    return MOE_OK;
}

static enum moe_status print_tables(const char *path, const char *format, struct moe_error *err)
{
    struct moe_arena arena;
    const struct moe_calibration *calibration = NULL;
    MOE_TRY(moe_arena_init(&arena, ARENA_BYTES, err));
    enum moe_status status = moe_calibration_load(&calibration, path, &arena, err);
    if (status == MOE_OK && strcmp(format, "json") == 0) {
        status = moe_calibration_report_json(calibration, stdout, err);
    } else if (status == MOE_OK) {
        const bool markdown = strcmp(format, "markdown") == 0;
        moe_fit_report_tables(calibration, markdown, stdout);
        if (!markdown) {
            (void) fputc('\n', stdout);
            status = moe_calibration_report_text(calibration, stdout, err);
        }
    }
    moe_arena_finish(&arena);
    return status;
}

enum moe_status moe_cal_command_info(int argc, char **argv, struct moe_error *err)
{
    const char *path = NULL;
    const char *format = "text";
    bool samples = false;
    bool tables = true;
    const struct moe_option options[] = {
        { "format", MOE_OPTION_TEXT, &format, "FORMAT", "text, json or markdown", 0, 0 },
    };
    struct moe_positionals positionals = {
        .items = &path, .min = 1, .max = 1, .what = "a calibration"
    };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim cal info X.cal.db|builtin [--format FORMAT]\n"
                    "  Runs, GPUs and gates of samples; the tables that runs read and where each\n"
                    "  comes from. json: the tables alone.");
        moe_options_print(stdout, options, 1);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, 1, &positionals, argc, argv, err));
    if (strcmp(format, "text") != 0 && strcmp(format, "json") != 0 &&
        strcmp(format, "markdown") != 0) {
        return moe_fail(err, MOE_RANGE, "--format: '%s'; allowed: text json markdown", format);
    }
    if (path[0] != '\0' && strcmp(path, "builtin") != 0) {
        MOE_TRY(look_inside(path, &samples, &tables, err));
    }
    if (samples && strcmp(format, "json") != 0) {
        MOE_TRY(print_samples(path, strcmp(format, "markdown") == 0, err));
        if (!tables) {
            (void) puts("\nnot fitted yet: `moesim fit` makes the tables that runs read");
        }
    }
    return tables || !samples || strcmp(format, "json") == 0 ? print_tables(path, format, err)
                                                             : MOE_OK;
}

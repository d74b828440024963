#include <stdio.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/command/cal_command.h"
#include "sim/command/command.h"
#include "sim/cost/calibration_report.h"

enum { ARENA_BYTES = 64 << 20 };

static enum moe_status cal_import(int argc, char **argv, struct moe_error *err)
{
    const char *items[1] = { NULL };
    const char *output = NULL;
    bool overwrite = false;
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &output, "X.cal.db", "the calibration to write", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &overwrite, NULL, "replace it when it exists", 0, 0 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals positionals = { .items = items, .min = 1, .max = 1 };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim cal import TABLE.csv -o X.cal.db [--overwrite]");
        moe_options_print(stdout, options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &positionals, argc, argv, err));
    if (output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o: which file to write is not said");
    }
    return moe_calibration_import(items[0], output, overwrite, err);
}

static enum moe_status cal_info(int argc, char **argv, struct moe_error *err)
{
    const char *items[1] = { NULL };
    const char *format = "text";
    const struct moe_option options[] = {
        { "format", MOE_OPTION_TEXT, &format, "FORMAT", "text or json", 0, 0 },
    };
    struct moe_positionals positionals = { .items = items, .min = 1, .max = 1 };
    struct moe_arena arena;
    const struct moe_calibration *calibration = NULL;
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim cal info X.cal.db|builtin [--format json]");
        moe_options_print(stdout, options, 1);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, 1, &positionals, argc, argv, err));
    if (strcmp(format, "text") != 0 && strcmp(format, "json") != 0) {
        return moe_fail(err, MOE_RANGE, "--format: '%s'; allowed: text json", format);
    }
    MOE_TRY(moe_arena_init(&arena, ARENA_BYTES, err));
    enum moe_status status = moe_calibration_load(&calibration, items[0], &arena, err);
    if (status == MOE_OK) {
        status = strcmp(format, "json") == 0
                     ? moe_calibration_report_json(calibration, stdout, err)
                     : moe_calibration_report_text(calibration, stdout, err);
    }
    moe_arena_finish(&arena);
    return status;
}

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    static const struct moe_command commands[] = {
        { "import", "make a calibration from a CSV table", cal_import },
        { "info", "what a calibration holds and where it comes from", cal_info },
        { "fit", "the same as moesim fit", moe_cal_command_fit },
    };
    return moe_command_dispatch("cal", commands, sizeof commands / sizeof commands[0], argc, argv,
                                err);
}

const struct moe_command moe_command_cal = {
    .name = "cal",
    .summary = "calibrations: import, info, fit",
    .run = run,
};

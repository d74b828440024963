#include <stdio.h>

#include "sim/base/options.h"
#include "sim/command/cal_command.h"
#include "sim/command/command.h"
#include "sim/cost/calibration.h"

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

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    static const struct moe_command commands[] = {
        { "import", "make a calibration from a CSV table", cal_import },
        { "info", "what a calibration holds and where it comes from", moe_cal_command_info },
        { "fit", "the same as moesim fit", moe_cal_command_fit },
        { "verify", "read all samples and tables and say what is wrong", moe_cal_command_verify },
        { "merge", "unite the samples of several files", moe_cal_command_merge },
        { "compare", "what changed between two sets of samples", moe_cal_command_compare },
        { "plot", "a series with its points and its fit, in the terminal", moe_cal_command_plot },
    };
    return moe_command_dispatch("cal", commands, sizeof commands / sizeof commands[0], argc, argv,
                                err);
}

const struct moe_command moe_command_cal = {
    .name = "cal",
    .summary = "calibrations: import, info, verify, merge, compare, plot",
    .run = run,
};

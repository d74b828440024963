
#include "sim/command/cal_command.h"
#include "sim/command/command.h"

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    static const struct moe_command commands[] = {
        { "import", "make a calibration of published figures", moe_cal_command_import },
        { "info", "what a calibration holds and where it comes from", moe_cal_command_info },
        { "fit", "the same as moesim fit", moe_cal_command_fit },
        { "verify", "read all samples and tables and say what is wrong", moe_cal_command_verify },
        { "merge", "unite the samples of several files", moe_cal_command_merge },
        { "compare", "what changed between two sets of samples", moe_cal_command_compare },
        { "ranks", "what exchanges over few GPUs foretell for more", moe_cal_command_ranks },
        { "plot", "a series with its points and its fit, in the terminal", moe_cal_command_plot },
    };
    return moe_command_dispatch("cal", commands, sizeof commands / sizeof commands[0], argc, argv,
                                err);
}

const struct moe_command moe_command_cal = {
    .name = "cal",
    .summary = "calibrations: import, info, verify, merge, compare, ranks, plot",
    .run = run,
};

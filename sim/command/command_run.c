/* `moesim run SCENARIO.yaml`: every policy of a scenario under every seed, and the report. */
#include <stdio.h>

#include "sim/command/command.h"
#include "sim/command/study_command.h"

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    struct moe_study_command command;
    struct moe_option options[MOE_STUDY_OPTION_COUNT];
    const char *path = NULL;
    struct moe_positionals inputs = { .items = &path, .min = 1, .max = 1, .what = "SCENARIO.yaml" };
    moe_study_command_init(&command);
    moe_study_command_options(&command, options);
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim run SCENARIO.yaml [OPTION ...]");
        moe_options_print(stdout, options, MOE_STUDY_OPTION_COUNT);
        moe_study_command_print_forms();
        (void) puts("keys of a scenario:");
        moe_scenario_print_keys(stdout);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, MOE_STUDY_OPTION_COUNT, &inputs, argc, argv, err));
    MOE_TRY(moe_study_command_settle(&command, err));
    MOE_TRY(moe_scenario_load(&command.scenario, path, command.sets.items,
                              (uint32_t) command.sets.count, err));
    return moe_study_command_run(&command, err);
}

const struct moe_command moe_command_run = {
    .name = "run",
    .summary = "what the policies of a scenario do to throughput, latency and stragglers",
    .run = run,
};

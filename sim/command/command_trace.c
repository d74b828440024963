/* moesim trace: import, look at, check and cut routing traces. */
#include <stdio.h>

#include "sim/base/options.h"
#include "sim/command/command.h"
#include "traces/import.h"

static enum moe_status help_import(const struct moe_option *options, size_t option_count)
{
    size_t count = 0;
    const struct moe_import_format *const *formats = moe_import_formats(&count);
    (void) fputs("usage: moesim trace import [OPTION ...] INPUT -o T.db\n", stdout);
    moe_options_print(stdout, options, option_count);
    (void) fputs("formats:\n", stdout);
    for (size_t i = 0; i < count; i++) {
        (void) printf("  %-10s %s\n", formats[i]->name, formats[i]->summary);
    }
    return MOE_OK;
}

static enum moe_status run_import(int argc, char **argv, struct moe_error *err)
{
    const char *input = NULL;
    struct moe_import_request request = { .format = "auto", .progress = stderr };
    struct moe_import_result result;
    const struct moe_option options[] = {
        { .name = "format",
          .kind = MOE_OPTION_TEXT,
          .target = &request.format,
          .value = "FORMAT",
          .help = "what the input is" },
        { .name = "o",
          .kind = MOE_OPTION_TEXT,
          .target = &request.output,
          .value = "T.db",
          .help = "the trace store to write, or to go on with" },
        { .name = "name",
          .kind = MOE_OPTION_TEXT,
          .target = &request.name,
          .value = "NAME",
          .help = "the model's name, instead of the input's" },
        { .name = "overwrite",
          .kind = MOE_OPTION_FLAG,
          .target = &request.overwrite,
          .help = "replace a trace store of other content" },
    };
    struct moe_positionals inputs = { .items = &input, .min = 1, .max = 1 };
    if (moe_command_wants_help(argc, argv)) {
        return help_import(options, sizeof options / sizeof options[0]);
    }
    MOE_TRY(
        moe_options_parse(options, sizeof options / sizeof options[0], &inputs, argc, argv, err));
    if (request.output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o T.db is missing: where the trace store goes");
    }
    request.input = input;
    MOE_TRY(moe_import_run(&request, &result, err));
    if (result.was_finished) {
        (void) printf("%s holds exactly this import already; nothing was changed\n",
                      request.output);
        return MOE_OK;
    }
    (void) printf("%s: %llu requests, %llu tokens of %s, %u layers of %u experts, top-%u, content "
                  "%016llx\n",
                  request.output, (unsigned long long) result.request_count,
                  (unsigned long long) result.row_count, result.model.name,
                  result.model.layer_count, result.model.expert_count, result.model.top_k,
                  (unsigned long long) result.hash);
    if (result.resumed_row > 0) {
        (void) printf("went on from row %llu of an interrupted import\n",
                      (unsigned long long) result.resumed_row);
    }
    return MOE_OK;
}

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    static const struct moe_command commands[] = {
        { .name = "import",
          .summary = "make a trace store of an engine's files",
          .run = run_import },
    };
    return moe_command_dispatch("trace", commands, sizeof commands / sizeof commands[0], argc, argv,
                                err);
}

const struct moe_command moe_command_trace = {
    .name = "trace",
    .summary = "import, look at, check and cut routing traces",
    .run = run,
};

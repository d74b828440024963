/* moesim trace: the verb's verbs, and those of them that are short. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/command/command.h"
#include "sim/command/trace_command.h"
#include "traces/trace_cut.h"
#include "traces/trace_verify.h"

enum moe_status moe_trace_command_format(const char *format, bool *json, struct moe_error *err)
{
    *json = strcmp(format, "json") == 0;
    return *json || strcmp(format, "table") == 0
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "--format: '%s' is neither table nor json", format);
}

static enum moe_status run_cut(int argc, char **argv, struct moe_error *err)
{
    const char *input = NULL;
    const char *output = NULL;
    uint32_t request_count = 0;
    bool overwrite = false;
    struct moe_trace *trace = NULL;
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &output, "S.db", "the trace store to write", 0, 0 },
        { "requests", MOE_OPTION_COUNT, &request_count, "N", "how many of the first requests", 1,
          UINT32_MAX },
        { "overwrite", MOE_OPTION_FLAG, &overwrite, NULL, "replace a trace store of other content",
          0, 0 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals inputs = { .items = &input, .min = 1, .max = 1, .what = "T.db" };
    if (moe_command_wants_help(argc, argv)) {
        (void) fputs("usage: moesim trace cut T.db -o S.db --requests N\n", stdout);
        moe_options_print(stdout, options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &inputs, argc, argv, err));
    if (output == NULL || request_count == 0) {
        return moe_fail(err, MOE_RANGE, "%s is missing", output == NULL ? "-o S.db" : "--requests");
    }
    MOE_TRY(moe_trace_open(&trace, input, err));
    const enum moe_status status = moe_trace_cut(trace, output, request_count, overwrite, err);
    moe_trace_close(trace);
    if (status == MOE_OK) {
        (void) printf("%s: the first %u requests of %s\n", output, request_count, input);
    }
    return status;
}

static void print_verification(const struct moe_trace_verification *verification,
                               enum moe_trace_content content)
{
    for (int i = 0; i < MOE_TRACE_CHECK_COUNT; i++) {
        const enum moe_trace_check check = (enum moe_trace_check) i;
        const struct moe_trace_check_result *result = &verification->results[i];
        const char *verdict = result->count == 0                 ? "ok"
                              : moe_trace_check_is_damage(check) ? "DAMAGED"
                                                                 : "finding";
        (void) printf("%-8s %s\n", verdict, moe_trace_check_text(check));
        if (result->count > 0) {
            (void) printf("         %" PRIu64 " time%s, first: %s\n", result->count,
                          result->count == 1 ? "" : "s", result->first.text);
        }
    }
    (void) printf("%" PRIu64 " %s, %" PRIu64 " choices, %" PRIu64 " of them not recorded\n",
                  verification->row_count, content == MOE_TRACE_LOADS ? "loads" : "rows",
                  verification->choice_count, verification->unknown_count);
}

static enum moe_status run_verify(int argc, char **argv, struct moe_error *err)
{
    const char *input = NULL;
    struct moe_trace *trace = NULL;
    struct moe_trace_verification verification;
    struct moe_progress progress;
    struct moe_positionals inputs = { .items = &input, .min = 1, .max = 1, .what = "T.db" };
    if (moe_command_wants_help(argc, argv)) {
        (void) fputs("usage: moesim trace verify T.db\n"
                     "  Reads everything and repairs nothing. Exit code 2 when the store is "
                     "damaged;\n  findings are true to the recording but odd for its model.\n",
                     stdout);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(NULL, 0, &inputs, argc, argv, err));
    MOE_TRY(moe_trace_open_any(&trace, input, err));
    const enum moe_trace_content content = moe_trace_model(trace)->content;
    moe_progress_begin(&progress, stderr, "verifying", "rows", 0, moe_trace_row_count(trace));
    enum moe_status status = moe_trace_verify(&verification, trace, &progress, err);
    moe_progress_end(&progress);
    moe_trace_close(trace);
    if (status == MOE_OK) {
        print_verification(&verification, content);
        status = moe_trace_verification_status(&verification, err);
    }
    return status;
}

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    static const struct moe_command commands[] = {
        { "import", "make a trace store of an engine's files", moe_trace_command_import },
        { "info", "what a trace holds and where it comes from", moe_trace_command_info },
        { "stats", "how unevenly it loads the experts", moe_trace_command_stats },
        { "verify", "read all of it and say what is wrong", run_verify },
        { "generate", "make one that nobody recorded", moe_trace_command_generate },
        { "fit", "what it takes to generate others like it", moe_trace_command_fit },
        { "cut", "make a smaller trace of its first requests", run_cut },
        { "split", "by domain, time, or drawn, into two", moe_trace_command_split },
        { "merge", "several into one", moe_trace_command_merge },
        { "convert", "write an old store anew", moe_trace_command_convert },
        { "export", "as arrays or JSON lines", moe_trace_command_export },
    };
    return moe_command_dispatch("trace", commands, sizeof commands / sizeof commands[0], argc, argv,
                                err);
}

const struct moe_command moe_command_trace = {
    .name = "trace",
    .summary = "import, look at, check, cut and generate routing traces",
    .run = run,
};

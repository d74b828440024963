#include <inttypes.h>
#include <stdio.h>

#include "sim/base/options.h"
#include "sim/command/command.h"
#include "sim/command/trace_command.h"
#include "traces/import.h"

static void help(const struct moe_option *options, size_t option_count)
{
    size_t count = 0;
    const struct moe_import_format *const *formats = moe_import_formats(&count);
    (void) fputs("usage: moesim trace import [OPTION ...] INPUT -o T.db\n", stdout);
    moe_options_print(stdout, options, option_count);
    (void) fputs("  An import that was interrupted goes on when it is run again.\nformats:\n"
                 "  auto       the first of these that the input looks like\n",
                 stdout);
    for (size_t i = 0; i < count; i++) {
        (void) printf("  %-10s %s\n", formats[i]->name, formats[i]->summary);
    }
}

static void print_result(const char *output, const struct moe_import_result *result)
{
    const struct moe_trace_model *model = &result->model;
    if (result->was_finished) {
        (void) printf("%s holds exactly this import already; nothing was changed\n", output);
        return;
    }
    (void) printf("%s: %s, %" PRIu64 " requests, %" PRIu64 " tokens, %u layers of %u experts, "
                  "top-%u, content %016" PRIx64 "\n",
                  output, model->name, result->request_count, result->row_count, model->layer_count,
                  model->expert_count, model->top_k, result->hash);
    if (result->resumed_row > 0) {
        (void) printf("went on from row %" PRIu64 " of an interrupted import\n",
                      result->resumed_row);
    }
}

enum moe_status moe_trace_command_import(int argc, char **argv, struct moe_error *err)
{
    const char *input = NULL;
    struct moe_import_request request = { .format = "auto", .progress = stderr };
    struct moe_import_result result;
    const struct moe_option options[] = {
        { "format", MOE_OPTION_TEXT, &request.format, "FORMAT", "what the input is", 0, 0 },
        { "o", MOE_OPTION_TEXT, &request.output, "T.db", "the trace store to write", 0, 0 },
        { "name", MOE_OPTION_TEXT, &request.name, "NAME", "the model's name, not the input's", 0,
          0 },
        { "overwrite", MOE_OPTION_FLAG, &request.overwrite, NULL,
          "replace a trace store of other content", 0, 0 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals inputs = { .items = &input, .min = 1, .max = 1 };
    if (moe_command_wants_help(argc, argv)) {
        help(options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &inputs, argc, argv, err));
    if (request.output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o T.db is missing: where the trace store goes");
    }
    request.input = input;
    MOE_TRY(moe_import_run(&request, &result, err));
    print_result(request.output, &result);
    return MOE_OK;
}

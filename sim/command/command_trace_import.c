#include <inttypes.h>
#include <stdio.h>

#include "sim/base/options.h"
#include "sim/command/command.h"
#include "sim/command/trace_command.h"
#include "traces/import.h"

enum { INPUT_LIMIT = 1024 };

static void help(const struct moe_option *options, size_t option_count)
{
    size_t count = 0;
    const struct moe_import_format *const *formats = moe_import_formats(&count);
    (void) fputs("usage: moesim trace import [OPTION ...] INPUT ... -o T.db\n", stdout);
    moe_options_print(stdout, options, option_count);
    (void) fputs("  Give the files of one dump (one per rank) together, or their folder.\n  An "
                 "import that was interrupted goes on when it is run again.\nformats:\n"
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
    if (model->content == MOE_TRACE_ARRIVALS) {
        (void) printf("%s: %s, arrivals of %" PRIu64 " requests, content %016" PRIx64 "\n", output,
                      model->name, result->request_count, result->hash);
    } else if (model->content == MOE_TRACE_LOADS) {
        (void) printf("%s: %s, %" PRIu64 " loads of %u layers of %u experts, content %016" PRIx64
                      "\n",
                      output, model->name, result->load_count, model->layer_count,
                      model->expert_count, result->hash);
    } else {
        (void) printf("%s: %s, %" PRIu64 " requests, %" PRIu64
                      " tokens, %u layers of %u experts, top-%u, content %016" PRIx64 "\n",
                      output, model->name, result->request_count, result->row_count,
                      model->layer_count, model->expert_count, model->top_k, result->hash);
    }
    if (result->warmup_rows > 0) {
        (void) printf("the first %" PRIu64 " %s are identical, as after a warm-up: %s\n",
                      result->warmup_rows, model->content == MOE_TRACE_LOADS ? "loads" : "rows",
                      result->rows_skipped > 0 ? "left out"
                                               : "kept; --skip-warmup leaves them out");
    }
    if (result->resumed_row > 0) {
        (void) printf("went on from row %" PRIu64 " of an interrupted import\n",
                      result->resumed_row);
    }
}

enum moe_status moe_trace_command_import(int argc, char **argv, struct moe_error *err)
{
    const char *inputs[INPUT_LIMIT] = { NULL };
    struct moe_import_request request = { .format = "auto", .progress = stderr };
    struct moe_import_result result;
    const struct moe_option options[] = {
        { "format", MOE_OPTION_TEXT, &request.format, "FORMAT", "what the input is", 0, 0 },
        { "o", MOE_OPTION_TEXT, &request.output, "T.db", "the trace store to write", 0, 0 },
        { "name", MOE_OPTION_TEXT, &request.name, "NAME", "the model's name, not the input's", 0,
          0 },
        { "layers", MOE_OPTION_TEXT, &request.options.layers, "LAYERS",
          "recorded layers to keep: all, moe (no dense ones), or the engine's numbers (3-60,62)", 0,
          0 },
        { "experts", MOE_OPTION_COUNT, &request.options.expert_count, "N",
          "experts of a layer, where the input does not say", 0, MOE_TRACE_EXPERT_LIMIT },
        { "top-k", MOE_OPTION_COUNT, &request.options.top_k, "N",
          "experts that a token chooses in a layer, where the input does not say", 0,
          MOE_TRACE_TOP_K_LIMIT },
        { "prompt-tokens", MOE_OPTION_COUNT, &request.options.prompt_tokens, "N",
          "prompt length of every request, where the input does not say", 0, UINT32_MAX },
        { "skip-warmup", MOE_OPTION_FLAG, &request.options.skip_warmup, NULL,
          "leave out identical leading rows, of which there are thousands after a warm-up", 0, 0 },
        { "seed", MOE_OPTION_SEED, &request.options.seed, "S",
          "for arrivals that are given as distributions", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &request.overwrite, NULL,
          "replace a trace store of other content", 0, 0 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals positionals = {
        .items = inputs, .min = 1, .max = INPUT_LIMIT, .what = "PATH, what to import,"
    };
    if (moe_command_wants_help(argc, argv)) {
        help(options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &positionals, argc, argv, err));
    if (request.output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o T.db is missing: where the trace store goes");
    }
    request.inputs = inputs;
    request.input_count = positionals.count;
    MOE_TRY(moe_import_run(&request, &result, err));
    print_result(request.output, &result);
    return MOE_OK;
}

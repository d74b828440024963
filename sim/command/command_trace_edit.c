/* `moesim trace merge`, `split`, `convert` and `export`. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/command/command.h"
#include "sim/command/trace_command.h"
#include "traces/export.h"
#include "traces/trace_edit.h"

static enum moe_status run_edit(const struct moe_trace_edit *edit, struct moe_error *err)
{
    struct moe_trace_edit_result result;
    MOE_TRY(moe_trace_edit_run(edit, &result, err));
    if (result.was_finished) {
        (void) printf("%s holds exactly this already; nothing was changed\n", edit->output);
        return MOE_OK;
    }
    (void) printf("%s: %s, %" PRIu64 " %s, content %016" PRIx64 "\n", edit->output,
                  result.model.name, result.item_count,
                  result.model.content == MOE_TRACE_LOADS ? "steps" : "requests", result.hash);
    return MOE_OK;
}

enum moe_status moe_trace_command_merge(int argc, char **argv, struct moe_error *err)
{
    const char *inputs[MOE_TRACE_EDIT_LIMIT] = { NULL };
    struct moe_trace_edit edit = { .verb = "merge", .choice = moe_trace_choose_all() };
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &edit.output, "T.db", "the trace store to write", 0, 0 },
        { "by-arrival", MOE_OPTION_FLAG, &edit.by_arrival, NULL,
          "in the order of arrival times, instead of one trace after the other", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &edit.overwrite, NULL,
          "replace a trace store of other content", 0, 0 },
    };
    const size_t count = sizeof options / sizeof options[0];
    struct moe_positionals positionals = {
        .items = inputs, .min = 2, .max = MOE_TRACE_EDIT_LIMIT, .what = "a trace store"
    };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim trace merge A.db B.db ... -o T.db\n"
                    "  Models have one shape; domains of one name become one.");
        moe_options_print(stdout, options, count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, count, &positionals, argc, argv, err));
    if (edit.output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o T.db is missing: where the trace store goes");
    }
    edit.inputs = inputs;
    edit.input_count = positionals.count;
    return run_edit(&edit, err);
}

/* Seconds of trace time, NaN when not said. */
struct window {
    double from_s;
    double to_s;
};

static enum moe_status settle_window(struct moe_trace_choice *choice, const struct window *window,
                                     struct moe_error *err)
{
    if (!isnan(window->from_s)) {
        choice->begin_ns = (int64_t) llround(window->from_s * 1e9);
    }
    if (!isnan(window->to_s)) {
        choice->end_ns = (int64_t) llround(window->to_s * 1e9);
    }
    return choice->begin_ns < choice->end_ns
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "--from %g is not before --to %g", window->from_s,
                          window->to_s);
}

enum moe_status moe_trace_command_split(int argc, char **argv, struct moe_error *err)
{
    const char *input = NULL;
    const char *rest = NULL;
    struct window window = { NAN, NAN };
    struct moe_trace_edit edit = { .verb = "split", .choice = moe_trace_choose_all() };
    edit.choice.seed = 1;
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &edit.output, "A.db", "store of what is chosen", 0, 0 },
        { "rest", MOE_OPTION_TEXT, &rest, "B.db", "store of the rest; none when not given", 0, 0 },
        { "domain", MOE_OPTION_TEXT, &edit.choice.domain, "NAME", "requests of this domain", 0, 0 },
        { "first", MOE_OPTION_REAL, &edit.choice.first_share, "X",
          "first part of the requests (steps, of loads) in recorded order", 1e-9, 1 },
        { "from", MOE_OPTION_REAL, &window.from_s, "S", "arrivals from this second on", 0, 1e9 },
        { "to", MOE_OPTION_REAL, &window.to_s, "S", "arrivals before this second", 0, 1e9 },
        { "draw", MOE_OPTION_REAL, &edit.choice.drawn_share, "X",
          "each with this probability, for training and test sets", 1e-9, 1 },
        { "seed", MOE_OPTION_SEED, &edit.choice.seed, "S", "of --draw", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &edit.overwrite, NULL,
          "replace trace stores of other content", 0, 0 },
    };
    const size_t count = sizeof options / sizeof options[0];
    struct moe_positionals positionals = {
        .items = &input, .min = 1, .max = 1, .what = "a trace store"
    };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim trace split T.db -o A.db [--rest B.db] [OPTION ...]");
        moe_options_print(stdout, options, count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, count, &positionals, argc, argv, err));
    if (edit.output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o A.db is missing: where what is chosen goes");
    }
    if (rest != NULL && strcmp(rest, edit.output) == 0) {
        return moe_fail(err, MOE_RANGE, "--rest: '%s' is the file of -o; allowed: another", rest);
    }
    MOE_TRY(settle_window(&edit.choice, &window, err));
    edit.inputs = &input;
    edit.input_count = 1;
    if (rest == NULL) {
        return run_edit(&edit, err);
    }
    struct moe_trace_edit other = edit;
    other.output = rest;
    other.choice.is_rest = true;
    MOE_TRY(moe_trace_edit_try(&other, err)); /* before the first store is written */
    MOE_TRY(run_edit(&edit, err));
    return run_edit(&other, err);
}

enum moe_status moe_trace_command_convert(int argc, char **argv, struct moe_error *err)
{
    const char *input = NULL;
    struct moe_trace_edit edit = { .verb = "convert", .choice = moe_trace_choose_all() };
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &edit.output, "T.db", "the trace store to write", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &edit.overwrite, NULL,
          "replace a trace store of other content", 0, 0 },
    };
    const size_t count = sizeof options / sizeof options[0];
    struct moe_positionals positionals = {
        .items = &input, .min = 1, .max = 1, .what = "a trace store"
    };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim trace convert OLD.db -o T.db\n"
                    "  Writes a store of any schema version anew, in the newest; its content stays "
                    "the same.");
        moe_options_print(stdout, options, count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, count, &positionals, argc, argv, err));
    if (edit.output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o T.db is missing: where the trace store goes");
    }
    edit.inputs = &input;
    edit.input_count = 1;
    return run_edit(&edit, err);
}

enum moe_status moe_trace_command_export(int argc, char **argv, struct moe_error *err)
{
    const char *input = NULL;
    const char *output = NULL;
    const char *name = "jsonl";
    bool overwrite = false;
    const struct moe_export_format *format = NULL;
    struct moe_trace *trace = NULL;
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &output, "PATH", "the file, or the folder, to write", 0, 0 },
        { "format", MOE_OPTION_TEXT, &name, "FORMAT", "what to write, see below", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &overwrite, NULL, "replace files that exist", 0, 0 },
    };
    const size_t count = sizeof options / sizeof options[0];
    struct moe_positionals positionals = {
        .items = &input, .min = 1, .max = 1, .what = "a trace store"
    };
    if (moe_command_wants_help(argc, argv)) {
        size_t format_count = 0;
        const struct moe_export_format *const *formats = moe_export_formats(&format_count);
        (void) puts("usage: moesim trace export T.db --format FORMAT -o PATH");
        moe_options_print(stdout, options, count);
        (void) puts("formats:");
        for (size_t i = 0; i < format_count; i++) {
            (void) printf("  %-6s %s\n", formats[i]->name, formats[i]->summary);
        }
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, count, &positionals, argc, argv, err));
    if (output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o PATH is missing: where the export goes");
    }
    MOE_TRY(moe_export_find(name, &format, err));
    MOE_TRY(moe_trace_open_any(&trace, input, err));
    const enum moe_status status = format->write(trace, output, overwrite, err);
    moe_trace_close(trace);
    if (status == MOE_OK) {
        (void) printf("%s: all of %s\n", output, input);
    }
    return status;
}

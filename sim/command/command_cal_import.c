/* moesim cal import: a CSV table of ours, or figures as others print them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/base/text_file.h"
#include "sim/calibration/published.h"
#include "sim/command/cal_command.h"
#include "sim/command/command.h"

enum { ARENA_BYTES = 512 << 20, TEXT_BYTES_MAX = 64 << 20 };

struct request {
    const char *path;
    const char *output;
    const char *base;
    const char *link;
    bool overwrite;
    struct moe_published_options options;
};

/* Ours begins its first line that is no comment with `table,`. */
static enum moe_status is_own_table(const char *path, bool *out, struct moe_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    MOE_TRY(moe_text_file_read(path, TEXT_BYTES_MAX, &text, &bytes, err));
    const char *line = text;
    while (*line == '#' || *line == '\n' || *line == '\r' || *line == ' ') {
        /* A comment of nccl-tests may stand first as well: its rows decide. */
        line += strcspn(line, "\n");
        line += *line == '\n' ? 1 : 0;
    }
    *out = strncmp(line, "table", 5) == 0;
    free(text);
    return MOE_OK;
}

static enum moe_status import_published(const struct request *request, struct moe_error *err)
{
    struct moe_arena arena;
    const struct moe_calibration *base = NULL;
    struct moe_published_result result;
    MOE_TRY(moe_arena_init(&arena, ARENA_BYTES, err));
    enum moe_status status = moe_calibration_load(&base, request->base, &arena, err);
    if (status == MOE_OK) {
        status = moe_published_import(&result, request->path, request->output, request->overwrite,
                                      base, &request->options, &arena, err);
    }
    moe_arena_finish(&arena);
    if (status == MOE_OK) {
        (void) printf("%s: %u exchanges and %u series of %u published points; %u rows skipped, %u "
                      "points faster than the GPU can be left out\n",
                      request->output, result.exchanges, result.series, result.points,
                      result.skipped, result.impossible);
    }
    return status;
}

static void help(const struct moe_option *options, size_t option_count)
{
    size_t count = 0;
    const struct moe_published_format *const *formats = moe_published_formats(&count);
    (void) puts("usage: moesim cal import FILE -o X.cal.db [OPTION ...]\n"
                "  Makes a calibration of a CSV table (format: sim/cost/calibration_csv.h), or of\n"
                "  what others publish; what that does not cover comes from the base.");
    moe_options_print(stdout, options, option_count);
    (void) puts("formats:\n  auto            the first of these that the file looks like\n"
                "  csv             a table of ours");
    for (size_t i = 0; i < count; i++) {
        (void) printf("  %-15s %s\n", formats[i]->name, formats[i]->summary);
    }
}

enum moe_status moe_cal_command_import(int argc, char **argv, struct moe_error *err)
{
    struct request request = { .base = "builtin", .link = "near", .options = { .format = "auto" } };
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &request.output, "X.cal.db", "the calibration to write", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &request.overwrite, NULL, "replace it when it exists", 0,
          0 },
        { "format", MOE_OPTION_TEXT, &request.options.format, "FORMAT", "see below", 0, 0 },
        { "base", MOE_OPTION_TEXT, &request.base, "CAL", "where the rest comes from", 0, 0 },
        { "gpu-kind", MOE_OPTION_TEXT, &request.options.gpu_kind, "KIND",
          "what was measured (without: the base's first)", 0, 0 },
        { "op", MOE_OPTION_TEXT, &request.options.op, "OP",
          "alltoall, all_gather, reduce_scatter or all_reduce, where the file does not say", 0, 0 },
        { "ranks", MOE_OPTION_COUNT, &request.options.ranks, "N", "where the file does not say", 2,
          65536 },
        { "link", MOE_OPTION_TEXT, &request.link, "LINK", "near (one node) or far", 0, 0 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals positionals = {
        .items = &request.path, .min = 1, .max = 1, .what = "what to import"
    };
    bool own = false;
    if (moe_command_wants_help(argc, argv)) {
        help(options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &positionals, argc, argv, err));
    if (request.output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o: which file to write is not said");
    }
    if (strcmp(request.link, "near") != 0 && strcmp(request.link, "far") != 0) {
        return moe_fail(err, MOE_RANGE, "--link: '%s'; allowed: near far", request.link);
    }
    request.options.link = strcmp(request.link, "far") == 0 ? MOE_LINK_FAR : MOE_LINK_NEAR;
    if (strcmp(request.options.format, "auto") == 0) {
        MOE_TRY(is_own_table(request.path, &own, err));
    }
    return own || strcmp(request.options.format, "csv") == 0
               ? moe_calibration_import(request.path, request.output, request.overwrite, err)
               : import_published(&request, err);
}

/*
 * Import format "llamacpp": the expert-selection log of llama.cpp forks, CSV with the header
 * "layer_id,expert_ids" and a line for each token and layer, ids separated by spaces.
 *
 * Neither tokens nor requests are numbered. Lines of one layer after another belong to
 * consecutive tokens of a batch; a batch ends where the layer goes down again, and all its
 * layers must have as many lines. The file is one request, all prompt unless --prompt-tokens
 * says otherwise.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/csv.h"
#include "traces/route_gather.h"

struct llamacpp {
    struct moe_csv csv;
    struct moe_route_gather gather;
    uint64_t batch_token; /* first token of the batch */
    uint64_t batch_size;  /* its lines per layer; 0: in its first layer */
    uint64_t run;         /* lines of the current layer so far */
    int64_t layer;        /* the current one; -1 before the first line */
};

static bool recognise(const struct moe_import_input *input)
{
    return input->file_count == 1 &&
           moe_import_file_begins(&input->files[0], "layer_id,expert_ids");
}

static enum moe_status read_ids(const struct moe_csv *csv, uint16_t *experts, uint32_t *count,
                                struct moe_error *err)
{
    const char *at = csv->fields[1];
    *count = 0;
    for (at += strspn(at, " "); *at != '\0'; at += strspn(at, " ")) {
        uint64_t value = 0;
        size_t digits = 0;
        for (; at[digits] >= '0' && at[digits] <= '9' && digits < 9; digits++) {
            value = value * 10 + (uint64_t) (at[digits] - '0');
        }
        if (digits == 0 || (at[digits] != ' ' && at[digits] != '\0') ||
            value >= MOE_TRACE_EXPERT_LIMIT || *count == MOE_TRACE_TOP_K_LIMIT) {
            return moe_fail(err, MOE_PARSE,
                            "%s:%" PRIu64
                            ": '%.20s' is no expert from 0 to %d, or more than %d of them",
                            csv->lines.path, csv->lines.number, at, MOE_TRACE_EXPERT_LIMIT - 1,
                            MOE_TRACE_TOP_K_LIMIT);
        }
        experts[(*count)++] = (uint16_t) value;
        at += digits;
    }
    return *count > 0 ? MOE_OK
                      : moe_fail(err, MOE_PARSE, "%s:%" PRIu64 ": no experts", csv->lines.path,
                                 csv->lines.number);
}

/* The current layer's lines end: all layers of a batch have as many. */
static enum moe_status end_run(struct llamacpp *import, struct moe_error *err)
{
    if (import->batch_size == 0) {
        import->batch_size = import->run;
    }
    if (import->run != import->batch_size) {
        return moe_fail(err, MOE_PARSE,
                        "%s:%" PRIu64 ": layer %" PRId64 " has %" PRIu64
                        " lines in this batch, those before it have %" PRIu64,
                        import->csv.lines.path, import->csv.lines.number, import->layer,
                        import->run, import->batch_size);
    }
    import->run = 0;
    return MOE_OK;
}

static enum moe_status read_record(struct llamacpp *import, struct moe_error *err)
{
    struct moe_csv *csv = &import->csv;
    uint16_t experts[MOE_TRACE_TOP_K_LIMIT];
    char place[4200];
    uint32_t count = 0;
    uint64_t layer = 0;
    if (csv->field_count != 2) {
        return moe_fail(err, MOE_PARSE,
                        "%s:%" PRIu64 ": %zu fields; layer_id,expert_ids is expected",
                        csv->lines.path, csv->lines.number, csv->field_count);
    }
    MOE_TRY(moe_csv_whole(csv, 0, MOE_GATHER_LAYER_END - 1, &layer, err));
    MOE_TRY(read_ids(csv, experts, &count, err));
    if (import->layer >= 0 && (int64_t) layer != import->layer) {
        MOE_TRY(end_run(import, err));
        if ((int64_t) layer < import->layer) {
            import->batch_token += import->batch_size;
            import->batch_size = 0;
        }
    }
    import->layer = (int64_t) layer;
    const struct moe_gather_choice choice = {
        .token = import->batch_token + import->run++,
        .layer = (uint32_t) layer,
        .count = count,
        .experts = experts,
    };
    (void) snprintf(place, sizeof place, "%s:%" PRIu64, csv->lines.path, csv->lines.number);
    return moe_route_gather_take(&import->gather, &choice, place, err);
}

static enum moe_status read_all(struct llamacpp *import, struct moe_error *err)
{
    bool got = false;
    MOE_TRY(moe_line_reader_rewind(&import->csv.lines, err));
    MOE_TRY(moe_csv_next(&import->csv, &got, err));
    if (!got || import->csv.field_count != 2 || strcmp(import->csv.fields[0], "layer_id") != 0) {
        return moe_fail(err, MOE_PARSE, "%s: the header layer_id,expert_ids is expected",
                        import->csv.lines.path);
    }
    import->batch_token = 0;
    import->batch_size = 0;
    import->run = 0;
    import->layer = -1;
    for (;;) {
        MOE_TRY(moe_csv_next(&import->csv, &got, err));
        if (!got) {
            return import->layer < 0 ? MOE_OK : end_run(import, err);
        }
        MOE_TRY(read_record(import, err));
    }
}

static void close_import(void *state)
{
    struct llamacpp *import = state;
    if (import != NULL) {
        moe_csv_close(&import->csv);
        moe_route_gather_finish(&import->gather);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct llamacpp *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    if (input->file_count != 1) {
        return moe_fail(err, MOE_RANGE, "%zu files; one log is expected", input->file_count);
    }
    input->files[0].is_used = true;
    MOE_TRY(moe_csv_open(&import->csv, input->files[0].path, err));
    MOE_TRY(read_all(import, err));
    MOE_TRY(moe_route_gather_turn(&import->gather, input->options.prompt_tokens,
                                  input->files[0].path, err));
    MOE_TRY(read_all(import, err));
    moe_route_gather_describe(&import->gather, out);
    (void) snprintf(out->record->engine, sizeof out->record->engine, "llama.cpp, a fork");
    (void) snprintf(out->record->note, sizeof out->record->note,
                    "the log is one request; tokens are counted from the order of layers");
    return MOE_OK;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct llamacpp *import = state;
    return moe_route_list_feed(&import->gather.list, sink, err);
}

const struct moe_import_format moe_import_llamacpp = {
    .name = "llamacpp",
    .summary = "expert-selection log of llama.cpp forks: layer_id,expert_ids",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};

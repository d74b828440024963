/*
 * Import format "mooncake": arrivals of Mooncake's traces (FAST'25), JSONL:
 *   {"timestamp": ms, "input_length", "output_length", "hash_ids": [...]}
 * ascending in time. hash_ids name the prompt's blocks of 512 tokens: equal numbers are equal
 * prefixes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "traces/json_documents.h"
#include "traces/route_gather.h"

enum { BLOCK_TOKENS = 512 };

struct mooncake {
    const char *path;
    int64_t *blocks; /* of one request; [MOE_TRACE_BLOCK_LIMIT] */
};

static bool recognise(const struct moe_import_input *input)
{
    static const char *const texts[] = { "\"timestamp\"", "\"input_length\"", "\"hash_ids\"",
                                         NULL };
    return input->file_count == 1 && moe_jsonl_recognise(input, texts);
}

static void close_import(void *state)
{
    struct mooncake *import = state;
    if (import != NULL) {
        free(import->blocks);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct mooncake *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    if (input->file_count != 1) {
        return moe_fail(err, MOE_RANGE, "%zu files; one file of arrivals is expected",
                        input->file_count);
    }
    import->blocks = malloc(MOE_TRACE_BLOCK_LIMIT * sizeof *import->blocks);
    if (import->blocks == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    input->files[0].is_used = true;
    import->path = input->files[0].path;
    out->model.content = MOE_TRACE_ARRIVALS;
    out->block_tokens = BLOCK_TOKENS;
    (void) snprintf(out->record->engine, sizeof out->record->engine, "Mooncake");
    return MOE_OK;
}

static enum moe_status read_blocks(const struct mooncake *import, const json_t *line,
                                   int64_t prompt, const char *place, size_t *count,
                                   struct moe_error *err)
{
    const json_t *list = json_object_get(line, "hash_ids");
    *count = json_array_size(list);
    if (!json_is_array(list) || *count > MOE_TRACE_BLOCK_LIMIT ||
        *count > (uint64_t) prompt / BLOCK_TOKENS + 1) {
        return moe_fail(
            err, MOE_PARSE,
            "%s: \"hash_ids\" is no list of blocks of %d tokens for a prompt of %" PRId64, place,
            BLOCK_TOKENS, prompt);
    }
    for (size_t i = 0; i < *count; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value)) {
            return moe_fail(err, MOE_PARSE, "%s: \"hash_ids\"[%zu] is %s; a number is expected",
                            place, i, moe_json_kind_text(value));
        }
        import->blocks[i] = json_integer_value(value);
    }
    return MOE_OK;
}

/* A pass over the file. */
struct pass {
    const struct mooncake *import;
    struct moe_import_sink *sink;
    int64_t last; /* milliseconds */
};

static enum moe_status send(void *context, const json_t *line, const char *place,
                            struct moe_error *err)
{
    struct pass *pass = context;
    int64_t time = 0;
    int64_t prompt = 0;
    int64_t output = 0;
    size_t blocks = 0;
    MOE_TRY(
        moe_json_whole(line, "timestamp", place, pass->last, INT64_MAX / 1000000, -1, &time, err));
    MOE_TRY(moe_json_whole(line, "input_length", place, 1, UINT32_MAX, -1, &prompt, err));
    MOE_TRY(moe_json_whole(line, "output_length", place, 1, UINT32_MAX, -1, &output, err));
    MOE_TRY(read_blocks(pass->import, line, prompt, place, &blocks, err));
    const struct moe_trace_request request = {
        .arrival_ns = time * 1000000,
        .prompt_tokens = (uint32_t) prompt,
        .output_tokens = (uint32_t) output,
    };
    pass->last = time;
    return pass->sink->request(pass->sink, &request, pass->import->blocks, blocks, err);
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    struct pass pass = { .import = state, .sink = sink };
    return moe_json_documents_read(pass.import->path, send, &pass, err);
}

const struct moe_import_format moe_import_mooncake = {
    .name = "mooncake",
    .summary = "arrivals: Mooncake's traces with prefix blocks, JSONL",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};

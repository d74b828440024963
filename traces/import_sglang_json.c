/*
 * Import format "sglang_json": files of SGLang's option --init-expert-location that hold
 * loads: {"logical_count": [layer][expert] or [step][layer][expert]}. Layers are all of the
 * model's, dense ones as zeros. Given together with it, a file with "physical_to_logical_map"
 * [layer][slot] is the placement that was in force; both keys may stand in one file.
 * Averages are fractional, and kept.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/import.h"
#include "traces/json_stream.h"

static const char count_key[] = "logical_count";
static const char map_key[] = "physical_to_logical_map";

struct sglang_json {
    struct moe_import_input *input;
    struct moe_json_matrix counts;
    struct moe_json_matrix map;
    uint16_t *placement;          /* of map */
    struct moe_import_sink *sink; /* NULL: only shapes and the map are wanted */
    uint64_t steps;
};

static bool recognise(const struct moe_import_input *input)
{
    for (size_t i = 0; i < input->file_count; i++) {
        const struct moe_import_file *file = &input->files[i];
        if (!moe_import_file_is_json(file) ||
            !(moe_import_file_has(file, "\"logical_count\"") ||
              moe_import_file_has(file, "\"physical_to_logical_map\""))) {
            return false;
        }
    }
    return input->file_count > 0;
}

static enum moe_status take_counts(void *context, const struct moe_json_matrix *matrix,
                                   struct moe_error *err)
{
    struct sglang_json *import = context;
    const struct moe_trace_load load = { import->steps, -1, MOE_TRACE_ALL_RANKS, 0 };
    import->steps++;
    return import->sink == NULL ? MOE_OK
                                : import->sink->load(import->sink, &load, matrix->cells, err);
}

static enum moe_status take_map(void *context, const struct moe_json_matrix *matrix,
                                struct moe_error *err)
{
    struct sglang_json *import = context;
    const size_t cells = (size_t) matrix->row_count * matrix->column_count;
    if (import->sink != NULL) {
        return MOE_OK; /* known from the first pass */
    }
    if (import->placement != NULL) {
        return moe_fail(err, MOE_PARSE, "\"%s\" stands twice", map_key);
    }
    import->placement = malloc(cells * sizeof *import->placement);
    if (import->placement == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a placement of %zu slots", cells);
    }
    for (size_t i = 0; i < cells; i++) {
        const double expert = matrix->cells[i];
        if (expert >= MOE_TRACE_EXPERT_LIMIT || expert != (double) (uint16_t) expert) {
            return moe_fail(err, MOE_PARSE, "%s[%zu][%zu] is %g; an expert is expected", map_key,
                            i / matrix->column_count, i % matrix->column_count, expert);
        }
        import->placement[i] = (uint16_t) expert;
    }
    return MOE_OK;
}

static enum moe_status read_file(struct sglang_json *import, struct moe_json_stream *stream,
                                 struct moe_error *err)
{
    enum moe_json_token token = MOE_JSON_END;
    bool seen[2] = { false, false };
    MOE_TRY(moe_json_stream_expect(stream, MOE_JSON_OBJECT_BEGIN, "an object", err));
    for (;;) {
        MOE_TRY(moe_json_stream_next(stream, &token, err));
        if (token == MOE_JSON_OBJECT_END) {
            return moe_json_stream_next(stream, &token, err); /* nothing may follow */
        }
        const bool is_count = strcmp(stream->text, count_key) == 0;
        if (!is_count && strcmp(stream->text, map_key) != 0) {
            MOE_TRY(moe_json_stream_skip(stream, err));
            continue;
        }
        if (seen[is_count]) {
            return moe_fail(err, MOE_PARSE, "%s:%" PRIu64 ": key \"%s\" stands twice", stream->path,
                            stream->line, stream->text);
        }
        seen[is_count] = true;
        MOE_TRY(is_count ? moe_json_stream_matrices(stream, true, count_key, &import->counts,
                                                    take_counts, import, err)
                         : moe_json_stream_matrices(stream, false, map_key, &import->map, take_map,
                                                    import, err));
    }
}

static enum moe_status pass(struct sglang_json *import, struct moe_import_sink *sink,
                            struct moe_error *err)
{
    import->sink = sink;
    import->steps = 0;
    for (size_t i = 0; i < import->input->file_count; i++) {
        struct moe_json_stream stream;
        import->input->files[i].is_used = true;
        MOE_TRY(moe_json_stream_open(&stream, import->input->files[i].path, err));
        const enum moe_status status = read_file(import, &stream, err);
        moe_json_stream_close(&stream);
        MOE_TRY(status);
    }
    return MOE_OK;
}

static void close_import(void *state)
{
    struct sglang_json *import = state;
    if (import != NULL) {
        moe_json_matrix_finish(&import->counts);
        moe_json_matrix_finish(&import->map);
        free(import->placement);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct sglang_json *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    import->input = input;
    import->counts.row_limit = MOE_TRACE_LAYER_LIMIT;
    import->counts.column_limit = MOE_TRACE_EXPERT_LIMIT;
    import->map.row_limit = MOE_TRACE_LAYER_LIMIT;
    import->map.column_limit = MOE_TRACE_EXPERT_LIMIT;
    MOE_TRY(pass(import, NULL, err));
    if (import->steps == 0) {
        return moe_fail(err, MOE_PARSE, "%s: holds no \"logical_count\"%s", input->paths[0],
                        import->placement != NULL ? ", only a placement: give it together with the "
                                                    "loads that were recorded under it"
                                                  : "");
    }
    out->model.content = MOE_TRACE_LOADS;
    out->model.layer_count = import->counts.row_count;
    out->model.expert_count = import->counts.column_count;
    if (import->placement != NULL && import->map.row_count != out->model.layer_count) {
        return moe_fail(err, MOE_PARSE, "%s: %s has %u layers, %s has %u", input->paths[0], map_key,
                        import->map.row_count, count_key, out->model.layer_count);
    }
    out->placement = import->placement;
    out->slot_count = import->map.column_count;
    for (uint32_t i = 0; i < out->model.layer_count; i++) {
        out->layer_number[i] = i;
    }
    (void) snprintf(out->record->engine, sizeof out->record->engine, "SGLang");
    return MOE_OK;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    return pass(state, sink, err);
}

const struct moe_import_format moe_import_sglang_json = {
    .name = "sglang_json",
    .summary = "SGLang's logical_count, with its physical_to_logical_map: JSON",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};

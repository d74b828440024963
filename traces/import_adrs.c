/*
 * Import format "adrs": the load history of a patched vLLM that the ADRS project publishes:
 *   {"load_history": [{"logical_expert_load": [layer][expert], ...}, ...]}
 * one element per step. The public file has 223 MB, so it is read as it passes, never whole.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/import.h"
#include "traces/json_stream.h"

struct adrs {
    const char *path;
    struct moe_json_matrix matrix;
    struct moe_import_sink *sink; /* NULL: only the shape of the first step is wanted */
    uint64_t steps;
};

static bool recognise(const struct moe_import_input *input)
{
    return input->file_count == 1 && moe_import_file_is_json(&input->files[0]) &&
           moe_import_file_has(&input->files[0], "\"load_history\"");
}

static enum moe_status take_matrix(void *context, const struct moe_json_matrix *matrix,
                                   struct moe_error *err)
{
    struct adrs *import = context;
    const struct moe_trace_load load = { import->steps, (int64_t) import->steps,
                                         MOE_TRACE_ALL_RANKS, 0 };
    import->steps++;
    return import->sink == NULL ? MOE_OK
                                : import->sink->load(import->sink, &load, matrix->cells, err);
}

static enum moe_status read_step(struct adrs *import, struct moe_json_stream *stream,
                                 struct moe_error *err)
{
    static const char key[] = "logical_expert_load";
    enum moe_json_token token = MOE_JSON_END;
    bool seen = false;
    for (;;) {
        MOE_TRY(moe_json_stream_next(stream, &token, err));
        if (token == MOE_JSON_OBJECT_END) {
            break;
        }
        if (strcmp(stream->text, key) != 0) {
            MOE_TRY(moe_json_stream_skip(stream, err));
            continue;
        }
        if (seen) {
            return moe_fail(err, MOE_PARSE, "%s:%" PRIu64 ":%" PRIu64 ": key \"%s\" stands twice",
                            stream->path, stream->line, stream->column, key);
        }
        seen = true;
        MOE_TRY(moe_json_stream_matrices(stream, false, key, &import->matrix, take_matrix, import,
                                         err));
    }
    return seen ? MOE_OK
                : moe_fail(err, MOE_PARSE, "%s:%" PRIu64 ": step %" PRIu64 " lacks \"%s\"",
                           stream->path, stream->line, import->steps, key);
}

static enum moe_status read_history(struct adrs *import, struct moe_json_stream *stream,
                                    struct moe_error *err)
{
    enum moe_json_token token = MOE_JSON_END;
    MOE_TRY(moe_json_stream_expect(stream, MOE_JSON_ARRAY_BEGIN, "a list of steps", err));
    for (;;) {
        MOE_TRY(moe_json_stream_next(stream, &token, err));
        if (token == MOE_JSON_ARRAY_END) {
            return MOE_OK;
        }
        if (token != MOE_JSON_OBJECT_BEGIN) {
            return moe_fail(err, MOE_PARSE,
                            "%s:%" PRIu64 ":%" PRIu64 ": load_history[%" PRIu64 "] is no object",
                            stream->path, stream->line, stream->column, import->steps);
        }
        MOE_TRY(read_step(import, stream, err));
        if (import->sink == NULL) {
            return MOE_OK;
        }
    }
}

static enum moe_status read_all(struct adrs *import, struct moe_json_stream *stream,
                                struct moe_error *err)
{
    enum moe_json_token token = MOE_JSON_END;
    bool seen = false;
    MOE_TRY(moe_json_stream_expect(stream, MOE_JSON_OBJECT_BEGIN, "an object", err));
    for (;;) {
        MOE_TRY(moe_json_stream_next(stream, &token, err));
        if (token == MOE_JSON_OBJECT_END) {
            break;
        }
        if (strcmp(stream->text, "load_history") != 0) {
            MOE_TRY(moe_json_stream_skip(stream, err));
            continue;
        }
        if (seen) {
            return moe_fail(err, MOE_PARSE, "%s:%" PRIu64 ": key \"load_history\" stands twice",
                            stream->path, stream->line);
        }
        seen = true;
        MOE_TRY(read_history(import, stream, err));
        if (import->sink == NULL) {
            return MOE_OK;
        }
    }
    if (!seen) {
        return moe_fail(err, MOE_PARSE, "%s: no key \"load_history\"", import->path);
    }
    return moe_json_stream_next(stream, &token, err); /* nothing may follow */
}

/* A pass over the file; with sink NULL up to the first step. */
static enum moe_status pass(struct adrs *import, struct moe_import_sink *sink,
                            struct moe_error *err)
{
    struct moe_json_stream stream;
    import->sink = sink;
    import->steps = 0;
    MOE_TRY(moe_json_stream_open(&stream, import->path, err));
    const enum moe_status status = read_all(import, &stream, err);
    moe_json_stream_close(&stream);
    return status;
}

static void close_import(void *state)
{
    struct adrs *import = state;
    if (import != NULL) {
        moe_json_matrix_finish(&import->matrix);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct adrs *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    if (input->file_count != 1) {
        return moe_fail(err, MOE_RANGE, "%zu files; one load history is expected",
                        input->file_count);
    }
    input->files[0].is_used = true;
    import->path = input->files[0].path;
    import->matrix.row_limit = MOE_TRACE_LAYER_LIMIT;
    import->matrix.column_limit = MOE_TRACE_EXPERT_LIMIT;
    MOE_TRY(pass(import, NULL, err));
    out->model.content = MOE_TRACE_LOADS;
    out->model.layer_count = import->matrix.row_count;
    out->model.expert_count = import->matrix.column_count;
    for (uint32_t i = 0; i < out->model.layer_count; i++) {
        out->layer_number[i] = i;
    }
    (void) snprintf(out->record->engine, sizeof out->record->engine, "vLLM, patched (ADRS)");
    return MOE_OK;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    return pass(state, sink, err);
}

const struct moe_import_format moe_import_adrs = {
    .name = "adrs",
    .summary = "load history of a patched vLLM (ADRS), one large JSON file",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};

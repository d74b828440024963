#include "traces/response_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* A document and who reads it. */
struct reading {
    struct moe_response_file *file;
    moe_response_reader *read;
};

static enum moe_status take(void *context, const json_t *document, const char *place,
                            struct moe_error *err)
{
    const struct reading *reading = context;
    return reading->read(reading->file, document, place, err);
}

enum moe_status moe_response_open(void **state, struct moe_import_input *input,
                                  struct moe_import_description *out, const char *engine,
                                  moe_response_reader *read, struct moe_error *err)
{
    struct moe_response_file *file = calloc(1, sizeof *file);
    struct reading reading = { file, read };
    if (file == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = file;
    file->out = out;
    file->options = &input->options;
    for (size_t i = 0; i < input->file_count; i++) {
        input->files[i].is_used = true;
        MOE_TRY(moe_json_documents_read(input->files[i].path, take, &reading, err));
    }
    out->model.content = MOE_TRACE_ROUTES;
    out->model.layer_count = file->list.layer_count;
    out->model.top_k = file->list.top_k;
    for (uint32_t i = 0; i < file->list.layer_count; i++) {
        out->layer_number[i] = i;
    }
    (void) snprintf(out->record->engine, sizeof out->record->engine, "%s", engine);
    return MOE_OK;
}

enum moe_status moe_response_feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct moe_response_file *file = state;
    return moe_route_list_feed(&file->list, sink, err);
}

void moe_response_close(void *state)
{
    struct moe_response_file *file = state;
    if (file != NULL) {
        moe_route_list_finish(&file->list);
        free(file);
    }
}

enum moe_status moe_response_axes(struct moe_response_file *file, uint64_t layers, uint64_t top_k,
                                  const char *place, struct moe_error *err)
{
    struct moe_route_list *list = &file->list;
    if (list->request_count == 0 && layers <= MOE_TRACE_LAYER_LIMIT &&
        top_k <= MOE_TRACE_TOP_K_LIMIT) {
        list->layer_count = (uint32_t) layers;
        list->top_k = (uint32_t) top_k;
    }
    return list->layer_count == layers && list->top_k == top_k
               ? MOE_OK
               : moe_fail(err, MOE_PARSE,
                          "%s: %" PRIu64 " layers and %" PRIu64
                          " choices; the same in all responses, and at most %d and %d are allowed",
                          place, layers, top_k, MOE_TRACE_LAYER_LIMIT, MOE_TRACE_TOP_K_LIMIT);
}

const json_t *moe_response_first(struct moe_json_documents *documents,
                                 const struct moe_import_input *input)
{
    const json_t *document = NULL;
    if (input->file_count == 0 || !moe_import_file_is_json(&input->files[0]) ||
        moe_json_documents_open(documents, input->files[0].path, NULL) != MOE_OK ||
        moe_json_documents_next(documents, &document, NULL) != MOE_OK) {
        return NULL;
    }
    return document;
}

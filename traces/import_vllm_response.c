/*
 * Import format "vllm_response": answers of vLLM's HTTP server with routed experts: one JSON
 * document each, a list of them, or one per line. Each choice becomes a request.
 *   choices[i].routed_experts   base64 of a .npy file [row][hidden layer][top_k], or
 *   v0.21: prompt_routed_experts [prompt][MoE layer][k] and choices[i].routed_experts [generated]
 *          [MoE layer][k] as nested lists, -1 where a prefix was cached
 * usage.prompt_tokens tells prompt rows from the others; there is no row for the last token
 * that was sampled, and the rows count, not usage.completion_tokens.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/base64.h"
#include "traces/json_documents.h"
#include "traces/npy.h"
#include "traces/route_list.h"

struct response {
    struct moe_route_list list;
    bool has_lists; /* layers are MoE layers, all recorded */
    char model[64];
};

static bool recognise(const struct moe_import_input *input)
{
    struct moe_json_documents documents;
    const json_t *document = NULL;
    if (input->file_count == 0 || !moe_import_file_is_json(&input->files[0]) ||
        !moe_import_file_has(&input->files[0], "\"object\"") ||
        moe_json_documents_open(&documents, input->files[0].path, NULL) != MOE_OK) {
        return false;
    }
    const bool read = moe_json_documents_next(&documents, &document, NULL) == MOE_OK;
    const json_t *choice = json_array_get(json_object_get(document, "choices"), 0);
    const bool found = read && json_object_get(choice, "routed_experts") != NULL;
    moe_json_documents_close(&documents);
    return found;
}

static enum moe_status set_axes(struct response *import, uint64_t layers, uint64_t top_k,
                                const char *place, struct moe_error *err)
{
    struct moe_route_list *list = &import->list;
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

static enum moe_status read_npy(struct response *import, const json_t *value, int64_t prompt,
                                const char *place, struct moe_error *err)
{
    struct moe_trace_request request;
    struct moe_tensor tensor = { 0 };
    unsigned char *bytes = NULL;
    size_t size = 0;
    MOE_TRY(moe_base64_decode(&bytes, &size, place, json_string_value(value),
                              json_string_length(value), err));
    enum moe_status status = moe_npy_tensor(&tensor, place, bytes, size, err);
    if (status == MOE_OK && (tensor.dimension_count != 3 || tensor.item_count == 0)) {
        status = moe_fail(err, MOE_PARSE,
                          "%s: an array of %u dimensions; [row][layer][k] is "
                          "expected",
                          place, tensor.dimension_count);
    }
    if (status == MOE_OK) {
        status = set_axes(import, tensor.shape[1], tensor.shape[2], place, err);
    }
    if (status == MOE_OK) {
        status = moe_route_list_split(tensor.shape[0], (uint64_t) prompt, place, &request, err);
    }
    if (status == MOE_OK) {
        status = moe_route_list_add_tensor(&import->list, &request, &tensor, place, err);
    }
    free(bytes);
    return status;
}

/* Rows of a nested list [row][layer][k]. */
static enum moe_status fill_rows(const struct response *import, const json_t *list, const char *key,
                                 uint16_t *rows, const char *place, struct moe_error *err)
{
    const struct moe_route_list *axes = &import->list;
    for (size_t row = 0; row < json_array_size(list); row++) {
        const json_t *layers = json_array_get(list, row);
        if (json_array_size(layers) != axes->layer_count) {
            return moe_fail(err, MOE_PARSE, "%s: \"%s\"[%zu] is no list of %u layers", place, key,
                            row, axes->layer_count);
        }
        for (size_t layer = 0; layer < axes->layer_count; layer++, rows += axes->top_k) {
            char where[4300];
            (void) snprintf(where, sizeof where, "%s: row %zu, layer %zu", place, row, layer);
            MOE_TRY(moe_json_experts(json_array_get(layers, layer), axes->top_k, key, where, rows,
                                     err));
        }
    }
    return MOE_OK;
}

static enum moe_status read_lists(struct response *import, const json_t *prompt,
                                  const json_t *generated, const char *place, struct moe_error *err)
{
    const json_t *row = json_array_get(json_array_size(prompt) > 0 ? prompt : generated, 0);
    struct moe_trace_request request;
    uint16_t *rows = NULL;
    MOE_TRY(set_axes(import, json_array_size(row), json_array_size(json_array_get(row, 0)), place,
                     err));
    MOE_TRY(moe_route_list_split(json_array_size(prompt) + json_array_size(generated),
                                 json_array_size(prompt), place, &request, err));
    MOE_TRY(moe_route_list_add(&import->list, &request, &rows, place, err));
    MOE_TRY(fill_rows(import, prompt, "prompt_routed_experts", rows, place, err));
    import->has_lists = true;
    return fill_rows(import, generated, "routed_experts",
                     rows + json_array_size(prompt) * import->list.layer_count * import->list.top_k,
                     place, err);
}

static enum moe_status read_response(struct response *import, const json_t *document,
                                     const char *place, struct moe_error *err)
{
    const json_t *choices = json_object_get(document, "choices");
    const json_t *usage = json_object_get(document, "usage");
    const json_t *model = json_object_get(document, "model");
    int64_t prompt = 0;
    if (!json_is_array(choices) || json_array_size(choices) == 0) {
        return moe_fail(err, MOE_PARSE, "%s: \"choices\" is %s; a list of at least one is expected",
                        place, moe_json_kind_text(choices));
    }
    MOE_TRY(moe_json_whole(usage, "prompt_tokens", place, 1, INT32_MAX, -1, &prompt, err));
    if (json_is_string(model)) {
        (void) snprintf(import->model, sizeof import->model, "%.60s", json_string_value(model));
    }
    for (size_t i = 0; i < json_array_size(choices); i++) {
        char where[4300];
        const json_t *choice = json_array_get(choices, i);
        const json_t *value = json_object_get(choice, "routed_experts");
        const json_t *of_prompt = json_object_get(choice, "prompt_routed_experts");
        of_prompt =
            of_prompt != NULL ? of_prompt : json_object_get(document, "prompt_routed_experts");
        (void) snprintf(where, sizeof where, "%s: choices[%zu].routed_experts", place, i);
        if (json_is_string(value)) {
            MOE_TRY(read_npy(import, value, prompt, where, err));
        } else if (json_is_array(value) && (of_prompt == NULL || json_is_array(of_prompt))) {
            MOE_TRY(read_lists(import, of_prompt, value, where, err));
        } else {
            return moe_fail(err, MOE_PARSE, "%s is %s; base64 of a .npy file or lists are expected",
                            where, moe_json_kind_text(value));
        }
    }
    return MOE_OK;
}

static enum moe_status read_file(struct response *import, const char *path, struct moe_error *err)
{
    struct moe_json_documents documents;
    const json_t *document = NULL;
    MOE_TRY(moe_json_documents_open(&documents, path, err));
    enum moe_status status = moe_json_documents_next(&documents, &document, err);
    while (status == MOE_OK && document != NULL) {
        status = read_response(import, document, documents.place, err);
        if (status == MOE_OK) {
            status = moe_json_documents_next(&documents, &document, err);
        }
    }
    moe_json_documents_close(&documents);
    return status;
}

static void close_import(void *state)
{
    struct response *import = state;
    if (import != NULL) {
        moe_route_list_finish(&import->list);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct response *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    for (size_t i = 0; i < input->file_count; i++) {
        input->files[i].is_used = true;
        MOE_TRY(read_file(import, input->files[i].path, err));
    }
    out->model.content = MOE_TRACE_ROUTES;
    out->model.layer_count = import->list.layer_count;
    out->model.top_k = import->list.top_k;
    memcpy(out->model.name, import->model, sizeof import->model);
    out->layers_stated = import->has_lists;
    for (uint32_t i = 0; i < import->list.layer_count; i++) {
        out->layer_number[i] = i;
        out->is_moe_layer[i] = true;
    }
    (void) snprintf(out->record->engine, sizeof out->record->engine, "vLLM");
    return MOE_OK;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct response *import = state;
    return moe_route_list_feed(&import->list, sink, err);
}

const struct moe_import_format moe_import_vllm_response = {
    .name = "vllm_response",
    .summary = "vLLM's responses with routed experts: JSON, or a line each",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};

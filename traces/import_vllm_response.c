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
#include "traces/npy.h"
#include "traces/response_file.h"

static bool recognise(const struct moe_import_input *input)
{
    struct moe_json_documents documents = { 0 };
    if (input->file_count == 0 || !moe_import_file_has(&input->files[0], "\"object\"")) {
        return false; /* before a whole document is read, which may be huge */
    }
    const json_t *document = moe_response_first(&documents, input);
    const json_t *choice = json_array_get(json_object_get(document, "choices"), 0);
    const bool found = json_object_get(choice, "routed_experts") != NULL;
    moe_json_documents_close(&documents);
    return found;
}

static enum moe_status read_npy(struct moe_response_file *import, const json_t *value,
                                int64_t prompt, const char *place, struct moe_error *err)
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
        status = moe_response_axes(import, tensor.shape[1], tensor.shape[2], place, err);
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
static enum moe_status fill_rows(const struct moe_response_file *import, const json_t *list,
                                 const char *key, uint16_t *rows, const char *place,
                                 struct moe_error *err)
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

static enum moe_status read_lists(struct moe_response_file *import, const json_t *prompt,
                                  const json_t *generated, const char *place, struct moe_error *err)
{
    const json_t *row = json_array_get(json_array_size(prompt) > 0 ? prompt : generated, 0);
    const struct moe_route_list *axes = &import->list;
    struct moe_trace_request request;
    uint16_t *rows = NULL;
    MOE_TRY(moe_response_axes(import, json_array_size(row), json_array_size(json_array_get(row, 0)),
                              place, err));
    MOE_TRY(moe_route_list_split(json_array_size(prompt) + json_array_size(generated),
                                 json_array_size(prompt), place, &request, err));
    MOE_TRY(moe_route_list_add(&import->list, &request, &rows, place, err));
    MOE_TRY(fill_rows(import, prompt, "prompt_routed_experts", rows, place, err));
    import->out->layers_stated = true; /* lists have MoE layers only, and all of them */
    for (uint32_t i = 0; i < axes->layer_count; i++) {
        import->out->is_moe_layer[i] = true;
    }
    return fill_rows(import, generated, "routed_experts",
                     rows + json_array_size(prompt) * axes->layer_count * axes->top_k, place, err);
}

static enum moe_status read_response(struct moe_response_file *import, const json_t *document,
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
        (void) snprintf(import->out->model.name, sizeof import->out->model.name, "%.60s",
                        json_string_value(model));
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

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    return moe_response_open(state, input, out, "vLLM", read_response, err);
}

const struct moe_import_format moe_import_vllm_response = {
    .name = "vllm_response",
    .summary = "vLLM's responses with routed experts: JSON, or a line each",
    .recognise = recognise,
    .open = open_import,
    .feed = moe_response_feed,
    .close = moe_response_close,
};

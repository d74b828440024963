/*
 * Import format "sglang_response": answers of SGLang's HTTP server to requests with
 * return_routed_experts: one JSON document each, a list of them, or one per line.
 *
 * In meta_info (OpenAI's endpoints: sglext), base64 of raw little-endian ids, row-major
 * [row][hidden layer][top_k]:
 *   routed_experts, routed_experts_dtype     all rows, prompt + completion - 1
 *   input_expert_ids, output_expert_ids and expert_ids_schema     newer, in two parts with a
 *                   position each; tokens before and between them (a cached prefix) are unknown
 * Without the schema neither the layers nor the choices are stated: then --top-k is needed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/base64.h"
#include "traces/response_file.h"

static bool recognise(const struct moe_import_input *input)
{
    struct moe_json_documents documents = { 0 };
    if (input->file_count == 0 || !(moe_import_file_has(&input->files[0], "\"meta_info\"") ||
                                    moe_import_file_has(&input->files[0], "\"sglext\""))) {
        return false; /* before a whole document is read, which may be huge */
    }
    const json_t *document = moe_response_first(&documents, input);
    const bool found = json_object_get(document, "meta_info") != NULL ||
                       json_object_get(document, "sglext") != NULL;
    moe_json_documents_close(&documents);
    return found;
}

static enum moe_status read_type(const json_t *object, const char *key, const char *place,
                                 enum moe_tensor_type *out, struct moe_error *err)
{
    static const struct {
        const char *name;
        enum moe_tensor_type type;
    } types[] = {
        { "int32", MOE_TENSOR_I32 }, { "uint16", MOE_TENSOR_U16 }, { "uint8", MOE_TENSOR_U8 },
        { "int16", MOE_TENSOR_I16 }, { "int64", MOE_TENSOR_I64 },
    };
    const json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    *out = MOE_TENSOR_I32; /* what is meant when nothing is said */
    for (size_t i = 0; text != NULL && i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(text, types[i].name) == 0) {
            *out = types[i].type;
            return MOE_OK;
        }
    }
    return value == NULL
               ? MOE_OK
               : moe_fail(err, MOE_PARSE,
                          "%s: \"%s\" is %.40s; int32, uint16, uint8, int16 and int64 are "
                          "read",
                          place, key, text == NULL ? moe_json_kind_text(value) : text);
}

static enum moe_status decode(const json_t *object, const char *key, const char *place,
                              unsigned char **bytes, size_t *size, struct moe_error *err)
{
    char what[4300];
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) {
        return moe_fail(err, MOE_PARSE, "%s: \"%s\" is %s; a text of base64 is expected", place,
                        key, moe_json_kind_text(value));
    }
    (void) snprintf(what, sizeof what, "%s: \"%s\"", place, key);
    return moe_base64_decode(bytes, size, what, json_string_value(value), json_string_length(value),
                             err);
}

/* The schema's list of MoE layers, once. */
static enum moe_status read_moe_layers(struct moe_response_file *import, const json_t *schema,
                                       const char *place, struct moe_error *err)
{
    const json_t *ids = json_object_get(schema, "moe_layer_ids");
    struct moe_import_description *out = import->out;
    if (ids == NULL || out->layers_stated) {
        return MOE_OK;
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_int_t id = json_integer_value(json_array_get(ids, i));
        if (!json_is_integer(json_array_get(ids, i)) || id < 0 || id >= import->list.layer_count) {
            return moe_fail(err, MOE_PARSE, "%s: \"moe_layer_ids\"[%zu] is no layer of 0 to %u",
                            place, i, import->list.layer_count - 1);
        }
        out->is_moe_layer[id] = true;
    }
    out->layers_stated = true;
    return MOE_OK;
}

/* One of the two parts: rows from a position on. */
static enum moe_status fill_part(const struct moe_response_file *import, const json_t *meta,
                                 const char *key, enum moe_tensor_type type, uint64_t row_count,
                                 uint16_t *rows, const char *place, struct moe_error *err)
{
    unsigned char *bytes = NULL;
    size_t size = 0;
    MOE_TRY(decode(meta, key, place, &bytes, &size, err));
    const uint64_t ids = row_count * import->list.layer_count * import->list.top_k;
    struct moe_tensor tensor = {
        .type = type, .dimension_count = 1, .shape = { ids }, .stride = { 1 }, .data = bytes
    };
    enum moe_status status = MOE_OK;
    if (size != ids * moe_tensor_item_bytes(type)) {
        status =
            moe_fail(err, MOE_PARSE,
                     "%s: \"%s\" holds %zu bytes; %" PRIu64 " rows of %u layers and %u choices "
                     "have %" PRIu64,
                     place, key, size, row_count, import->list.layer_count, import->list.top_k,
                     ids * moe_tensor_item_bytes(type));
    }
    if (status == MOE_OK && ids > 0) {
        status = moe_tensor_check(&tensor, size, place, err);
    }
    if (status == MOE_OK && ids > 0) {
        const uint64_t good = moe_tensor_experts(&tensor, 0, ids, rows);
        if (good < ids) {
            char value[32];
            status = moe_fail(
                err, MOE_PARSE,
                "%s: \"%s\": item %" PRIu64 " is %s, neither an expert from 0 to %d nor -1", place,
                key, good, moe_tensor_item_text(&tensor, good, value, sizeof value),
                MOE_TRACE_EXPERT_LIMIT - 1);
        }
    }
    free(bytes);
    return status;
}

static enum moe_status read_parts(struct moe_response_file *import, const json_t *meta,
                                  const json_t *schema, int64_t prompt, const char *place,
                                  struct moe_error *err)
{
    enum { MOST = INT32_MAX };
    enum moe_tensor_type type = MOE_TENSOR_I32;
    struct moe_trace_request request;
    uint16_t *rows = NULL;
    int64_t layers = 0;
    int64_t top_k = 0;
    int64_t in_rows = 0;
    int64_t out_rows = 0;
    int64_t in_start = 0;
    int64_t out_start = 0;
    MOE_TRY(read_type(schema, "dtype", place, &type, err));
    MOE_TRY(
        moe_json_whole(schema, "num_layers", place, 1, MOE_TRACE_LAYER_LIMIT, -1, &layers, err));
    MOE_TRY(moe_json_whole(schema, "top_k", place, 1, MOE_TRACE_TOP_K_LIMIT, -1, &top_k, err));
    MOE_TRY(moe_json_whole(schema, "input_num_rows", place, 0, MOST, -1, &in_rows, err));
    MOE_TRY(moe_json_whole(schema, "output_num_rows", place, 0, MOST, -1, &out_rows, err));
    MOE_TRY(moe_json_whole(schema, "input_start_position", place, 0, MOST, 0, &in_start, err));
    MOE_TRY(moe_json_whole(schema, "output_start_position", place, 0, MOST, in_start + in_rows,
                           &out_start, err));
    if (out_start < in_start + in_rows) {
        return moe_fail(err, MOE_PARSE,
                        "%s: output rows begin at position %" PRId64 ", within the input's, which "
                        "end at %" PRId64,
                        place, out_start, in_start + in_rows);
    }
    const json_t *layout = json_object_get(schema, "layout");
    const json_t *space = json_object_get(schema, "id_space");
    if ((layout != NULL &&
         strcmp(json_string_value(layout) == NULL ? "" : json_string_value(layout), "row_major") !=
             0) ||
        (space != NULL && strcmp(json_string_value(space) == NULL ? "" : json_string_value(space),
                                 "logical_global") != 0)) {
        return moe_fail(err, MOE_PARSE,
                        "%s: a layout or id_space other than row_major and logical_global", place);
    }
    MOE_TRY(moe_response_axes(import, (uint64_t) layers, (uint64_t) top_k, place, err));
    MOE_TRY(read_moe_layers(import, schema, place, err));
    MOE_TRY(moe_route_list_split((uint64_t) (out_start + out_rows), (uint64_t) prompt, place,
                                 &request, err));
    MOE_TRY(moe_route_list_add(&import->list, &request, &rows, place, err));
    const size_t per_row = (size_t) layers * (size_t) top_k;
    MOE_TRY(fill_part(import, meta, "input_expert_ids", type, (uint64_t) in_rows,
                      rows + (size_t) in_start * per_row, place, err));
    return fill_part(import, meta, "output_expert_ids", type, (uint64_t) out_rows,
                     rows + (size_t) out_start * per_row, place, err);
}

static enum moe_status read_whole(struct moe_response_file *import, const json_t *meta,
                                  int64_t prompt, int64_t completion, const char *place,
                                  struct moe_error *err)
{
    static const char key[] = "routed_experts";
    const int64_t rows = prompt + completion - 1;
    enum moe_tensor_type type = MOE_TENSOR_I32;
    struct moe_trace_request request;
    unsigned char *bytes = NULL;
    size_t size = 0;
    uint16_t *to = NULL;
    MOE_TRY(read_type(meta, "routed_experts_dtype", place, &type, err));
    if (import->options->top_k == 0 && import->list.top_k == 0) {
        return moe_fail(err, MOE_RANGE,
                        "%s: does not state how many experts a token chooses; give --top-k N",
                        place);
    }
    MOE_TRY(decode(meta, key, place, &bytes, &size, err));
    free(bytes); /* only its size, for the layers; it is decoded again into its place */
    const uint64_t top_k = import->list.top_k != 0 ? import->list.top_k : import->options->top_k;
    const uint64_t row_bytes = (uint64_t) rows * top_k * moe_tensor_item_bytes(type);
    const uint64_t layers = row_bytes == 0 ? 0 : size / row_bytes;
    if (layers < 1 || layers > MOE_TRACE_LAYER_LIMIT || layers * row_bytes != size) {
        return moe_fail(err, MOE_PARSE,
                        "%s: \"%s\" holds %zu bytes, no whole number of layers for %" PRId64
                        " rows (prompt + completion - 1) of %" PRIu64 " choices",
                        place, key, size, rows, top_k);
    }
    MOE_TRY(moe_response_axes(import, layers, top_k, place, err));
    MOE_TRY(moe_route_list_split((uint64_t) rows, (uint64_t) prompt, place, &request, err));
    MOE_TRY(moe_route_list_add(&import->list, &request, &to, place, err));
    return fill_part(import, meta, key, type, (uint64_t) rows, to, place, err);
}

static enum moe_status read_response(struct moe_response_file *import, const json_t *document,
                                     const char *place, struct moe_error *err)
{
    const json_t *meta = json_object_get(document, "meta_info");
    int64_t prompt = 0;
    int64_t completion = 0;
    meta = meta != NULL ? meta : json_object_get(document, "sglext");
    if (!json_is_object(meta)) {
        return moe_fail(err, MOE_PARSE,
                        "%s: \"meta_info\" (or \"sglext\") is %s; an object is "
                        "expected",
                        place, moe_json_kind_text(meta));
    }
    const json_t *usage = json_object_get(document, "usage");
    const json_t *lengths = json_object_get(meta, "prompt_tokens") == NULL ? usage : meta;
    MOE_TRY(moe_json_whole(lengths, "prompt_tokens", place, 1, INT32_MAX, -1, &prompt, err));
    MOE_TRY(
        moe_json_whole(lengths, "completion_tokens", place, 1, INT32_MAX, -1, &completion, err));
    const json_t *schema = json_object_get(meta, "expert_ids_schema");
    return schema != NULL ? read_parts(import, meta, schema, prompt, place, err)
                          : read_whole(import, meta, prompt, completion, place, err);
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    return moe_response_open(state, input, out, "SGLang", read_response, err);
}

const struct moe_import_format moe_import_sglang_response = {
    .name = "sglang_response",
    .summary = "SGLang's responses with routed experts: JSON, or a line each",
    .recognise = recognise,
    .open = open_import,
    .feed = moe_response_feed,
    .close = moe_response_close,
};

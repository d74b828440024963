/*
 * Import format "array": numpy files of routes, .npy (vLLM's Python interface) or .npz: an
 * array of integers [row][layer][k], -1 for what was not recorded. Each file is one request,
 * all prompt unless --prompt-tokens says otherwise.
 *
 * In a .npz it is the array of three dimensions named indices, experts or routed_experts, or
 * the only one. With four dimensions, the first two are taken together as rows. An array
 * "layers" of as many numbers as there are layers gives the engine's layer numbers.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sim/base/text_file.h"
#include "traces/npy.h"
#include "traces/route_list.h"
#include "traces/zip_file.h"

#define FILE_LIMIT_BYTES ((size_t) 2 << 30)

struct array_import {
    struct moe_route_list list;
    struct moe_import_description *out;
    uint32_t prompt_tokens;
    bool has_layer_numbers;
};

static bool is_npy(const struct moe_import_file *file)
{
    return moe_import_file_begins(file, "\x93NUMPY");
}

static bool is_npz(const struct moe_import_file *file)
{
    return moe_import_file_begins(file, "PK\003\004") && moe_import_file_has(file, ".npy");
}

static bool recognise(const struct moe_import_input *input)
{
    for (size_t i = 0; i < input->file_count; i++) {
        if (!is_npy(&input->files[i]) && !is_npz(&input->files[i])) {
            return false;
        }
    }
    return input->file_count > 0;
}

/* [pos][seq][layer][k] to [row][layer][k]: only where the first two axes lie like one. */
static bool flatten(struct moe_tensor *tensor)
{
    if (tensor->dimension_count != 4) {
        return tensor->dimension_count == 3;
    }
    if (tensor->stride[0] != tensor->stride[1] * tensor->shape[1]) {
        return false;
    }
    tensor->shape[0] *= tensor->shape[1];
    tensor->stride[0] = tensor->stride[1];
    for (uint32_t i = 1; i < 3; i++) {
        tensor->shape[i] = tensor->shape[i + 1];
        tensor->stride[i] = tensor->stride[i + 1];
    }
    tensor->dimension_count = 3;
    return true;
}

static enum moe_status add_array(struct array_import *import, struct moe_tensor *tensor,
                                 const char *what, struct moe_error *err)
{
    struct moe_route_list *list = &import->list;
    struct moe_trace_request request;
    char shape[100];
    if (tensor->item_count == 0 || !flatten(tensor)) {
        return moe_fail(err, MOE_PARSE, "%s: shape %s; [row][layer][k] is expected", what,
                        moe_tensor_shape_text(tensor, shape, sizeof shape));
    }
    if (list->request_count == 0 && tensor->shape[1] <= MOE_TRACE_LAYER_LIMIT &&
        tensor->shape[2] <= MOE_TRACE_TOP_K_LIMIT) {
        list->layer_count = (uint32_t) tensor->shape[1];
        list->top_k = (uint32_t) tensor->shape[2];
    }
    MOE_TRY(moe_route_list_split(tensor->shape[0], import->prompt_tokens, what, &request, err));
    return moe_route_list_add_tensor(list, &request, tensor, what, err);
}

static enum moe_status read_npy(struct array_import *import, const char *path, uint64_t size_bytes,
                                struct moe_error *err)
{
    /* The limit is also what the reader takes from the heap. */
    const size_t limit = size_bytes < FILE_LIMIT_BYTES ? (size_t) size_bytes : FILE_LIMIT_BYTES;
    struct moe_tensor tensor;
    char *bytes = NULL;
    size_t size = 0;
    MOE_TRY(moe_text_file_read(path, limit, &bytes, &size, err));
    enum moe_status status =
        moe_npy_tensor(&tensor, path, (const unsigned char *) bytes, size, err);
    if (status == MOE_OK) {
        status = add_array(import, &tensor, path, err);
    }
    free(bytes);
    return status;
}

/* The member that holds the routes: by name, else the only one whose header fits. */
static enum moe_status find_routes(const struct moe_zip *zip, uint64_t *out, struct moe_error *err)
{
    static const char *const names[] = { "indices.npy", "experts.npy", "routed_experts.npy" };
    size_t found = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const int64_t member = moe_zip_find(zip, names[i]);
        if (member >= 0) {
            *out = (uint64_t) member;
            return MOE_OK;
        }
    }
    for (uint64_t i = 0; i < moe_zip_member_count(zip); i++) {
        struct moe_tensor tensor;
        unsigned char *bytes = NULL;
        size_t size = 0;
        MOE_TRY(moe_zip_read(zip, i, UINT64_MAX, &bytes, &size, err));
        const bool fits =
            moe_npy_tensor(&tensor, "", bytes, size, NULL) == MOE_OK && tensor.dimension_count == 3;
        free(bytes);
        if (fits) {
            *out = i;
            found++;
        }
    }
    return found == 1
               ? MOE_OK
               : moe_fail(err, MOE_PARSE,
                          "%s: %zu arrays of three dimensions and none named indices, experts "
                          "or routed_experts",
                          moe_zip_path(zip), found);
}

static enum moe_status read_layers(struct array_import *import, const struct moe_zip *zip,
                                   struct moe_error *err)
{
    struct moe_import_description *out = import->out;
    const int64_t member = moe_zip_find(zip, "layers.npy");
    const uint32_t count = import->list.layer_count;
    int64_t numbers[MOE_TRACE_LAYER_LIMIT];
    struct moe_tensor tensor;
    unsigned char *bytes = NULL;
    size_t size = 0;
    if (member < 0 || import->has_layer_numbers) {
        return MOE_OK;
    }
    MOE_TRY(moe_zip_read(zip, (uint64_t) member, 1 << 20, &bytes, &size, err));
    enum moe_status status = moe_npy_tensor(&tensor, moe_zip_path(zip), bytes, size, err);
    const bool fits = status == MOE_OK && tensor.dimension_count == 1 &&
                      tensor.item_count == count &&
                      moe_tensor_whole(&tensor, 0, count, numbers) == count;
    free(bytes);
    MOE_TRY(status);
    for (uint32_t i = 0; i < count; i++) {
        if (!fits || numbers[i] < 0 || numbers[i] > UINT32_MAX ||
            (i > 0 && numbers[i] <= numbers[i - 1])) {
            return moe_fail(err, MOE_PARSE,
                            "%s: layers: %u ascending layer numbers are expected, one for each "
                            "layer of the routes",
                            moe_zip_path(zip), count);
        }
        out->layer_number[i] = (uint32_t) numbers[i];
    }
    import->has_layer_numbers = true;
    return status;
}

static enum moe_status read_npz(struct array_import *import, const char *path,
                                struct moe_error *err)
{
    char what[4200];
    struct moe_zip *zip = NULL;
    struct moe_tensor tensor;
    unsigned char *bytes = NULL;
    size_t size = 0;
    uint64_t member = 0;
    MOE_TRY(moe_zip_open(&zip, path, err));
    enum moe_status status = find_routes(zip, &member, err);
    if (status == MOE_OK) {
        status = moe_zip_read(zip, member, UINT64_MAX, &bytes, &size, err);
    }
    (void) snprintf(what, sizeof what, "%s: %.80s", path,
                    status == MOE_OK ? moe_zip_member_name(zip, member) : "");
    if (status == MOE_OK) {
        status = moe_npy_tensor(&tensor, what, bytes, size, err);
    }
    if (status == MOE_OK) {
        status = add_array(import, &tensor, what, err);
    }
    if (status == MOE_OK) {
        status = read_layers(import, zip, err);
    }
    free(bytes);
    moe_zip_close(zip);
    return status;
}

static void close_import(void *state)
{
    struct array_import *import = state;
    if (import != NULL) {
        moe_route_list_finish(&import->list);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct array_import *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    import->out = out;
    import->prompt_tokens = input->options.prompt_tokens;
    for (size_t i = 0; i < input->file_count; i++) {
        struct moe_import_file *file = &input->files[i];
        file->is_used = true;
        MOE_TRY(is_npz(file) ? read_npz(import, file->path, err)
                             : read_npy(import, file->path, file->size_bytes, err));
    }
    out->model.content = MOE_TRACE_ROUTES;
    out->model.layer_count = import->list.layer_count;
    out->model.top_k = import->list.top_k;
    for (uint32_t i = 0; i < import->list.layer_count && !import->has_layer_numbers; i++) {
        out->layer_number[i] = i;
    }
    (void) snprintf(out->record->note, sizeof out->record->note, "each file is one request, %s",
                    import->prompt_tokens == 0 ? "all prompt"
                                               : "its prompt as --prompt-tokens says");
    return MOE_OK;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct array_import *import = state;
    return moe_route_list_feed(&import->list, sink, err);
}

const struct moe_import_format moe_import_array = {
    .name = "array",
    .summary = "routes in .npy or .npz files, [row][layer][k], a request each",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};

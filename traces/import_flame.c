/*
 * Import format "flame": token traces of CMU-FLAME, a torch file per MoE layer:
 *   { layer, num_sequences, sequence_length, num_tokens, samples: [token], scores,
 *     indices: [token][top_k] }.
 * Sequences are requests, all prompt. The same samples stand in all layers, which is checked:
 * it makes row i the same token everywhere.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/route_gather.h"
#include "traces/torch_file.h"

struct flame {
    struct moe_route_gather gather;
    struct moe_import_input *input;
    int64_t sequence_length;
    int64_t *samples; /* of the first file; owned */
    uint64_t sample_count;
};

static bool is_torch(const struct moe_import_file *file)
{
    return moe_import_file_begins(file, "PK\003\004") && moe_import_file_ends(file, ".pt");
}

static bool recognise(const struct moe_import_input *input)
{
    for (size_t i = 0; i < input->file_count; i++) {
        struct moe_torch_file *file = NULL;
        if (is_torch(&input->files[i]) &&
            moe_torch_file_open(&file, input->files[i].path, NULL) == MOE_OK) {
            const struct moe_pickle_value *root = moe_torch_file_root(file);
            const bool found = moe_pickle_get(root, "indices") != NULL &&
                               moe_pickle_get(root, "sequence_length") != NULL;
            moe_torch_file_close(file);
            return found;
        }
    }
    return false;
}

static enum moe_status number(const struct moe_torch_file *file, const char *path, const char *key,
                              int64_t min, int64_t max, int64_t *out, struct moe_error *err)
{
    const struct moe_pickle_value *value = moe_pickle_get(moe_torch_file_root(file), key);
    if (value == NULL || value->kind != MOE_PICKLE_INT || value->integer < min ||
        value->integer > max) {
        return moe_fail(err, MOE_PARSE,
                        "%s: %s is %s; a number from %" PRId64 " to %" PRId64 " is expected", path,
                        key, moe_pickle_kind_text(value), min, max);
    }
    *out = value->integer;
    return MOE_OK;
}

static enum moe_status check_samples(struct flame *import, const struct moe_torch_file *file,
                                     const char *path, struct moe_error *err)
{
    struct moe_tensor tensor;
    unsigned char *bytes = NULL;
    MOE_TRY(moe_torch_file_tensor(file, moe_pickle_get(moe_torch_file_root(file), "samples"),
                                  "samples", &tensor, &bytes, err));
    int64_t *samples = malloc((tensor.item_count + 1) * sizeof *samples);
    enum moe_status status = MOE_OK;
    if (samples == NULL) {
        status = moe_fail(err, MOE_LIMIT, "%s: no memory for its samples", path);
    } else if (tensor.dimension_count != 1 || tensor.item_count == 0 ||
               moe_tensor_whole(&tensor, 0, tensor.item_count, samples) < tensor.item_count ||
               (import->samples != NULL &&
                (tensor.item_count != import->sample_count ||
                 memcmp(samples, import->samples, tensor.item_count * sizeof *samples) != 0))) {
        status = moe_fail(
            err, MOE_PARSE,
            "%s: samples are no list of tokens, or other ones than in the files before", path);
    }
    free(bytes);
    if (status == MOE_OK && import->samples == NULL) {
        import->samples = samples;
        import->sample_count = tensor.item_count;
        return MOE_OK;
    }
    free(samples);
    return status;
}

static enum moe_status take_tokens(struct flame *import, const struct moe_tensor *tensor,
                                   uint32_t layer, const char *path, struct moe_error *err)
{
    const uint64_t top_k = tensor->shape[1];
    const uint64_t length = (uint64_t) import->sequence_length;
    uint16_t experts[MOE_TRACE_TOP_K_LIMIT];
    for (uint64_t token = 0; token < tensor->shape[0]; token++) {
        const struct moe_gather_choice choice = {
            .request = token / length,
            .token = token % length,
            .layer = layer,
            .count = (uint32_t) top_k,
            .experts = experts,
        };
        if (moe_tensor_experts(tensor, token * top_k, top_k, experts) < top_k) {
            return moe_fail(err, MOE_PARSE,
                            "%s: indices[%" PRIu64
                            "] holds what is neither an expert from 0 to %d nor -1",
                            path, token, MOE_TRACE_EXPERT_LIMIT - 1);
        }
        MOE_TRY(moe_route_gather_take(&import->gather, &choice, path, err));
    }
    return MOE_OK;
}

static enum moe_status read_open(struct flame *import, const struct moe_torch_file *file,
                                 const char *path, struct moe_error *err)
{
    struct moe_tensor tensor;
    unsigned char *bytes = NULL;
    char shape[100];
    int64_t layer = 0;
    int64_t length = 0;
    MOE_TRY(number(file, path, "layer", 0, MOE_GATHER_LAYER_END - 1, &layer, err));
    MOE_TRY(number(file, path, "sequence_length", 1, INT32_MAX, &length, err));
    if (import->sequence_length != 0 && import->sequence_length != length) {
        return moe_fail(err, MOE_PARSE,
                        "%s: sequence_length %" PRId64 "; the files before have %" PRId64, path,
                        length, import->sequence_length);
    }
    import->sequence_length = length;
    MOE_TRY(check_samples(import, file, path, err));
    MOE_TRY(moe_torch_file_tensor(file, moe_pickle_get(moe_torch_file_root(file), "indices"),
                                  "indices", &tensor, &bytes, err));
    enum moe_status status = MOE_OK;
    if (tensor.dimension_count != 2 || tensor.item_count == 0 ||
        tensor.shape[0] != import->sample_count || tensor.shape[1] > MOE_TRACE_TOP_K_LIMIT) {
        status = moe_fail(
            err, MOE_PARSE, "%s: indices has shape %s; [%" PRIu64 " tokens][top_k] is expected",
            path, moe_tensor_shape_text(&tensor, shape, sizeof shape), import->sample_count);
    } else {
        status = take_tokens(import, &tensor, (uint32_t) layer, path, err);
    }
    free(bytes);
    return status;
}

static enum moe_status read_all(struct flame *import, struct moe_error *err)
{
    for (size_t i = 0; i < import->input->file_count; i++) {
        struct moe_import_file *source = &import->input->files[i];
        struct moe_torch_file *file = NULL;
        if (!is_torch(source)) {
            continue;
        }
        source->is_used = true;
        MOE_TRY(moe_torch_file_open(&file, source->path, err));
        const enum moe_status status = read_open(import, file, source->path, err);
        moe_torch_file_close(file);
        MOE_TRY(status);
    }
    return MOE_OK;
}

static void close_import(void *state)
{
    struct flame *import = state;
    if (import != NULL) {
        moe_route_gather_finish(&import->gather);
        free(import->samples);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct flame *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    import->input = input;
    MOE_TRY(read_all(import, err));
    MOE_TRY(moe_route_gather_turn(&import->gather, 0, input->paths[0], err));
    MOE_TRY(read_all(import, err));
    moe_route_gather_describe(&import->gather, out);
    (void) snprintf(out->record->engine, sizeof out->record->engine, "CMU FLAME");
    (void) snprintf(out->record->note, sizeof out->record->note,
                    "sequences are requests, all prompt");
    return MOE_OK;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct flame *import = state;
    return moe_route_list_feed(&import->gather.list, sink, err);
}

const struct moe_import_format moe_import_flame = {
    .name = "flame",
    .summary = "CMU FLAME's token traces: a .pt file per layer",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};

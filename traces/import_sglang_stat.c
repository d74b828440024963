/*
 * Import format "sglang_stat": SGLang's expert distribution recorder in the modes stat and
 * stat_approx: one torch file, written by rank 0, with the sums over all ranks:
 *   { rank, logical_count: [buffer entry][layer][expert], average_utilization_... }.
 *
 * The buffer is circular: entries that were never used are zeros, and once it wrapped, the
 * order of the entries is lost. Becomes one load for each entry that was used. Layers are all
 * of the model's, dense ones as zeros.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/sglang_dump.h"

struct stat_import {
    const char *path;
    struct moe_torch_file *file;
    struct moe_tensor tensor; /* [entry][layer][expert] */
    unsigned char *bytes;     /* that tensor lies in */
    double *counts;           /* of one entry */
    uint64_t cells;           /* of one entry */
};

static bool recognise(const struct moe_import_input *input)
{
    return moe_sglang_recognise(input, "logical_count", NULL) || moe_sglang_is_unreadable(input);
}

static void close_import(void *state)
{
    struct stat_import *import = state;
    if (import != NULL) {
        moe_torch_file_close(import->file);
        free(import->bytes);
        free(import->counts);
        free(import);
    }
}

static enum moe_status read_entry(struct stat_import *import, uint64_t entry, bool *used,
                                  struct moe_error *err)
{
    const uint64_t good =
        moe_tensor_counts(&import->tensor, entry * import->cells, import->cells, import->counts);
    if (good < import->cells) {
        return moe_fail(err, MOE_PARSE,
                        "%s: logical_count[%" PRIu64 "][%" PRIu64 "][%" PRIu64
                        "] is %g; a count is "
                        "at least 0",
                        import->path, entry, good / import->tensor.shape[2],
                        good % import->tensor.shape[2], import->counts[good]);
    }
    *used = false;
    for (uint64_t i = 0; i < import->cells && !*used; i++) {
        *used = import->counts[i] != 0.0;
    }
    return MOE_OK;
}

static enum moe_status describe(struct stat_import *import, struct moe_import_description *out,
                                struct moe_error *err)
{
    const struct moe_tensor *tensor = &import->tensor;
    char shape[100];
    if (tensor->dimension_count != 3 || tensor->item_count == 0 ||
        tensor->shape[1] > MOE_TRACE_LAYER_LIMIT || tensor->shape[2] > MOE_TRACE_EXPERT_LIMIT) {
        return moe_fail(err, MOE_PARSE,
                        "%s: logical_count has shape %s; [entry][layer][expert] is expected, with "
                        "at most %d layers of %d experts",
                        import->path, moe_tensor_shape_text(tensor, shape, sizeof shape),
                        MOE_TRACE_LAYER_LIMIT, MOE_TRACE_EXPERT_LIMIT);
    }
    import->cells = tensor->shape[1] * tensor->shape[2];
    import->counts = malloc(import->cells * sizeof *import->counts);
    if (import->counts == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %" PRIu64 " counts", import->path,
                        import->cells);
    }
    uint64_t entries = 0;
    for (uint64_t entry = 0; entry < tensor->shape[0]; entry++) {
        bool used = false;
        MOE_TRY(read_entry(import, entry, &used, err));
        entries += used;
    }
    out->model.content = MOE_TRACE_LOADS;
    out->model.layer_count = (uint32_t) tensor->shape[1];
    out->model.expert_count = (uint32_t) tensor->shape[2];
    for (uint32_t i = 0; i < out->model.layer_count; i++) {
        out->layer_number[i] = i;
    }
    (void) snprintf(out->record->engine, sizeof out->record->engine, "SGLang");
    (void) snprintf(out->record->note, sizeof out->record->note,
                    "%" PRIu64 " of %" PRIu64 " entries of a circular buffer were used%s", entries,
                    tensor->shape[0],
                    entries == tensor->shape[0] ? "; their order may be lost" : "");
    return MOE_OK;
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct stat_import *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    if (input->file_count != 1) {
        return moe_fail(
            err, MOE_RANGE,
            "%.120s and %.120s are not of one dump (%zu files were given): in this mode the "
            "recorder writes one file, with the sums of all ranks; `moesim trace merge` joins "
            "traces of several dumps",
            input->files[0].path, input->files[1].path, input->file_count);
    }
    input->files[0].is_used = true;
    import->path = input->files[0].path;
    MOE_TRY(moe_torch_file_open(&import->file, import->path, err));
    MOE_TRY(moe_torch_file_tensor(
        import->file, moe_pickle_get(moe_torch_file_root(import->file), "logical_count"),
        "logical_count", &import->tensor, &import->bytes, err));
    return describe(import, out, err);
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    struct stat_import *import = state;
    uint64_t step = 0;
    for (uint64_t entry = 0; entry < import->tensor.shape[0]; entry++) {
        const struct moe_trace_load load = { step, (int64_t) entry, MOE_TRACE_ALL_RANKS, 0 };
        bool used = false;
        MOE_TRY(read_entry(import, entry, &used, err));
        if (used) {
            MOE_TRY(sink->load(sink, &load, import->counts, err));
            step++;
        }
    }
    return MOE_OK;
}

const struct moe_import_format moe_import_sglang_stat = {
    .name = "sglang_stat",
    .summary = "SGLang's recorder, modes stat and stat_approx: one .pt file",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};

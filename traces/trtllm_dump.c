#include "traces/trtllm_dump.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/json_documents.h"
#include "traces/safetensors.h"

static int32_t rank_of(const struct moe_import_file *file, const char *suffix)
{
    const bool looks = file->head_bytes > 8 && file->head[8] == '{';
    return looks ? moe_import_file_number(file->name, "rank", suffix) : -1;
}

bool moe_trtllm_recognise(const struct moe_import_input *input, const char *suffix)
{
    for (size_t i = 0; i < input->file_count; i++) {
        if (rank_of(&input->files[i], suffix) >= 0) {
            return true;
        }
    }
    return false;
}

static enum moe_status read_meta(struct moe_trtllm_dump *dump, const char *path,
                                 struct moe_error *err)
{
    struct moe_json_documents documents;
    const json_t *meta = NULL;
    int64_t experts = 0;
    int64_t top_k = 0;
    MOE_TRY(moe_json_documents_open(&documents, path, err));
    enum moe_status status = moe_json_documents_next(&documents, &meta, err);
    if (status == MOE_OK) {
        status =
            moe_json_whole(meta, "num_experts", path, 1, MOE_TRACE_EXPERT_LIMIT, -1, &experts, err);
    }
    if (status == MOE_OK) {
        status = moe_json_whole(meta, "num_experts_per_token", path, 1, MOE_TRACE_TOP_K_LIMIT, -1,
                                &top_k, err);
    }
    moe_json_documents_close(&documents);
    dump->expert_count = (uint32_t) experts;
    dump->top_k = (uint32_t) top_k;
    return status;
}

enum moe_status moe_trtllm_dump_open(struct moe_trtllm_dump *dump, struct moe_import_input *input,
                                     const char *suffix, struct moe_import_description *out,
                                     struct moe_error *err)
{
    int32_t ranks[MOE_IMPORT_FILE_LIMIT];
    size_t count = 0;
    bool has_meta = false;
    *dump = (struct moe_trtllm_dump){ .input = input, .suffix = suffix };
    for (size_t i = 0; i < input->file_count; i++) {
        struct moe_import_file *file = &input->files[i];
        const int32_t rank = rank_of(file, suffix);
        if (rank >= 0) {
            file->is_used = true;
            ranks[count++] = rank;
        } else if (moe_import_file_ends(file, "meta_info.json")) {
            file->is_used = true;
            has_meta = true;
            MOE_TRY(read_meta(dump, file->path, err));
        }
    }
    if (!has_meta || count == 0) {
        return moe_fail(err, MOE_PARSE,
                        "%s: meta_info.json and rank0%s are expected; %s is missing",
                        input->paths[0], suffix, has_meta ? "the latter" : "the former");
    }
    MOE_TRY(moe_import_check_ranks(ranks, count, input->paths[0], err));
    (void) snprintf(out->record->engine, sizeof out->record->engine, "TensorRT-LLM");
    (void) snprintf(out->record->note, sizeof out->record->note, "%zu rank%s", count,
                    count == 1 ? "" : "s");
    return MOE_OK;
}

/* "100_3": two numbers of at most 9 digits. */
static bool split_key(const char *key, uint32_t *iteration, uint32_t *layer)
{
    uint32_t *const parts[2] = { iteration, layer };
    for (int i = 0; i < 2; i++) {
        const size_t digits = strspn(key, "0123456789");
        if (digits == 0 || digits > 9 || key[digits] != (i == 0 ? '_' : '\0')) {
            return false;
        }
        *parts[i] = (uint32_t) strtoul(key, NULL, 10);
        key += digits + 1;
    }
    return true;
}

static enum moe_status read_tensor(const struct moe_safetensors *file, size_t index,
                                   const char *name, int32_t rank, moe_trtllm_taker *take,
                                   void *context, struct moe_error *err)
{
    struct moe_tensor tensor;
    unsigned char *bytes = NULL;
    uint32_t iteration = 0;
    uint32_t layer = 0;
    char place[400];
    const char *key = moe_safetensors_name(file, index);
    (void) snprintf(place, sizeof place, "%.250s: %.100s", name, key);
    if (!split_key(key, &iteration, &layer)) {
        return moe_fail(err, MOE_PARSE, "%s: a key <iteration>_<layer> is expected", place);
    }
    MOE_TRY(moe_safetensors_read(file, index, &tensor, &bytes, err));
    const enum moe_status status = take(context, rank, iteration, layer, &tensor, place, err);
    free(bytes);
    return status;
}

enum moe_status moe_trtllm_dump_read(const struct moe_trtllm_dump *dump, moe_trtllm_taker *take,
                                     void *context, struct moe_error *err)
{
    for (size_t i = 0; i < dump->input->file_count; i++) {
        const struct moe_import_file *source = &dump->input->files[i];
        const int32_t rank = rank_of(source, dump->suffix);
        struct moe_safetensors *file = NULL;
        if (rank < 0) {
            continue;
        }
        MOE_TRY(moe_safetensors_open(&file, source->path, err));
        enum moe_status status = MOE_OK;
        for (size_t t = 0; status == MOE_OK && t < moe_safetensors_count(file); t++) {
            status = read_tensor(file, t, source->name, rank, take, context, err);
        }
        moe_safetensors_close(file);
        MOE_TRY(status);
    }
    return MOE_OK;
}

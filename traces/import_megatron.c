/*
 * Import format "megatron": Megatron-core's router trace (--moe-routing-trace-path), one JSONL
 * file per rank, a line for each step and layer:
 *   {step, stage: "pre_dispatch", block: "decoder", layer, rank, num_tokens, topk,
 *    top_indices: [[..] per token]}
 * Tokens are not told apart by request: each (step, rank) becomes one, all prompt. Lines of
 * multi-token-prediction layers (mtp_idx) and of other blocks are refused: their layers are
 * numbered on their own.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "traces/route_gather.h"

static bool recognise(const struct moe_import_input *input)
{
    static const char *const texts[] = { "\"top_indices\"", "\"pre_dispatch\"", NULL };
    return moe_jsonl_recognise(input, texts);
}

static enum moe_status read_record(struct moe_route_gather *gather, const json_t *line,
                                   const char *place, struct moe_error *err)
{
    uint16_t experts[MOE_TRACE_TOP_K_LIMIT];
    int64_t step = 0;
    int64_t rank = 0;
    int64_t layer = 0;
    int64_t tokens = 0;
    int64_t top_k = 0;
    const json_t *block = json_object_get(line, "block");
    const json_t *stage = json_object_get(line, "stage");
    const json_t *mtp = json_object_get(line, "mtp_idx");
    if ((json_is_string(block) && strcmp(json_string_value(block), "decoder") != 0) ||
        (mtp != NULL && !json_is_null(mtp))) {
        return moe_fail(
            err, MOE_PARSE,
            "%s: a line of a block other than the decoder, or of multi-token prediction; "
            "import those without it",
            place);
    }
    if (json_is_string(stage) && strcmp(json_string_value(stage), "pre_dispatch") != 0) {
        return moe_fail(err, MOE_PARSE, "%s: stage '%.40s'; pre_dispatch is read", place,
                        json_string_value(stage));
    }
    MOE_TRY(moe_json_whole(line, "step", place, 0, INT32_MAX, -1, &step, err));
    MOE_TRY(moe_json_whole(line, "rank", place, 0, MOE_TRACE_RANK_LIMIT - 1, -1, &rank, err));
    MOE_TRY(moe_json_whole(line, "layer", place, 0, MOE_GATHER_LAYER_END - 1, -1, &layer, err));
    MOE_TRY(moe_json_whole(line, "num_tokens", place, 0, INT32_MAX, -1, &tokens, err));
    MOE_TRY(moe_json_whole(line, "topk", place, 1, MOE_TRACE_TOP_K_LIMIT, -1, &top_k, err));
    const json_t *rows = json_object_get(line, "top_indices");
    if (!json_is_array(rows) || json_array_size(rows) != (size_t) tokens) {
        return moe_fail(err, MOE_PARSE, "%s: \"top_indices\" is no list of %" PRId64 " tokens",
                        place, tokens);
    }
    for (size_t token = 0; token < (size_t) tokens; token++) {
        const struct moe_gather_choice choice = {
            .request = (uint64_t) step << 17 | (uint64_t) rank,
            .token = token,
            .layer = (uint32_t) layer,
            .count = (uint32_t) top_k,
            .experts = experts,
        };
        MOE_TRY(moe_json_experts(json_array_get(rows, token), (size_t) top_k, "top_indices", place,
                                 experts, err));
        MOE_TRY(moe_route_gather_take(gather, &choice, place, err));
    }
    return MOE_OK;
}

/* Of the file's first line, whatever its name; else of its name; -1: not known. */
static int32_t rank_of(const struct moe_import_file *file)
{
    static const char key[] = "\"rank\":";
    const char *head = (const char *) file->head;
    const char *found = strstr(head, key);
    const char *end = strchr(head, '\n');
    if (found != NULL && (end == NULL || found < end)) {
        const char *digits = found + strlen(key);
        digits += strspn(digits, " ");
        const size_t length = strspn(digits, "0123456789");
        if (length > 0 && length < 7) {
            return (int32_t) strtol(digits, NULL, 10);
        }
    }
    return moe_import_file_number(file->name, "rank", ".jsonl");
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    static const struct moe_jsonl_dialect dialect = {
        .engine = "Megatron-core",
        .note = "each step of a rank is one request, all prompt",
        .sorts_requests = true, /* steps of all ranks, not ranks with all their steps */
        .record = read_record,
    };
    int32_t ranks[MOE_IMPORT_FILE_LIMIT];
    bool numbered = true;
    for (size_t i = 0; i < input->file_count; i++) {
        ranks[i] = rank_of(&input->files[i]);
        numbered = numbered && ranks[i] >= 0;
    }
    if (numbered) {
        MOE_TRY(moe_import_check_ranks(ranks, input->file_count, input->paths[0], err));
    }
    return moe_jsonl_open(state, input, out, &dialect, err);
}

const struct moe_import_format moe_import_megatron = {
    .name = "megatron",
    .summary = "Megatron-core's router trace: JSONL files of all ranks",
    .recognise = recognise,
    .open = open_import,
    .feed = moe_jsonl_feed,
    .close = moe_jsonl_close,
};

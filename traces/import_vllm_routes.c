/*
 * Import format "vllm_routes": moe_routes.jsonl of vLLM with a routing logger patched in: a
 * line {"type": "meta", ...}, then for each token and logged layer
 *   {"type": "route", "req_id", "token_idx", "layer", "topk_ids", "topk_weights"}.
 * The logger starts with the engine, so its warm-up stands at the beginning: see
 * --skip-warmup. Prompt and output are not told apart; --prompt-tokens can.
 */
#include <string.h>

#include "sim/base/hash.h"
#include "traces/route_gather.h"

static bool recognise(const struct moe_import_input *input)
{
    static const char *const texts[] = { "\"topk_ids\"", "\"token_idx\"", "\"type\"", NULL };
    return moe_jsonl_recognise(input, texts);
}

static enum moe_status read_meta(struct moe_route_gather *gather, const json_t *line,
                                 const char *place, struct moe_error *err)
{
    int64_t experts = 0;
    MOE_TRY(
        moe_json_whole(line, "num_experts", place, 1, MOE_TRACE_EXPERT_LIMIT, 0, &experts, err));
    gather->expert_count = (uint32_t) experts;
    return MOE_OK;
}

static enum moe_status read_record(struct moe_route_gather *gather, const json_t *line,
                                   const char *place, struct moe_error *err)
{
    const char *type = json_string_value(json_object_get(line, "type"));
    const json_t *request = json_object_get(line, "req_id");
    const json_t *ids = json_object_get(line, "topk_ids");
    const size_t count = json_array_size(ids);
    uint16_t experts[MOE_TRACE_TOP_K_LIMIT];
    int64_t token = 0;
    int64_t layer = 0;
    if (type != NULL && strcmp(type, "meta") == 0) {
        return read_meta(gather, line, place, err);
    }
    if (type == NULL || strcmp(type, "route") != 0) {
        return moe_fail(err, MOE_PARSE, "%s: \"type\" is %.40s; meta and route are read", place,
                        type == NULL ? "missing" : type);
    }
    MOE_TRY(moe_json_whole(line, "token_idx", place, 0, INT32_MAX, -1, &token, err));
    MOE_TRY(moe_json_whole(line, "layer", place, 0, MOE_GATHER_LAYER_END - 1, -1, &layer, err));
    if (count < 1 || count > MOE_TRACE_TOP_K_LIMIT ||
        !(json_is_string(request) || json_is_integer(request))) {
        return moe_fail(
            err, MOE_PARSE,
            "%s: \"topk_ids\" has %zu choices, \"req_id\" is %s; 1 to %d, and a text or "
            "number are expected",
            place, count, moe_json_kind_text(request), MOE_TRACE_TOP_K_LIMIT);
    }
    MOE_TRY(moe_json_experts(ids, count, "topk_ids", place, experts, err));
    const struct moe_gather_choice choice = {
        .request = json_is_string(request)
                       ? moe_hash_bytes(json_string_value(request), json_string_length(request), 1)
                       : (uint64_t) json_integer_value(request),
        .token = (uint64_t) token,
        .layer = (uint32_t) layer,
        .count = (uint32_t) count,
        .experts = experts,
    };
    return moe_route_gather_take(gather, &choice, place, err);
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    static const struct moe_jsonl_dialect dialect = {
        .engine = "vLLM, patched",
        .note = "prompt and output are not told apart",
        .record = read_record,
    };
    return moe_jsonl_open(state, input, out, &dialect, err);
}

const struct moe_import_format moe_import_vllm_routes = {
    .name = "vllm_routes",
    .summary = "moe_routes.jsonl of a patched vLLM",
    .recognise = recognise,
    .open = open_import,
    .feed = moe_jsonl_feed,
    .close = moe_jsonl_close,
};

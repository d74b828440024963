/*
 * Import format "vllm_routes": moe_routes.jsonl of vLLM with a routing logger patched in: a
 * line {"type": "meta", ...}, then for each token and logged layer
 *   {"type": "route", "req_id", "token_idx", "layer", "topk_ids", "topk_weights"}.
 * The logger starts with the engine, so its warm-up stands at the beginning: see
 * --skip-warmup. Prompt and output are not told apart; --prompt-tokens can.
 */
#include <string.h>

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
    static const struct moe_jsonl_keys keys = { "token_idx", "layer", "topk_ids", false };
    const char *type = json_string_value(json_object_get(line, "type"));
    struct moe_gather_choice choice = { 0 };
    if (type != NULL && strcmp(type, "meta") == 0) {
        return read_meta(gather, line, place, err);
    }
    if (type == NULL || strcmp(type, "route") != 0) {
        return moe_fail(err, MOE_PARSE, "%s: \"type\" is %.40s; meta and route are read", place,
                        type == NULL ? "missing" : type);
    }
    MOE_TRY(moe_jsonl_request(line, "req_id", place, 1, &choice.request, err));
    return moe_jsonl_take(gather, line, place, &keys, &choice, err);
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

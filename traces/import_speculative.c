/*
 * Import format "speculative": *_routing.jsonl of the Mixtral speculative-decoding study: a
 * line for each token and layer,
 *   {"dataset", "problem_id", "layer", "token_idx", "experts", "gating_probs"}.
 * A problem of a data set is a request; the data sets are the domains.
 */
#include <string.h>

#include "sim/base/hash.h"
#include "traces/route_gather.h"

static bool recognise(const struct moe_import_input *input)
{
    static const char *const texts[] = { "\"problem_id\"", "\"experts\"", "\"token_idx\"", NULL };
    return moe_jsonl_recognise(input, texts);
}

static enum moe_status read_record(struct moe_route_gather *gather, const json_t *line,
                                   const char *place, struct moe_error *err)
{
    const char *set = json_string_value(json_object_get(line, "dataset"));
    const json_t *problem = json_object_get(line, "problem_id");
    const json_t *ids = json_object_get(line, "experts");
    const size_t count = json_array_size(ids);
    uint16_t experts[MOE_TRACE_TOP_K_LIMIT];
    uint32_t domain = 0;
    int64_t token = 0;
    int64_t layer = 0;
    MOE_TRY(moe_json_whole(line, "token_idx", place, 0, INT32_MAX, -1, &token, err));
    MOE_TRY(moe_json_whole(line, "layer", place, 0, MOE_GATHER_LAYER_END - 1, -1, &layer, err));
    if (set == NULL || count < 1 || count > MOE_TRACE_TOP_K_LIMIT ||
        !(json_is_string(problem) || json_is_integer(problem))) {
        return moe_fail(err, MOE_PARSE,
                        "%s: \"dataset\" must be a text, \"problem_id\" a text or number, "
                        "\"experts\" 1 to %d choices",
                        place, MOE_TRACE_TOP_K_LIMIT);
    }
    MOE_TRY(moe_route_gather_domain(gather, set, place, &domain, err));
    MOE_TRY(moe_json_experts(ids, count, "experts", place, experts, err));
    const int64_t number = json_integer_value(problem);
    const uint64_t key =
        json_is_string(problem)
            ? moe_hash_bytes(json_string_value(problem), json_string_length(problem), domain)
            : moe_hash_bytes(&number, sizeof number, domain);
    const struct moe_gather_choice choice = {
        .request = key,
        .token = (uint64_t) token,
        .layer = (uint32_t) layer,
        .domain = domain,
        .count = (uint32_t) count,
        .experts = experts,
    };
    return moe_route_gather_take(gather, &choice, place, err);
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    static const struct moe_jsonl_dialect dialect = {
        .engine = "Mixtral speculative-moe",
        .note = "a problem is a request; prompt and output are not told apart",
        .record = read_record,
    };
    return moe_jsonl_open(state, input, out, &dialect, err);
}

const struct moe_import_format moe_import_speculative = {
    .name = "speculative",
    .summary = "*_routing.jsonl of the Mixtral speculative-moe study",
    .recognise = recognise,
    .open = open_import,
    .feed = moe_jsonl_feed,
    .close = moe_jsonl_close,
};

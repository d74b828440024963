/*
 * Import format "speculative": *_routing.jsonl of the Mixtral speculative-decoding study: a
 * line for each token and layer,
 *   {"dataset", "problem_id", "layer", "token_idx", "experts", "gating_probs"}.
 * A problem of a data set is a request; the data sets are the domains.
 */
#include "traces/route_gather.h"

static bool recognise(const struct moe_import_input *input)
{
    static const char *const texts[] = { "\"problem_id\"", "\"experts\"", "\"token_idx\"", NULL };
    return moe_jsonl_recognise(input, texts);
}

static enum moe_status read_record(struct moe_route_gather *gather, const json_t *line,
                                   const char *place, struct moe_error *err)
{
    static const struct moe_jsonl_keys keys = { "token_idx", "layer", "experts", false };
    const char *set = json_string_value(json_object_get(line, "dataset"));
    struct moe_gather_choice choice = { 0 };
    if (set == NULL) {
        return moe_fail(err, MOE_PARSE, "%s: \"dataset\" is %s; a text is expected", place,
                        moe_json_kind_text(json_object_get(line, "dataset")));
    }
    MOE_TRY(moe_route_gather_domain(gather, set, place, &choice.domain, err));
    MOE_TRY(moe_jsonl_request(line, "problem_id", place, choice.domain, &choice.request, err));
    return moe_jsonl_take(gather, line, place, &keys, &choice, err);
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

/*
 * Import format "moe_cache_lab": moe-cache-lab's routing-jsonl, versions 1 and 2: a metadata
 * line {"format": "moe-cache-lab.routing-jsonl", "format_version", "model_id", ...}, then
 *   {"record_type": "routing_selection", "phase", "token_position", "layer",
 *    "selected_experts", "selected_probabilities"}.
 * A file is a request. In version 2 a stage "encoder" would have layers of its own, which a
 * trace cannot hold beside the decoder's: such a file is refused. A token that found its
 * experts full ("unassigned") is unknown.
 */
#include <string.h>

#include "traces/route_gather.h"

static bool recognise(const struct moe_import_input *input)
{
    static const char *const texts[] = { "\"moe-cache-lab.routing-jsonl\"", NULL };
    return moe_jsonl_recognise(input, texts);
}

/* The one profile of version 2, or the line itself in version 1. */
static enum moe_status read_meta(struct moe_route_gather *gather, const json_t *line,
                                 const char *place, struct moe_error *err)
{
    int64_t version = 0;
    int64_t experts = 0;
    MOE_TRY(moe_json_whole(line, "format_version", place, 1, 2, -1, &version, err));
    const json_t *stages = json_object_get(line, "routing_stages");
    const json_t *profile = version == 1 ? line : json_array_get(stages, 0);
    const char *stage = json_string_value(json_object_get(profile, "routing_stage"));
    if (version == 2 &&
        (json_array_size(stages) != 1 || stage == NULL || strcmp(stage, "decoder") != 0)) {
        return moe_fail(err, MOE_PARSE, "%s: stages other than one decoder", place);
    }
    const json_t *stated = json_object_get(profile, "num_experts");
    if (stated != NULL && !json_is_null(stated)) {
        MOE_TRY(moe_json_whole(profile, "num_experts", place, 1, MOE_TRACE_EXPERT_LIMIT, -1,
                               &experts, err));
    }
    if (gather->expert_count != 0 && gather->expert_count != experts) {
        return moe_fail(err, MOE_PARSE, "%s: \"num_experts\" differs from the files before", place);
    }
    gather->expert_count = (uint32_t) experts;
    /* A file of its own: the number of its metadata line tells requests apart. */
    gather->request_in_turn++;
    return MOE_OK;
}

static enum moe_status read_record(struct moe_route_gather *gather, const json_t *line,
                                   const char *place, struct moe_error *err)
{
    static const struct moe_jsonl_keys keys = { "token_position", "layer", "selected_experts",
                                                true };
    const char *type = json_string_value(json_object_get(line, "record_type"));
    const char *phase = json_string_value(json_object_get(line, "phase"));
    if (json_object_get(line, "format") != NULL) {
        return read_meta(gather, line, place, err);
    }
    const bool is_output = phase != NULL && (strcmp(phase, "generated") == 0 ||
                                             strcmp(phase, "decoder_generated") == 0);
    const bool is_prompt =
        phase != NULL && (strcmp(phase, "prompt") == 0 || strcmp(phase, "decoder_prompt") == 0);
    if (type == NULL || strcmp(type, "routing_selection") != 0 || !(is_output || is_prompt)) {
        return moe_fail(err, MOE_PARSE,
                        "%s: \"record_type\" must be routing_selection, \"phase\" one of the "
                        "decoder's",
                        place);
    }
    const struct moe_gather_choice choice = { .request = gather->request_in_turn,
                                              .is_output = is_output };
    return moe_jsonl_take(gather, line, place, &keys, &choice, err);
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    static const struct moe_jsonl_dialect dialect = {
        .engine = "moe-cache-lab",
        .note = "a file is a request",
        .record = read_record,
    };
    return moe_jsonl_open(state, input, out, &dialect, err);
}

const struct moe_import_format moe_import_moe_cache_lab = {
    .name = "moe_cache_lab",
    .summary = "moe-cache-lab's routing-jsonl, versions 1 and 2",
    .recognise = recognise,
    .open = open_import,
    .feed = moe_jsonl_feed,
    .close = moe_jsonl_close,
};

/*
 * Our own form, which loses nothing: JSON with exactly these keys,
 *
 *   {"format": "moesim.plan", "version": 1,
 *    "expert_count": 256,      experts of a layer
 *    "gpu_count": 32,          or null: not stated
 *    "slot_count": 288,        of a layer; GPU g has the slot_count / gpu_count from
 *                              g * slot_count / gpu_count on
 *    "hidden_layer_count": 61, of the model, dense ones included; null: layers are counted
 *                              among the MoE layers only
 *    "layers": [{"layer": 3, "experts": [0, 17, null, ...]}, ...]}
 *
 * layer ascends; experts has slot_count entries, null for an empty slot.
 */
#include <string.h>

#include "policies/plan/plan.h"
#include "traces/trace_store.h"

enum { VERSION = 1, KEY_COUNT = 7 };

static const char FORMAT[] = "moesim.plan";

static bool recognise(const struct moe_plan_text *text)
{
    const char *format = json_string_value(json_object_get(text->document, "format"));
    return format != NULL && strcmp(format, FORMAT) == 0;
}

/* A whole number from 1 to limit, or 0 for null where that is allowed. */
static enum moe_status take_count(const json_t *document, const char *key, bool may_be_null,
                                  uint32_t limit, uint32_t *out, const char *name,
                                  struct moe_error *err)
{
    const json_t *value = json_object_get(document, key);
    *out = 0;
    if (may_be_null && json_is_null(value)) {
        return MOE_OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > (json_int_t) limit) {
        return moe_fail(err, MOE_RANGE, "%.200s: \"%s\" is to be a whole number from 1 to %u%s",
                        name, key, limit, may_be_null ? ", or null" : "");
    }
    *out = (uint32_t) json_integer_value(value);
    return MOE_OK;
}

static enum moe_status check_version(const struct moe_plan_text *text, struct moe_error *err)
{
    const json_t *version = json_object_get(text->document, "version");
    if (!json_is_integer(version)) {
        return moe_fail(err, MOE_PARSE, "%.200s: has no whole number \"version\"", text->name);
    }
    if (json_integer_value(version) != VERSION) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "%.200s: is a plan of version %lld; this program reads version %d",
                        text->name, (long long) json_integer_value(version), VERSION);
    }
    return json_object_size(text->document) == KEY_COUNT
               ? MOE_OK
               : moe_fail(err, MOE_PARSE,
                          "%.200s: has %zu keys; expected format, version, expert_count, "
                          "gpu_count, slot_count, hidden_layer_count and layers",
                          text->name, json_object_size(text->document));
}

static enum moe_status read_layer(struct moe_plan *out, const json_t *entry, uint32_t layer,
                                  const char *name, struct moe_error *err)
{
    const json_t *number = json_object_get(entry, "layer");
    const json_t *experts = json_object_get(entry, "experts");
    const uint32_t slot_count = out->placement.shape.slot_count;
    uint16_t *slots = moe_placement_layer(&out->placement, layer);
    if (json_object_size(entry) != 2 || !json_is_integer(number) || !json_is_array(experts)) {
        return moe_fail(err, MOE_PARSE,
                        "%.200s: layers[%u] is to be {\"layer\": number, \"experts\": list}", name,
                        layer);
    }
    const json_int_t least = layer == 0 ? 0 : (json_int_t) out->layer_number[layer - 1] + 1;
    const json_int_t most = out->numbers_stated ? (json_int_t) out->hidden_layer_count - 1 : layer;
    if (json_integer_value(number) < least || json_integer_value(number) > most) {
        return moe_fail(
            err, MOE_RANGE, "%.200s: layers[%u].layer is %lld; %lld to %lld are allowed", name,
            layer, (long long) json_integer_value(number), (long long) least, (long long) most);
    }
    out->layer_number[layer] = (uint32_t) json_integer_value(number);
    if (json_array_size(experts) != slot_count) {
        return moe_fail(err, MOE_RANGE, "%.200s: layers[%u] has %zu slots; slot_count is %u", name,
                        layer, json_array_size(experts), slot_count);
    }
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        MOE_TRY(moe_plan_take_id(json_array_get(experts, slot), true, &slots[slot], name,
                                 "experts of layers", layer, slot, err));
    }
    return MOE_OK;
}

static enum moe_status parse(struct moe_plan *out, const struct moe_plan_text *text,
                             struct moe_error *err)
{
    const json_t *layers = json_object_get(text->document, "layers");
    struct moe_placement_shape shape = { 0 };
    uint32_t hidden = 0;
    MOE_TRY(check_version(text, err));
    MOE_TRY(take_count(text->document, "expert_count", false, MOE_TRACE_EXPERT_LIMIT,
                       &shape.expert_count, text->name, err));
    MOE_TRY(take_count(text->document, "gpu_count", true, MOE_SLOT_EMPTY - 1, &shape.gpu_count,
                       text->name, err));
    MOE_TRY(take_count(text->document, "slot_count", false, MOE_SLOT_EMPTY - 1, &shape.slot_count,
                       text->name, err));
    MOE_TRY(take_count(text->document, "hidden_layer_count", true, MOE_TRACE_LAYER_LIMIT, &hidden,
                       text->name, err));
    if (!json_is_array(layers)) {
        return moe_fail(err, MOE_PARSE, "%.200s: has no list \"layers\"", text->name);
    }
    shape.layer_count =
        json_array_size(layers) < UINT32_MAX ? (uint32_t) json_array_size(layers) : 0;
    MOE_TRY(moe_plan_init(out, &shape, text->name, err));
    out->numbers_stated = hidden > 0;
    out->hidden_layer_count = hidden > 0 ? hidden : shape.layer_count;
    for (uint32_t layer = 0; layer < shape.layer_count; layer++) {
        MOE_TRY(read_layer(out, json_array_get(layers, layer), layer, text->name, err));
    }
    return MOE_OK;
}

/* "key": value, or null for what is not stated. */
static void print_count(FILE *out, const char *key, bool is_stated, uint32_t value)
{
    if (is_stated) {
        (void) fprintf(out, ", \"%s\": %u", key, value);
    } else {
        (void) fprintf(out, ", \"%s\": null", key);
    }
}

static enum moe_status print(FILE *out, const struct moe_plan *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &plan->placement.shape;
    MOE_TRY(moe_plan_check_layers(plan, err));
    (void) fprintf(out, "{\"format\": \"%s\", \"version\": %d, \"expert_count\": %u", FORMAT,
                   VERSION, shape->expert_count);
    print_count(out, "gpu_count", plan->gpus_stated, shape->gpu_count);
    print_count(out, "slot_count", true, shape->slot_count);
    print_count(out, "hidden_layer_count", plan->numbers_stated, plan->hidden_layer_count);
    (void) fputs(", \"layers\": [", out);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        (void) fprintf(out, "%s{\"layer\": %u, \"experts\": ", layer == 0 ? "" : ", ",
                       plan->layer_number[layer]);
        moe_plan_print_slots(out, moe_placement_layer(&plan->placement, layer), 0,
                             shape->slot_count);
        (void) fputc('}', out);
    }
    (void) fputs("]}\n", out);
    return moe_plan_check_stream(out, err);
}

const struct moe_plan_format moe_plan_neutral = {
    .name = "moesim",
    .summary = "neutral JSON that loses nothing, empty slots included",
    .takes_empty = true,
    .recognise = recognise,
    .parse = parse,
    .print = print,
};

/*
 * SGLang: {"physical_to_logical_map": [layer][slot]}, what --init-expert-location reads. Layers
 * are the model's hidden ones, dense ones included; what is written for a dense layer does not
 * matter and is slot modulo experts. SGLang needs an expert in every slot. A file does not say
 * which of its layers are dense, nor how many GPUs there are.
 */
#include "policies/plan/plan.h"

static const char KEY[] = "physical_to_logical_map";

static bool recognise(const struct moe_plan_text *text)
{
    return json_object_get(text->document, KEY) != NULL;
}

static enum moe_status read_row(const json_t *row, const char *name, struct moe_placement *plan,
                                uint32_t layer, struct moe_error *err)
{
    uint16_t *slots = moe_placement_layer(plan, layer);
    if (!json_is_array(row)) {
        return moe_fail(err, MOE_PARSE, "%.200s: %s[%u] is not a list of experts", name, KEY,
                        layer);
    }
    if (json_array_size(row) != plan->shape.slot_count) {
        return moe_fail(err, MOE_RANGE, "%.200s: %s[%u] has %zu slots, %s[0] has %u", name, KEY,
                        layer, json_array_size(row), KEY, plan->shape.slot_count);
    }
    for (uint32_t slot = 0; slot < plan->shape.slot_count; slot++) {
        MOE_TRY(moe_plan_take_id(json_array_get(row, slot), false, &slots[slot], name, KEY, layer,
                                 slot, err));
    }
    return MOE_OK;
}

static enum moe_status parse(struct moe_plan *out, const struct moe_plan_text *text,
                             struct moe_error *err)
{
    const json_t *rows = json_object_get(text->document, KEY);
    if (!json_is_array(rows) || json_object_size(text->document) != 1) {
        return moe_fail(err, MOE_PARSE,
                        "%.200s: expected an object with the one key \"%s\", a list", text->name,
                        KEY);
    }
    const size_t first = json_array_size(json_array_get(rows, 0));
    const struct moe_placement_shape shape = {
        .layer_count = json_array_size(rows) < UINT32_MAX ? (uint32_t) json_array_size(rows) : 0,
        .slot_count = first < UINT32_MAX ? (uint32_t) first : 0,
    };
    MOE_TRY(moe_plan_init(out, &shape, text->name, err));
    for (uint32_t layer = 0; layer < shape.layer_count; layer++) {
        MOE_TRY(read_row(json_array_get(rows, layer), text->name, &out->placement, layer, err));
    }
    out->lists_dense = true;
    return moe_plan_number(out, 0, 1, err);
}

static void print_dense(FILE *out, const struct moe_placement_shape *shape)
{
    (void) fputc('[', out);
    for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
        (void) fprintf(out, "%s%u", slot == 0 ? "" : ", ", slot % shape->expert_count);
    }
    (void) fputc(']', out);
}

static enum moe_status print(FILE *out, const struct moe_plan *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &plan->placement.shape;
    uint32_t next = 0;
    MOE_TRY(moe_plan_check_numbers(plan, "SGLang", err));
    (void) fprintf(out, "{\"%s\": [", KEY);
    for (uint32_t layer = 0; layer < plan->hidden_layer_count; layer++) {
        (void) fputs(layer == 0 ? "" : ", ", out);
        if (next < shape->layer_count && plan->layer_number[next] == layer) {
            moe_plan_print_slots(out, moe_placement_layer(&plan->placement, next), 0,
                                 shape->slot_count);
            next++;
        } else {
            print_dense(out, shape);
        }
    }
    (void) fputs("]}\n", out);
    return moe_plan_check_stream(out, err);
}

const struct moe_plan_format moe_plan_sglang = {
    .name = "sglang",
    .summary = "SGLang: --init-expert-location FILE",
    .recognise = recognise,
    .parse = parse,
    .print = print,
};

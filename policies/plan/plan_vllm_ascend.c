/*
 * vLLM-Ascend's expert map, what expert_map_path of its additional configuration names:
 * {moe_layer_count, layer_list: [{layer_id, device_count, device_list: [{device_id,
 * device_expert: [...]}]}]}. Layers are counted among the MoE layers. Every device has as many
 * experts as the others, in every layer.
 */
#include "policies/plan/plan.h"

static bool recognise(const struct moe_plan_text *text)
{
    return json_object_get(text->document, "layer_list") != NULL;
}

/* object[key], which must be expected. Errors: MOE_PARSE, MOE_RANGE. */
static enum moe_status expect_number(const json_t *object, const char *key, size_t expected,
                                     const char *name, const char *where, size_t index,
                                     struct moe_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) {
        return moe_fail(err, MOE_PARSE, "%.200s: %s[%zu] has no whole number \"%s\"", name, where,
                        index, key);
    }
    return json_integer_value(value) == (json_int_t) expected
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "%.200s: %s[%zu]: %s is %lld, expected %zu", name, where,
                          index, key, (long long) json_integer_value(value), expected);
}

static enum moe_status read_device(struct moe_plan *out, const json_t *device, uint32_t layer,
                                   uint32_t gpu, const char *name, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &out->placement.shape;
    const uint32_t count = moe_placement_slots_per_gpu(shape);
    const json_t *experts = json_object_get(device, "device_expert");
    uint16_t *slots = moe_placement_layer(&out->placement, layer) + (size_t) gpu * count;
    MOE_TRY(expect_number(device, "device_id", gpu, name, "device_list", gpu, err));
    if (!json_is_array(experts) || json_array_size(experts) != count) {
        return moe_fail(err, MOE_RANGE,
                        "%.200s: layer_list[%u], device %u has %zu experts; the first one has %u",
                        name, layer, gpu, json_array_size(experts), count);
    }
    for (uint32_t i = 0; i < count; i++) {
        MOE_TRY(moe_plan_take_id(json_array_get(experts, i), false, &slots[i], name,
                                 "device_expert", gpu, i, err));
    }
    return MOE_OK;
}

static enum moe_status read_layer(struct moe_plan *out, const json_t *layers, uint32_t layer,
                                  const char *name, struct moe_error *err)
{
    const json_t *entry = json_array_get(layers, layer);
    const json_t *devices = json_object_get(entry, "device_list");
    const uint32_t gpus = out->placement.shape.gpu_count;
    MOE_TRY(expect_number(entry, "layer_id", layer, name, "layer_list", layer, err));
    MOE_TRY(expect_number(entry, "device_count", gpus, name, "layer_list", layer, err));
    if (json_array_size(devices) != gpus) {
        return moe_fail(err, MOE_RANGE, "%.200s: layer_list[%u] has %zu devices, expected %u", name,
                        layer, json_array_size(devices), gpus);
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        MOE_TRY(read_device(out, json_array_get(devices, gpu), layer, gpu, name, err));
    }
    return MOE_OK;
}

static enum moe_status parse(struct moe_plan *out, const struct moe_plan_text *text,
                             struct moe_error *err)
{
    const json_t *layers = json_object_get(text->document, "layer_list");
    const json_t *devices = json_object_get(json_array_get(layers, 0), "device_list");
    const size_t layer_count = json_array_size(layers);
    const size_t gpus = json_array_size(devices);
    const size_t experts =
        json_array_size(json_object_get(json_array_get(devices, 0), "device_expert"));
    if (layer_count == 0 || gpus == 0 || experts == 0 || gpus * experts >= MOE_SLOT_EMPTY) {
        return moe_fail(err, MOE_RANGE,
                        "%.200s: layer_list has %zu layers, its first one %zu devices of %zu "
                        "experts; each at least 1, and fewer than %d experts on all devices",
                        text->name, layer_count, gpus, experts, MOE_SLOT_EMPTY);
    }
    const struct moe_placement_shape shape = {
        .layer_count = layer_count < UINT32_MAX ? (uint32_t) layer_count : 0,
        .slot_count = (uint32_t) (gpus * experts),
        .gpu_count = (uint32_t) gpus,
    };
    const json_t *count = json_object_get(text->document, "moe_layer_count");
    if (!json_is_integer(count) || json_integer_value(count) != (json_int_t) layer_count) {
        return moe_fail(err, MOE_RANGE,
                        "%.200s: moe_layer_count is not the number of layers in layer_list, %zu",
                        text->name, layer_count);
    }
    MOE_TRY(moe_plan_init(out, &shape, text->name, err));
    for (uint32_t layer = 0; layer < shape.layer_count; layer++) {
        MOE_TRY(read_layer(out, layers, layer, text->name, err));
    }
    return MOE_OK;
}

static enum moe_status print(FILE *out, const struct moe_plan *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &plan->placement.shape;
    const uint32_t count = moe_placement_slots_per_gpu(shape);
    MOE_TRY(moe_plan_check_layers(plan, err));
    if (!plan->gpus_stated) {
        return moe_fail(err, MOE_RANGE,
                        "an expert map of vLLM-Ascend lists devices, and the plan does not say how "
                        "many GPUs it is for; give --gpus");
    }
    (void) fprintf(out, "{\"moe_layer_count\": %u, \"layer_list\": [", shape->layer_count);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        (void) fprintf(out, "%s{\"layer_id\": %u, \"device_count\": %u, \"device_list\": [",
                       layer == 0 ? "" : ", ", layer, shape->gpu_count);
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            (void) fprintf(out, "%s{\"device_id\": %u, \"device_expert\": ", gpu == 0 ? "" : ", ",
                           gpu);
            moe_plan_print_slots(out, moe_placement_layer(&plan->placement, layer), gpu * count,
                                 (gpu + 1) * count);
            (void) fputc('}', out);
        }
        (void) fputs("]}", out);
    }
    (void) fputs("]}\n", out);
    return moe_plan_check_stream(out, err);
}

const struct moe_plan_format moe_plan_vllm_ascend = {
    .name = "vllm-ascend",
    .summary = "vLLM-Ascend: expert_map_path of --additional-config",
    .recognise = recognise,
    .parse = parse,
    .print = print,
};

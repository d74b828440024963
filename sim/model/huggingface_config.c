#include "sim/model/huggingface_config.h"

#include <stdlib.h>
#include <string.h>

/* Four bits, and one byte of scale per 32 weights. */
static const double MXFP4_BYTES = 0.5 + 1.0 / 32.0;

const json_t *moe_config_get(const struct moe_config *c, const char *key)
{
    const json_t *value = json_object_get(c->text, key);
    if (value == NULL) {
        value = json_object_get(c->root, key);
    }
    return json_is_null(value) ? NULL : value;
}

/* "PATH: key KEY is VALUE, but ALLOWED" */
enum moe_status moe_config_refuse(const struct moe_config *c, enum moe_status status,
                                  const char *key, const char *allowed)
{
    const json_t *value = moe_config_get(c, key);
    if (value == NULL) {
        return moe_fail(c->err, status, "%.200s: key %s is missing; %s", c->path, key, allowed);
    }
    char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    (void) moe_fail(c->err, status, "%.200s: key %s is %.60s, but %s", c->path, key,
                    shown == NULL ? "unprintable" : shown, allowed);
    free(shown);
    return status;
}

enum moe_status moe_config_size(const struct moe_config *c, const char *key, bool optional,
                                uint32_t fallback, uint32_t *out)
{
    const json_t *value = moe_config_get(c, key);
    if (value == NULL && optional) {
        *out = fallback;
        return MOE_OK;
    }
    const json_int_t size = json_integer_value(value);
    if (!json_is_integer(value) || size < 0 || size > UINT32_MAX) {
        return moe_config_refuse(c, MOE_RANGE, key,
                                 "it must be a whole number from 0 to 4294967295");
    }
    *out = (uint32_t) size;
    return MOE_OK;
}

enum moe_status moe_config_flag(const struct moe_config *c, const char *key, bool fallback,
                                bool *out)
{
    const json_t *value = moe_config_get(c, key);
    if (value != NULL && !json_is_boolean(value)) {
        return moe_config_refuse(c, MOE_RANGE, key, "it must be true or false");
    }
    *out = value == NULL ? fallback : json_is_true(value);
    return MOE_OK;
}

enum moe_status moe_config_sizes(const struct moe_config *c, const struct moe_config_size *sizes,
                                 size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t value = 0;
        MOE_TRY(moe_config_size(c, sizes[i].key, sizes[i].optional, 0, &value));
        memcpy((unsigned char *) c->model + sizes[i].offset, &value, sizeof value);
    }
    return MOE_OK;
}

enum moe_status moe_config_text(const struct moe_config *c, const char *key, const char **out)
{
    const json_t *value = moe_config_get(c, key);
    if (value != NULL && !json_is_string(value)) {
        return moe_config_refuse(c, MOE_RANGE, key, "it must be a text");
    }
    *out = json_string_value(value);
    return MOE_OK;
}

enum moe_status moe_config_count_layers(const struct moe_config *c, const char *key,
                                        const char *other, const char *counted, uint32_t *out)
{
    const json_t *types = moe_config_get(c, key);
    size_t i = 0;
    const json_t *type = NULL;
    uint32_t count = 0;
    if (!json_is_array(types) || json_array_size(types) != c->model->layer_count) {
        return moe_config_refuse(c, MOE_RANGE, key,
                                 "it must be a list with one entry per hidden layer");
    }
    json_array_foreach(types, i, type)
    {
        const char *text = json_string_value(type);
        if (text == NULL || (strcmp(text, counted) != 0 && strcmp(text, other) != 0)) {
            return moe_fail(c->err, MOE_UNSUPPORTED,
                            "%.200s: key %s: entry %zu is neither \"%s\" nor \"%s\"", c->path, key,
                            i, other, counted);
        }
        count += strcmp(text, counted) == 0;
    }
    *out = count;
    return MOE_OK;
}

/* Bytes of one unquantised weight. */
static enum moe_status read_dtype(const struct moe_config *c, bool quantised, double *bytes)
{
    const char *key = moe_config_get(c, "torch_dtype") != NULL ? "torch_dtype" : "dtype";
    const char *dtype = NULL;
    MOE_TRY(moe_config_text(c, key, &dtype));
    if (dtype == NULL && quantised) {
        dtype = "bfloat16"; /* what gpt-oss leaves out: the rest of the published files */
    }
    if (dtype != NULL && (strcmp(dtype, "bfloat16") == 0 || strcmp(dtype, "float16") == 0)) {
        *bytes = 2.0;
        return MOE_OK;
    }
    if (dtype != NULL && strcmp(dtype, "float32") == 0) {
        *bytes = 4.0;
        return MOE_OK;
    }
    return moe_config_refuse(c, MOE_RANGE, key, "it must be bfloat16, float16 or float32");
}

static bool ignores(const json_t *quantization, const char *part)
{
    const json_t *list = json_object_get(quantization, "ignore");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *pattern = json_string_value(json_array_get(list, i));
        if (pattern != NULL && strstr(pattern, part) != NULL) {
            return true;
        }
    }
    return false;
}

/* compressed-tensors: one group of packed weights with a scale per group_size of them,
 * of one byte (scale_dtype uint8) or two. Only experts may be in it. */
static enum moe_status read_packed(const struct moe_config *c, const json_t *quantization)
{
    const json_t *groups = json_object_get(quantization, "config_groups");
    const json_t *weights = json_object_get(json_object_get(groups, "group_0"), "weights");
    const json_int_t bits = json_integer_value(json_object_get(weights, "num_bits"));
    const json_int_t size = json_integer_value(json_object_get(weights, "group_size"));
    const json_t *scale = json_object_get(weights, "scale_dtype");
    const json_t *kv = json_object_get(quantization, "kv_cache_scheme");
    if (json_object_size(groups) != 1 || bits < 2 || bits > 8 || size < 1 ||
        !ignores(quantization, "self_attn") || !ignores(quantization, "shared_experts") ||
        (kv != NULL && !json_is_null(kv))) {
        return moe_config_refuse(
            c, MOE_UNSUPPORTED, "quantization_config",
            "of compressed-tensors only one group_0 with num_bits and group_size, that ignores "
            "self_attn and shared_experts, without kv_cache_scheme, is understood");
    }
    const bool one_byte =
        json_is_string(scale) && strstr(json_string_value(scale), "uint8") != NULL;
    c->model->expert_bytes_per_weight =
        (double) bits / 8.0 + (one_byte ? 1.0 : 2.0) / (double) size;
    return MOE_OK;
}

enum moe_status moe_config_read_precision(const struct moe_config *c)
{
    const json_t *quantization = moe_config_get(c, "quantization_config");
    const char *method = json_string_value(json_object_get(quantization, "quant_method"));
    double bytes = 0.0;
    MOE_TRY(read_dtype(c, quantization != NULL, &bytes));
    c->model->kv_bytes_per_value = 2.0;
    c->model->dense_bytes_per_weight = bytes;
    c->model->expert_bytes_per_weight = bytes;
    if (quantization == NULL) {
        return MOE_OK;
    }
    if (method != NULL && strcmp(method, "fp8") == 0) {
        /* One scale per block of 128 x 128 weights adds 0.02 %: left out. */
        const char *experts = NULL;
        MOE_TRY(moe_config_text(c, "expert_dtype", &experts));
        if (experts != NULL && strcmp(experts, "fp4") != 0 && strcmp(experts, "fp8") != 0) {
            return moe_config_refuse(c, MOE_UNSUPPORTED, "expert_dtype",
                                     "only fp4 and fp8 are understood");
        }
        c->model->dense_bytes_per_weight = 1.0;
        c->model->expert_bytes_per_weight =
            experts != NULL && strcmp(experts, "fp4") == 0 ? MXFP4_BYTES : 1.0;
        return MOE_OK;
    }
    if (method != NULL && strcmp(method, "mxfp4") == 0) {
        c->model->expert_bytes_per_weight = MXFP4_BYTES;
        return MOE_OK;
    }
    if (method != NULL && strcmp(method, "compressed-tensors") == 0) {
        return read_packed(c, quantization);
    }
    return moe_config_refuse(c, MOE_UNSUPPORTED, "quantization_config",
                             "only quant_method fp8, mxfp4 and compressed-tensors are understood");
}

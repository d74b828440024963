/*
 * HuggingFace configurations. A config's model_type decides how it is read: one table of
 * keys for what is a plain size, one function for what is derived. Kimi, Qwen3.5 and
 * Llama-4 nest the language model under text_config; a key that is not there is looked
 * up outside.
 *
 * Source of the keys: the configs themselves, and for what a config leaves out the
 * defaults of its class in transformers (named where they are used).
 */
#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "sim/model/huggingface_config.h"
#include "sim/model/model_reader.h"

#define READ_SIZES(c, keys) moe_config_sizes((c), (keys), sizeof(keys) / sizeof(keys)[0])
#define KEY(key, field)                                 \
    {                                                   \
        (key), offsetof(struct moe_model, field), false \
    }
#define OPTIONAL(key, field)                           \
    {                                                  \
        (key), offsetof(struct moe_model, field), true \
    }

/* GQA or MHA from heads, KV heads and head size (by default hidden / heads). */
static enum moe_status read_heads(const struct moe_config *c)
{
    static const struct moe_config_size keys[] = { KEY("num_attention_heads", head_count),
                                                   KEY("num_key_value_heads", kv_head_count) };
    struct moe_model *model = c->model;
    MOE_TRY(READ_SIZES(c, keys));
    if (model->head_count == 0) {
        return moe_config_refuse(c, MOE_RANGE, "num_attention_heads", "it must be at least 1");
    }
    MOE_TRY(moe_config_size(c, "head_dim", true, model->hidden_size / model->head_count,
                            &model->head_size));
    model->attention =
        model->kv_head_count < model->head_count ? MOE_ATTENTION_GQA : MOE_ATTENTION_MHA;
    model->kv_layer_count = model->layer_count;
    return MOE_OK;
}

static enum moe_status read_mla(const struct moe_config *c)
{
    static const struct moe_config_size keys[] = {
        KEY("num_attention_heads", head_count),  KEY("qk_nope_head_dim", head_size),
        KEY("qk_rope_head_dim", rope_head_size), KEY("v_head_dim", value_head_size),
        OPTIONAL("q_lora_rank", q_lora_rank),    KEY("kv_lora_rank", kv_lora_rank),
    };
    MOE_TRY(READ_SIZES(c, keys));
    c->model->attention = MOE_ATTENTION_MLA;
    c->model->kv_head_count = c->model->head_count;
    c->model->kv_layer_count = c->model->layer_count;
    return MOE_OK;
}

/* MoE layers from first_k_dense_replace and moe_layer_freq: layer i has experts when
 * i >= first and i % freq == 0; and shared experts of the routed size each. */
static enum moe_status read_late_experts(const struct moe_config *c, const char *shared_key)
{
    struct moe_model *model = c->model;
    uint32_t first = 0;
    uint32_t every = 1;
    uint32_t shared = 0;
    MOE_TRY(moe_config_size(c, "first_k_dense_replace", true, 0, &first));
    MOE_TRY(moe_config_size(c, "moe_layer_freq", true, 1, &every));
    MOE_TRY(moe_config_size(c, shared_key, true, 0, &shared));
    if (every == 0) {
        return moe_config_refuse(c, MOE_RANGE, "moe_layer_freq", "it must be at least 1");
    }
    if (shared > 64) {
        return moe_config_refuse(c, MOE_RANGE, shared_key, "it must be at most 64");
    }
    const uint32_t skipped = (first + every - 1) / every; /* multiples of every below first */
    const uint32_t multiples = (model->layer_count + every - 1) / every;
    model->moe_layer_count = multiples > skipped ? multiples - skipped : 0;
    if (model->moe_layer_count < model->layer_count) {
        MOE_TRY(moe_config_size(c, "intermediate_size", false, 0, &model->dense_size));
    }
    model->shared_size = shared * model->expert_size;
    return MOE_OK;
}

static enum moe_status read_groups(const struct moe_config *c, const char *group_key)
{
    const char *method = NULL;
    MOE_TRY(moe_config_text(c, "topk_method", &method));
    MOE_TRY(moe_config_size(c, group_key, true, 1, &c->model->group_count));
    MOE_TRY(moe_config_size(c, "topk_group", true, c->model->group_count, &c->model->group_limit));
    if (method != NULL && strcmp(method, "greedy") == 0) {
        c->model->group_count = 1; /* DeepSeek-V2-Lite: groups are named, but not used */
        c->model->group_limit = 1;
    }
    return MOE_OK;
}

static const struct moe_config_size deepseek_keys[] = {
    KEY("n_routed_experts", expert_count),
    KEY("num_experts_per_tok", top_k),
    KEY("moe_intermediate_size", expert_size),
};

static enum moe_status read_deepseek(const struct moe_config *c)
{
    MOE_TRY(READ_SIZES(c, deepseek_keys));
    MOE_TRY(read_groups(c, "n_group"));
    MOE_TRY(read_late_experts(c, "n_shared_experts"));
    return read_mla(c);
}

static enum moe_status read_indexed(const struct moe_config *c)
{
    MOE_TRY(read_deepseek(c));
    if (moe_config_get(c, "mlp_layer_types") != NULL) {
        uint32_t sparse = 0;
        MOE_TRY(moe_config_count_layers(c, "mlp_layer_types", "dense", "sparse", &sparse));
        if (sparse != c->model->moe_layer_count) {
            return moe_config_refuse(c, MOE_RANGE, "mlp_layer_types",
                                     "first_k_dense_replace and moe_layer_freq give another "
                                     "number of layers with experts");
        }
    }
    return moe_config_read_indexed_mla(c);
}

/* DeepSeek-V4. Its first num_hash_layers choose experts by the token's id: which ones a trace
 * says, and the work is the same. */
static enum moe_status read_deepseek_v4(const struct moe_config *c)
{
    MOE_TRY(READ_SIZES(c, deepseek_keys));
    MOE_TRY(read_groups(c, "n_group"));
    MOE_TRY(read_late_experts(c, "n_shared_experts"));
    return moe_config_read_compressed(c);
}

static enum moe_status read_glm4(const struct moe_config *c)
{
    MOE_TRY(READ_SIZES(c, deepseek_keys));
    MOE_TRY(read_groups(c, "n_group"));
    MOE_TRY(read_late_experts(c, "n_shared_experts"));
    return read_heads(c);
}

/* Kimi Delta Attention: Q, K, V and output, and a gate of full rank or of one head's. */
static enum moe_status read_delta_attention(const struct moe_config *c)
{
    const json_t *linear = moe_config_get(c, "linear_attn_config");
    const json_int_t heads = json_integer_value(json_object_get(linear, "num_heads"));
    const json_int_t size = json_integer_value(json_object_get(linear, "head_dim"));
    const json_t *full = json_object_get(linear, "full_attn_layers");
    const json_t *kda = json_object_get(linear, "kda_layers");
    if (heads < 1 || heads > 65536 || size < 1 || size > 65536 || !json_is_array(full) ||
        json_array_size(full) + json_array_size(kda) != c->model->layer_count) {
        return moe_config_refuse(
            c, MOE_RANGE, "linear_attn_config",
            "it must give num_heads, head_dim and, in full_attn_layers and kda_layers, "
            "every layer once");
    }
    const double hidden = c->model->hidden_size;
    const double width = (double) heads * (double) size;
    const bool full_rank = json_is_true(json_object_get(linear, "use_full_rank_gate"));
    c->model->kv_layer_count = (uint32_t) json_array_size(full);
    c->model->linear_weights =
        4.0 * hidden * width + (full_rank ? hidden * width : (hidden + width) * (double) size);
    return MOE_OK;
}

static enum moe_status read_kimi_linear(const struct moe_config *c)
{
    static const struct moe_config_size keys[] = {
        KEY("num_experts", expert_count),
        KEY("num_experts_per_token", top_k),
        KEY("moe_intermediate_size", expert_size),
        OPTIONAL("routed_expert_hidden_size", expert_hidden_size),
    };
    MOE_TRY(READ_SIZES(c, keys));
    MOE_TRY(read_groups(c, "num_expert_group"));
    MOE_TRY(read_late_experts(c, "num_shared_experts"));
    MOE_TRY(read_mla(c));
    MOE_TRY(moe_config_flag(c, "mla_use_output_gate", false, &c->model->gated_attention));
    return read_delta_attention(c);
}

/* Gated DeltaNet of Qwen3.5: Q, K, V, gate and two scalars per value head in, one out. */
static enum moe_status read_delta_net(const struct moe_config *c)
{
    uint32_t key_heads = 0;
    uint32_t key_size = 0;
    uint32_t value_heads = 0;
    uint32_t value_size = 0;
    uint32_t linear = 0;
    MOE_TRY(
        moe_config_count_layers(c, "layer_types", "full_attention", "linear_attention", &linear));
    MOE_TRY(moe_config_size(c, "linear_num_key_heads", false, 0, &key_heads));
    MOE_TRY(moe_config_size(c, "linear_key_head_dim", false, 0, &key_size));
    MOE_TRY(moe_config_size(c, "linear_num_value_heads", false, 0, &value_heads));
    MOE_TRY(moe_config_size(c, "linear_value_head_dim", false, 0, &value_size));
    const double keys = (double) key_heads * key_size;
    const double values = (double) value_heads * value_size;
    c->model->linear_weights =
        c->model->hidden_size * (2.0 * keys + 3.0 * values + 2.0 * value_heads);
    c->model->kv_layer_count = c->model->layer_count - linear;
    return moe_config_flag(c, "attn_output_gate", true, &c->model->gated_attention);
}

static enum moe_status read_qwen(const struct moe_config *c)
{
    static const struct moe_config_size keys[] = {
        KEY("num_experts", expert_count),
        KEY("num_experts_per_tok", top_k),
        KEY("moe_intermediate_size", expert_size),
        OPTIONAL("shared_expert_intermediate_size", shared_size),
    };
    struct moe_model *model = c->model;
    uint32_t every = 1;
    bool window = false;
    MOE_TRY(READ_SIZES(c, keys));
    MOE_TRY(moe_config_size(c, "decoder_sparse_step", true, 1, &every));
    MOE_TRY(moe_config_flag(c, "use_sliding_window", false, &window));
    if (window) {
        return moe_config_refuse(c, MOE_UNSUPPORTED, "use_sliding_window",
                                 "only false is understood");
    }
    if (json_array_size(moe_config_get(c, "mlp_only_layers")) != 0) {
        return moe_config_refuse(c, MOE_UNSUPPORTED, "mlp_only_layers",
                                 "only an empty list is understood");
    }
    if (every == 0) {
        return moe_config_refuse(c, MOE_RANGE, "decoder_sparse_step", "it must be at least 1");
    }
    model->moe_layer_count = model->layer_count / every;
    if (model->moe_layer_count < model->layer_count) {
        MOE_TRY(moe_config_size(c, "intermediate_size", false, 0, &model->dense_size));
    }
    return read_heads(c);
}

static enum moe_status read_qwen35(const struct moe_config *c)
{
    MOE_TRY(read_qwen(c));
    return read_delta_net(c);
}

/* Llama-4: layers with rope attend within chunks, the others to everything. Defaults of
 * Llama4TextConfig: every fourth layer is without rope; experts and shared expert have
 * intermediate_size, dense layers intermediate_size_mlp. */
static enum moe_status read_llama4(const struct moe_config *c)
{
    static const struct moe_config_size keys[] = {
        KEY("num_local_experts", expert_count),
        KEY("num_experts_per_tok", top_k),
        KEY("intermediate_size", expert_size),
    };
    struct moe_model *model = c->model;
    uint32_t every = 1;
    uint32_t chunk = 0;
    uint32_t interval = 4;
    MOE_TRY(READ_SIZES(c, keys));
    MOE_TRY(moe_config_size(c, "interleave_moe_layer_step", true, 1, &every));
    MOE_TRY(moe_config_size(c, "attention_chunk_size", true, 0, &chunk));
    MOE_TRY(moe_config_size(c, "no_rope_layer_interval", true, 4, &interval));
    static const char *const unread[] = { "no_rope_layers", "moe_layers", "layer_types" };
    for (size_t i = 0; i < sizeof unread / sizeof unread[0]; i++) {
        if (json_array_size(moe_config_get(c, unread[i])) != 0) {
            return moe_config_refuse(
                c, MOE_UNSUPPORTED, unread[i],
                "layers listed one by one are not understood for this model_type");
        }
    }
    if (every == 0 || interval == 0) {
        return moe_config_refuse(
            c, MOE_RANGE, every == 0 ? "interleave_moe_layer_step" : "no_rope_layer_interval",
            "it must be at least 1");
    }
    model->moe_layer_count = model->layer_count / every;
    model->shared_size = model->expert_size;
    if (model->moe_layer_count < model->layer_count) {
        MOE_TRY(moe_config_size(c, "intermediate_size_mlp", false, 0, &model->dense_size));
    }
    MOE_TRY(read_heads(c));
    if (chunk != 0) {
        model->window_size = chunk;
        model->kv_layer_count = model->layer_count / interval;
        model->window_layer_count = model->layer_count - model->kv_layer_count;
    }
    return MOE_OK;
}

static enum moe_status read_mixtral(const struct moe_config *c)
{
    static const struct moe_config_size keys[] = {
        KEY("num_local_experts", expert_count),
        KEY("num_experts_per_tok", top_k),
        KEY("intermediate_size", expert_size),
    };
    struct moe_model *model = c->model;
    uint32_t window = 0;
    MOE_TRY(READ_SIZES(c, keys));
    MOE_TRY(moe_config_size(c, "sliding_window", true, 0, &window));
    model->moe_layer_count = model->layer_count;
    MOE_TRY(read_heads(c));
    if (window != 0) {
        model->window_size = window;
        model->window_layer_count = model->layer_count;
        model->kv_layer_count = 0;
    }
    return MOE_OK;
}

static enum moe_status read_gpt_oss(const struct moe_config *c)
{
    struct moe_model *model = c->model;
    uint32_t windowed = 0;
    MOE_TRY(read_mixtral(c));
    MOE_TRY(moe_config_count_layers(c, "layer_types", "full_attention", "sliding_attention",
                                    &windowed));
    model->window_layer_count = windowed;
    model->kv_layer_count = model->layer_count - windowed;
    model->window_size = windowed == 0 ? 0 : model->window_size;
    return MOE_OK;
}

/* MiniMax-M3: moe_layer_freq says of each layer whether it has experts. */
static enum moe_status read_minimax_m3(const struct moe_config *c)
{
    static const struct moe_config_size keys[] = {
        KEY("num_local_experts", expert_count),
        KEY("num_experts_per_tok", top_k),
        KEY("moe_intermediate_size", expert_size),
    };
    struct moe_model *model = c->model;
    const json_t *layers = moe_config_get(c, "moe_layer_freq");
    uint32_t shared = 0;
    uint32_t shared_size = 0;
    MOE_TRY(READ_SIZES(c, keys));
    MOE_TRY(moe_config_size(c, "n_shared_experts", true, 0, &shared));
    MOE_TRY(moe_config_size(c, "shared_intermediate_size", shared == 0, 0, &shared_size));
    if (shared > 64 || shared_size > 1 << 20) {
        return moe_config_refuse(
            c, MOE_RANGE, shared > 64 ? "n_shared_experts" : "shared_intermediate_size",
            shared > 64 ? "it must be at most 64" : "it must be at most 1048576");
    }
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        const json_t *entry = json_array_get(layers, layer);
        const json_int_t experts = json_is_integer(entry) ? json_integer_value(entry) : -1;
        if (json_array_size(layers) != model->layer_count || (experts != 0 && experts != 1)) {
            return moe_config_refuse(c, MOE_RANGE, "moe_layer_freq",
                                     "it must be a list of 0 or 1 for each hidden layer");
        }
        model->moe_layer_count += (uint32_t) experts;
    }
    model->shared_size = shared * shared_size;
    if (model->moe_layer_count < model->layer_count) {
        MOE_TRY(moe_config_size(c, "dense_intermediate_size", false, 0, &model->dense_size));
    }
    MOE_TRY(read_heads(c));
    MOE_TRY(moe_config_flag(c, "attention_output_gate", false, &model->gated_attention));
    return moe_config_read_sparse_blocks(c);
}

static const struct {
    const char *model_type;
    enum moe_status (*read)(const struct moe_config *c);
    const char *sparse; /* its key of sparse attention; NULL: none */
} families[] = {
    { "deepseek_v2", read_deepseek, NULL },
    { "deepseek_v3", read_deepseek, NULL },
    { "deepseek_v32", read_indexed, "index_topk" },
    { "deepseek_v4", read_deepseek_v4, "compress_ratios" },
    { "kimi_k2", read_deepseek, NULL },
    { "kimi_linear", read_kimi_linear, NULL },
    { "glm4_moe", read_glm4, NULL },
    { "glm_moe_dsa", read_indexed, "index_topk" },
    { "qwen3_moe", read_qwen, NULL },
    { "qwen3_5_moe_text", read_qwen35, NULL },
    { "llama4_text", read_llama4, NULL },
    { "minimax_m3", read_minimax_m3, "sparse_attention_config" },
    { "mixtral", read_mixtral, NULL },
    { "gpt_oss", read_gpt_oss, NULL },
};

/* Attention to a part of the context that a family is not known for: better refused than priced
 * as dense attention. */
static enum moe_status refuse_sparse(const struct moe_config *c, const char *known)
{
    static const char *const keys[] = { "index_topk", "sparse_attention_config",
                                        "compress_ratios" };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const bool indexes = known != NULL && strcmp(known, "compress_ratios") == 0 && i == 0;
        if (moe_config_get(c, keys[i]) != NULL && !indexes &&
            (known == NULL || strcmp(known, keys[i]) != 0)) {
            return moe_config_refuse(c, MOE_UNSUPPORTED, keys[i],
                                     "this model_type is not known for attention to a chosen or "
                                     "compressed part of the context; a card (.yaml) can state "
                                     "its sizes");
        }
    }
    return MOE_OK;
}

static enum moe_status read_family(const struct moe_config *c)
{
    const char *type = NULL;
    char known[320] = "these are understood:";
    size_t used = strlen(known);
    MOE_TRY(moe_config_text(c, "model_type", &type));
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (type != NULL && strcmp(families[i].model_type, type) == 0) {
            MOE_TRY(refuse_sparse(c, families[i].sparse));
            return families[i].read(c);
        }
        used += (size_t) snprintf(known + used, sizeof known - used, " %s", families[i].model_type);
        assert(used < sizeof known);
    }
    return moe_config_refuse(c, MOE_UNSUPPORTED, "model_type", known);
}

/* The last folder for .../config.json, else the file's name without its ending; what a
 * settings text may not hold becomes '_'. */
static void name_from_path(const char *path, struct moe_model *model)
{
    const char *end = path + strlen(path);
    const char *slash = strrchr(path, '/');
    const char *begin = slash == NULL ? path : slash + 1;
    static const char *const endings[] = { "_config.json", ".json" };
    if (slash != NULL && slash > path && strcmp(begin, "config.json") == 0) {
        end = slash;
        for (begin = end; begin > path && begin[-1] != '/';) {
            begin--;
        }
    } else {
        for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
            const size_t length = strlen(endings[i]);
            if ((size_t) (end - begin) > length && strcmp(end - length, endings[i]) == 0) {
                end -= length;
                break;
            }
        }
    }
    (void) snprintf(model->name, sizeof model->name, "%.*s", (int) (end - begin), begin);
    (void) snprintf(model->source, sizeof model->source, "HuggingFace config %s",
                    strlen(path) < 160 ? path : begin);
    char *const texts[] = { model->name, model->source };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (char *at = texts[i]; *at != '\0'; at++) {
            if (*at < 0x20 || *at > 0x7e) {
                *at = '_';
            }
        }
    }
    if (model->name[0] == '\0') {
        (void) snprintf(model->name, sizeof model->name, "config");
    }
}

static enum moe_status read_config(const struct moe_config *c)
{
    static const struct moe_config_size keys[] = {
        KEY("num_hidden_layers", layer_count),
        KEY("hidden_size", hidden_size),
        KEY("vocab_size", vocabulary_size),
    };
    MOE_TRY(READ_SIZES(c, keys));
    /* The classes of every family here default to untied tables. */
    MOE_TRY(moe_config_flag(c, "tie_word_embeddings", false, &c->model->tied_embeddings));
    MOE_TRY(read_family(c));
    return moe_config_read_precision(c);
}

enum moe_status moe_model_read_huggingface(struct moe_model *model, const char *text, size_t bytes,
                                           const char *path, struct moe_error *err)
{
    json_error_t where;
    struct moe_error reason = { 0 };
    struct moe_model read = { .group_count = 1, .group_limit = 1, .gated = true };
    const size_t length = strlen(path);
    const char *shown = length > 160 ? path + length - 160 : path;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL) {
        return moe_fail(err, MOE_PARSE, "%s:%d: not valid JSON: %s", shown, where.line, where.text);
    }
    const json_t *nested = json_object_get(root, "text_config");
    const struct moe_config config = { .root = root,
                                       .text = json_is_object(nested) ? nested : root,
                                       .path = shown,
                                       .model = &read,
                                       .err = err };
    enum moe_status status = MOE_OK;
    if (!json_is_object(root)) {
        status = moe_fail(err, MOE_PARSE, "%s: a HuggingFace config is a JSON object", shown);
        goto done;
    }
    name_from_path(path, &read);
    status = read_config(&config);
    if (status != MOE_OK) {
        goto done;
    }
    status = moe_model_check(&read, &reason);
    if (status != MOE_OK) {
        status = moe_fail(err, status, "%s: %s", shown, reason.text);
        goto done;
    }
    *model = read;

done:
    json_decref(root);
    return status;
}

/* Model cards: the shipped ones are embedded from sim/model/cards. */
#include <stdlib.h>
#include <string.h>

#include "sim/base/embedded.h"
#include "sim/base/text_file.h"
#include "sim/model/model_reader.h"
#include "traces/trace_store.h"

extern const struct moe_embedded_file moe_model_cards[];
extern const char *const moe_model_cards_stems[];
extern const unsigned moe_model_cards_count;

enum { MODEL_FILE_BYTES = 4 << 20 };

static const char *const attention_names[] = { "mha", "gqa", "mla", "shared", NULL };

#define COUNT(key, field, low, high, text)                                                     \
    {                                                                                          \
        .path = (key), .kind = MOE_SETTING_COUNT, .offset = offsetof(struct moe_model, field), \
        .min = (low), .max = (high), .help = (text)                                            \
    }
#define NEEDED(key, field, low, high, text)                                                    \
    {                                                                                          \
        .path = (key), .kind = MOE_SETTING_COUNT, .offset = offsetof(struct moe_model, field), \
        .min = (low), .max = (high), .help = (text), .required = true                          \
    }
#define BYTES(key, field, text)                                                               \
    {                                                                                         \
        .path = (key), .kind = MOE_SETTING_REAL, .offset = offsetof(struct moe_model, field), \
        .min = 0.125, .max = 8, .help = (text), .required = true                              \
    }
#define FLAG(key, field, text)                                                                \
    {                                                                                         \
        .path = (key), .kind = MOE_SETTING_FLAG, .offset = offsetof(struct moe_model, field), \
        .help = (text)                                                                        \
    }

static const struct moe_setting items[] = {
    { .path = "name",
      .kind = MOE_SETTING_TEXT,
      .required = true,
      .offset = offsetof(struct moe_model, name),
      .min = 1,
      .text_bytes = sizeof(((struct moe_model *) 0)->name),
      .help = "name in reports" },
    { .path = "source",
      .kind = MOE_SETTING_TEXT,
      .required = true,
      .offset = offsetof(struct moe_model, source),
      .min = 1,
      .text_bytes = sizeof(((struct moe_model *) 0)->source),
      .help = "where the sizes come from" },
    NEEDED("layers", layer_count, 1, MOE_TRACE_LAYER_LIMIT, "hidden layers, dense ones included"),
    NEEDED("moe_layers", moe_layer_count, 1, MOE_TRACE_LAYER_LIMIT, "layers with routed experts"),
    NEEDED("hidden", hidden_size, 1, 1 << 20, "width of the residual stream"),
    NEEDED("vocabulary", vocabulary_size, 1, 1 << 24, "tokens of the vocabulary"),
    FLAG("tied_embeddings", tied_embeddings, "embedding and LM head are one table"),
    COUNT("residual_streams", residual_streams, 0, 64,
          "copies of the hidden state (hyper-connections); 0 = none"),
    NEEDED("experts.count", expert_count, 1, MOE_TRACE_EXPERT_LIMIT, "routed experts of a layer"),
    NEEDED("experts.top_k", top_k, 1, MOE_TRACE_TOP_K_LIMIT, "experts of one token"),
    COUNT("experts.groups", group_count, 1, MOE_TRACE_EXPERT_LIMIT,
          "routing groups of consecutive experts; 1 = none"),
    COUNT("experts.group_limit", group_limit, 1, MOE_TRACE_EXPERT_LIMIT,
          "groups that one token may use"),
    NEEDED("experts.size", expert_size, 1, 1 << 20, "intermediate size of a routed expert"),
    COUNT("experts.hidden", expert_hidden_size, 0, 1 << 20,
          "width of a routed expert's input; 0 = hidden"),
    COUNT("experts.shared_size", shared_size, 0, 1 << 20,
          "intermediate size of all shared experts together"),
    FLAG("experts.gated", gated, "three matrices (gate, up, down) instead of two, in every FFN"),
    BYTES("experts.bytes_per_weight", expert_bytes_per_weight, "2 bf16, 1 fp8, 0.53125 mxfp4"),
    COUNT("dense.size", dense_size, 0, 1 << 20,
          "intermediate size of a dense layer; 0 = no dense layers"),
    BYTES("dense.bytes_per_weight", dense_bytes_per_weight, "of all that is not a routed expert"),
    { .path = "attention.kind",
      .kind = MOE_SETTING_CHOICE,
      .required = true,
      .offset = offsetof(struct moe_model, attention),
      .choices = attention_names,
      .help = "how K and V are kept" },
    NEEDED("attention.heads", head_count, 1, 65536, "query heads"),
    NEEDED("attention.kv_heads", kv_head_count, 1, 65536,
           "KV heads; mla: as many as heads; shared: 1"),
    NEEDED("attention.head_size", head_size, 1, 65536,
           "of K and V; mla: of K without rope_head_size"),
    COUNT("attention.q_lora_rank", q_lora_rank, 0, 1 << 20,
          "mla, shared; 0 = full-rank query projection"),
    COUNT("attention.kv_lora_rank", kv_lora_rank, 0, 1 << 20, "mla: latent per token"),
    COUNT("attention.rope_head_size", rope_head_size, 0, 65536,
          "mla: part of K shared by all heads"),
    COUNT("attention.value_head_size", value_head_size, 0, 65536, "mla: of V"),
    COUNT("attention.output_rank", output_rank, 0, 1 << 20,
          "shared: values that the output of a group of heads goes through; 0 = full rank"),
    COUNT("attention.output_groups", output_groups, 0, 65536,
          "shared: groups of heads with an output_rank each"),
    FLAG("attention.gated", gated_attention, "an output gate as large as the heads' output"),
    NEEDED("attention.kv_layers", kv_layer_count, 0, MOE_TRACE_LAYER_LIMIT,
           "layers whose KV grows with the context"),
    COUNT("attention.window_layers", window_layer_count, 0, MOE_TRACE_LAYER_LIMIT,
          "other layers, that keep a window only"),
    COUNT("attention.window_size", window_size, 0, 1 << 24, "tokens of the window"),
    { .path = "attention.linear_weights",
      .kind = MOE_SETTING_REAL,
      .offset = offsetof(struct moe_model, linear_weights),
      .min = 0,
      .max = 1e12,
      .help = "attention weights of a remaining (linear) layer; 0 = as in the others" },
    COUNT("attention.sparse_layers", sparse_layer_count, 0, MOE_TRACE_LAYER_LIMIT,
          "of kv_layers: a query reads the entries that score best"),
    COUNT("attention.sparse_entries", sparse_entries, 0, 1 << 24, "so many of them"),
    COUNT("attention.sparse_ratio", sparse_ratio, 0, 1 << 16,
          "tokens that an entry of theirs stands for; 1 = each its own"),
    COUNT("attention.pooled_layers", pooled_layer_count, 0, MOE_TRACE_LAYER_LIMIT,
          "of kv_layers: a query reads all entries, each of several tokens"),
    COUNT("attention.pooled_ratio", pooled_ratio, 0, 1 << 16, "so many tokens"),
    COUNT("attention.index_layers", index_layer_count, 0, MOE_TRACE_LAYER_LIMIT,
          "of sparse_layers: score all entries; the others read what the last one chose"),
    COUNT("attention.index_heads", index_head_count, 0, 65536, "queries that score an entry"),
    COUNT("attention.index_head_size", index_head_size, 0, 65536, "of those, and of the key"),
    COUNT("attention.index_block", index_block, 0, 1 << 16, "entries that are chosen together"),
    { .path = "attention.index_bytes_per_value",
      .kind = MOE_SETTING_REAL,
      .offset = offsetof(struct moe_model, index_bytes_per_value),
      .min = 0,
      .max = 8,
      .help = "of the keys; 2 bf16, 1.03125 fp8 with a float32 scale per key of 128" },
    BYTES("attention.kv_bytes_per_value", kv_bytes_per_value, "2 bf16, 1 fp8"),
};

const struct moe_settings moe_model_settings = {
    .noun = "model card",
    .items = items,
    .count = sizeof items / sizeof items[0],
};

enum moe_status moe_model_read_card(struct moe_model *model, const char *text, size_t bytes,
                                    const char *name, struct moe_error *err)
{
    struct moe_model card = { .group_count = 1, .group_limit = 1, .gated = true };
    struct moe_error reason = { 0 };
    MOE_TRY(moe_settings_read(&moe_model_settings, &card, text, bytes, name, err));
    const enum moe_status status = moe_model_check(&card, &reason);
    if (status != MOE_OK) {
        return moe_fail(err, status, "%.200s: %s", name, reason.text);
    }
    *model = card;
    return MOE_OK;
}

const char *const *moe_model_card_names(uint32_t *count)
{
    *count = moe_model_cards_count;
    return moe_model_cards_stems;
}

static bool has_ending(const char *text, const char *ending)
{
    const size_t length = strlen(text);
    return length > strlen(ending) && strcmp(text + length - strlen(ending), ending) == 0;
}

bool moe_model_ref_is_path(const char *name_or_path)
{
    return strchr(name_or_path, '/') != NULL || has_ending(name_or_path, ".yaml") ||
           has_ending(name_or_path, ".yml") || has_ending(name_or_path, ".json");
}

static enum moe_status load_shipped(struct moe_model *model, const char *name,
                                    struct moe_error *err)
{
    char names[512] = "";
    size_t used = 0;
    for (unsigned i = 0; i < moe_model_cards_count; i++) {
        const struct moe_embedded_file *card = &moe_model_cards[i];
        if (strcmp(moe_model_cards_stems[i], name) == 0) {
            return moe_model_read_card(model, card->text, card->bytes, card->name, err);
        }
        if (used < sizeof names - 1) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s",
                                      moe_model_cards_stems[i]);
        }
    }
    return moe_fail(err, MOE_RANGE,
                    "no model card '%.60s'; there are:%s; or name a .yaml card or a HuggingFace "
                    ".json file",
                    name, names);
}

enum moe_status moe_model_load(struct moe_model *model, const char *name_or_path,
                               struct moe_error *err)
{
    if (!moe_model_ref_is_path(name_or_path)) {
        return load_shipped(model, name_or_path, err);
    }
    const bool json = has_ending(name_or_path, ".json");
    if (!json && !has_ending(name_or_path, ".yaml") && !has_ending(name_or_path, ".yml")) {
        return moe_fail(err, MOE_RANGE,
                        "model '%.200s' is neither a card (.yaml, .yml) nor a HuggingFace config "
                        "(.json)",
                        name_or_path);
    }
    char *text = NULL;
    size_t bytes = 0;
    MOE_TRY(moe_text_file_read(name_or_path, MODEL_FILE_BYTES, &text, &bytes, err));
    const enum moe_status status =
        json ? moe_model_read_huggingface(model, text, bytes, name_or_path, err)
             : moe_model_read_card(model, text, bytes, name_or_path, err);
    free(text);
    return status;
}

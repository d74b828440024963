/*
 * Model: the sizes of a Mixture-of-Experts transformer that decide what a step
 * costs and what fits in memory. Read from a card of ours (YAML, sim/model/cards),
 * from a HuggingFace config.json, or taken over from a trace's model.
 */
#ifndef MOE_SIM_MODEL_MODEL_H
#define MOE_SIM_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"

enum moe_attention_kind {
    MOE_ATTENTION_MHA,
    MOE_ATTENTION_GQA,
    MOE_ATTENTION_MLA,    /* latent KV of kv_lora_rank + rope_head_size per token */
    MOE_ATTENTION_SHARED, /* one vector of head_size that is K and V of all heads (DeepSeek-V4) */
};

struct moe_model {
    char name[64];
    char source[192];         /* where the sizes come from */
    uint32_t layer_count;     /* hidden layers, dense ones included */
    uint32_t moe_layer_count; /* those with routed experts */
    uint32_t hidden_size;
    uint32_t vocabulary_size;
    bool tied_embeddings;
    uint32_t residual_streams; /* hyper-connections: copies of the hidden state; 0 = none */

    uint32_t expert_count; /* routed experts of a layer */
    uint32_t top_k;
    uint32_t group_count; /* routing groups; 1 = none */
    uint32_t group_limit; /* groups one token may use; group_count = no limit */
    uint32_t expert_size; /* intermediate size of a routed expert */
    /* Width that routed experts read and write, and that the exchange carries; 0 = the
     * hidden size. Smaller where tokens are projected first (latent MoE: Kimi-K3). */
    uint32_t expert_hidden_size;
    uint32_t shared_size; /* intermediate size of all shared experts together; 0 = none */
    uint32_t dense_size;  /* intermediate size of a dense layer's FFN; 0 = no dense layers */
    bool gated;           /* three matrices (gate, up, down) instead of two */

    enum moe_attention_kind attention;
    uint32_t head_count;
    uint32_t kv_head_count;
    uint32_t head_size;          /* of K and V; MLA: of K without rope_head_size */
    uint32_t q_lora_rank;        /* MLA, shared; 0 = full-rank query projection */
    uint32_t kv_lora_rank;       /* MLA */
    uint32_t rope_head_size;     /* MLA: the part of K shared by all heads */
    uint32_t value_head_size;    /* MLA */
    uint32_t output_rank;        /* shared: of each of output_groups groups of heads; 0 = full */
    uint32_t output_groups;      /* shared; 0 when output_rank is */
    bool gated_attention;        /* an output gate as large as the heads' output */
    uint32_t kv_layer_count;     /* layers whose KV grows with the context */
    uint32_t window_layer_count; /* other layers, that see and keep a window only */
    uint32_t window_size;        /* tokens; 0 when no layer sees a window */
    /* The rest of layer_count has linear attention: a state of fixed size, no KV. */
    double linear_weights; /* attention weights of such a layer; 0 = as in the others */

    /* Sparse attention: what kv_layer_count keeps grows with the context, but a query of these
     * layers reads a part of it. An entry is the KV of one token or, compressed, of several;
     * where it is of several, a query also sees the last window_size tokens as they are. */
    uint32_t sparse_layer_count; /* of kv_layer_count: a query reads its sparse_entries best */
    uint32_t sparse_entries;
    uint32_t sparse_ratio;       /* tokens of one entry of theirs; 1 = every token has its own */
    uint32_t pooled_layer_count; /* of kv_layer_count: a query reads all entries, */
    uint32_t pooled_ratio;       /* each of so many tokens */
    uint32_t index_layer_count;  /* of the sparse ones: score every entry. The others read what
                                  * the last one before them chose */
    uint32_t index_head_count;   /* queries that score an entry */
    uint32_t index_head_size;    /* of those, and of the one key that an entry has for it */
    uint32_t index_block;        /* entries that are chosen together */
    double index_bytes_per_value;

    double expert_bytes_per_weight; /* 2 bf16, 1 fp8, 0.53125 mxfp4 (with its scales) */
    double dense_bytes_per_weight;  /* everything that is not a routed expert */
    double kv_bytes_per_value;
};

/* Width of a routed expert's input and output: expert_hidden_size or hidden_size. */
static inline uint32_t moe_model_expert_width(const struct moe_model *model)
{
    return model->expert_hidden_size == 0 ? model->hidden_size : model->expert_hidden_size;
}

/* Layers with linear attention. */
static inline uint32_t moe_model_linear_layers(const struct moe_model *model)
{
    return model->layer_count - model->kv_layer_count - model->window_layer_count;
}

/* Whether entries of KV stand for several tokens in some layers. */
static inline bool moe_model_compresses(const struct moe_model *model)
{
    return model->pooled_layer_count > 0 || model->sparse_ratio > 1;
}

/* Tokens whose entries a query of a sparse layer reads at most; 0 without such layers. */
static inline uint64_t moe_model_sparse_tokens(const struct moe_model *model)
{
    return (uint64_t) model->sparse_entries * model->sparse_ratio;
}

/* Derived quantities, each for one GPU that holds the whole of its kind. Biases, norms
 * and multi-token-prediction layers are left out: under 0.1 % of the weights, or not run. */
double moe_model_expert_weights(const struct moe_model *model);    /* of one expert: 2 or 3 h*f */
double moe_model_expert_bytes(const struct moe_model *model);      /* of one expert of one layer */
double moe_model_attention_weights(const struct moe_model *model); /* of one layer with KV */
/* Attention of all layers, linear ones included; without what moe_model_index_weights holds. */
double moe_model_all_attention_weights(const struct moe_model *model);
/* What sparse attention adds in all layers: indexers, and what makes entries of several tokens.
 * Engines that cut an attention over GPUs leave these whole on each. */
double moe_model_index_weights(const struct moe_model *model);
/* Attention, dense, shared, router, latent projections, embeddings, all layers. */
double moe_model_nonexpert_weights(const struct moe_model *model);
/* The same in bytes; routers and embeddings take at least 2 each, as they are published. */
double moe_model_nonexpert_bytes(const struct moe_model *model);
double moe_model_total_weights(const struct moe_model *model);

/* KV and index keys of one more token. Layers with a window are included, as if the context
 * were within it, but where entries are compressed: then windows are kept beside the pool
 * (moe_model_window_bytes), as engines keep them that know such models. */
double moe_model_kv_bytes_per_token(const struct moe_model *model);
double moe_model_index_bytes_per_token(const struct moe_model *model); /* of that, index keys */
/* Windows of one running request of a model with compressed entries; 0 for others. */
double moe_model_window_bytes(const struct moe_model *model);
/* KV and index keys of one sequence of so many tokens when windowed layers keep their window. */
double moe_model_kv_bytes(const struct moe_model *model, double context_tokens);

/* All sizes consistent and within range. Errors: MOE_RANGE naming model, field, value
 * and what is allowed. */
enum moe_status moe_model_check(const struct moe_model *model,
                                struct moe_error *err) MOE_MUST_CHECK;

/* name_or_path: a shipped card ("deepseek-v3"), a card file (*.yaml, *.yml) or a
 * HuggingFace config (*.json); what has such an ending or a '/' is a path.
 * *model is written on success only. Errors: MOE_RANGE listing the cards; MOE_IO;
 * MOE_PARSE, MOE_RANGE naming file, key and (YAML) line; MOE_UNSUPPORTED naming the key
 * of an architecture that is not understood. */
enum moe_status moe_model_load(struct moe_model *model, const char *name_or_path,
                               struct moe_error *err) MOE_MUST_CHECK;

/* Whether moe_model_load would take the text for a path. */
bool moe_model_ref_is_path(const char *name_or_path);

/* Names of the shipped cards, sorted: names[*count]. */
const char *const *moe_model_card_names(uint32_t *count);

#endif

#include "sim/model/model.h"

#include <stdio.h>

#include "sim/model/model_reader.h"

/* What published checkpoints keep unquantised: routers and vocabulary tables. */
static const double UNQUANTISED_BYTES = 2.0;

double moe_model_expert_weights(const struct moe_model *model)
{
    return (model->gated ? 3.0 : 2.0) * moe_model_expert_width(model) * model->expert_size;
}

double moe_model_expert_bytes(const struct moe_model *model)
{
    return moe_model_expert_weights(model) * model->expert_bytes_per_weight;
}

/* MLA (DeepSeek-V2, arXiv 2405.04434, section 2.1): Q through its low rank or straight, K
 * and V up from one latent, one rope key for all heads. */
static double mla_weights(const struct moe_model *model)
{
    const double hidden = model->hidden_size;
    const double heads = model->head_count;
    const double key_size = (double) model->head_size + model->rope_head_size;
    const double query = model->q_lora_rank == 0 ? hidden * heads * key_size
                                                 : model->q_lora_rank * (hidden + heads * key_size);
    const double latent = hidden * ((double) model->kv_lora_rank + model->rope_head_size);
    const double up =
        model->kv_lora_rank * heads * ((double) model->head_size + model->value_head_size);
    const double output = heads * model->value_head_size * hidden;
    return query + latent + up + output * (model->gated_attention ? 2.0 : 1.0);
}

/* DeepSeek-V4: Q through its low rank, one vector for K and V, and an output that goes through
 * output_rank values of each group of heads. */
static double shared_weights(const struct moe_model *model)
{
    const double hidden = model->hidden_size;
    const double heads = (double) model->head_count * model->head_size;
    const double query =
        model->q_lora_rank == 0 ? hidden * heads : model->q_lora_rank * (hidden + heads);
    const double output =
        model->output_rank == 0
            ? heads * hidden
            : model->output_rank * (heads + (double) model->output_groups * hidden);
    return query + hidden * model->head_size + output +
           (model->gated_attention ? hidden * heads : 0.0);
}

double moe_model_attention_weights(const struct moe_model *model)
{
    if (model->attention == MOE_ATTENTION_MLA) {
        return mla_weights(model);
    }
    if (model->attention == MOE_ATTENTION_SHARED) {
        return shared_weights(model);
    }
    const double heads = (model->gated_attention ? 3.0 : 2.0) * model->head_count;
    return (heads + 2.0 * model->kv_head_count) * model->head_size * model->hidden_size;
}

double moe_model_all_attention_weights(const struct moe_model *model)
{
    const double linear_layers = moe_model_linear_layers(model);
    const double attention = moe_model_attention_weights(model);
    const double linear = model->linear_weights > 0.0 ? model->linear_weights : attention;
    return (model->layer_count - linear_layers) * attention + linear_layers * linear;
}

/* An indexer: queries (from the low rank where there is one), keys, a weight per head. Entries of
 * several tokens are weighted sums: a projection and a gate, twice that where the tokens of
 * neighbouring entries overlap, as they do in sparse layers (DeepSeek-V4). Keys likewise. */
double moe_model_index_weights(const struct moe_model *model)
{
    const double hidden = model->hidden_size;
    const double from = model->q_lora_rank == 0 ? hidden : model->q_lora_rank;
    const double key = hidden * model->index_head_size * (model->sparse_ratio > 1 ? 4.0 : 1.0);
    const double index = from * model->index_head_count * model->index_head_size + key +
                         hidden * model->index_head_count;
    const double entry = hidden * model->head_size;
    return model->index_layer_count * index +
           (model->sparse_ratio > 1 ? model->sparse_layer_count * 4.0 * entry : 0.0) +
           model->pooled_layer_count * 2.0 * entry;
}

/* Routers and vocabulary tables of all layers. */
static double unquantised_weights(const struct moe_model *model)
{
    const double hidden = model->hidden_size;
    const double tables = (model->tied_embeddings ? 1.0 : 2.0) * model->vocabulary_size;
    return hidden * (tables + (double) model->moe_layer_count * model->expert_count);
}

/* Attention, dense and shared FFNs, latent projections of all layers. */
static double dense_weights(const struct moe_model *model)
{
    const double hidden = model->hidden_size;
    const double matrices = model->gated ? 3.0 : 2.0;
    const double dense_layers = (double) model->layer_count - model->moe_layer_count;
    const double latent =
        model->expert_hidden_size == 0 ? 0.0 : 2.0 * hidden * model->expert_hidden_size;
    return moe_model_all_attention_weights(model) + moe_model_index_weights(model) +
           dense_layers * matrices * hidden * model->dense_size +
           model->moe_layer_count * (matrices * hidden * model->shared_size + latent);
}

double moe_model_nonexpert_weights(const struct moe_model *model)
{
    return dense_weights(model) + unquantised_weights(model);
}

double moe_model_nonexpert_bytes(const struct moe_model *model)
{
    const double bytes = model->dense_bytes_per_weight;
    return dense_weights(model) * bytes +
           unquantised_weights(model) * (bytes > UNQUANTISED_BYTES ? bytes : UNQUANTISED_BYTES);
}

double moe_model_total_weights(const struct moe_model *model)
{
    return moe_model_nonexpert_weights(model) +
           (double) model->moe_layer_count * model->expert_count * moe_model_expert_weights(model);
}

/* Of one entry in one layer. */
static double kv_bytes_of_a_layer(const struct moe_model *model)
{
    const double values =
        model->attention == MOE_ATTENTION_MLA ? (double) model->kv_lora_rank + model->rope_head_size
        : model->attention == MOE_ATTENTION_SHARED ? (double) model->head_size
                                                   : 2.0 * model->kv_head_count * model->head_size;
    return values * model->kv_bytes_per_value;
}

/* Entries that one token adds in all layers whose KV grows. */
static double entries_per_token(const struct moe_model *model)
{
    const uint32_t plain =
        model->kv_layer_count - model->sparse_layer_count - model->pooled_layer_count;
    double entries = plain;
    if (model->sparse_layer_count > 0) {
        entries += (double) model->sparse_layer_count / model->sparse_ratio;
    }
    if (model->pooled_layer_count > 0) {
        entries += (double) model->pooled_layer_count / model->pooled_ratio;
    }
    return entries;
}

double moe_model_index_bytes_per_token(const struct moe_model *model)
{
    return model->index_layer_count == 0
               ? 0.0
               : (double) model->index_layer_count * model->index_head_size *
                     model->index_bytes_per_value / model->sparse_ratio;
}

double moe_model_kv_bytes_per_token(const struct moe_model *model)
{
    const double windows = moe_model_compresses(model) ? 0.0 : model->window_layer_count;
    return kv_bytes_of_a_layer(model) * (entries_per_token(model) + windows) +
           moe_model_index_bytes_per_token(model);
}

/* Layers that keep the last window_size tokens, whatever else they keep. */
static double window_layers(const struct moe_model *model)
{
    return (double) model->window_layer_count + model->pooled_layer_count +
           (model->sparse_ratio > 1 ? model->sparse_layer_count : 0);
}

double moe_model_window_bytes(const struct moe_model *model)
{
    return moe_model_compresses(model)
               ? kv_bytes_of_a_layer(model) * window_layers(model) * model->window_size
               : 0.0;
}

double moe_model_kv_bytes(const struct moe_model *model, double context_tokens)
{
    const double window = model->window_size;
    return kv_bytes_of_a_layer(model) *
               (entries_per_token(model) * context_tokens +
                window_layers(model) * (context_tokens < window ? context_tokens : window)) +
           moe_model_index_bytes_per_token(model) * context_tokens;
}

/* A relation between fields that must hold, with the sentence for when it does not. */
static enum moe_status require(bool holds, const struct moe_model *model, const char *field,
                               uint32_t value, const char *allowed, struct moe_error *err)
{
    return holds ? MOE_OK
                 : moe_fail(err, MOE_RANGE, "model %s: %s is %u, but %s", model->name, field, value,
                            allowed);
}

static enum moe_status check_experts(const struct moe_model *m, struct moe_error *err)
{
    MOE_TRY(require(m->moe_layer_count <= m->layer_count, m, "moe_layers", m->moe_layer_count,
                    "must be at most layers", err));
    MOE_TRY(require(m->top_k <= m->expert_count, m, "experts.top_k", m->top_k,
                    "must be at most experts.count", err));
    MOE_TRY(require(m->group_count != 0 && m->expert_count % m->group_count == 0, m,
                    "experts.groups", m->group_count, "must divide experts.count", err));
    MOE_TRY(require(m->group_limit != 0 && m->group_limit <= m->group_count, m,
                    "experts.group_limit", m->group_limit, "must be from 1 to experts.groups",
                    err));
    MOE_TRY(require(m->top_k <= m->expert_count / m->group_count * m->group_limit, m,
                    "experts.top_k", m->top_k, "must fit into experts.group_limit groups", err));
    MOE_TRY(require((m->moe_layer_count < m->layer_count) == (m->dense_size != 0), m, "dense.size",
                    m->dense_size, "must be 0 exactly when every layer has experts", err));
    return MOE_OK;
}

static enum moe_status check_heads(const struct moe_model *m, struct moe_error *err)
{
    const bool mla = m->attention == MOE_ATTENTION_MLA;
    const bool shared = m->attention == MOE_ATTENTION_SHARED;
    MOE_TRY(require(m->kv_head_count != 0 && m->head_count % m->kv_head_count == 0, m,
                    "attention.kv_heads", m->kv_head_count, "must divide attention.heads", err));
    MOE_TRY(require(shared
                        ? m->kv_head_count == 1
                        : (m->attention == MOE_ATTENTION_GQA) == (m->kv_head_count < m->head_count),
                    m, "attention.kv_heads", m->kv_head_count,
                    "must be fewer than attention.heads for gqa, as many for mha and mla, 1 for "
                    "shared",
                    err));
    MOE_TRY(require((m->kv_lora_rank != 0) == mla, m, "attention.kv_lora_rank", m->kv_lora_rank,
                    "must be given for mla, and only for it", err));
    MOE_TRY(require((m->value_head_size != 0) == mla, m, "attention.value_head_size",
                    m->value_head_size, "must be given for mla, and only for it", err));
    MOE_TRY(require(mla || m->rope_head_size == 0, m, "attention.rope_head_size", m->rope_head_size,
                    "is for mla only", err));
    MOE_TRY(require(mla || shared || m->q_lora_rank == 0, m, "attention.q_lora_rank",
                    m->q_lora_rank, "is for mla and shared only", err));
    MOE_TRY(require(shared || m->output_rank == 0, m, "attention.output_rank", m->output_rank,
                    "is for shared only", err));
    return require(
        m->output_rank == 0 ? m->output_groups == 0
                            : m->output_groups != 0 && m->head_count % m->output_groups == 0,
        m, "attention.output_groups", m->output_groups,
        "must divide attention.heads with attention.output_rank, and be 0 without it", err);
}

static enum moe_status check_index(const struct moe_model *m, struct moe_error *err)
{
    const bool sparse = m->sparse_layer_count != 0;
    const struct {
        const char *field;
        uint32_t value;
    } needed[] = {
        { "attention.sparse_entries", m->sparse_entries },
        { "attention.sparse_ratio", m->sparse_ratio },
        { "attention.index_layers", m->index_layer_count },
        { "attention.index_heads", m->index_head_count },
        { "attention.index_head_size", m->index_head_size },
        { "attention.index_block", m->index_block },
    };
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        MOE_TRY(require((needed[i].value != 0) == sparse, m, needed[i].field, needed[i].value,
                        "must be 0 exactly when attention.sparse_layers is", err));
    }
    MOE_TRY(require((m->index_bytes_per_value > 0.0) == sparse, m, "attention.sparse_layers",
                    m->sparse_layer_count,
                    "attention.index_bytes_per_value must be 0 exactly when it is", err));
    MOE_TRY(require(m->index_layer_count <= m->sparse_layer_count, m, "attention.index_layers",
                    m->index_layer_count, "must be at most attention.sparse_layers", err));
    return require(!sparse || m->sparse_entries % m->index_block == 0, m, "attention.index_block",
                   m->index_block, "must divide attention.sparse_entries", err);
}

static enum moe_status check_attention(const struct moe_model *m, struct moe_error *err)
{
    const bool windows = m->window_layer_count != 0 || moe_model_compresses(m);
    MOE_TRY(check_heads(m, err));
    MOE_TRY(require(m->kv_layer_count <= m->layer_count &&
                        m->window_layer_count <= m->layer_count - m->kv_layer_count,
                    m, "attention.window_layers", m->window_layer_count,
                    "must, with attention.kv_layers, be at most layers", err));
    MOE_TRY(require(m->sparse_layer_count <= m->kv_layer_count &&
                        m->pooled_layer_count <= m->kv_layer_count - m->sparse_layer_count,
                    m, "attention.sparse_layers", m->sparse_layer_count,
                    "must, with attention.pooled_layers, be at most attention.kv_layers", err));
    MOE_TRY(require((m->pooled_layer_count != 0) == (m->pooled_ratio != 0), m,
                    "attention.pooled_ratio", m->pooled_ratio,
                    "must be 0 exactly when attention.pooled_layers is", err));
    MOE_TRY(require(!moe_model_compresses(m) || m->attention == MOE_ATTENTION_SHARED, m,
                    "attention.pooled_layers", m->pooled_layer_count,
                    "entries of several tokens are understood for kind shared only", err));
    MOE_TRY(require(windows == (m->window_size != 0), m, "attention.window_size", m->window_size,
                    "must be 0 exactly when no layer sees a window: neither "
                    "attention.window_layers nor layers whose entries are of several tokens",
                    err));
    return check_index(m, err);
}

enum moe_status moe_model_check(const struct moe_model *model, struct moe_error *err)
{
    char where[80];
    (void) snprintf(where, sizeof where, "model %s", model->name);
    MOE_TRY(moe_settings_check(&moe_model_settings, model, where, err));
    MOE_TRY(check_experts(model, err));
    return check_attention(model, err);
}

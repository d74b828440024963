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

double moe_model_attention_weights(const struct moe_model *model)
{
    if (model->attention == MOE_ATTENTION_MLA) {
        return mla_weights(model);
    }
    const double heads = (model->gated_attention ? 3.0 : 2.0) * model->head_count;
    return (heads + 2.0 * model->kv_head_count) * model->head_size * model->hidden_size;
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
    const double linear_layers = moe_model_linear_layers(model);
    const double attention = moe_model_attention_weights(model);
    const double linear = model->linear_weights > 0.0 ? model->linear_weights : attention;
    const double dense_layers = (double) model->layer_count - model->moe_layer_count;
    const double latent =
        model->expert_hidden_size == 0 ? 0.0 : 2.0 * hidden * model->expert_hidden_size;
    return (model->layer_count - linear_layers) * attention + linear_layers * linear +
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

static double kv_bytes_of_a_layer(const struct moe_model *model)
{
    const double values = model->attention == MOE_ATTENTION_MLA
                              ? (double) model->kv_lora_rank + model->rope_head_size
                              : 2.0 * model->kv_head_count * model->head_size;
    return values * model->kv_bytes_per_value;
}

double moe_model_kv_bytes_per_token(const struct moe_model *model)
{
    return kv_bytes_of_a_layer(model) *
           ((double) model->kv_layer_count + model->window_layer_count);
}

double moe_model_kv_bytes(const struct moe_model *model, double context_tokens)
{
    const double window = model->window_size;
    return kv_bytes_of_a_layer(model) *
           (model->kv_layer_count * context_tokens +
            model->window_layer_count * (context_tokens < window ? context_tokens : window));
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

static enum moe_status check_attention(const struct moe_model *m, struct moe_error *err)
{
    const bool mla = m->attention == MOE_ATTENTION_MLA;
    MOE_TRY(require(m->kv_head_count != 0 && m->head_count % m->kv_head_count == 0, m,
                    "attention.kv_heads", m->kv_head_count, "must divide attention.heads", err));
    MOE_TRY(require((m->attention == MOE_ATTENTION_GQA) == (m->kv_head_count < m->head_count), m,
                    "attention.kv_heads", m->kv_head_count,
                    "must be fewer than attention.heads for gqa, as many for mha and mla", err));
    MOE_TRY(require((m->kv_lora_rank != 0) == mla, m, "attention.kv_lora_rank", m->kv_lora_rank,
                    "must be given for mla, and only for it", err));
    MOE_TRY(require((m->value_head_size != 0) == mla, m, "attention.value_head_size",
                    m->value_head_size, "must be given for mla, and only for it", err));
    MOE_TRY(require(mla || m->rope_head_size == 0, m, "attention.rope_head_size", m->rope_head_size,
                    "is for mla only", err));
    MOE_TRY(require(mla || m->q_lora_rank == 0, m, "attention.q_lora_rank", m->q_lora_rank,
                    "is for mla only", err));
    MOE_TRY(require(m->kv_layer_count <= m->layer_count &&
                        m->window_layer_count <= m->layer_count - m->kv_layer_count,
                    m, "attention.window_layers", m->window_layer_count,
                    "must, with attention.kv_layers, be at most layers", err));
    MOE_TRY(require((m->window_layer_count != 0) == (m->window_size != 0), m,
                    "attention.window_size", m->window_size,
                    "must be 0 exactly when attention.window_layers is", err));
    return MOE_OK;
}

enum moe_status moe_model_check(const struct moe_model *model, struct moe_error *err)
{
    char where[80];
    (void) snprintf(where, sizeof where, "model %s", model->name);
    MOE_TRY(moe_settings_check(&moe_model_settings, model, where, err));
    MOE_TRY(check_experts(model, err));
    return check_attention(model, err);
}

/* Bytes of weights and of KV once more: the words of sim/model/model.h, layer by layer. */
#include <math.h>

#include "tests/cost_twin.h"

double cost_twin_memory_bytes(const struct cost_twin *twin)
{
    return twin_number(twin_row_with(&twin->table, "gpu_kind", NULL, NULL), "memory_bytes");
}

double cost_twin_entry_values(const struct twin_model *m)
{
    return m->mla      ? m->kv_lora + m->rope
           : m->shared ? m->head_size
                       : 2.0 * m->kv_heads * m->head_size;
}

double cost_twin_expert_bytes(const struct twin_model *m)
{
    const double width = m->expert_hidden == 0 ? m->hidden : m->expert_hidden;
    return (m->gated ? 3 : 2) * width * m->expert_size * m->expert_bytes;
}

static bool compresses(const struct twin_model *m)
{
    return m->pooled_layers > 0 || m->sparse_ratio > 1;
}

/* Layer by layer: sparse ones first, then pooled ones, the rest, and those with a window. */
double cost_twin_kv_bytes(const struct twin_model *m)
{
    const double entry = cost_twin_entry_values(m) * m->kv_bytes;
    double bytes = 0;
    for (uint32_t layer = 0; layer < m->kv_layers; layer++) {
        bytes += layer < m->sparse_layers                      ? entry / m->sparse_ratio
                 : layer < m->sparse_layers + m->pooled_layers ? entry / m->pooled_ratio
                                                               : entry;
    }
    for (uint32_t layer = 0; layer < m->index_layers; layer++) {
        bytes += m->index_size * m->index_bytes / m->sparse_ratio;
    }
    return bytes + (compresses(m) ? 0 : entry * m->window_layers);
}

double cost_twin_window_bytes(const struct twin_model *m)
{
    double layers = m->window_layers + m->pooled_layers;
    if (!compresses(m)) {
        return 0;
    }
    layers += m->sparse_ratio > 1 ? m->sparse_layers : 0;
    return layers * m->window * cost_twin_entry_values(m) * m->kv_bytes;
}

static double attention_weights(const struct twin_model *m)
{
    const double heads = m->heads;
    const double hidden = m->hidden;
    const double gates = m->gated_attention ? 1 : 0;
    if (m->shared) {
        const double all = heads * m->head_size;
        return (m->q_lora == 0 ? hidden * all : m->q_lora * (hidden + all)) +
               hidden * m->head_size + gates * hidden * all +
               (m->output_rank == 0
                    ? all * hidden
                    : all * m->output_rank + m->output_groups * m->output_rank * hidden);
    }
    if (!m->mla) {
        return ((2 + gates) * heads + 2.0 * m->kv_heads) * m->head_size * hidden;
    }
    const double key = m->head_size + m->rope;
    const double query = m->q_lora == 0 ? hidden * heads * key : m->q_lora * (hidden + heads * key);
    return query + hidden * (m->kv_lora + m->rope) +
           m->kv_lora * heads * (m->head_size + m->value_size) +
           (1 + gates) * heads * m->value_size * hidden;
}

double cost_twin_nonexpert_bytes(const struct twin_model *m)
{
    const double hidden = m->hidden;
    const double matrices = m->gated ? 3 : 2;
    const double attention_each = attention_weights(m);
    double dense = 0;
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        const bool keeps_kv = layer < m->kv_layers + m->window_layers;
        dense += keeps_kv || m->linear_weights == 0 ? attention_each : m->linear_weights;
        dense += matrices * hidden * (layer < m->moe_layers ? m->shared_size : m->dense_size);
        dense += layer < m->moe_layers ? 2 * hidden * m->expert_hidden : 0;
    }
    for (uint32_t layer = 0; layer < m->index_layers; layer++) {
        dense += (m->q_lora == 0 ? hidden : m->q_lora) * m->index_heads * m->index_size +
                 hidden * (m->index_size * (m->sparse_ratio > 1 ? 4.0 : 1.0) + m->index_heads);
    }
    for (uint32_t layer = 0; layer < m->sparse_layers; layer++) {
        dense += m->sparse_ratio > 1 ? 4 * hidden * m->head_size : 0;
    }
    dense += m->pooled_layers * 2 * hidden * m->head_size;
    const double tables =
        hidden * ((m->tied ? 1.0 : 2.0) * m->vocabulary + (double) m->moe_layers * m->experts);
    return dense * m->dense_bytes + tables * fmax(m->dense_bytes, 2);
}

#include "sim/cost/cost_state.h"
#include "sim/cost/norm.h"

/* Which parameters the core's rates are. */
struct core_rates {
    enum moe_parameter bytes_s;
    enum moe_parameter flop_s;
    enum moe_parameter p;
    enum moe_parameter t0_ns;
};

static struct core_rates choose_rates(const struct moe_cost_setup *setup)
{
    const bool latent = setup->model->attention == MOE_ATTENTION_MLA &&
                        setup->parameters[MOE_PARAMETER_MLA_BYTES_S] > 0.0 &&
                        setup->parameters[MOE_PARAMETER_MLA_FLOP_S] > 0.0 &&
                        setup->parameters[MOE_PARAMETER_MLA_P] > 0.0;
    return latent ? (struct core_rates){ MOE_PARAMETER_MLA_BYTES_S, MOE_PARAMETER_MLA_FLOP_S,
                                         MOE_PARAMETER_MLA_P, MOE_PARAMETER_MLA_T0_NS }
                  : (struct core_rates){ MOE_PARAMETER_ATTENTION_BYTES_S,
                                         MOE_PARAMETER_ATTENTION_FLOP_S, MOE_PARAMETER_ATTENTION_P,
                                         MOE_PARAMETER_ATTENTION_T0_NS };
}

/* Per pair of a query and a key, for all heads: q.k and p.v, two FLOPs a value.
 * MLA has two forms (DeepSeek-V2, arXiv 2405.04434, 2.1): absorbed, where every head works
 * on the latent itself; expanded, where K and V of each head are first made from it. The
 * first is for one query per context, the second for many. */
static void init_core(struct moe_cost_setup *setup)
{
    const struct moe_model *model = setup->model;
    struct moe_cost *cost = setup->cost;
    const double heads = model->head_count;
    const struct core_rates rates = choose_rates(setup);
    const double ns_per_flop = 1e9 / setup->parameters[rates.flop_s];
    double values = 2.0 * model->kv_head_count * model->head_size;
    if (model->attention == MOE_ATTENTION_MLA) {
        const double rope = model->rope_head_size;
        const double latent = model->kv_lora_rank;
        values = latent + rope;
        cost->pair_ns = 2.0 * heads * (2.0 * latent + rope) * ns_per_flop;
        cost->expanded_pair_ns =
            2.0 * heads * (model->head_size + rope + model->value_head_size) * ns_per_flop;
        cost->expand_token_ns = 2.0 * latent * heads *
                                ((double) model->head_size + model->value_head_size) * ns_per_flop;
    } else {
        cost->pair_ns = 4.0 * heads * model->head_size * ns_per_flop;
    }
    cost->kv_token_ns = values * model->kv_bytes_per_value / setup->parameters[rates.bytes_s] * 1e9;
    cost->core_rate = rates.bytes_s;
    cost->core_t0_ns = setup->parameters[rates.t0_ns];
    cost->core_p = setup->parameters[rates.p];
    cost->core_inverse_p = 1.0 / cost->core_p;
    cost->full_share = (double) model->kv_layer_count / model->layer_count;
    cost->window_share = (double) model->window_layer_count / model->layer_count;
    cost->linear_share = (double) moe_model_linear_layers(model) / model->layer_count;
    cost->core_provenance = moe_provenance_worse(
        moe_provenance_worse(setup->provenance[rates.bytes_s], setup->provenance[rates.flop_s]),
        setup->provenance[rates.p]);
}

static enum moe_status add_mla(struct moe_cost_block *block, const struct moe_cost_setup *setup,
                               struct moe_error *err)
{
    const struct moe_model *model = setup->model;
    const double bytes = model->dense_bytes_per_weight;
    const double hidden = model->hidden_size;
    const double heads = model->head_count;
    const double query = heads * ((double) model->head_size + model->rope_head_size);
    const double latent = (double) model->kv_lora_rank + model->rope_head_size;
    if (model->q_lora_rank == 0) {
        MOE_TRY(moe_cost_block_add(block, setup, hidden, query + latent, bytes, err));
    } else {
        /* Both down-projections read the same input: engines fuse them. */
        MOE_TRY(moe_cost_block_add(block, setup, hidden, model->q_lora_rank + latent, bytes, err));
        MOE_TRY(moe_cost_block_add(block, setup, model->q_lora_rank, query, bytes, err));
    }
    /* Absorbed into the query and the output, or applied to the new tokens: as many FLOPs. */
    MOE_TRY(moe_cost_block_add(block, setup, model->kv_lora_rank,
                               heads * ((double) model->head_size + model->value_head_size), bytes,
                               err));
    if (model->gated_attention) {
        MOE_TRY(
            moe_cost_block_add(block, setup, hidden, heads * model->value_head_size, bytes, err));
    }
    return moe_cost_block_add(block, setup, heads * model->value_head_size, hidden, bytes, err);
}

static enum moe_status add_gqa(struct moe_cost_block *block, const struct moe_cost_setup *setup,
                               struct moe_error *err)
{
    const struct moe_model *model = setup->model;
    const double bytes = model->dense_bytes_per_weight;
    const double heads = model->head_count;
    const double inputs = (model->gated_attention ? 2.0 : 1.0) * heads + 2.0 * model->kv_head_count;
    MOE_TRY(moe_cost_block_add(block, setup, model->hidden_size, inputs * model->head_size, bytes,
                               err));
    return moe_cost_block_add(block, setup, heads * model->head_size, model->hidden_size, bytes,
                              err);
}

enum moe_status moe_cost_init_attention(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_model *model = setup->model;
    struct moe_cost_block *block = &setup->cost->attention;
    const double launches = setup->parameters[MOE_PARAMETER_ATTENTION_LAUNCHES];
    const double row_bytes = model->hidden_size * setup->parameters[MOE_PARAMETER_NORM_BYTES];
    init_core(setup);
    MOE_TRY(model->attention == MOE_ATTENTION_MLA ? add_mla(block, setup, err)
                                                  : add_gqa(block, setup, err));
    moe_cost_block_surround(block, setup, launches, row_bytes);
    if (model->linear_weights <= 0.0) {
        setup->cost->linear = *block;
        return MOE_OK;
    }
    /* Known by their weights only: taken as two equal matrices, in and out. */
    block = &setup->cost->linear;
    const double inner = model->linear_weights / 2.0 / model->hidden_size;
    MOE_TRY(moe_cost_block_add(block, setup, model->hidden_size, inner,
                               model->dense_bytes_per_weight, err));
    MOE_TRY(moe_cost_block_add(block, setup, inner, model->hidden_size,
                               model->dense_bytes_per_weight, err));
    moe_cost_block_surround(block, setup, launches, row_bytes);
    return MOE_OK;
}

/* The core of one layer that sees read tokens of context in pairs, decode of them by
 * sequences with one row. */
static double core_ns(const struct moe_cost *cost, const struct moe_token_work *work, double read,
                      double pairs, double decode, const struct moe_gpu_factor *factor)
{
    double compute_ns = pairs * cost->pair_ns;
    if (cost->expand_token_ns > 0.0) {
        /* What is not decode takes the cheaper form as a whole; the new tokens' own
         * expansion is among the matrices already. */
        const double rest = pairs > decode ? pairs - decode : 0.0;
        const double cached = read - decode - work->tokens;
        const double absorbed = rest * cost->pair_ns;
        const double expanded =
            rest * cost->expanded_pair_ns + (cached > 0.0 ? cached : 0.0) * cost->expand_token_ns;
        compute_ns = (pairs - rest) * cost->pair_ns + (expanded < absorbed ? expanded : absorbed);
    }
    return cost->core_t0_ns + moe_norm(read * cost->kv_token_ns * factor->memory,
                                       compute_ns * factor->compute, cost->core_p,
                                       cost->core_inverse_p);
}

struct moe_duration moe_cost_attention(const struct moe_cost *cost,
                                       const struct moe_token_work *work,
                                       const struct moe_gpu_factor *factor)
{
    struct moe_duration sum = moe_cost_block_price(&cost->attention, work->tokens, factor);
    if (work->tokens <= 0.0) {
        return sum;
    }
    if (cost->linear_share > 0.0) {
        const struct moe_duration linear =
            moe_cost_block_price(&cost->linear, work->tokens, factor);
        sum.ns += cost->linear_share * (linear.ns - sum.ns);
        sum.provenance = moe_provenance_worse(sum.provenance, linear.provenance);
    }
    if (cost->full_share > 0.0) {
        sum.ns += cost->full_share *
                  core_ns(cost, work, work->kv_read, work->score_pairs, work->decode_read, factor);
    }
    if (cost->window_share > 0.0) {
        sum.ns += cost->window_share *
                  core_ns(cost, work, work->window_read, work->window_pairs, 0.0, factor);
    }
    sum.provenance = moe_provenance_worse(sum.provenance, cost->core_provenance);
    return sum;
}

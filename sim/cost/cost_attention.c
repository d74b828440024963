#include "sim/cost/cost_state.h"
#include "sim/cost/norm.h"

/* A score is a float that is written once and read by the choice. */
static const double SCORE_BYTES = 8.0;
/* Per value of each stream: two reads and a write in bf16, around the attention and the FFN
 * (mHC, arXiv 2512.24880, with its fused kernels). */
static const double STREAM_BYTES = 12.0;

/* Which parameters the core's rates are. */
struct core_rates {
    enum moe_parameter bytes_s;
    enum moe_parameter flop_s;
    enum moe_parameter p;
    enum moe_parameter t0_ns;
};

static struct core_rates choose_rates(const struct moe_cost_setup *setup)
{
    const bool latent = (setup->model->attention == MOE_ATTENTION_MLA ||
                         setup->model->attention == MOE_ATTENTION_SHARED) &&
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
        values = model->attention == MOE_ATTENTION_SHARED ? model->head_size : values;
        cost->pair_ns = 4.0 * heads * model->head_size * ns_per_flop;
    }
    cost->kv_token_ns = values * model->kv_bytes_per_value / setup->parameters[rates.bytes_s] * 1e9;
    cost->core_rate = rates.bytes_s;
    cost->core_t0_ns = setup->parameters[rates.t0_ns];
    cost->core_p = setup->parameters[rates.p];
    cost->core_inverse_p = 1.0 / cost->core_p;
    cost->full_share =
        ((double) model->kv_layer_count - model->sparse_layer_count - model->pooled_layer_count) /
        model->layer_count;
    cost->window_share = (double) model->window_layer_count / model->layer_count;
    cost->linear_share = (double) moe_model_linear_layers(model) / model->layer_count;
    cost->core_provenance = moe_provenance_worse(
        moe_provenance_worse(setup->provenance[rates.bytes_s], setup->provenance[rates.flop_s]),
        setup->provenance[rates.p]);
}

/* The measured series of the model's decode attention, where there is one. */
static enum moe_status init_decode(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_model *model = setup->model;
    const bool latent = model->attention == MOE_ATTENTION_MLA;
    const struct moe_decode_key key = {
        .gpu_kind = setup->kind,
        .kind = latent ? MOE_DECODE_MLA : MOE_DECODE_GQA,
        .q_heads = model->head_count,
        .kv_heads = latent ? 1 : model->kv_head_count,
        .head_size = latent ? model->kv_lora_rank + model->rope_head_size : model->head_size,
        .value_size = latent ? model->kv_lora_rank : model->head_size,
    };
    if (model->attention == MOE_ATTENTION_SHARED ||
        model->kv_bytes_per_value != moe_dtype_bytes(MOE_DTYPE_BF16)) {
        return MOE_OK;
    }
    return moe_decode_init(&setup->cost->decode, setup->calibration, &key, setup->arena, err);
}

/* What chooses for sparse layers, and what those and pooled layers see. */
static void init_sparse(struct moe_cost_setup *setup)
{
    const struct moe_model *model = setup->model;
    struct moe_cost *cost = setup->cost;
    const double layers = model->layer_count;
    const double *parameters = setup->parameters;
    cost->sparse_ratio = model->sparse_ratio > 0 ? model->sparse_ratio : 1.0;
    cost->pooled_ratio = model->pooled_ratio > 0 ? model->pooled_ratio : 1.0;
    cost->sparse_share = model->sparse_layer_count / layers;
    cost->index_share = model->index_layer_count / layers;
    cost->pooled_share = model->pooled_layer_count / layers;
    if (model->sparse_layer_count == 0 && model->pooled_layer_count == 0) {
        return;
    }
    cost->core_provenance = MOE_PROVENANCE_ASSUMED;
    if (model->index_layer_count == 0) {
        return;
    }
    const double entry = cost->sparse_ratio; /* tokens */
    cost->index_read_ns = model->index_head_size * model->index_bytes_per_value / entry /
                          parameters[MOE_PARAMETER_ATTENTION_BYTES_S] * 1e9;
    cost->index_pair_ns = 2.0 * model->index_head_count * model->index_head_size / entry /
                          parameters[MOE_PARAMETER_ATTENTION_FLOP_S] * 1e9;
    cost->index_score_ns =
        SCORE_BYTES / entry / model->index_block / parameters[MOE_PARAMETER_COPY_BYTES_S] * 1e9;
    cost->index_core_p = parameters[MOE_PARAMETER_ATTENTION_P];
    cost->index_t0_ns = parameters[MOE_PARAMETER_ATTENTION_T0_NS];
}

/* Projections of an indexer, and what makes entries of several tokens. */
static enum moe_status init_sparse_blocks(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_model *model = setup->model;
    struct moe_cost *cost = setup->cost;
    const double bytes = model->dense_bytes_per_weight;
    const double hidden = model->hidden_size;
    const double size = model->index_head_size;
    const bool overlaps = model->sparse_ratio > 1;
    if (model->index_layer_count > 0) {
        const double from = model->q_lora_rank == 0 ? hidden : model->q_lora_rank;
        const double keys = size * (overlaps ? 4.0 : 1.0);
        MOE_TRY(moe_cost_block_add(&cost->index, setup, from, model->index_head_count * size, bytes,
                                   err));
        MOE_TRY(moe_cost_block_add(&cost->index, setup, hidden, keys + model->index_head_count,
                                   bytes, err));
        moe_cost_block_surround(&cost->index, setup,
                                setup->parameters[MOE_PARAMETER_ATTENTION_LAUNCHES], 0.0);
    }
    if (overlaps) {
        MOE_TRY(
            moe_cost_block_add(&cost->squeeze, setup, hidden, 4.0 * model->head_size, bytes, err));
        moe_cost_block_surround(&cost->squeeze, setup, 1.0, 0.0);
    }
    if (model->pooled_layer_count > 0) {
        MOE_TRY(moe_cost_block_add(&cost->pool, setup, hidden, 2.0 * model->head_size, bytes, err));
        moe_cost_block_surround(&cost->pool, setup, 1.0, 0.0);
    }
    return MOE_OK;
}

static enum moe_status add_shared(struct moe_cost_block *block, const struct moe_cost_setup *setup,
                                  struct moe_error *err)
{
    const struct moe_model *model = setup->model;
    const double bytes = model->dense_bytes_per_weight;
    const double hidden = model->hidden_size;
    const double heads = (double) model->head_count * model->head_size;
    if (model->q_lora_rank == 0) {
        MOE_TRY(moe_cost_block_add(block, setup, hidden, heads + model->head_size, bytes, err));
    } else {
        MOE_TRY(moe_cost_block_add(block, setup, hidden,
                                   (double) model->q_lora_rank + model->head_size, bytes, err));
        MOE_TRY(moe_cost_block_add(block, setup, model->q_lora_rank, heads, bytes, err));
    }
    if (model->gated_attention) {
        MOE_TRY(moe_cost_block_add(block, setup, hidden, heads, bytes, err));
    }
    if (model->output_rank == 0) {
        return moe_cost_block_add(block, setup, heads, hidden, bytes, err);
    }
    MOE_TRY(moe_cost_block_add(block, setup, heads, model->output_rank, bytes, err));
    return moe_cost_block_add(block, setup, (double) model->output_groups * model->output_rank,
                              hidden, bytes, err);
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
    const double row_bytes = model->hidden_size * (setup->parameters[MOE_PARAMETER_NORM_BYTES] +
                                                   STREAM_BYTES * model->residual_streams);
    init_core(setup);
    MOE_TRY(init_decode(setup, err));
    init_sparse(setup);
    MOE_TRY(init_sparse_blocks(setup, err));
    MOE_TRY(model->attention == MOE_ATTENTION_MLA      ? add_mla(block, setup, err)
            : model->attention == MOE_ATTENTION_SHARED ? add_shared(block, setup, err)
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

/* The core of one layer that reads so much KV, for arithmetic that takes compute_ns. */
static double core_ns(const struct moe_cost *cost, double read, double compute_ns,
                      const struct moe_gpu_factor *factor)
{
    return cost->core_t0_ns + moe_norm(read * cost->kv_token_ns * factor->memory,
                                       compute_ns * factor->compute, cost->core_p,
                                       cost->core_inverse_p);
}

/* What rows take that are not decode, all of them in one form: the absorbed one over absorbed
 * pairs, or the expanded one over pairs and so many tokens that other steps had cached. The new
 * tokens' own expansion is among the matrices already. */
static double cheaper_ns(const struct moe_cost *cost, double absorbed, double pairs, double cached)
{
    const double first = absorbed * cost->pair_ns;
    const double second =
        pairs * cost->expanded_pair_ns + (cached > 0.0 ? cached : 0.0) * cost->expand_token_ns;
    return second < first ? second : first;
}

static double more(double a, double b)
{
    return a > b ? a : b;
}

/* A layer that sees read tokens of context in pairs, decode of them by sequences with one row. */
static double plain_ns(const struct moe_cost *cost, const struct moe_token_work *work, double read,
                       double pairs, double decode, const struct moe_gpu_factor *factor)
{
    double compute_ns = pairs * cost->pair_ns;
    if (cost->expand_token_ns > 0.0) {
        const double rest = more(pairs - decode, 0.0);
        compute_ns = (pairs - rest) * cost->pair_ns +
                     cheaper_ns(cost, rest, rest, read - decode - work->tokens);
    }
    return core_ns(cost, read, compute_ns, factor);
}

/* The core of a layer whose rows see so much: of sequences with one row by their series, of all
 * else by the rates of the kind. */
static void add_plain(struct moe_duration *sum, const struct moe_cost *cost, double share,
                      const struct moe_token_work *work, const struct moe_token_work *seen,
                      const struct moe_gpu_factor *factor)
{
    enum moe_provenance provenance = MOE_PROVENANCE_MEASURED;
    const double read = seen->kv_read - seen->decode_read;
    const double pairs = seen->score_pairs - seen->decode_read;
    if (cost->decode.series == NULL || work->decode_sequences <= 0.0 || seen->decode_read <= 0.0) {
        sum->ns += share * plain_ns(cost, work, seen->kv_read, seen->score_pairs, seen->decode_read,
                                    factor);
        sum->provenance = moe_provenance_worse(sum->provenance, cost->core_provenance);
        return;
    }
    double ns = moe_decode_ns(&cost->decode, work->decode_sequences,
                              seen->decode_read / work->decode_sequences, factor->memory,
                              factor->compute, &provenance);
    if (read > 0.0) { /* a kernel of their own: its fixed time is the series', which knows rounds */
        ns += plain_ns(cost, work, read, pairs, 0.0, factor) - cost->core_t0_ns +
              cost->decode.fit.t0_ns;
    } else if (pairs > 0.0) { /* of drafts, which read what their sequence reads anyway */
        ns += pairs * cost->pair_ns * factor->compute;
    }
    if (read > 0.0 || pairs > 0.0) {
        provenance = moe_provenance_worse(provenance, cost->core_provenance);
    }
    sum->ns += share * ns;
    sum->provenance = moe_provenance_worse(sum->provenance, provenance);
}

/* What a layer that sees a window sees of a step's work. Which of it decoding sequences see is
 * known where nothing else runs, and asked for where they have a series. */
static struct moe_token_work through_window(const struct moe_cost *cost,
                                            const struct moe_token_work *work)
{
    const bool decodes = cost->decode.series != NULL && work->decode_read >= work->kv_read;
    return (struct moe_token_work){
        .kv_read = work->window_read,
        .score_pairs = work->window_pairs,
        .decode_read = decodes ? work->window_read : 0.0,
    };
}

/* A layer whose rows read the entries that they chose. */
static double sparse_ns(const struct moe_cost *cost, const struct moe_token_work *work,
                        const struct moe_gpu_factor *factor)
{
    const bool windows = cost->sparse_ratio > 1.0;
    const double read = work->sparse_read / cost->sparse_ratio;
    const double pairs = work->sparse_pairs / cost->sparse_ratio;
    double compute_ns = pairs * cost->pair_ns;
    if (windows) {
        return core_ns(cost, read + work->window_read,
                       compute_ns + work->window_pairs * cost->pair_ns, factor);
    }
    if (cost->expand_token_ns > 0.0) {
        const double rest = more(pairs - work->sparse_decode, 0.0);
        compute_ns = (pairs - rest) * cost->pair_ns +
                     cheaper_ns(cost, rest, more(work->score_pairs - work->decode_read, 0.0),
                                work->kv_read - work->decode_read - work->tokens);
    }
    return core_ns(cost, read, compute_ns, factor);
}

/* Scores of all entries, and the choice. */
static double index_ns(const struct moe_cost *cost, const struct moe_token_work *work,
                       const struct moe_gpu_factor *factor)
{
    return cost->index_t0_ns +
           moe_norm(work->kv_read * cost->index_read_ns * factor->memory,
                    work->score_pairs * cost->index_pair_ns * factor->compute, cost->index_core_p,
                    1.0 / cost->index_core_p) +
           work->score_pairs * cost->index_score_ns * factor->memory;
}

static void add_share(struct moe_duration *sum, double share, const struct moe_cost_block *block,
                      const struct moe_token_work *work, const struct moe_gpu_factor *factor)
{
    const struct moe_duration part = moe_cost_block_price(block, work->tokens, factor);
    sum->ns += share * part.ns;
    sum->provenance = moe_provenance_worse(sum->provenance, part.provenance);
}

/* What layers with sparse and pooled attention have in place of a plain core. */
static void add_sparse(struct moe_duration *sum, const struct moe_cost *cost,
                       const struct moe_token_work *work, const struct moe_gpu_factor *factor)
{
    if (cost->index_share > 0.0) {
        add_share(sum, cost->index_share, &cost->index, work, factor);
        sum->ns += cost->index_share * index_ns(cost, work, factor);
    }
    if (cost->sparse_share > 0.0) {
        sum->ns += cost->sparse_share * sparse_ns(cost, work, factor);
    }
    if (cost->squeeze.matrix_count > 0) {
        add_share(sum, cost->sparse_share, &cost->squeeze, work, factor);
    }
    if (cost->pooled_share > 0.0) {
        const double read = work->kv_read / cost->pooled_ratio + work->window_read;
        const double pairs = work->score_pairs / cost->pooled_ratio + work->window_pairs;
        add_share(sum, cost->pooled_share, &cost->pool, work, factor);
        sum->ns += cost->pooled_share * core_ns(cost, read, pairs * cost->pair_ns, factor);
    }
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
        add_plain(&sum, cost, cost->full_share, work, work, factor);
    }
    if (cost->window_share > 0.0) {
        const struct moe_token_work seen = through_window(cost, work);
        add_plain(&sum, cost, cost->window_share, work, &seen, factor);
    }
    add_sparse(&sum, cost, work, factor);
    if (cost->decode.series == NULL || cost->sparse_share + cost->pooled_share > 0.0) {
        sum.provenance = moe_provenance_worse(sum.provenance, cost->core_provenance);
    }
    return sum;
}

/* Blocks of dense matrices: dense layers, shared experts, gate, LM head. */
#include <math.h>
#include <stdio.h>

#include "sim/cost/cost_state.h"

enum moe_status moe_cost_block_add(struct moe_cost_block *block, const struct moe_cost_setup *setup,
                                   double rows, double columns, double bytes_per_weight,
                                   struct moe_error *err)
{
    const struct moe_curve_key key = {
        .gpu_kind = setup->kind,
        .op = MOE_SERIES_GEMM,
        .hidden = (uint32_t) rows,
        .expert_size = (uint32_t) columns,
        .dtype = moe_cost_dtype(bytes_per_weight),
    };
    if (block->matrix_count == MOE_COST_MATRIX_LIMIT) {
        return moe_fail(err, MOE_LIMIT, "more than %d matrices in one part", MOE_COST_MATRIX_LIMIT);
    }
    struct moe_cost_matrix *matrix = &block->matrices[block->matrix_count];
    MOE_TRY(moe_curve_init(&matrix->curve, setup->calibration, &key, setup->arena, err));
    matrix->memory_ns = rows * columns * bytes_per_weight * matrix->curve.ns_per_byte;
    matrix->row_ns = 2.0 * rows * columns * matrix->curve.ns_per_flop;
    block->matrix_count++;
    return MOE_OK;
}

void moe_cost_block_surround(struct moe_cost_block *block, const struct moe_cost_setup *setup,
                             double launches, double bytes_per_row)
{
    block->launch_ns = launches * setup->parameters[MOE_PARAMETER_LAUNCH_NS];
    block->token_ns = bytes_per_row / setup->parameters[MOE_PARAMETER_COPY_BYTES_S] * 1e9;
    block->provenance = moe_provenance_worse(setup->provenance[MOE_PARAMETER_LAUNCH_NS],
                                             setup->provenance[MOE_PARAMETER_COPY_BYTES_S]);
}

struct moe_duration moe_cost_block_price(const struct moe_cost_block *block, double tokens,
                                         const struct moe_gpu_factor *factor)
{
    if (tokens <= 0.0) {
        return (struct moe_duration){ 0.0, MOE_PROVENANCE_MEASURED };
    }
    struct moe_duration sum = {
        .ns = block->launch_ns + tokens * block->token_ns * factor->memory,
        .provenance = block->provenance,
    };
    for (uint32_t i = 0; i < block->matrix_count; i++) {
        const struct moe_cost_matrix *matrix = &block->matrices[i];
        const double tile = matrix->curve.tile_tokens;
        const double rows = ceil(tokens / tile) * tile;
        enum moe_provenance provenance = MOE_PROVENANCE_MEASURED;
        const double ratio = moe_curve_ratio(&matrix->curve, tokens, 1.0, &provenance);
        sum.ns += ratio * moe_curve_fitted_ns(&matrix->curve, matrix->memory_ns * factor->memory,
                                              rows * matrix->row_ns * factor->compute);
        sum.provenance = moe_provenance_worse(sum.provenance, provenance);
    }
    return sum;
}

/* Gate and up as one matrix, down as another; the activation reads what the first wrote,
 * in bf16, and writes the second's input. */
static enum moe_status init_ffn(struct moe_cost_block *block, const struct moe_cost_setup *setup,
                                uint32_t size, struct moe_error *err)
{
    const struct moe_model *model = setup->model;
    const double ups = model->gated ? 2.0 : 1.0;
    const double bytes = model->dense_bytes_per_weight;
    if (size == 0) {
        return MOE_OK;
    }
    MOE_TRY(moe_cost_block_add(block, setup, model->hidden_size, ups * size, bytes, err));
    MOE_TRY(moe_cost_block_add(block, setup, size, model->hidden_size, bytes, err));
    moe_cost_block_surround(block, setup, 1.0, (ups + 1.0) * size * 2.0);
    return MOE_OK;
}

/* Copies of a token that leave a rank: different GPUs among top_k picks, if every GPU is as
 * likely; the permutations before the dispatch and after the combine move that many. */
static double expected_copies(const struct moe_cost_setup *setup)
{
    const double gpus = moe_cluster_gpu_count(setup->cluster);
    double missed = 1.0;
    for (uint32_t i = 0; i < setup->model->top_k; i++) {
        missed *= 1.0 - 1.0 / gpus;
    }
    return gpus * (1.0 - missed);
}

static enum moe_status init_gate(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_model *model = setup->model;
    const struct moe_cost *cost = setup->cost;
    struct moe_cost_block *gate = &setup->cost->gate;
    const double hidden = model->hidden_size;
    const double width = moe_model_expert_width(model);
    const double copies = expected_copies(setup);
    /* Routers stay in bf16 when a model is quantised. */
    MOE_TRY(moe_cost_block_add(gate, setup, hidden, model->expert_count, 2.0, err));
    if (model->expert_hidden_size != 0) {
        /* Latent MoE: down before the dispatch, up after the combine. */
        const double bytes = model->dense_bytes_per_weight;
        MOE_TRY(moe_cost_block_add(gate, setup, hidden, width, bytes, err));
        MOE_TRY(moe_cost_block_add(gate, setup, width, hidden, bytes, err));
    }
    /* In: one bf16 row read, its copies written in the dispatch's dtype. Out: the copies
     * read in the combine's, one row written. */
    moe_cost_block_surround(gate, setup, setup->parameters[MOE_PARAMETER_GATE_LAUNCHES],
                            width * 4.0 + copies * (cost->copy_bytes[0] + cost->copy_bytes[1]));
    return MOE_OK;
}

static enum moe_status init_head(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_model *model = setup->model;
    struct moe_cost_block *head = &setup->cost->head;
    /* The LM head stays in bf16 too. Its rows are the sampled ones; the rows of all tokens
     * only fetch their embedding, priced by moe_cost_head. */
    MOE_TRY(moe_cost_block_add(head, setup, model->hidden_size, model->vocabulary_size, 2.0, err));
    moe_cost_block_surround(head, setup, setup->parameters[MOE_PARAMETER_HEAD_LAUNCHES],
                            model->hidden_size * 4.0);
    /* Logits as float: written once by the GEMM's cast, read by softmax and by sampling. */
    setup->cost->sample_ns =
        model->vocabulary_size * 12.0 / setup->parameters[MOE_PARAMETER_COPY_BYTES_S] * 1e9;
    return MOE_OK;
}

enum moe_status moe_cost_init_layers(struct moe_cost_setup *setup, struct moe_error *err)
{
    MOE_TRY(init_ffn(&setup->cost->dense, setup, setup->model->dense_size, err));
    MOE_TRY(init_ffn(&setup->cost->shared, setup, setup->model->shared_size, err));
    MOE_TRY(init_gate(setup, err));
    return init_head(setup, err);
}

struct moe_duration moe_cost_dense(const struct moe_cost *cost, double tokens,
                                   const struct moe_gpu_factor *factor)
{
    return moe_cost_block_price(&cost->dense, tokens, factor);
}

struct moe_duration moe_cost_shared(const struct moe_cost *cost, double tokens,
                                    const struct moe_gpu_factor *factor)
{
    return moe_cost_block_price(&cost->shared, tokens, factor);
}

struct moe_duration moe_cost_gate(const struct moe_cost *cost, double tokens,
                                  const struct moe_gpu_factor *factor)
{
    return moe_cost_block_price(&cost->gate, tokens, factor);
}

struct moe_duration moe_cost_head(const struct moe_cost *cost, const struct moe_token_work *work,
                                  const struct moe_gpu_factor *factor)
{
    struct moe_duration sum = moe_cost_block_price(&cost->head, work->sampled, factor);
    const double embedded = work->tokens - (work->sampled > 0.0 ? work->sampled : 0.0);
    sum.ns += work->sampled * cost->sample_ns * factor->memory;
    if (embedded > 0.0) {
        sum.ns += embedded * cost->head.token_ns * factor->memory;
        sum.provenance = moe_provenance_worse(sum.provenance, cost->head.provenance);
    }
    return sum;
}

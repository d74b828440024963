#include <assert.h>

#include "sim/cost/cost_state.h"

/* Bytes per assignment that a separate permutation moves: the row read and written in the
 * dispatch's dtype on the way in, and in the combine's on the way out. */
static double permutation_bytes(const struct moe_cost_setup *setup, enum moe_dtype dtype)
{
    const double in = setup->parameters[MOE_PARAMETER_DISPATCH_BF16_BYTES + (uint32_t) dtype];
    const double out = setup->parameters[MOE_PARAMETER_COMBINE_BYTES];
    return moe_model_expert_width(setup->model) * (2.0 * in + 2.0 * out);
}

enum moe_status moe_cost_init_expert(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_model *model = setup->model;
    struct moe_cost *cost = setup->cost;
    const struct moe_curve_key key = {
        .gpu_kind = setup->kind,
        .op = MOE_SERIES_EXPERT,
        .hidden = moe_model_expert_width(model),
        .expert_size = model->expert_size,
        .gated = model->gated,
        .dtype = moe_cost_dtype(model->expert_bytes_per_weight),
    };
    MOE_TRY(moe_curve_init(&cost->expert, setup->calibration, &key, setup->arena, err));
    const double weights = moe_model_expert_weights(model);
    cost->expert_memory_ns = weights * model->expert_bytes_per_weight * cost->expert.ns_per_byte;
    cost->expert_tile_ns = 2.0 * weights * cost->expert.tile_tokens * cost->expert.ns_per_flop;
    cost->fullest_row_ns = 2.0 * weights * cost->expert.fullest_weight * cost->expert.ns_per_flop;
    MOE_TRY(moe_norm_table_init(&cost->expert_norm, cost->expert.p, setup->arena, err));
    if (!cost->expert.permutation_inside) {
        cost->permutation_ns = permutation_bytes(setup, key.dtype) /
                               setup->parameters[MOE_PARAMETER_COPY_BYTES_S] * 1e9;
    }
    return MOE_OK;
}

struct moe_duration moe_cost_expert(const struct moe_cost *cost, const struct moe_expert_work *work,
                                    const struct moe_gpu_factor *factor)
{
    if (work->tokens <= 0.0) {
        return (struct moe_duration){ 0.0, MOE_PROVENANCE_MEASURED };
    }
    assert(work->active > 0.0);
    assert(work->tiles > 0.0);
    struct moe_duration duration;
    const double ratio = moe_curve_uneven_ratio(&cost->expert, work->tokens / work->active,
                                                work->active, work->fullest, &duration.provenance);
    const double memory_ns = work->active * cost->expert_memory_ns * factor->memory;
    const double capped =
        work->fullest < cost->expert.fullest_rows ? work->fullest : cost->expert.fullest_rows;
    const double compute_ns =
        (work->tiles * cost->expert_tile_ns + capped * cost->fullest_row_ns) * factor->compute;
    duration.ns = ratio * (cost->expert.t0_ns +
                           moe_norm_table_apply(&cost->expert_norm, memory_ns, compute_ns)) +
                  work->tokens * cost->permutation_ns * factor->memory;
    return duration;
}

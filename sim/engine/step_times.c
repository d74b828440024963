#include "sim/engine/step_times.h"

#include "sim/cost/curve.h"

#include "sim/base/no_malloc.h"

enum moe_status moe_step_times_init(struct moe_step_times *t, uint32_t layer_count,
                                    uint32_t gpu_count, const struct moe_serving *serving,
                                    struct moe_arena *arena, struct moe_error *err)
{
    const size_t count = (size_t) layer_count * gpu_count;
    *t = (struct moe_step_times){
        .layer_count = layer_count,
        .gpu_count = gpu_count,
        .common_exit = serving->common_exit,
        .shared_mode = serving->shared,
        .before = MOE_NEW(arena, moe_time_ns, count),
        .shared = MOE_NEW(arena, moe_time_ns, count),
        .dispatch = MOE_NEW(arena, moe_time_ns, count),
        .expert = MOE_NEW(arena, moe_time_ns, count),
        .combine = MOE_NEW(arena, moe_time_ns, count),
        .after = MOE_NEW(arena, moe_time_ns, gpu_count),
    };
    return t->before != NULL && t->shared != NULL && t->dispatch != NULL && t->expert != NULL &&
                   t->combine != NULL && t->after != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for the durations of %u layers and %u GPUs",
                          layer_count, gpu_count);
}

/* part, and summing its output over the GPUs that share it. */
static struct moe_duration with_sum(const struct moe_cost *cost, const struct moe_token_work *work,
                                    const struct moe_gpu_factor *factor, struct moe_duration part)
{
    if (part.ns > 0.0 && moe_cost_attention_ranks(cost) > 1) {
        const struct moe_duration sum = moe_cost_reduce(cost, work->tokens, factor);
        part.ns += sum.ns;
        part.provenance = moe_provenance_worse(part.provenance, sum.provenance);
    }
    return part;
}

void moe_token_prices_of_context(const struct moe_cost *cost, const struct moe_token_work *work,
                                 const struct moe_gpu_factor *factor,
                                 struct moe_token_prices *prices)
{
    prices->part[MOE_COST_ATTENTION] =
        with_sum(cost, work, factor, moe_cost_attention(cost, work, factor));
}

void moe_token_prices(const struct moe_cost *cost, const struct moe_token_work *work,
                      const struct moe_gpu_factor *factor, struct moe_token_prices *prices)
{
    const double ranks = moe_cost_attention_ranks(cost);
    *prices = (struct moe_token_prices){ 0 };
    moe_token_prices_of_context(cost, work, factor, prices);
    prices->part[MOE_COST_DENSE] =
        with_sum(cost, work, factor, moe_cost_dense(cost, work->tokens, factor));
    prices->part[MOE_COST_GATE] = moe_cost_gate(cost, work->tokens / ranks, factor);
    prices->part[MOE_COST_SHARED] = moe_cost_shared(cost, work->tokens / ranks, factor);
    prices->part[MOE_COST_HEAD] = moe_cost_head(cost, work, factor);
    prices->part[MOE_COST_HOST] = moe_cost_host(cost);
}

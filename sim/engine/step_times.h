/*
 * Step times: how long every stretch of one step takes on every GPU, before anyone waits
 * for anyone. What turns work into durations ends here; what turns durations into a
 * timeline (timeline.h) begins here, and knows nothing of costs.
 *
 * A step, per MoE layer:
 *
 *   before ──┬─► [barrier] ─► dispatch ─► expert ─► [barrier] ─► combine ─► next layer
 *            └─► shared (overlapped: beside barrier and dispatch; serial: before expert)
 *
 * and after the last layer: after ─► [barrier, the step's end]. before holds attention,
 * the dense layers that precede this MoE layer, router and permutation of the GPU's own
 * tokens; after holds embedding, LM head, sampling and the host.
 */
#ifndef MOE_SIM_ENGINE_STEP_TIMES_H
#define MOE_SIM_ENGINE_STEP_TIMES_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/cost/cost.h"
#include "sim/scenario/scenario.h"

/* All in nanoseconds, [layer][gpu] but for after. */
struct moe_step_times {
    uint32_t layer_count;
    uint32_t gpu_count;
    bool common_exit; /* all ranks leave a collective when the last one's data is there */
    enum moe_shared_mode shared_mode;
    moe_time_ns *before;
    moe_time_ns *shared;
    moe_time_ns *dispatch;
    moe_time_ns *expert;
    moe_time_ns *combine;
    moe_time_ns *after; /* [gpu] */
};

/* Prices of one GPU's own tokens, the same for every layer of a step. */
struct moe_token_prices {
    struct moe_duration part[MOE_COST_PART_COUNT]; /* ATTENTION, DENSE, GATE, SHARED, HEAD, HOST */
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_step_times_init(struct moe_step_times *times, uint32_t layer_count,
                                    uint32_t gpu_count, const struct moe_serving *serving,
                                    struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Dense layers that run before MoE layer `layer`. A model with fewer dense layers than MoE
 * layers has them first (DeepSeek, Kimi: first_k_dense_replace); one with as many or more
 * has them spread evenly (Switch, Llama 4: every second layer). */
static inline uint32_t moe_dense_layers_before(uint32_t layer, uint32_t moe_layer_count,
                                               uint32_t dense_layer_count)
{
    if (dense_layer_count < moe_layer_count) {
        return layer == 0 ? dense_layer_count : 0;
    }
    return (uint32_t) ((uint64_t) (layer + 1) * dense_layer_count / moe_layer_count -
                       (uint64_t) layer * dense_layer_count / moe_layer_count);
}

/* Layers that a step runs behind the model's, to draft tokens (drafts.h), and what a rank's own
 * tokens cost in passes after the first. tokens NULL, layer_count 0: none. */
struct moe_draft_prices {
    const struct moe_token_prices *tokens; /* [gpu] */
    uint32_t layer_count;                  /* of all passes together, the last of the step's */
    uint32_t pass_layers;                  /* of one */
};

/* Which own tokens layer `layer` of a step of layer_count runs: those of the step, or those drafted
 * on. */
static inline const struct moe_token_prices *moe_layer_tokens(const struct moe_token_prices *step,
                                                              const struct moe_draft_prices *drafts,
                                                              uint32_t layer_count, uint32_t layer)
{
    return layer + drafts->layer_count >= layer_count + drafts->pass_layers &&
                   drafts->layer_count > 0
               ? drafts->tokens
               : step;
}

/* Whether `before` of the layer holds the head of what was sampled before it. */
static inline bool moe_layer_has_head(const struct moe_draft_prices *drafts, uint32_t layer_count,
                                      uint32_t layer)
{
    const uint32_t main_layers = layer_count - drafts->layer_count;
    return drafts->pass_layers > 0 && layer >= main_layers &&
           (layer - main_layers) % drafts->pass_layers == 0;
}

/* Dense layers before it; none before those that draft. */
static inline uint32_t moe_layer_dense(const struct moe_draft_prices *drafts, uint32_t layer_count,
                                       uint32_t layer, uint32_t dense_layer_count)
{
    const uint32_t main_layers = layer_count - drafts->layer_count;
    return layer < main_layers ? moe_dense_layers_before(layer, main_layers, dense_layer_count) : 0;
}

/* Nanoseconds as double to whole ones, up: a cost never becomes free. 0 <= ns < 2^62. */
static inline moe_time_ns moe_time_round_up(double ns)
{
    const moe_time_ns whole = (moe_time_ns) ns;
    return whole + ((double) whole < ns);
}

/* What `before` comes to at the given prices, with `dense` dense layers in it, and after a head
 * (0: none). */
static inline double moe_before_ns(double attention, double dense_ffn, double gate, double head,
                                   uint32_t dense)
{
    return attention * (1 + dense) + dense_ffn * dense + gate + head;
}

/* work of one rank, on one of the GPUs that share it: all of its rows for attention and dense FFN
 * (with moe_cost_reduce after each), its share of them for gate and shared experts. */
void moe_token_prices(const struct moe_cost *cost, const struct moe_token_work *work,
                      const struct moe_gpu_factor *factor, struct moe_token_prices *prices);

/* The same where prices are of a work with as many tokens and sampled rows: only what depends on
 * their context, attention, is priced anew. */
void moe_token_prices_of_context(const struct moe_cost *cost, const struct moe_token_work *work,
                                 const struct moe_gpu_factor *factor,
                                 struct moe_token_prices *prices);

#endif

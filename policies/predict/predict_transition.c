/* Transition: a layer's loads follow from those of a layer before it in the same step, by how
 * tokens moved between the experts of the two layers in the planning window. Sources: Lina
 * (arXiv 2210.17223: tokens that share an expert in one layer tend to share one in the next);
 * PROBE (arXiv 2602.00509) predicts over the same distance with a copy of the router instead.
 *
 *   share[e][f] = (n[e][f] + s * m[f]) / (sum n[e][.] + s)
 * with n[e][f] how often a token that chose e there chose f here, m the shares of this layer
 * alone and s the smoothing: an expert that was never seen says what everybody says. Lina looks
 * at top-1 paths; here every pair of a token's choices counts. A layer that has no layer so far
 * before it is predicted as it was one step ago. */
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/predict_lag.h"
#include "sim/base/no_malloc.h"
#include "traces/trace_store.h"

enum { LEAD, SMOOTHING, TOKENS };

struct transitions {
    struct moe_predict_lag lag; /* one stream: the layers of a step */
    float *share;               /* [layer][expert there][expert here] */
    double *sum;                /* [expert] */
};

/* n of one layer, and m in marginal. */
static void count_pairs(const struct moe_place_view *planning, uint32_t layer, uint32_t lead,
                        uint64_t stride, float *pair, double *marginal)
{
    const struct moe_policy_routes *routes = planning->routes;
    const size_t row = (size_t) planning->shape.layer_count * routes->top_k;
    const uint32_t experts = planning->shape.expert_count;
    const uint32_t top_k = routes->top_k;
    for (uint64_t token = 0; token < routes->token_count; token += stride) {
        const uint16_t *here = routes->expert + token * row + (size_t) layer * top_k;
        const uint16_t *there = here - (size_t) lead * top_k;
        for (uint32_t i = 0; i < top_k; i++) {
            if (here[i] == MOE_EXPERT_UNKNOWN) {
                continue;
            }
            marginal[here[i]] += 1.0;
            for (uint32_t j = 0; j < top_k; j++) {
                if (there[j] != MOE_EXPERT_UNKNOWN) {
                    pair[(size_t) there[j] * experts + here[i]] += 1.0f;
                }
            }
        }
    }
}

static void normalise(float *pair, const double *marginal, uint32_t experts, double smoothing)
{
    double all = 0.0;
    for (uint32_t here = 0; here < experts; here++) {
        all += marginal[here];
    }
    for (uint32_t there = 0; there < experts; there++) {
        float *row = pair + (size_t) there * experts;
        double sum = 0.0;
        for (uint32_t here = 0; here < experts; here++) {
            sum += (double) row[here];
        }
        for (uint32_t here = 0; here < experts; here++) {
            const double prior = all > 0.0 ? marginal[here] / all : 1.0 / experts;
            /* Without any smoothing a row that was never seen has nothing to say but the prior. */
            row[here] = sum + smoothing > 0.0
                            ? (float) (((double) row[here] + smoothing * prior) / (sum + smoothing))
                            : (float) prior;
        }
    }
}

static enum moe_status init(const struct moe_place_view *planning, struct moe_arena *arena,
                            void **state, struct moe_error *err)
{
    const uint32_t layers = planning->shape.layer_count;
    const uint32_t experts = planning->shape.expert_count;
    const uint32_t lead = (uint32_t) planning->parameters[LEAD];
    const uint64_t tokens = (uint64_t) planning->parameters[TOKENS];
    const uint64_t count = planning->routes->token_count;
    const uint64_t stride = tokens > 0 && count > tokens ? (count + tokens - 1) / tokens : 1;
    struct transitions *made = MOE_NEW(arena, struct transitions, 1);
    if (made != NULL) {
        made->share = MOE_NEW(arena, float, (size_t) layers *experts *experts);
        made->sum = MOE_NEW(arena, double, experts);
    }
    if (made == NULL || made->share == NULL || made->sum == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the transitions of %u layers of %u experts",
                        layers, experts);
    }
    for (uint32_t layer = lead; layer < layers; layer++) {
        float *pair = made->share + (size_t) layer * experts * experts;
        memset(made->sum, 0, experts * sizeof *made->sum);
        count_pairs(planning, layer, lead, stride, pair, made->sum);
        normalise(pair, made->sum, experts, planning->parameters[SMOOTHING]);
    }
    *state = made;
    return moe_predict_lag_init(&made->lag, arena, 1, experts, lead - 1, err);
}

static enum moe_status step(void *state, const struct moe_predict_view *view, float *predicted,
                            struct moe_error *err)
{
    struct transitions *made = state;
    const uint32_t experts = view->shape.expert_count;
    const uint32_t lead = (uint32_t) view->parameters[LEAD];
    const uint32_t back = lead > view->lead_layers ? lead - view->lead_layers : 0;
    const uint32_t *there = NULL;
    (void) err;
    if (view->before == NULL) {
        moe_predict_lag_reset(&made->lag, 0);
    } else {
        there = moe_predict_lag_push(&made->lag, 0, view->before, back);
    }
    if (there == NULL || view->layer < lead) {
        for (uint32_t expert = 0; view->last != NULL && expert < experts; expert++) {
            predicted[expert] = (float) view->last[expert];
        }
        return MOE_OK;
    }
    const float *pair = made->share + (size_t) view->layer * experts * experts;
    memset(made->sum, 0, experts * sizeof *made->sum);
    for (uint32_t expert = 0; expert < experts; expert++) {
        const double tokens = there[expert];
        for (uint32_t here = 0; tokens > 0.0 && here < experts; here++) {
            made->sum[here] += tokens * (double) pair[(size_t) expert * experts + here];
        }
    }
    for (uint32_t expert = 0; expert < experts; expert++) {
        predicted[expert] = (float) made->sum[expert];
    }
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [LEAD] = { .name = "lead",
               .kind = MOE_PARAMETER_WHOLE,
               .standard = 1.0,
               .min = 1.0,
               .max = 16.0,
               .help = "layers ahead: 1 knows the layer before",
               .source = "Lina and PROBE look one layer ahead" },
    [SMOOTHING] = { .name = "smoothing",
                    .kind = MOE_PARAMETER_REAL,
                    .standard = 16.0,
                    .min = 0.0,
                    .max = 1e6,
                    .help = "observations that the layer's own shares count as",
                    .source = "own" },
    [TOKENS] = { .name = "tokens",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 16384.0,
                 .min = 0.0,
                 .max = 1e9,
                 .help = "tokens of the planning window to learn from, evenly spread; 0: all",
                 .source = "own" },
};

static const struct moe_predict_methods predict = { .init = init, .step = step };

MOE_POLICY_DEFINE(predict_transition) = {
    MOE_POLICY_HEADER,
    .name = "transition",
    .summary = "the loads of a layer before in the same step, carried on by how tokens moved in "
               "the planning window",
    .source = "Lina, arXiv 2210.17223; PROBE, arXiv 2602.00509, for the distance",
    .tie_rule = "none needed",
    .needs = MOE_POLICY_NEEDS_ROUTES,
    MOE_POLICY_PARAMETERS(parameters),
    .predict = &predict,
};

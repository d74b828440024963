/* Signature: what the prompts of the newest requests used says what those requests will use when
 * they decode. Sources: arXiv 2604.23150 (prefill and decode loads correlate by 0.82, 0.68 and
 * 0.55 in three models), ELDR (arXiv 2607.00466).
 *
 * Per layer, with p_r and d_r the shares of experts among the prompt's and the decoded tokens of
 * request r and m the shares of all decoded tokens, a is fitted by least squares in
 *   d_r - m = a (p_r - m),   over the requests that have both, 0 <= a <= 1
 * and the coming load is the sum over the newest requests of a p_r + (1 - a) m, each weighed by
 * the prompt's tokens, scaled to the window's total. blend fixes a instead. The papers classify
 * requests; the regression is ours. */
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/predict_periods.h"
#include "sim/base/no_malloc.h"
#include "traces/trace_store.h"

enum { RECENT, BLEND };

struct room {
    double *decode; /* [expert] m */
    double *prompt; /* [expert] p_r */
    double *answer; /* [expert] d_r */
    double *coming; /* [expert] sum of the newest p_r, by tokens */
};

/* Shares of one request's choices in one layer and phase; returns how many there were. */
static double shares_of(const struct moe_place_view *planning, uint32_t request, uint32_t layer,
                        enum moe_route_phase phase, double *share)
{
    const struct moe_policy_routes *routes = planning->routes;
    const uint32_t experts = planning->shape.expert_count;
    double count = 0.0;
    memset(share, 0, experts * sizeof *share);
    for (uint32_t t = routes->first_token[request]; t < routes->first_token[request + 1]; t++) {
        const uint16_t *choice =
            routes->expert + ((size_t) t * planning->shape.layer_count + layer) * routes->top_k;
        for (uint32_t i = 0; routes->phase[t] == phase && i < routes->top_k; i++) {
            if (choice[i] != MOE_EXPERT_UNKNOWN) {
                share[choice[i]] += 1.0;
                count += 1.0;
            }
        }
    }
    for (uint32_t expert = 0; count > 0.0 && expert < experts; expert++) {
        share[expert] /= count;
    }
    return count;
}

/* m; all prompts' shares where nothing was decoded. */
static void find_mean(const struct moe_place_view *planning, uint32_t layer,
                      const struct room *room)
{
    const uint32_t experts = planning->shape.expert_count;
    for (int phase = MOE_ROUTE_DECODE; phase >= MOE_ROUTE_PREFILL; phase--) {
        double all = 0.0;
        memset(room->decode, 0, experts * sizeof *room->decode);
        for (uint32_t r = 0; r < planning->routes->request_count; r++) {
            const double count =
                shares_of(planning, r, layer, (enum moe_route_phase) phase, room->answer);
            all += count;
            for (uint32_t expert = 0; expert < experts; expert++) {
                room->decode[expert] += count * room->answer[expert];
            }
        }
        for (uint32_t expert = 0; all > 0.0 && expert < experts; expert++) {
            room->decode[expert] /= all;
        }
        if (all > 0.0) {
            return;
        }
    }
}

/* a of one layer. */
static double fit(const struct moe_place_view *planning, uint32_t layer, const struct room *room)
{
    const uint32_t experts = planning->shape.expert_count;
    double both = 0.0;
    double square = 0.0;
    for (uint32_t r = 0; r < planning->routes->request_count; r++) {
        if (shares_of(planning, r, layer, MOE_ROUTE_PREFILL, room->prompt) == 0.0 ||
            shares_of(planning, r, layer, MOE_ROUTE_DECODE, room->answer) == 0.0) {
            continue;
        }
        for (uint32_t expert = 0; expert < experts; expert++) {
            const double p = room->prompt[expert] - room->decode[expert];
            both += p * (room->answer[expert] - room->decode[expert]);
            square += p * p;
        }
    }
    const double a = square > 0.0 ? both / square : 0.0;
    return a < 0.0 ? 0.0 : a > 1.0 ? 1.0 : a;
}

static void predict_layer(const struct moe_place_view *planning, uint32_t layer,
                          const struct room *room, double *load)
{
    const struct moe_policy_routes *routes = planning->routes;
    const uint32_t experts = planning->shape.expert_count;
    const double *was = planning->load + (size_t) layer * experts;
    const double wanted = ceil(planning->parameters[RECENT] * routes->request_count);
    double total = 0.0;
    double newest = 0.0;
    find_mean(planning, layer, room);
    const double a = planning->parameters[BLEND] >= 0.0 ? planning->parameters[BLEND]
                                                        : fit(planning, layer, room);
    memset(room->coming, 0, experts * sizeof *room->coming);
    for (uint32_t r = routes->request_count - (uint32_t) wanted; r < routes->request_count; r++) {
        const double count = shares_of(planning, r, layer, MOE_ROUTE_PREFILL, room->prompt);
        newest += count;
        for (uint32_t expert = 0; expert < experts; expert++) {
            room->coming[expert] += count * room->prompt[expert];
        }
    }
    for (uint32_t expert = 0; expert < experts; expert++) {
        total += was[expert];
    }
    for (uint32_t expert = 0; expert < experts; expert++) {
        const double prompt = newest > 0.0 ? room->coming[expert] / newest : room->decode[expert];
        load[expert] = total * (a * prompt + (1.0 - a) * room->decode[expert]);
    }
}

static enum moe_status window(const struct moe_place_view *planning, struct moe_arena *scratch,
                              double *load, struct moe_error *err)
{
    const uint32_t experts = planning->shape.expert_count;
    const struct room room = {
        .decode = MOE_NEW(scratch, double, experts),
        .prompt = MOE_NEW(scratch, double, experts),
        .answer = MOE_NEW(scratch, double, experts),
        .coming = MOE_NEW(scratch, double, experts),
    };
    if (room.decode == NULL || room.prompt == NULL || room.answer == NULL || room.coming == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the shares of %u experts", experts);
    }
    for (uint32_t layer = 0; layer < planning->shape.layer_count; layer++) {
        predict_layer(planning, layer, &room, load + (size_t) layer * experts);
    }
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [RECENT] = MOE_PREDICT_RECENT_PARAMETER("that are about to decode"),
    [BLEND] = { .name = "blend",
                .kind = MOE_PARAMETER_REAL,
                .standard = -1.0,
                .min = -1.0,
                .max = 1.0,
                .help = "weight of the prompts against all decoded tokens; below 0: fitted layer "
                        "by layer",
                .source = "own" },
};

static const struct moe_predict_methods predict = { .window = window };

MOE_POLICY_DEFINE(predict_signature) = {
    MOE_POLICY_HEADER,
    .name = "signature",
    .summary = "what the newest requests' prompts used, as far as prompts say what decoding uses",
    .source = "arXiv 2604.23150 (prefill-decode correlation), ELDR 2607.00466; the regression is "
              "ours",
    .tie_rule = "none needed",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_ROUTES,
    MOE_POLICY_PARAMETERS(parameters),
    .predict = &predict,
};

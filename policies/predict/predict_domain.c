/* Domain: what each domain's tokens ask for, learned over the whole planning window, mixed in the
 * proportion in which domains arrived lately: the mix changes faster than what a domain does.
 * Source: own; that expert loads follow the domain is measured in arXiv 2604.23150.
 *
 *   load[layer][expert] = sum over domains of share[domain] * prior[domain][layer][expert]
 * with the prior per token, and the share that of the domain's tokens among the last requests of
 * the window, or 1 for a domain that is named. Scaled to the window's total of the layer. */
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/predict_periods.h"
#include "sim/base/no_malloc.h"
#include "traces/trace_store.h"

enum { RECENT, DOMAIN_INDEX };

/* share[domain] of the coming tokens. */
static enum moe_status find_shares(const struct moe_place_view *planning, double *share,
                                   struct moe_error *err)
{
    const struct moe_policy_routes *routes = planning->routes;
    const int32_t named = (int32_t) planning->parameters[DOMAIN_INDEX];
    if (named >= (int32_t) routes->domain_count) {
        return moe_fail(err, MOE_POLICY, "the trace has no domain %d; it has 0 to %u", named,
                        routes->domain_count - 1);
    }
    const double wanted = ceil(planning->parameters[RECENT] * routes->request_count);
    const uint32_t first = routes->request_count - (uint32_t) wanted;
    for (uint32_t request = first; request < routes->request_count; request++) {
        share[routes->request_domain[request]] +=
            routes->first_token[request + 1] - routes->first_token[request];
    }
    for (uint32_t domain = 0; named >= 0 && domain < routes->domain_count; domain++) {
        share[domain] = domain == (uint32_t) named ? 1.0 : 0.0;
    }
    return MOE_OK;
}

/* Every choice of a token of domain d counts share[d] / tokens[d], both in tokens. */
static void mix(const struct moe_place_view *planning, const double *share, const double *tokens,
                double *load)
{
    const struct moe_policy_routes *routes = planning->routes;
    const uint32_t layers = planning->shape.layer_count;
    const uint32_t experts = planning->shape.expert_count;
    for (uint64_t token = 0; token < routes->token_count; token++) {
        const uint16_t domain = routes->request_domain[routes->request[token]];
        const double weight = share[domain] / tokens[domain];
        const uint16_t *choice = routes->expert + token * layers * routes->top_k;
        for (uint32_t i = 0; weight > 0.0 && i < layers * routes->top_k; i++) {
            if (choice[i] != MOE_EXPERT_UNKNOWN) {
                load[(size_t) (i / routes->top_k) * experts + choice[i]] += weight;
            }
        }
    }
}

static enum moe_status window(const struct moe_place_view *planning, struct moe_arena *scratch,
                              double *load, struct moe_error *err)
{
    const struct moe_policy_routes *routes = planning->routes;
    const uint32_t layers = planning->shape.layer_count;
    const uint32_t experts = planning->shape.expert_count;
    double *share = MOE_NEW(scratch, double, routes->domain_count);
    double *tokens = MOE_NEW(scratch, double, routes->domain_count);
    if (share == NULL || tokens == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the shares of %u domains",
                        routes->domain_count);
    }
    for (uint32_t request = 0; request < routes->request_count; request++) {
        tokens[routes->request_domain[request]] +=
            routes->first_token[request + 1] - routes->first_token[request];
    }
    MOE_TRY(find_shares(planning, share, err));
    for (uint32_t domain = 0; domain < routes->domain_count; domain++) {
        if (share[domain] > 0.0 && tokens[domain] == 0.0) {
            return moe_fail(err, MOE_POLICY, "the planning window has no request of domain %u",
                            domain);
        }
    }
    memset(load, 0, (size_t) layers * experts * sizeof *load);
    mix(planning, share, tokens, load);
    for (uint32_t layer = 0; layer < layers; layer++) {
        double *row = load + (size_t) layer * experts;
        const double *was = planning->load + (size_t) layer * experts;
        double sum = 0.0;
        double total = 0.0;
        for (uint32_t expert = 0; expert < experts; expert++) {
            sum += row[expert];
            total += was[expert];
        }
        for (uint32_t expert = 0; sum > 0.0 && expert < experts; expert++) {
            row[expert] *= total / sum;
        }
    }
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [RECENT] = MOE_PREDICT_RECENT_PARAMETER("whose domains are taken for the coming mix"),
    [DOMAIN_INDEX] = { .name = "domain",
                       .kind = MOE_PARAMETER_WHOLE,
                       .standard = -1.0,
                       .min = -1.0,
                       .max = 65535.0,
                       .help = "the one domain that is to come, by its number in the trace; -1: "
                               "the recent mix",
                       .source = "own" },
};

static const struct moe_predict_methods predict = { .window = window };

MOE_POLICY_DEFINE(predict_domain) = {
    MOE_POLICY_HEADER,
    .name = "domain",
    .summary = "each domain's loads over the planning window, mixed as domains arrived lately",
    .source = "own; loads follow the domain: arXiv 2604.23150",
    .tie_rule = "none needed",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_ROUTES | MOE_POLICY_NEEDS_DOMAINS,
    MOE_POLICY_PARAMETERS(parameters),
    .predict = &predict,
};

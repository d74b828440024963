/* Least loaded: the request that has waited longest joins the GPU with the least to do. Source:
 * least-request and least-token routing over data-parallel ranks, as SGLang's and vLLM's routers
 * offer it. Nobody overtakes: while the first request fits nowhere, all wait. */
#include "policies/policy.h"
#include "sim/base/no_malloc.h"

enum { BY };
enum { BY_REQUESTS, BY_TOKENS };

static enum moe_status choose(void *state, const struct moe_group_view *view,
                              struct moe_group_choice *choice, struct moe_error *err)
{
    const struct moe_waiting_request *request = &view->waiting[0];
    const bool by_tokens = (int) view->parameters[BY] == BY_TOKENS;
    uint32_t found = view->shape.gpu_count;
    (void) state;
    (void) err;
    for (uint32_t gpu = 0; gpu < view->shape.gpu_count; gpu++) {
        if (view->free_seats[gpu] == 0 || view->kv_free_tokens[gpu] < request->kv_tokens) {
            continue;
        }
        if (found == view->shape.gpu_count ||
            (by_tokens ? view->kv_free_tokens[gpu] > view->kv_free_tokens[found]
                       : view->running[gpu] < view->running[found])) {
            found = gpu;
        }
    }
    *choice = (struct moe_group_choice){ .waiting = 0, .gpu = found };
    return MOE_OK;
}

static const char *const loads[] = { "requests", "tokens", NULL };

static const struct moe_policy_parameter parameters[] = {
    [BY] = { .name = "by",
             .kind = MOE_PARAMETER_CHOICE,
             .choices = loads,
             .standard = BY_REQUESTS,
             .help = "what the least is of: running requests, or KV tokens in use",
             .source = "own" },
};

static const struct moe_group_methods group = { .choose = choose };

MOE_POLICY_DEFINE(group_least_loaded) = {
    MOE_POLICY_HEADER,
    .name = "least_loaded",
    .summary = "the request that has waited longest joins the GPU with the least to do",
    .source = "least-request routing over data-parallel ranks, as in SGLang's and vLLM's routers",
    .tie_rule = "of equal GPUs the lowest",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .group = &group,
};

/* Linear program: the tokens of every replicated expert are divided so that the fullest GPU is as
 * little full as the copies allow. Sources: LPLB (github deepseek-ai/LPLB), SGLang's
 * lplb_solver.py, MicroMoE (arXiv 2511.16947).
 *
 * Departures: they solve approximately (an interior point method, five iterations, which on some
 * instances ends outside the feasible set) and draw each token's copy by the solution's
 * probability; here the optimum is exact, in whole tokens (policies/solve/split.h), and so are the
 * quotas. Of two copies on one GPU only the first is used: the second would add a read of its
 * weights and balance nothing. */
#include "policies/solve/dispatch_solver.h"
#include "sim/base/no_malloc.h"

enum { SPREAD };

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) err;
    struct moe_dispatch_solver *solver = state;
    moe_dispatch_solver_begin(solver, view, quota);
    moe_split_begin(&solver->split, &solver->hosts, solver->load);
    (void) moe_split_level(&solver->split);
    moe_dispatch_solver_flow(solver, view);
    moe_dispatch_solver_finish(solver, view, (enum moe_spread_way) view->parameters[SPREAD], quota);
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [SPREAD] = { .name = "spread",
                 .kind = MOE_PARAMETER_CHOICE,
                 .choices = moe_spread_ways,
                 .standard = MOE_SPREAD_SHARE,
                 .help = "which source's tokens a copy takes: the same share of each, or first "
                         "those of its own GPU, or of its GPU and node",
                 .source = "LPLB draws per token, which is share" },
};

static const struct moe_dispatch_methods dispatch = { .init = moe_dispatch_solver_init,
                                                      .split = split };

MOE_POLICY_DEFINE(dispatch_lp) = {
    MOE_POLICY_HEADER,
    .name = "lp",
    .summary = "the least load of the fullest GPU that the copies allow, exactly",
    .source = "LPLB (deepseek-ai/LPLB), SGLang lplb_solver, MicroMoE 2511.16947; solved exactly "
              "as a flow",
    .tie_rule = "experts in ascending order are levelled over their GPUs, a remainder goes to the "
                "less loaded, then lower GPU",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

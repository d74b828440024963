/* Domain aware: tokens stay as near as they can. A source's tokens for an expert go to a copy on
 * its own GPU; without one to the copies on its node (its NVLink domain); without one there to all
 * copies. Among copies equally near they are shared by the reciprocal of the load that each GPU is
 * expected to have. Source: GRACE-MoE (arXiv 2509.25041), locality-aware routing.
 *
 * GRACE weighs only the copies on other nodes; here weigh=far does that and the nearest of a node
 * share evenly, weigh=all weighs both, weigh=none shares evenly everywhere. Expected load: what a
 * predictor says, otherwise this step's own counts, both split evenly over the copies. */
#include "policies/solve/dispatch_solver.h"

#include <string.h>

#include "sim/base/no_malloc.h"

enum { WEIGH };
enum { WEIGH_FAR, WEIGH_ALL, WEIGH_NONE };

struct domains {
    double *expected; /* [gpu_count] */
    double *weight;   /* [slot_count] of one expert's copies */
};

static enum moe_status init(const struct moe_place_view *planning,
                            const struct moe_placement *placement, struct moe_arena *arena,
                            void **state, struct moe_error *err)
{
    (void) planning;
    const struct moe_placement_shape *shape = &placement->shape;
    struct domains *domains = MOE_NEW(arena, struct domains, 1);
    if (domains != NULL) {
        domains->expected = MOE_NEW(arena, double, shape->gpu_count);
        domains->weight = MOE_NEW(arena, double, shape->slot_count);
    }
    if (domains == NULL || domains->expected == NULL || domains->weight == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the loads of %u GPUs", shape->gpu_count);
    }
    *state = domains;
    return MOE_OK;
}

static void expect_loads(const struct moe_dispatch_view *view, double *expected)
{
    memset(expected, 0, view->shape.gpu_count * sizeof *expected);
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        const uint32_t begin = view->first_copy[expert];
        const uint32_t end = view->first_copy[expert + 1];
        const double load = view->predicted != NULL ? (double) view->predicted[expert]
                                                    : (double) view->expert_total[expert];
        for (uint32_t copy = begin; copy < end; copy++) {
            expected[view->gpu_of_copy[copy]] += load / (end - begin);
        }
    }
}

/* Weights of the copies that are nearest to source, 0 for the others; returns their sum. */
static double weigh(const struct domains *domains, const struct moe_dispatch_view *view,
                    uint32_t begin, uint32_t end, uint32_t source)
{
    const uint32_t node_gpus = view->shape.gpu_count / view->shape.node_count;
    const int what = (int) view->parameters[WEIGH];
    enum { HERE, NEAR, FAR } nearest = FAR;
    double sum = 0.0;
    for (uint32_t copy = begin; copy < end && nearest != HERE; copy++) {
        const uint32_t gpu = view->gpu_of_copy[copy];
        nearest = gpu == source ? HERE : gpu / node_gpus == source / node_gpus ? NEAR : nearest;
    }
    bool found = false;
    for (uint32_t copy = begin; copy < end; copy++) {
        const uint32_t gpu = view->gpu_of_copy[copy];
        const bool weighed = what == WEIGH_ALL || (what == WEIGH_FAR && nearest == FAR);
        const bool chosen = nearest == HERE   ? gpu == source && !found
                            : nearest == NEAR ? gpu / node_gpus == source / node_gpus
                                              : true;
        double weight = chosen ? 1.0 : 0.0;
        if (chosen && weighed) {
            weight = 1.0 / (1.0 + domains->expected[gpu]); /* an idle GPU has a weight too */
        }
        found |= chosen;
        domains->weight[copy - begin] = weight;
        sum += weight;
    }
    return sum;
}

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) err;
    const struct domains *domains = state;
    const uint32_t experts = view->shape.expert_count;
    moe_spread_first(view, quota);
    expect_loads(view, domains->expected);
    for (uint32_t expert = 0; expert < experts; expert++) {
        const uint32_t begin = view->first_copy[expert];
        const uint32_t end = view->first_copy[expert + 1];
        if (end - begin < 2) {
            continue;
        }
        for (uint32_t source = 0; source < view->shape.gpu_count; source++) {
            const uint32_t tokens = view->demand[(size_t) source * experts + expert];
            uint32_t *row = quota + (size_t) source * view->copy_count;
            if (tokens == 0) {
                continue;
            }
            /* Rounded by running sums; the last copy that weighs anything ends at all tokens. */
            const double sum = weigh(domains, view, begin, end, source);
            double seen = 0.0;
            uint32_t sent = 0;
            uint32_t last = begin;
            for (uint32_t copy = begin; copy < end; copy++) {
                seen += domains->weight[copy - begin];
                uint32_t upto = (uint32_t) (tokens * (seen / sum) + 0.5);
                upto = upto < tokens ? upto : tokens;
                row[copy] = upto - sent;
                sent = upto;
                last = domains->weight[copy - begin] > 0.0 ? copy : last;
            }
            row[last] += tokens - sent;
        }
    }
    return MOE_OK;
}

static const char *const what_to_weigh[] = { "far", "all", "none", NULL };

static const struct moe_policy_parameter parameters[] = {
    [WEIGH] = { .name = "weigh",
                .kind = MOE_PARAMETER_CHOICE,
                .choices = what_to_weigh,
                .standard = WEIGH_FAR,
                .help = "which copies share by the reciprocal of their GPU's expected load: those "
                        "on other nodes, all, or none (evenly)",
                .source = "GRACE-MoE 2509.25041" },
};

static const struct moe_dispatch_methods dispatch = { .init = init, .split = split };

MOE_POLICY_DEFINE(dispatch_domain_aware) = {
    MOE_POLICY_HEADER,
    .name = "domain_aware",
    .summary = "copies on the source's own GPU first, then on its node, then all, by the "
               "reciprocal of the expected load",
    .source = "GRACE-MoE, arXiv 2509.25041",
    .tie_rule = "of two copies on the source's GPU the lower slot; remainders by running sums in "
                "order of slots",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

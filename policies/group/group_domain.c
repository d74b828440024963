/* Domain: requests of one domain share GPUs, so that their micro-batch uses fewer experts. Every
 * domain has a home: an equal run of GPUs in order of their numbers (GPU g of G belongs to domain
 * g D / G), or GPU d modulo G when there are more domains than GPUs. Source: arXiv 2604.23150
 * finds that requests of one data set use the same experts and groups them by activation; the
 * label stands in for it here. Who is seated first: policies/solve/group_home.h. */
#include "policies/solve/group_home.h"
#include "sim/base/no_malloc.h"

enum { LOOKAHEAD, PATIENCE, SPILL };

struct homes {
    uint32_t domain_count;
    struct moe_group_home *home; /* [lookahead] of the requests shown */
};

static enum moe_status init(const struct moe_place_view *planning,
                            const struct moe_placement *placement, struct moe_arena *arena,
                            void **state, uint32_t *lookahead, struct moe_error *err)
{
    (void) placement;
    struct homes *homes = MOE_NEW(arena, struct homes, 1);
    *lookahead = (uint32_t) planning->parameters[LOOKAHEAD];
    if (homes != NULL) {
        homes->domain_count = planning->domain_count;
        homes->home = MOE_NEW(arena, struct moe_group_home, *lookahead);
    }
    if (homes == NULL || homes->home == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the homes of %u requests", *lookahead);
    }
    *state = homes;
    return MOE_OK;
}

static struct moe_group_home home_of(uint32_t domain, uint32_t domains, uint32_t gpus)
{
    if (domains > gpus) {
        return (struct moe_group_home){ domain % gpus, domain % gpus + 1 };
    }
    return (struct moe_group_home){ (domain * gpus + domains - 1) / domains,
                                    ((domain + 1) * gpus + domains - 1) / domains };
}

static enum moe_status choose(void *state, const struct moe_group_view *view,
                              struct moe_group_choice *choice, struct moe_error *err)
{
    const struct homes *homes = state;
    (void) err;
    for (uint32_t i = 0; i < view->waiting_count; i++) {
        const uint32_t domain = view->waiting[i].domain % homes->domain_count;
        homes->home[i] = home_of(domain, homes->domain_count, view->shape.gpu_count);
    }
    *choice = moe_group_home_choose(view, homes->home, (uint32_t) view->parameters[PATIENCE],
                                    view->parameters[SPILL] != 0.0);
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [LOOKAHEAD] = { .name = "lookahead",
                    .kind = MOE_PARAMETER_WHOLE,
                    .standard = 64.0,
                    .min = 1.0,
                    .max = MOE_GROUP_LOOKAHEAD_LIMIT,
                    .help = "waiting requests that are looked at",
                    .source = "own" },
    [PATIENCE] = { .name = "patience",
                   .kind = MOE_PARAMETER_WHOLE,
                   .standard = 64.0,
                   .min = 1.0,
                   .max = 1e6,
                   .help = "how often a request is passed over before it goes anywhere",
                   .source = "own" },
    [SPILL] = { .name = "spill",
                .kind = MOE_PARAMETER_FLAG,
                .standard = 1.0,
                .help = "whether requests go elsewhere rather than wait when no home has a seat",
                .source = "own" },
};

static const struct moe_group_methods group = { .init = init, .choose = choose };

MOE_POLICY_DEFINE(group_domain) = {
    MOE_POLICY_HEADER,
    .name = "domain",
    .summary = "requests of one domain share GPUs; others take seats that would stay empty",
    .source = "own; that domains use the same experts: arXiv 2604.23150",
    .tie_rule = "the longest waiting first; of equally many running requests the lowest GPU",
    .needs = MOE_POLICY_NEEDS_DOMAINS,
    MOE_POLICY_PARAMETERS(parameters),
    .group = &group,
};

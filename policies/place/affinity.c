/* Affinity: experts near the requests that use them, and requests to where their experts are.
 * As a place policy it needs the other half: only with `group=affinity` do decoding requests
 * meet the GPUs that were chosen for their kind. Both learn the same groups from the same
 * planning window. */
#include "policies/policy.h"
#include "policies/solve/affinity_solver.h"
#include "sim/base/no_malloc.h"
#include "sim/base/random.h"

enum { DEVICES, CLUSTERS, BALANCED, REQUESTS, ROUNDS };
enum { DEVICES_AUTO, DEVICES_NODE, DEVICES_GPU };

static const char *const device_choices[] = { "auto", "node", "gpu", NULL };

static const struct moe_policy_parameter parameters[] = {
    [DEVICES] = { .name = "devices",
                  .kind = MOE_PARAMETER_CHOICE,
                  .standard = DEVICES_AUTO,
                  .choices = device_choices,
                  .help = "what a device group is; auto: a node, or a GPU where there is one node",
                  .source = "the paper's runs have 8 data-parallel ranks of 8 GPUs each" },
    [CLUSTERS] = { .name = "clusters",
                   .kind = MOE_PARAMETER_WHOLE,
                   .standard = 0,
                   .min = 0,
                   .max = 1024,
                   .help = "clusters of requests; 0: as many as device groups",
                   .source = "the paper maps any number, and does not state its own" },
    [BALANCED] = { .name = "balanced",
                   .kind = MOE_PARAMETER_FLAG,
                   .standard = 1,
                   .help = "clusters of equally many requests, since ranks serve equally many",
                   .source = "own; the paper's K-means leaves the sizes open" },
    [REQUESTS] = { .name = "requests",
                   .kind = MOE_PARAMETER_WHOLE,
                   .standard = 1024,
                   .min = 0,
                   .max = 1e6,
                   .help = "requests to learn from, evenly spread over the window; 0: all",
                   .source = "own; 2 bytes of scratch per request, layer and expert" },
    [ROUNDS] = { .name = "rounds",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 25,
                 .min = 1,
                 .max = 1000,
                 .help = "rounds of K-means at most",
                 .source = "own" },
};

static enum moe_status learn(struct moe_affinity *affinity, const struct moe_place_view *view,
                             struct moe_arena *arena, struct moe_error *err)
{
    const double *values = view->parameters;
    const bool nodes = values[DEVICES] == (double) DEVICES_NODE ||
                       (values[DEVICES] == (double) DEVICES_AUTO && view->shape.node_count > 1);
    const struct moe_affinity_plan plan = {
        .group_count = nodes ? view->shape.node_count : view->shape.gpu_count,
        .cluster_count = (uint32_t) values[CLUSTERS],
        .request_limit = (uint32_t) values[REQUESTS],
        .round_limit = (uint32_t) values[ROUNDS],
        .balanced = values[BALANCED] != 0.0,
        .key = moe_random_key(view->seed, MOE_RANDOM_POLICY),
    };
    return moe_affinity_learn(affinity, arena, &view->shape, view->routes, &plan, err);
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    struct moe_affinity affinity;
    MOE_TRY(learn(&affinity, view, scratch, err));
    return moe_affinity_place(&affinity, view->load,
                              view->replica_budget_total > 0 ? view->replica_budget_total
                                                             : UINT32_MAX,
                              scratch, plan, err);
}

struct group_state {
    struct moe_affinity affinity;
    double *distance; /* [group] */
};

static enum moe_status open_groups(const struct moe_place_view *planning,
                                   const struct moe_placement *placement, struct moe_arena *arena,
                                   void **state, uint32_t *lookahead, struct moe_error *err)
{
    struct group_state *made = MOE_NEW(arena, struct group_state, 1);
    (void) placement;
    (void) lookahead;
    if (made == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the groups of requests");
    }
    MOE_TRY(learn(&made->affinity, planning, arena, err));
    made->distance = MOE_NEW(arena, double, made->affinity.group_count);
    if (made->distance == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the groups of requests");
    }
    *state = made;
    return MOE_OK;
}

/* The first waiting request goes to the nearest group that has a seat for it, there to the GPU
 * with most free seats. One without a signature is as near to every group. */
static enum moe_status choose(void *state, const struct moe_group_view *view,
                              struct moe_group_choice *choice, struct moe_error *err)
{
    const struct group_state *groups = state;
    const struct moe_waiting_request *request = &view->waiting[0];
    const uint32_t gpus = view->shape.gpu_count;
    const uint32_t per_group = gpus / groups->affinity.group_count;
    uint32_t found = gpus;
    (void) err;
    if (request->signature != NULL) {
        moe_affinity_distances(&groups->affinity, request->signature, groups->distance);
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        if (view->free_seats[gpu] == 0 || view->kv_free_tokens[gpu] < request->kv_tokens) {
            continue;
        }
        double nearer = -1.0; /* than what was found */
        if (found < gpus) {
            nearer = request->signature == NULL
                         ? 0.0
                         : groups->distance[gpu / per_group] - groups->distance[found / per_group];
        }
        if (nearer < 0.0 || (nearer == 0.0 && view->free_seats[gpu] > view->free_seats[found])) {
            found = gpu;
        }
    }
    *choice = (struct moe_group_choice){ .waiting = 0, .gpu = found };
    return MOE_OK;
}

static const struct moe_group_methods group = { .init = open_groups, .choose = choose };

MOE_POLICY_DEFINE(affinity) = {
    MOE_POLICY_HEADER,
    .name = "affinity",
    .summary = "expert-activation patterns: experts on the node whose cluster of requests uses "
               "them most, requests to the node that their prompt resembles",
    .source = "arXiv 2604.23150; where it is silent, affinity_solver.h says what is done",
    .tie_rule = "of equal leads the first expert, of equal use the group with fewer experts, then "
                "the first; of equally near groups the GPU with most free seats, then the first",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_ROUTES | MOE_POLICY_NEEDS_SEED,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
    .group = &group,
};

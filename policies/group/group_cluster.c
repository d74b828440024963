/* Cluster: requests that use the same experts share a device. The planning window's requests are
 * clustered by the experts that their decoded tokens used (K-means, balanced or not); a waiting
 * request belongs to the cluster whose prompts its own prompt resembles. Source: arXiv
 * 2604.23150; balanced K-means on prefill signatures: ELDR, arXiv 2607.00466.
 *
 * What the policy `affinity` does as a group policy, for any placement: a cluster's home is not
 * the device of its own number but one whose experts cover its tokens, the pair of cluster and
 * device with most coverage first. With the placement `affinity` that finds the same devices.
 * And requests may overtake: who is seated first says policies/solve/group_home.h. */
#include "policies/solve/affinity_solver.h"
#include "policies/solve/group_devices.h"
#include "sim/base/no_malloc.h"
#include "sim/base/random.h"

enum { DEVICES, CLUSTERS, BALANCED, REQUESTS, ROUNDS, LOOKAHEAD, PATIENCE, SPILL };

struct memory {
    uint32_t request; /* 1 + its number; 0: nobody */
    uint32_t cluster;
};

struct clusters {
    struct moe_affinity affinity;
    struct moe_group_devices devices;
    uint32_t *device_of;         /* [cluster] */
    double *distance;            /* [cluster] */
    struct moe_group_home *home; /* [lookahead] */
    struct memory *memory;       /* [MOE_GROUP_LOOKAHEAD_LIMIT] by request modulo that */
};

static enum moe_status learn(struct clusters *made, const struct moe_place_view *planning,
                             struct moe_arena *arena, struct moe_error *err)
{
    const double *value = planning->parameters;
    const struct moe_affinity_plan plan = {
        .group_count = made->devices.device_count,
        .cluster_count = (uint32_t) value[CLUSTERS],
        .request_limit = (uint32_t) value[REQUESTS],
        .round_limit = (uint32_t) value[ROUNDS],
        .balanced = value[BALANCED] != 0.0,
        .key = moe_random_key(planning->seed, MOE_RANDOM_POLICY),
    };
    return moe_affinity_learn(&made->affinity, arena, &planning->shape, planning->routes, &plan,
                              err);
}

/* One device for each cluster: the best pair of those left, again and again. Ties: the lower
 * cluster, then the lower device. */
static enum moe_status match(struct clusters *made, struct moe_arena *arena, struct moe_error *err)
{
    const uint32_t count = made->devices.device_count;
    const size_t width =
        (size_t) made->affinity.shape.layer_count * made->affinity.shape.expert_count;
    double *coverage = MOE_NEW(arena, double, (size_t) count *count);
    float *use = MOE_NEW(arena, float, width);
    if (coverage == NULL || use == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to match %u clusters and devices", count);
    }
    for (uint32_t cluster = 0; cluster < count; cluster++) {
        for (size_t i = 0; i < width; i++) {
            use[i] = (float) made->affinity.use[cluster * width + i];
        }
        moe_group_devices_cover(&made->devices, use, coverage + (size_t) cluster * count);
    }
    for (uint32_t left = count; left > 0; left--) {
        double best = -1.0;
        uint32_t pair = 0;
        for (uint32_t i = 0; i < count * count; i++) {
            if (coverage[i] > best) {
                best = coverage[i];
                pair = i;
            }
        }
        made->device_of[pair / count] = pair % count;
        for (uint32_t i = 0; i < count; i++) {
            coverage[pair / count * count + i] = -1.0;
            coverage[i * count + pair % count] = -1.0;
        }
    }
    return MOE_OK;
}

static enum moe_status init(const struct moe_place_view *planning,
                            const struct moe_placement *placement, struct moe_arena *arena,
                            void **state, uint32_t *lookahead, struct moe_error *err)
{
    struct clusters *made = MOE_NEW(arena, struct clusters, 1);
    *lookahead = (uint32_t) planning->parameters[LOOKAHEAD];
    if (made == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for clusters of requests");
    }
    MOE_TRY(moe_group_devices_init(&made->devices, arena, placement,
                                   (enum moe_group_device) planning->parameters[DEVICES], err));
    made->device_of = MOE_NEW(arena, uint32_t, made->devices.device_count);
    made->distance = MOE_NEW(arena, double, made->devices.device_count);
    made->home = MOE_NEW(arena, struct moe_group_home, *lookahead);
    made->memory = MOE_NEW(arena, struct memory, MOE_GROUP_LOOKAHEAD_LIMIT);
    if (made->device_of == NULL || made->distance == NULL || made->home == NULL ||
        made->memory == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the homes of %u requests", *lookahead);
    }
    MOE_TRY(learn(made, planning, arena, err));
    MOE_TRY(match(made, arena, err));
    *state = made;
    return MOE_OK;
}

/* The nearest cluster, remembered while the request waits. */
static uint32_t cluster_of(struct clusters *made, const struct moe_waiting_request *request)
{
    struct memory *memory = &made->memory[request->request % MOE_GROUP_LOOKAHEAD_LIMIT];
    if (memory->request != request->request + 1) {
        uint32_t nearest = 0;
        moe_affinity_distances(&made->affinity, request->signature, made->distance);
        for (uint32_t cluster = 1; cluster < made->devices.device_count; cluster++) {
            nearest = made->distance[cluster] < made->distance[nearest] ? cluster : nearest;
        }
        *memory = (struct memory){ request->request + 1, nearest };
    }
    return memory->cluster;
}

static enum moe_status choose(void *state, const struct moe_group_view *view,
                              struct moe_group_choice *choice, struct moe_error *err)
{
    struct clusters *made = state;
    (void) err;
    for (uint32_t i = 0; i < view->waiting_count; i++) {
        const struct moe_waiting_request *request = &view->waiting[i];
        made->home[i] = (struct moe_group_home){ 0, view->shape.gpu_count };
        if (request->signature != NULL) {
            made->home[i] =
                moe_group_devices_home(&made->devices, made->device_of[cluster_of(made, request)]);
        }
    }
    *choice = moe_group_home_choose(view, made->home, (uint32_t) view->parameters[PATIENCE],
                                    view->parameters[SPILL] != 0.0);
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [DEVICES] = MOE_GROUP_DEVICES_PARAMETER("what a cluster is seated on; auto: a node, or a GPU "
                                            "where there is one node",
                                            "arXiv 2604.23150 seats on data-parallel ranks"),
    [CLUSTERS] = { .name = "clusters",
                   .kind = MOE_PARAMETER_WHOLE,
                   .standard = 0.0,
                   .min = 0.0,
                   .max = 1024.0,
                   .help = "clusters of requests, mapped onto the devices; 0: as many as devices",
                   .source = "arXiv 2604.23150 maps any number" },
    [BALANCED] = { .name = "balanced",
                   .kind = MOE_PARAMETER_FLAG,
                   .standard = 1.0,
                   .help = "clusters of equally many requests",
                   .source = "ELDR 2607.00466; false is the K-means of arXiv 2604.23150" },
    [REQUESTS] = { .name = "requests",
                   .kind = MOE_PARAMETER_WHOLE,
                   .standard = 1024.0,
                   .min = 0.0,
                   .max = 1e6,
                   .help = "requests to learn from, evenly spread over the window; 0: all",
                   .source = "own" },
    [ROUNDS] = { .name = "rounds",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 25.0,
                 .min = 1.0,
                 .max = 1000.0,
                 .help = "rounds of K-means at most",
                 .source = "own" },
    [LOOKAHEAD] = MOE_GROUP_LOOKAHEAD_PARAMETER,
    [PATIENCE] = MOE_GROUP_PATIENCE_PARAMETER,
    [SPILL] = MOE_GROUP_SPILL_PARAMETER,
};

static const struct moe_group_methods group = { .init = init, .choose = choose };

MOE_POLICY_DEFINE(group_cluster) = {
    MOE_POLICY_HEADER,
    .name = "cluster",
    .summary = "requests whose prompts use the same experts share the device that holds most of "
               "them",
    .source = "arXiv 2604.23150 (K-means of decode counts), ELDR 2607.00466 (balanced); homes by "
              "coverage",
    .tie_rule = "of equally near clusters and equal coverage the lower; the longest waiting first",
    .needs = MOE_POLICY_NEEDS_ROUTES | MOE_POLICY_NEEDS_SEED,
    MOE_POLICY_PARAMETERS(parameters),
    .group = &group,
};

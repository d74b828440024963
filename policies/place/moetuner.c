/* MoETuner: clusters of even load first, then clusters onto GPUs by what flows between them.
 *
 * Stage 1, layer by layer: experts into as many clusters as there are GPUs, such that the loads
 * of the clusters differ from their mean by as little as possible in sum: heaviest first into
 * the lightest cluster, then exchanges and moves while the sum of the differences falls.
 * Stage 2: the clusters of the first layer keep their numbers. Those of each further layer get
 * GPUs such that the slowest pair of GPUs (tokens from one to the other, times the price of the
 * link) is as fast as possible, then all pairs in sum: first the matching that keeps most tokens
 * where they are, then exchanges of two clusters, one of them an end of the slowest pair.
 * No copies; spare slots stay empty.
 *
 * Departures: the original solves two integer programs (tolerance 0.025) and lets the experts
 * of a GPU vary from layer to layer as long as they sum to the same; here a GPU never has more
 * than its slots. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/greedy.h"
#include "policies/solve/matching.h"
#include "sim/base/no_malloc.h"

enum { CHOICES, TOKENS, NEAR, FAR };

static const struct moe_policy_parameter parameters[] = {
    [CHOICES] = { .name = "choices",
                  .kind = MOE_PARAMETER_WHOLE,
                  .standard = 2,
                  .min = 1,
                  .max = 64,
                  .help = "how many of a token's experts per layer count, in gate order",
                  .source = "own; its models choose two" },
    [TOKENS] = { .name = "tokens",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 50000,
                 .min = 1,
                 .max = 1e9,
                 .help = "tokens looked at for what flows, evenly spaced over the window",
                 .source = "own" },
    [NEAR] = { .name = "near",
               .kind = MOE_PARAMETER_REAL,
               .standard = 1,
               .max = 1e6,
               .help = "price of a token to another GPU of the node",
               .source = "own" },
    [FAR] = { .name = "far",
              .kind = MOE_PARAMETER_REAL,
              .standard = 9,
              .max = 1e6,
              .help = "price of a token to another node",
              .source = "MoETuner: its cluster's links differ by about nine" },
};

struct tuner {
    const struct moe_place_view *view;
    struct moe_greedy greedy;
    struct moe_matching matching;
    uint32_t expert_count;
    uint32_t gpu_count;
    uint32_t capacity;
    uint32_t *slot_of;        /* [expert] scratch of the packing */
    uint32_t *by_load;        /* [expert] heaviest first */
    uint32_t *cluster_of;     /* [expert] of this layer */
    uint32_t *gpu_before;     /* [expert] of the layer before */
    uint32_t *gpu_of_cluster; /* [gpu] */
    uint32_t *cluster_on;     /* [gpu] its inverse */
    uint32_t *size;           /* [cluster] experts */
    double *cluster_load;     /* [cluster] */
    uint32_t *flow;           /* [cluster of this layer][GPU of the one before] */
};

static enum moe_status set_up(struct tuner *t, const struct moe_place_view *view,
                              struct moe_arena *scratch, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const size_t gpus = shape->gpu_count;
    *t = (struct tuner){
        .view = view,
        .expert_count = shape->expert_count,
        .gpu_count = shape->gpu_count,
        .capacity = moe_placement_slots_per_gpu(shape),
        .slot_of = MOE_NEW(scratch, uint32_t, shape->expert_count),
        .by_load = MOE_NEW(scratch, uint32_t, shape->expert_count),
        .cluster_of = MOE_NEW(scratch, uint32_t, shape->expert_count),
        .gpu_before = MOE_NEW(scratch, uint32_t, shape->expert_count),
        .gpu_of_cluster = MOE_NEW(scratch, uint32_t, gpus),
        .cluster_on = MOE_NEW(scratch, uint32_t, gpus),
        .size = MOE_NEW(scratch, uint32_t, gpus),
        .cluster_load = MOE_NEW(scratch, double, gpus),
        .flow = MOE_NEW(scratch, uint32_t, gpus * gpus),
    };
    if (t->slot_of == NULL || t->by_load == NULL || t->cluster_of == NULL ||
        t->gpu_before == NULL || t->gpu_of_cluster == NULL || t->cluster_on == NULL ||
        t->size == NULL || t->cluster_load == NULL || t->flow == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the flows between %u GPUs", shape->gpu_count);
    }
    const uint32_t items =
        shape->expert_count > shape->gpu_count ? shape->expert_count : shape->gpu_count;
    MOE_TRY(moe_greedy_init(&t->greedy, scratch, items, err));
    return moe_matching_init(&t->matching, scratch, shape->gpu_count, err);
}

/* --- stage 1 ------------------------------------------------------------------------------- */

/* How much closer to the mean both clusters come when delta goes from one to the other. */
static double evening(const struct tuner *t, double mean, uint32_t from, uint32_t to, double delta)
{
    const double *load = t->cluster_load;
    return fabs(load[from] - mean) + fabs(load[to] - mean) - fabs(load[from] - delta - mean) -
           fabs(load[to] + delta - mean);
}

static void hand_over(struct tuner *t, uint32_t expert, uint32_t to, double load)
{
    const uint32_t from = t->cluster_of[expert];
    t->cluster_load[from] -= load;
    t->cluster_load[to] += load;
    t->size[from]--;
    t->size[to]++;
    t->cluster_of[expert] = to;
}

/* One pass of moves and exchanges that help by more than rounding. */
static bool even_out(struct tuner *t, const double *load, double mean)
{
    const double least = mean * 1e-9;
    bool any = false;
    for (uint32_t i = 0; i < t->expert_count; i++) {
        const uint32_t a = t->by_load[i];
        for (uint32_t to = 0; to < t->gpu_count; to++) {
            const uint32_t from = t->cluster_of[a];
            if (to != from && t->size[to] < t->capacity && t->size[from] > 1 &&
                evening(t, mean, from, to, load[a]) > least) {
                hand_over(t, a, to, load[a]);
                any = true;
            }
        }
        for (uint32_t j = i + 1; j < t->expert_count; j++) {
            const uint32_t b = t->by_load[j];
            const uint32_t of_a = t->cluster_of[a];
            const uint32_t of_b = t->cluster_of[b];
            if (of_a != of_b && evening(t, mean, of_a, of_b, load[a] - load[b]) > least) {
                hand_over(t, a, of_b, load[a]);
                hand_over(t, b, of_a, load[b]);
                any = true;
            }
        }
    }
    return any;
}

static void cluster(struct tuner *t, const double *load)
{
    double mean = 0.0;
    /* Even in number first, so that no cluster stays empty; moves may change that. */
    const uint32_t even = (t->expert_count + t->gpu_count - 1) / t->gpu_count;
    moe_greedy_pack(&t->greedy, load, t->expert_count, t->gpu_count, even, t->slot_of);
    moe_greedy_sort(load, t->expert_count, t->by_load, t->greedy.spare);
    memset(t->cluster_load, 0, t->gpu_count * sizeof *t->cluster_load);
    memset(t->size, 0, t->gpu_count * sizeof *t->size);
    for (uint32_t expert = 0; expert < t->expert_count; expert++) {
        t->cluster_of[expert] = t->slot_of[expert] / even;
        t->cluster_load[t->cluster_of[expert]] += load[expert];
        t->size[t->cluster_of[expert]]++;
        mean += load[expert] / t->gpu_count;
    }
    for (int pass = 0; pass < 64 && even_out(t, load, mean); pass++) {
    }
}

/* --- stage 2 ------------------------------------------------------------------------------- */

static void count_flow(struct tuner *t, uint32_t layer)
{
    const struct moe_policy_routes *routes = t->view->routes;
    const uint64_t wanted = (uint64_t) t->view->parameters[TOKENS];
    const uint64_t tokens = wanted < routes->token_count ? wanted : routes->token_count;
    const uint32_t limit = (uint32_t) t->view->parameters[CHOICES];
    const uint32_t choices = limit < routes->top_k ? limit : routes->top_k;
    memset(t->flow, 0, (size_t) t->gpu_count * t->gpu_count * sizeof *t->flow);
    for (uint64_t i = 0; i < tokens; i++) {
        const uint64_t token = i * routes->token_count / tokens;
        const uint16_t *mine =
            routes->expert + (token * t->view->shape.layer_count + layer) * routes->top_k;
        const uint16_t *theirs = mine - routes->top_k;
        for (uint32_t a = 0; a < choices; a++) {
            for (uint32_t b = 0; b < choices && mine[a] < t->expert_count; b++) {
                if (theirs[b] < t->expert_count) { /* else unknown */
                    t->flow[(size_t) t->cluster_of[mine[a]] * t->gpu_count +
                            t->gpu_before[theirs[b]]]++;
                }
            }
        }
    }
}

struct worth {
    double slowest;
    double total;
};

static bool is_better(struct worth a, struct worth b)
{
    return a.slowest < b.slowest || (a.slowest == b.slowest && a.total < b.total);
}

/* What flows to a GPU if it holds the cluster. */
static struct worth arrival(const struct tuner *t, uint32_t cluster, uint32_t gpu)
{
    const uint32_t per_node = t->gpu_count / t->view->shape.node_count;
    const uint32_t *flow = t->flow + (size_t) cluster * t->gpu_count;
    struct worth worth = { 0.0, 0.0 };
    for (uint32_t from = 0; from < t->gpu_count; from++) {
        if (from != gpu) {
            const double time =
                flow[from] * t->view->parameters[from / per_node == gpu / per_node ? NEAR : FAR];
            worth.slowest = time > worth.slowest ? time : worth.slowest;
            worth.total += time;
        }
    }
    return worth;
}

static struct worth both(struct worth a, struct worth b)
{
    return (struct worth){ a.slowest > b.slowest ? a.slowest : b.slowest, a.total + b.total };
}

/* Exchanges the cluster at the slow end for another where that makes the two GPUs better. */
static bool relieve(struct tuner *t)
{
    uint32_t slow = 0;
    struct worth slowest = arrival(t, t->cluster_on[0], 0);
    for (uint32_t gpu = 1; gpu < t->gpu_count; gpu++) {
        const struct worth worth = arrival(t, t->cluster_on[gpu], gpu);
        if (is_better(slowest, worth)) {
            slowest = worth;
            slow = gpu;
        }
    }
    for (uint32_t other = 0; other < t->gpu_count; other++) {
        const uint32_t here = t->cluster_on[slow];
        const uint32_t there = t->cluster_on[other];
        if (other != slow && is_better(both(arrival(t, there, slow), arrival(t, here, other)),
                                       both(slowest, arrival(t, there, other)))) {
            t->cluster_on[slow] = there;
            t->cluster_on[other] = here;
            return true;
        }
    }
    return false;
}

static void assign(struct tuner *t, uint32_t layer)
{
    if (layer == 0) {
        for (uint32_t gpu = 0; gpu < t->gpu_count; gpu++) {
            t->gpu_of_cluster[gpu] = gpu;
        }
        return;
    }
    count_flow(t, layer);
    moe_matching_solve(&t->matching, t->flow, t->gpu_count, t->gpu_of_cluster);
    for (uint32_t number = 0; number < t->gpu_count; number++) {
        t->cluster_on[t->gpu_of_cluster[number]] = number;
    }
    for (uint32_t left = 4 * t->gpu_count; left > 0 && relieve(t); left--) {
    }
    for (uint32_t gpu = 0; gpu < t->gpu_count; gpu++) {
        t->gpu_of_cluster[t->cluster_on[gpu]] = gpu;
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    struct tuner t;
    MOE_TRY(set_up(&t, view, scratch, err));
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        cluster(&t, view->load + (size_t) layer * t.expert_count);
        assign(&t, layer);
        memset(t.size, 0, t.gpu_count * sizeof *t.size); /* from here on: slots filled */
        for (uint32_t expert = 0; expert < t.expert_count; expert++) {
            const uint32_t gpu = t.gpu_of_cluster[t.cluster_of[expert]];
            assert(t.size[gpu] < t.capacity);
            slots[gpu * t.capacity + t.size[gpu]++] = (uint16_t) expert;
            t.gpu_before[expert] = gpu;
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(moetuner) = {
    MOE_POLICY_HEADER,
    .name = "moetuner",
    .summary = "clusters of even load, then clusters onto GPUs so that the slowest pair of GPUs "
               "exchanges least; no copies",
    .source = "MoETuner, arXiv 2502.06643; its two integer programs solved by packing, matching "
              "and exchanges, the second in the order of the layers",
    .tie_rule = "the first move or exchange that helps, heavier experts first, GPUs ascending",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_ROUTES,
    .budgeted = true, /* it makes no copies */
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

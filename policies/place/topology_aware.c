/* Topology-aware placement: each expert, hottest first, onto the GPU with room that its tokens
 * reach most cheaply. Looks at where tokens come from and not at balance; no copies, and every
 * GPU gets equally many experts (up to one, where they do not divide); spare slots stay empty.
 *
 * The original is given counts per source rank. Here they come from the token routes: the
 * requests of the planning window are spread over the GPUs in turn, or in equal runs. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/greedy.h"
#include "sim/base/no_malloc.h"

enum { SOURCES };
enum { IN_TURN, RUNS };

static const struct moe_policy_parameter parameters[] = {
    [SOURCES] = { .name = "sources",
                  .kind = MOE_PARAMETER_CHOICE,
                  .standard = IN_TURN,
                  .choices = (const char *const[]){ "in_turn", "runs", NULL },
                  .help = "the GPU that a request's tokens start from: request modulo GPUs, or "
                          "equal runs of consecutive requests",
                  .source = "own; the original reads counts per source rank" },
};

struct topology {
    struct moe_placement_shape shape;
    uint32_t *from_gpu;  /* [gpu][expert] tokens */
    uint32_t *from_node; /* [node][expert] */
    double *total;       /* [expert] */
    uint32_t *order;     /* [expert] */
    uint32_t *spare;     /* [expert] */
    uint32_t *gpu_of;    /* [expert] */
    uint32_t *room;      /* [gpu] */
};

static enum moe_status set_up(struct topology *t, const struct moe_placement_shape *shape,
                              struct moe_arena *scratch, struct moe_error *err)
{
    const size_t experts = shape->expert_count;
    *t = (struct topology){
        .shape = *shape,
        .from_gpu = MOE_NEW(scratch, uint32_t, shape->gpu_count * experts),
        .from_node = MOE_NEW(scratch, uint32_t, shape->node_count * experts),
        .total = MOE_NEW(scratch, double, experts),
        .order = MOE_NEW(scratch, uint32_t, experts),
        .spare = MOE_NEW(scratch, uint32_t, experts),
        .gpu_of = MOE_NEW(scratch, uint32_t, experts),
        .room = MOE_NEW(scratch, uint32_t, shape->gpu_count),
    };
    if (t->from_gpu == NULL || t->from_node == NULL || t->total == NULL || t->order == NULL ||
        t->spare == NULL || t->gpu_of == NULL || t->room == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the counts of %u experts from %u GPUs",
                        shape->expert_count, shape->gpu_count);
    }
    return MOE_OK;
}

static void count_sources(struct topology *t, const struct moe_place_view *view, uint32_t layer)
{
    const struct moe_policy_routes *routes = view->routes;
    const struct moe_placement_shape *shape = &t->shape;
    const uint32_t per_node = shape->gpu_count / shape->node_count;
    const size_t experts = shape->expert_count;
    memset(t->from_gpu, 0, shape->gpu_count * experts * sizeof *t->from_gpu);
    memset(t->from_node, 0, shape->node_count * experts * sizeof *t->from_node);
    memset(t->total, 0, experts * sizeof *t->total);
    for (uint64_t token = 0; token < routes->token_count; token++) {
        const uint64_t request = routes->request[token];
        const uint64_t gpu = view->parameters[SOURCES] == IN_TURN
                                 ? request % shape->gpu_count
                                 : request * shape->gpu_count / routes->request_count;
        const uint16_t *row = routes->expert + (token * shape->layer_count + layer) * routes->top_k;
        for (uint32_t k = 0; k < routes->top_k; k++) {
            if (row[k] < experts) { /* else unknown */
                t->from_gpu[gpu * experts + row[k]]++;
                t->from_node[gpu / per_node * experts + row[k]]++;
                t->total[row[k]] += 1.0;
            }
        }
    }
}

/* What the tokens of an expert pay to reach a GPU. */
static double cost(const struct topology *t, const struct moe_policy_topology *links,
                   uint32_t expert, uint32_t gpu)
{
    const uint32_t node = gpu / (t->shape.gpu_count / t->shape.node_count);
    const double here = t->from_gpu[(size_t) gpu * t->shape.expert_count + expert];
    const double near = t->from_node[(size_t) node * t->shape.expert_count + expert];
    return (near - here) * links->near_ns + (t->total[expert] - near) * links->far_ns;
}

static void place_layer(struct topology *t, const struct moe_place_view *view, uint16_t *slots)
{
    const struct moe_placement_shape *shape = &t->shape;
    const uint32_t capacity = moe_placement_slots_per_gpu(shape);
    moe_greedy_sort(t->total, shape->expert_count, t->order, t->spare);
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        t->room[gpu] = (shape->expert_count + shape->gpu_count - 1) / shape->gpu_count;
    }
    for (uint32_t i = 0; i < shape->expert_count; i++) {
        const uint32_t expert = t->order[i];
        uint32_t best = UINT32_MAX;
        double least = INFINITY;
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            const double price = t->room[gpu] > 0 ? cost(t, view->topology, expert, gpu) : INFINITY;
            if (price < least) {
                least = price;
                best = gpu;
            }
        }
        assert(best != UINT32_MAX);
        t->gpu_of[expert] = best;
        t->room[best]--;
    }
    memset(t->room, 0, shape->gpu_count * sizeof *t->room); /* from here on: slots filled */
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        const uint32_t gpu = t->gpu_of[expert];
        slots[gpu * capacity + t->room[gpu]++] = (uint16_t) expert;
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    struct topology t;
    MOE_TRY(set_up(&t, &view->shape, scratch, err));
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        count_sources(&t, view, layer);
        place_layer(&t, view, moe_placement_layer(plan, layer));
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(topology_aware) = {
    MOE_POLICY_HEADER,
    .name = "topology_aware",
    .summary = "each expert, hottest first, onto the GPU that its tokens reach most cheaply; no "
               "copies",
    .source = "SGLang python/sglang/srt/eplb/eplb_algorithms/topology_aware.py; it refuses spare "
              "slots, here they stay empty; sources are made from the routes",
    .tie_rule = "of equally hot experts the first, of equally cheap GPUs the first",
    .needs = MOE_POLICY_NEEDS_ROUTES | MOE_POLICY_NEEDS_TOPOLOGY,
    .budgeted = true, /* it makes no copies */
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

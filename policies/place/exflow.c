/* ExFlow: experts that follow each other from layer to layer share a GPU, or at least a node.
 *
 * A token pays `near` when the experts of two consecutive layers lie on different GPUs of a
 * node, `far` when on different nodes. The placement of all layers that makes the tokens of the
 * window pay least, with equally many experts on every GPU, is what is looked for. With its two
 * neighbours fixed a layer is an assignment problem, so layers are improved in turn, forwards
 * and backwards, by exchanges of two experts (and moves into room that is left) until none
 * helps. Two starts, contiguous and greedy from the first layer on; the cheaper one wins.
 * No copies; spare slots stay empty; the load is not looked at.
 *
 * Departure: the original solves an integer program by bipartition, part by part with a time
 * limit, nodes before GPUs; the objective is the same, its hop costs being those of its report.
 */
#include <assert.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/greedy.h"
#include "sim/base/no_malloc.h"

enum { CHOICES, TOKENS, SWEEPS, NEAR, FAR };
enum { PASS_LIMIT = 1000 };

static const struct moe_policy_parameter parameters[] = {
    [CHOICES] = { .name = "choices",
                  .kind = MOE_PARAMETER_WHOLE,
                  .standard = 1,
                  .min = 1,
                  .max = 64,
                  .help = "how many of a token's experts per layer count, in gate order",
                  .source = "ExFlow reads the first expert" },
    [TOKENS] = { .name = "tokens",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 20000,
                 .min = 1,
                 .max = 1e9,
                 .help = "tokens looked at, evenly spaced over the window",
                 .source = "own; ExFlow solves in increments of 5000" },
    [SWEEPS] = { .name = "sweeps",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 8,
                 .min = 1,
                 .max = 1000,
                 .help = "most passes over the layers",
                 .source = "own; ExFlow has a time limit" },
    [NEAR] = { .name = "near",
               .kind = MOE_PARAMETER_REAL,
               .standard = 1,
               .max = 1e6,
               .help = "price of a step to another GPU of the node",
               .source = "ExFlow: its cost report" },
    [FAR] = { .name = "far",
              .kind = MOE_PARAMETER_REAL,
              .standard = 2,
              .max = 1e6,
              .help = "price of a step to another node; at least near",
              .source = "ExFlow: its cost report" },
};

struct exflow {
    const struct moe_place_view *view;
    uint32_t expert_count;
    uint32_t gpu_count;
    uint32_t per_node; /* GPUs */
    uint32_t capacity; /* experts per GPU */
    uint32_t choices;
    uint64_t token_count; /* looked at */
    double near;
    double far;
    uint16_t *visited; /* [layer][token][choice] what the tokens looked at chose */
    uint16_t *gpu_of;  /* [layer][expert] */
    uint16_t *best;    /* the same, of the better start */
    uint32_t *on_gpu;  /* [expert][gpu] pairs with a neighbour there */
    uint32_t *on_node; /* [expert][node] */
    uint32_t *room;    /* [gpu] */
    double *saving;    /* [expert][gpu] against being on another node */
    double *most;      /* [expert] the largest of them */
    double *own;       /* [expert] the one of its GPU */
    uint32_t *changed; /* [expert] when it last moved, in turns: pass * experts + expert */
    uint32_t *order;   /* [expert * gpu] */
    uint32_t *spare;   /* [expert * gpu] */
};

static enum moe_status set_up(struct exflow *x, const struct moe_place_view *view,
                              struct moe_arena *scratch, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    const size_t pairs = (size_t) shape->expert_count * shape->gpu_count;
    const uint64_t wanted = (uint64_t) view->parameters[TOKENS];
    const uint32_t choices = (uint32_t) view->parameters[CHOICES];
    *x = (struct exflow){
        .view = view,
        .expert_count = shape->expert_count,
        .gpu_count = shape->gpu_count,
        .per_node = shape->gpu_count / shape->node_count,
        .capacity = (shape->expert_count + shape->gpu_count - 1) / shape->gpu_count,
        .choices = choices < view->routes->top_k ? choices : view->routes->top_k,
        .token_count = wanted < view->routes->token_count ? wanted : view->routes->token_count,
        .near = view->parameters[NEAR],
        .far = view->parameters[FAR],
        .gpu_of = MOE_NEW(scratch, uint16_t, cells),
        .best = MOE_NEW(scratch, uint16_t, cells),
        .on_gpu = MOE_NEW(scratch, uint32_t, pairs),
        .on_node = MOE_NEW(scratch, uint32_t, (size_t) shape->expert_count * shape->node_count),
        .room = MOE_NEW(scratch, uint32_t, shape->gpu_count),
        .saving = MOE_NEW(scratch, double, pairs),
        .most = MOE_NEW(scratch, double, shape->expert_count),
        .own = MOE_NEW(scratch, double, shape->expert_count),
        .changed = MOE_NEW(scratch, uint32_t, shape->expert_count),
        .order = MOE_NEW(scratch, uint32_t, pairs),
        .spare = MOE_NEW(scratch, uint32_t, pairs),
    };
    x->visited =
        MOE_NEW(scratch, uint16_t, shape->layer_count * x->token_count * (size_t) x->choices);
    if (x->visited == NULL || x->most == NULL || x->own == NULL || x->changed == NULL ||
        x->gpu_of == NULL || x->best == NULL || x->on_gpu == NULL || x->on_node == NULL ||
        x->room == NULL || x->saving == NULL || x->order == NULL || x->spare == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the affinities of %u experts to %u GPUs",
                        shape->expert_count, shape->gpu_count);
    }
    return x->far >= x->near
               ? MOE_OK
               : moe_fail(err, MOE_POLICY, "far=%g is below near=%g", x->far, x->near);
}

/* One layer's choices after the other, since layers are looked at by themselves many times. */
static void read_routes(struct exflow *x)
{
    const struct moe_policy_routes *routes = x->view->routes;
    const uint32_t layers = x->view->shape.layer_count;
    for (uint64_t number = 0; number < x->token_count; number++) {
        const uint64_t token = number * routes->token_count / x->token_count;
        for (uint32_t layer = 0; layer < layers; layer++) {
            memcpy(x->visited + (layer * x->token_count + number) * x->choices,
                   routes->expert + (token * layers + layer) * routes->top_k,
                   x->choices * sizeof *x->visited);
        }
    }
}

/* Adds the pairs of layer's experts with those of a neighbouring layer. */
static void count_neighbour(struct exflow *x, uint32_t layer, uint32_t neighbour)
{
    const uint16_t *gpu_of = x->gpu_of + (size_t) neighbour * x->expert_count;
    const uint32_t node_count = x->view->shape.node_count;
    for (uint64_t token = 0; token < x->token_count; token++) {
        const uint16_t *mine = x->visited + (layer * x->token_count + token) * x->choices;
        const uint16_t *theirs = x->visited + (neighbour * x->token_count + token) * x->choices;
        for (uint32_t i = 0; i < x->choices; i++) {
            for (uint32_t j = 0; j < x->choices && mine[i] < x->expert_count; j++) {
                if (theirs[j] < x->expert_count) { /* else unknown */
                    const uint32_t gpu = gpu_of[theirs[j]];
                    x->on_gpu[(size_t) mine[i] * x->gpu_count + gpu]++;
                    x->on_node[(size_t) mine[i] * node_count + gpu / x->per_node]++;
                }
            }
        }
    }
}

static void count_neighbours(struct exflow *x, uint32_t layer, bool left, bool right)
{
    const size_t experts = x->expert_count;
    memset(x->on_gpu, 0, experts * x->gpu_count * sizeof *x->on_gpu);
    memset(x->on_node, 0, experts * x->view->shape.node_count * sizeof *x->on_node);
    if (left && layer > 0) {
        count_neighbour(x, layer, layer - 1);
    }
    if (right && layer + 1 < x->view->shape.layer_count) {
        count_neighbour(x, layer, layer + 1);
    }
    for (uint32_t expert = 0; expert < x->expert_count; expert++) {
        const uint32_t *on_gpu = x->on_gpu + (size_t) expert * x->gpu_count;
        const uint32_t *on_node = x->on_node + (size_t) expert * x->view->shape.node_count;
        double *saving = x->saving + (size_t) expert * x->gpu_count;
        double most = 0.0;
        for (uint32_t gpu = 0; gpu < x->gpu_count; gpu++) {
            const uint32_t node = gpu / x->per_node;
            saving[gpu] = x->near * on_gpu[gpu] + (x->far - x->near) * on_node[node];
            most = saving[gpu] > most ? saving[gpu] : most;
        }
        x->most[expert] = most;
    }
}

static double saving_at(const struct exflow *x, uint32_t expert, uint32_t gpu)
{
    return x->saving[(size_t) expert * x->gpu_count + gpu];
}

/* Largest savings first. */
static void assign_greedily(struct exflow *x, uint16_t *gpu_of)
{
    const uint32_t pairs = x->expert_count * x->gpu_count;
    moe_greedy_sort(x->saving, pairs, x->order, x->spare);
    for (uint32_t gpu = 0; gpu < x->gpu_count; gpu++) {
        x->room[gpu] = x->capacity;
    }
    memset(gpu_of, 0xff, x->expert_count * sizeof *gpu_of);
    for (uint32_t i = 0; i < pairs; i++) {
        const uint32_t expert = x->order[i] / x->gpu_count;
        const uint32_t gpu = x->order[i] % x->gpu_count;
        if (gpu_of[expert] == UINT16_MAX && x->room[gpu] > 0) {
            gpu_of[expert] = (uint16_t) gpu;
            x->room[gpu]--;
        }
    }
}

/* Exchanges of a with the experts behind it. Not looked at: pairs of which neither has moved since
 * they last were, and what cannot help even if the other one found its best place (a larger
 * summand never gives a smaller rounded sum). */
static bool exchange(struct exflow *x, uint16_t *gpu_of, uint32_t a, uint32_t now_turn)
{
    const uint32_t last_turn = now_turn - x->expert_count;
    const double *row_a = x->saving + (size_t) a * x->gpu_count;
    bool any = false;
    for (uint32_t b = a + 1; b < x->expert_count; b++) {
        if (x->changed[a] < last_turn && x->changed[b] < last_turn) {
            continue;
        }
        const uint16_t gpu_a = gpu_of[a];
        const uint16_t gpu_b = gpu_of[b];
        const double now = x->own[a] + x->own[b];
        if (row_a[gpu_b] + x->most[b] > now && row_a[gpu_b] + saving_at(x, b, gpu_a) > now) {
            gpu_of[a] = gpu_b;
            gpu_of[b] = gpu_a;
            x->own[a] = row_a[gpu_b];
            x->own[b] = saving_at(x, b, gpu_a);
            x->changed[a] = now_turn;
            x->changed[b] = now_turn;
            any = true;
        }
    }
    return any;
}

/* Moves of a to GPUs with room. */
static bool move(struct exflow *x, uint16_t *gpu_of, uint32_t a, uint32_t now_turn)
{
    bool any = false;
    for (uint32_t gpu = 0; gpu < x->gpu_count && x->most[a] > x->own[a]; gpu++) {
        if (x->room[gpu] > 0 && saving_at(x, a, gpu) > x->own[a]) {
            x->room[gpu_of[a]]++;
            x->room[gpu]--;
            gpu_of[a] = (uint16_t) gpu;
            x->own[a] = saving_at(x, a, gpu);
            x->changed[a] = now_turn;
            any = true;
        }
    }
    return any;
}

/* Exchanges and moves of one layer until none saves more; the limit is for prices whose sums
 * round. */
static bool improve(struct exflow *x, uint16_t *gpu_of)
{
    bool any = false;
    for (uint32_t gpu = 0; gpu < x->gpu_count; gpu++) {
        x->room[gpu] = x->capacity;
    }
    for (uint32_t expert = 0; expert < x->expert_count; expert++) {
        x->room[gpu_of[expert]]--;
        x->own[expert] = saving_at(x, expert, gpu_of[expert]);
        x->changed[expert] = x->expert_count;
    }
    bool again = true;
    for (uint32_t pass = 0; again && pass < PASS_LIMIT; pass++) {
        again = false;
        for (uint32_t a = 0; a < x->expert_count; a++) {
            const uint32_t turn = (pass + 1) * x->expert_count + a;
            again |= move(x, gpu_of, a, turn);
            again |= exchange(x, gpu_of, a, turn);
        }
        any |= again;
    }
    return any;
}

/* Over all layers: what is saved; the price of a pair on one GPU is near and the node's share. */
static double total_saving(struct exflow *x)
{
    double sum = 0.0;
    for (uint32_t layer = 1; layer < x->view->shape.layer_count; layer++) {
        const uint16_t *gpu_of = x->gpu_of + (size_t) layer * x->expert_count;
        const uint16_t *before = gpu_of - x->expert_count;
        const uint16_t *mine = x->visited + layer * x->token_count * x->choices;
        const uint16_t *theirs = mine - x->token_count * x->choices;
        uint32_t *near = x->order;
        uint32_t *far = x->spare;
        memset(near, 0, x->expert_count * sizeof *near);
        memset(far, 0, x->expert_count * sizeof *far);
        for (uint64_t at = 0; at < x->token_count * x->choices; at++) {
            const uint64_t token = at / x->choices * x->choices;
            for (uint32_t j = 0; j < x->choices && mine[at] < x->expert_count; j++) {
                const uint16_t other = theirs[token + j];
                if (other < x->expert_count) {
                    near[mine[at]] += before[other] == gpu_of[mine[at]];
                    far[mine[at]] += before[other] / x->per_node == gpu_of[mine[at]] / x->per_node;
                }
            }
        }
        for (uint32_t expert = 0; expert < x->expert_count; expert++) {
            sum += x->near * near[expert] + (x->far - x->near) * far[expert];
        }
    }
    return sum;
}

static double solve_from(struct exflow *x, bool greedy)
{
    const uint32_t layers = x->view->shape.layer_count;
    const uint32_t sweeps = (uint32_t) x->view->parameters[SWEEPS];
    for (uint32_t layer = 0; layer < layers; layer++) {
        uint16_t *gpu_of = x->gpu_of + (size_t) layer * x->expert_count;
        if (greedy && layer > 0) {
            count_neighbours(x, layer, true, false);
            assign_greedily(x, gpu_of);
        } else {
            for (uint32_t expert = 0; expert < x->expert_count; expert++) {
                gpu_of[expert] = (uint16_t) (expert / x->capacity);
            }
        }
    }
    bool improved = true;
    for (uint32_t sweep = 0; sweep < sweeps && improved; sweep++) {
        improved = false;
        for (uint32_t i = 0; i < layers; i++) {
            const uint32_t layer = sweep % 2 == 0 ? i : layers - 1 - i;
            count_neighbours(x, layer, true, true);
            improved |= improve(x, x->gpu_of + (size_t) layer * x->expert_count);
        }
    }
    return total_saving(x);
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(shape);
    struct exflow x;
    MOE_TRY(set_up(&x, view, scratch, err));
    read_routes(&x);
    const double contiguous = solve_from(&x, false);
    memcpy(x.best, x.gpu_of, cells * sizeof *x.best);
    if (solve_from(&x, true) > contiguous) {
        memcpy(x.best, x.gpu_of, cells * sizeof *x.best);
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        memset(x.room, 0, shape->gpu_count * sizeof *x.room); /* from here on: slots filled */
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            const uint16_t gpu = x.best[(size_t) layer * shape->expert_count + expert];
            assert(x.room[gpu] < slots_per_gpu);
            slots[gpu * slots_per_gpu + x.room[gpu]++] = (uint16_t) expert;
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(exflow) = {
    MOE_POLICY_HEADER,
    .name = "exflow",
    .summary = "experts that tokens visit one after the other share a GPU or a node; no copies",
    .source = "ExFlow, arXiv 2401.08383 (solve_affinity.py); its integer program solved by "
              "exchanges, layers in turn",
    .tie_rule = "the first exchange that helps, experts and GPUs ascending; of equal starts "
                "contiguous",
    .needs = MOE_POLICY_NEEDS_ROUTES,
    .numbered = true, /* experts in ascending order find the exchange that helps */
    .budgeted = true, /* it makes no copies */
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

/* GRACE: experts that tokens choose together share a GPU; the hot ones of the fullest get copies.
 *
 * Grouping, layer by layer: nodes first, then the GPUs of each node. A group grows from its
 * hottest free expert by the expert with most tokens in common with it, the first groups up to
 * (1 + ratio) times an even share of the experts, leaving (1 - ratio) times one for the last;
 * then exchanges of two experts of different groups while more tokens stay inside.
 * Copies: rho = fullest / mean group load; n = min(max(1, floor(rho)), GPUs - 1); the experts of
 * the fullest group, hottest first, until they carry more than fullest * n / (1 + n) of it, each
 * get a copy on the n least loaded GPUs that have a free slot and not the expert.
 *
 * Departures: the original clusters spectrally and finds ratio at the knee of utilisation
 * against skew; here groups grow and exchange, which lowers the same cut, and ratio is given.
 * Its routing (same GPU, same node, then by predicted load) is a dispatch policy's. */
#include <assert.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/copy_budget.h"
#include "policies/solve/greedy.h"
#include "sim/base/no_malloc.h"

enum { RATIO, TOKENS, PASSES };

static const struct moe_policy_parameter parameters[] = {
    [RATIO] = { .name = "ratio",
                .kind = MOE_PARAMETER_REAL,
                .standard = 0.25,
                .max = 10,
                .help = "how much a group's size may differ from an even share, slots permitting",
                .source = "own; GRACE takes the knee of utilisation against skew" },
    [TOKENS] = { .name = "tokens",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 20000,
                 .min = 1,
                 .max = 1e9,
                 .help = "tokens looked at for what is chosen together, evenly spaced",
                 .source = "own" },
    [PASSES] = { .name = "passes",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 16,
                 .max = 1000,
                 .help = "most passes of exchanges",
                 .source = "own" },
};

struct grace {
    const struct moe_place_view *view;
    const double *load; /* [expert] of the layer */
    uint32_t expert_count;
    uint32_t gpu_count;
    uint32_t capacity;
    uint32_t *together;   /* [expert][expert] tokens that chose both */
    uint32_t *group_of;   /* [expert] the level's group */
    uint32_t *node_of;    /* [expert] */
    uint32_t *size;       /* [group] */
    uint64_t *attraction; /* [expert] to the group that grows */
    uint32_t *inside;     /* [group][expert] tokens in common with the group */
    double *gpu_load;     /* [gpu] */
    uint32_t *fill;       /* [gpu] */
    uint32_t *hot;        /* [expert] */
    uint32_t *spare;      /* [expert] */
    double *heat;         /* [expert] */
};

static enum moe_status set_up(struct grace *g, const struct moe_place_view *view,
                              struct moe_arena *scratch, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const size_t experts = shape->expert_count;
    *g = (struct grace){
        .view = view,
        .expert_count = shape->expert_count,
        .gpu_count = shape->gpu_count,
        .capacity = moe_placement_slots_per_gpu(shape),
        .together = MOE_NEW(scratch, uint32_t, experts * experts),
        .group_of = MOE_NEW(scratch, uint32_t, experts),
        .node_of = MOE_NEW(scratch, uint32_t, experts),
        .size = MOE_NEW(scratch, uint32_t, shape->gpu_count),
        .attraction = MOE_NEW(scratch, uint64_t, experts),
        .inside = MOE_NEW(scratch, uint32_t, shape->gpu_count * experts),
        .gpu_load = MOE_NEW(scratch, double, shape->gpu_count),
        .fill = MOE_NEW(scratch, uint32_t, shape->gpu_count),
        .hot = MOE_NEW(scratch, uint32_t, experts),
        .spare = MOE_NEW(scratch, uint32_t, experts),
        .heat = MOE_NEW(scratch, double, experts),
    };
    if (g->together == NULL || g->group_of == NULL || g->node_of == NULL || g->size == NULL ||
        g->attraction == NULL || g->inside == NULL || g->gpu_load == NULL || g->fill == NULL ||
        g->hot == NULL || g->spare == NULL || g->heat == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for what %u experts have in common",
                        shape->expert_count);
    }
    return MOE_OK;
}

static void count_together(struct grace *g, uint32_t layer)
{
    const struct moe_policy_routes *routes = g->view->routes;
    const uint64_t wanted = (uint64_t) g->view->parameters[TOKENS];
    const uint64_t tokens = wanted < routes->token_count ? wanted : routes->token_count;
    const size_t experts = g->expert_count;
    memset(g->together, 0, experts * experts * sizeof *g->together);
    for (uint64_t i = 0; i < tokens; i++) {
        const uint64_t token = i * routes->token_count / tokens;
        const uint16_t *row =
            routes->expert + (token * g->view->shape.layer_count + layer) * routes->top_k;
        for (uint32_t a = 0; a < routes->top_k; a++) {
            for (uint32_t b = 0; b < routes->top_k && row[a] < experts; b++) {
                if (row[b] < experts && a != b) { /* else unknown */
                    g->together[row[a] * experts + row[b]]++;
                }
            }
        }
    }
}

/* The members of `parent` among node_of (or all) that a growing group may take. */
struct level {
    uint32_t first; /* number of the first group */
    uint32_t count; /* groups */
    uint32_t room;  /* most experts of one */
    uint32_t least; /* fewest, where there are enough */
    bool all;       /* else the experts whose node is parent */
    uint32_t parent;
};

static bool is_member(const struct grace *g, const struct level *level, uint32_t expert)
{
    return level->all || g->node_of[expert] == level->parent;
}

/* Free member with most in common with the group, hottest when that ties (and at the start). */
static uint32_t next_member(const struct grace *g, const struct level *level)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t expert = 0; expert < g->expert_count; expert++) {
        if (!is_member(g, level, expert) || g->group_of[expert] != UINT32_MAX) {
            continue;
        }
        if (best == UINT32_MAX || g->attraction[expert] > g->attraction[best] ||
            (g->attraction[expert] == g->attraction[best] && g->load[expert] > g->load[best])) {
            best = expert;
        }
    }
    return best;
}

static void grow(struct grace *g, const struct level *level)
{
    uint32_t left = 0;
    for (uint32_t expert = 0; expert < g->expert_count; expert++) {
        if (is_member(g, level, expert)) {
            g->group_of[expert] = UINT32_MAX;
            left++;
        }
    }
    for (uint32_t i = 0; i < level->count; i++) {
        const uint32_t later = level->count - 1 - i;
        const uint32_t spread = (left + later) / (later + 1); /* an even share, rounded up */
        const uint32_t keep = later * level->least < left ? later * level->least : left;
        uint32_t size = level->room < left - keep ? level->room : left - keep;
        size = size > spread ? size : spread;
        memset(g->attraction, 0, g->expert_count * sizeof *g->attraction);
        for (uint32_t taken = 0; taken < size; taken++) {
            const uint32_t expert = next_member(g, level);
            const uint32_t *row = g->together + (size_t) expert * g->expert_count;
            g->group_of[expert] = level->first + i;
            for (uint32_t other = 0; other < g->expert_count; other++) {
                g->attraction[other] += row[other];
            }
        }
        g->size[level->first + i] = size;
        left -= size;
    }
    assert(left == 0);
}

/* Exchanges that keep more tokens inside groups. */
static void refine(struct grace *g, const struct level *level)
{
    const uint32_t experts = g->expert_count;
    for (uint32_t group = level->first; group < level->first + level->count; group++) {
        memset(g->inside + (size_t) group * experts, 0, experts * sizeof *g->inside);
    }
    for (uint32_t a = 0; a < experts; a++) {
        for (uint32_t b = 0; b < experts && is_member(g, level, a); b++) {
            g->inside[(size_t) g->group_of[a] * experts + b] += g->together[a * experts + b];
        }
    }
    bool again = true;
    for (uint32_t pass = 0; again && pass < g->view->parameters[PASSES]; pass++) {
        again = false;
        for (uint32_t a = 0; a < experts; a++) {
            for (uint32_t b = a + 1; b < experts && is_member(g, level, a); b++) {
                const uint32_t of_a = g->group_of[a];
                const uint32_t of_b = g->group_of[b];
                if (!is_member(g, level, b) || of_a == of_b) {
                    continue;
                }
                const uint32_t *in_a = g->inside + (size_t) of_a * experts;
                const uint32_t *in_b = g->inside + (size_t) of_b * experts;
                const uint64_t now = (uint64_t) in_a[a] + in_b[b];
                const uint64_t both = 2 * (uint64_t) g->together[a * experts + b];
                if ((uint64_t) in_b[a] + in_a[b] <= now + both) {
                    continue;
                }
                for (uint32_t other = 0; other < experts; other++) {
                    const uint32_t with_a = g->together[a * experts + other];
                    const uint32_t with_b = g->together[b * experts + other];
                    g->inside[(size_t) of_a * experts + other] += with_b - with_a;
                    g->inside[(size_t) of_b * experts + other] += with_a - with_b;
                }
                g->group_of[a] = of_b;
                g->group_of[b] = of_a;
                again = true;
            }
        }
    }
}

/* Sizes of the groups between (1 - ratio) and (1 + ratio) times an even share. */
static struct level level_of(const struct grace *g, uint32_t members, uint32_t groups,
                             uint32_t slots)
{
    const double ratio = g->view->parameters[RATIO];
    const double share = (double) members / groups;
    const uint32_t even = (members + groups - 1) / groups;
    const uint32_t most =
        (1.0 + ratio) * share < slots ? (uint32_t) ((1.0 + ratio) * share) : slots;
    const uint32_t least = ratio < 1.0 ? (uint32_t) ((1.0 - ratio) * share) : 0;
    return (struct level){ .count = groups,
                           .room = most > even ? most : even,
                           .least = least > 1 ? least : 1 };
}

static void group(struct grace *g)
{
    const uint32_t nodes = g->view->shape.node_count;
    const uint32_t gpus = g->gpu_count / nodes;
    struct level level = level_of(g, g->expert_count, nodes, gpus * g->capacity);
    level.all = true;
    grow(g, &level);
    refine(g, &level);
    memcpy(g->node_of, g->group_of, g->expert_count * sizeof *g->node_of);
    for (uint32_t node = 0; node < nodes; node++) {
        uint32_t members = 0;
        for (uint32_t expert = 0; expert < g->expert_count; expert++) {
            members += g->node_of[expert] == node;
        }
        level = level_of(g, members, gpus, g->capacity);
        level.first = node * gpus;
        level.parent = node;
        grow(g, &level);
        refine(g, &level);
    }
}

static uint32_t lightest(const struct grace *g, const uint16_t *slots, uint32_t expert)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t gpu = 0; gpu < g->gpu_count; gpu++) {
        bool holds = false;
        for (uint32_t i = 0; i < g->fill[gpu]; i++) {
            holds |= slots[gpu * g->capacity + i] == expert;
        }
        if (!holds && g->fill[gpu] < g->capacity &&
            (best == UINT32_MAX || g->gpu_load[gpu] < g->gpu_load[best])) {
            best = gpu;
        }
    }
    return best;
}

static void replicate(struct grace *g, uint32_t budget, uint16_t *slots)
{
    uint32_t fullest = 0;
    double mean = 0.0;
    for (uint32_t gpu = 0; gpu < g->gpu_count; gpu++) {
        fullest = g->gpu_load[gpu] > g->gpu_load[fullest] ? gpu : fullest;
        mean += g->gpu_load[gpu] / g->gpu_count;
    }
    if (g->gpu_count == 1 || !(mean > 0.0)) {
        return;
    }
    const double peak = g->gpu_load[fullest];
    uint32_t n = (uint32_t) (peak / mean);
    n = n < 1 ? 1 : n;
    n = n < g->gpu_count - 1 ? n : g->gpu_count - 1;
    for (uint32_t expert = 0; expert < g->expert_count; expert++) {
        g->heat[expert] = g->group_of[expert] == fullest ? g->load[expert] : 0.0;
    }
    moe_greedy_sort(g->heat, g->expert_count, g->hot, g->spare);
    double carried = 0.0;
    for (uint32_t i = 0; i < g->expert_count && carried <= peak * n / (1.0 + n); i++) {
        const uint32_t expert = g->hot[i];
        if (!(g->heat[expert] > 0.0)) {
            break;
        }
        carried += g->heat[expert];
        for (uint32_t copy = 0; copy < n && budget > 0; copy++) {
            const uint32_t gpu = lightest(g, slots, expert);
            if (gpu == UINT32_MAX) {
                break;
            }
            slots[gpu * g->capacity + g->fill[gpu]++] = (uint16_t) expert;
            g->gpu_load[gpu] += g->heat[expert] / (n + 1);
            g->gpu_load[fullest] -= g->heat[expert] / (n + 1);
            budget--;
        }
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    struct grace g;
    MOE_TRY(set_up(&g, view, scratch, err));
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        g.load = view->load + (size_t) layer * g.expert_count;
        count_together(&g, layer);
        group(&g);
        memset(g.fill, 0, g.gpu_count * sizeof *g.fill);
        memset(g.gpu_load, 0, g.gpu_count * sizeof *g.gpu_load);
        for (uint32_t expert = 0; expert < g.expert_count; expert++) {
            const uint32_t gpu = g.group_of[expert];
            assert(g.fill[gpu] < g.capacity);
            slots[gpu * g.capacity + g.fill[gpu]++] = (uint16_t) expert;
            g.gpu_load[gpu] += g.load[expert];
        }
        replicate(&g, moe_copy_budget(view, layer), slots);
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(grace) = {
    MOE_POLICY_HEADER,
    .name = "grace",
    .summary = "experts that tokens choose together share a node and a GPU; the hot experts of "
               "the fullest GPU get copies on the emptiest",
    .source = "GRACE-MoE, arXiv 2509.25041; grown and exchanged groups instead of spectral "
              "clustering, ratio given instead of found",
    .tie_rule = "of equal attraction the hotter, then the first expert; the first exchange that "
                "helps; of equal GPUs the first",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_ROUTES,
    .numbered = true, /* experts in ascending order find the exchange that helps */
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

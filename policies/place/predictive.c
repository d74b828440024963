/* Predictive replication in its expert-parallel reading: next batch's loads are predicted, each
 * expert gets the copies that they can use, and memory (slots, and the view's budget of copies)
 * takes back those with the fewest tokens. Copies of an expert lie on different GPUs, since two
 * beside each other run no faster; one that finds room only beside another is left out. */
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/predictive_solver.h"
#include "policies/solve/winner_tree.h"
#include "sim/base/no_malloc.h"

enum { ALPHA, SATURATION, CAP };

static const struct moe_policy_parameter parameters[] = {
    [ALPHA] = { .name = "alpha",
                .kind = MOE_PARAMETER_REAL,
                .standard = 1.0,
                .min = 0.0,
                .max = 1.0,
                .help = "weight of the newest batch in the prediction of the next one; 1: the "
                        "newest alone; 0: the window's loads, or what a predictor made of them",
                .source = "the paper predicts one batch ahead with a network of its own" },
    [SATURATION] = { .name = "saturation",
                     .kind = MOE_PARAMETER_REAL,
                     .standard = 0.0,
                     .min = 0.0,
                     .max = 1e9,
                     .help = "tokens that one copy takes before another helps; 0: a layer's "
                             "tokens per slot",
                     .source = "the paper: just enough copies to saturate the GPU; no number" },
    [CAP] = { .name = "cap",
              .kind = MOE_PARAMETER_WHOLE,
              .standard = 0,
              .min = 0,
              .max = 4096,
              .help = "most copies of one expert; 0: one on every GPU",
              .source = "the paper has a hard cap against running out of memory; no number" },
};

struct work {
    double *tokens;   /* [layer][expert] predicted */
    uint32_t *copies; /* [layer][expert] */
    uint64_t *tree;   /* winner tree over all of them */
    uint64_t *order;  /* [expert] */
    double *gpu_load; /* [gpu] */
    uint32_t *fill;   /* [gpu] */
};

static void predict(const struct moe_place_view *view, double *tokens)
{
    const size_t cells = (size_t) view->shape.layer_count * view->shape.expert_count;
    const double alpha = view->parameters[ALPHA];
    if (alpha == 0.0) {
        memcpy(tokens, view->load, cells * sizeof *tokens);
        return;
    }
    for (uint32_t batch = 0; batch < view->batch_count; batch++) {
        const float *row = moe_place_view_batch(view, batch);
        const double weight = batch == 0 ? 1.0 : alpha;
        for (size_t cell = 0; cell < cells; cell++) {
            tokens[cell] = (1.0 - weight) * tokens[cell] + weight * (double) row[cell];
        }
    }
}

/* Copies of every layer within its slots, then of all layers within the budget. */
static void replicate(const struct moe_place_view *view, const struct work *work)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint32_t experts = shape->expert_count;
    const double cap = view->parameters[CAP];
    struct moe_predictive_limits limits = { .least = 1, .most = shape->gpu_count };
    uint64_t all = 0;
    if (cap > 0.0 && cap < limits.most) {
        limits.most = (uint32_t) cap;
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const double *tokens = work->tokens + (size_t) layer * experts;
        uint32_t *copies = work->copies + (size_t) layer * experts;
        double sum = 0.0;
        for (uint32_t expert = 0; expert < experts; expert++) {
            sum += tokens[expert];
        }
        limits.tokens_per_copy = view->parameters[SATURATION];
        if (limits.tokens_per_copy == 0.0) {
            limits.tokens_per_copy = sum / shape->slot_count;
        }
        if (!(limits.tokens_per_copy > 0.0)) {
            limits.tokens_per_copy = 1.0; /* no tokens: a copy each is all that is wanted */
        }
        const uint64_t wanted = moe_predictive_want(tokens, experts, &limits, copies);
        moe_predictive_shrink(tokens, experts, 1, wanted, shape->slot_count, work->tree, copies);
        all += wanted < shape->slot_count ? wanted : shape->slot_count;
    }
    const uint64_t cells = (uint64_t) shape->layer_count * experts;
    if (view->replica_budget_total > 0) {
        moe_predictive_shrink(work->tokens, (uint32_t) cells, 1, all,
                              cells + view->replica_budget_total, work->tree, work->copies);
    }
}

/* order[]: experts by tokens per copy, most first. */
static void order_experts(const struct work *work, const double *tokens, const uint32_t *copies,
                          uint32_t experts)
{
    for (uint32_t expert = 0; expert < experts; expert++) {
        const float share = (float) (tokens[expert] / copies[expert]) + 0.0f;
        const uint64_t key = moe_winner_key(moe_winner_rank_descending(share), expert);
        uint32_t hole = expert;
        for (; hole > 0 && work->order[hole - 1] > key; hole--) {
            work->order[hole] = work->order[hole - 1];
        }
        work->order[hole] = key;
    }
}

static void place_layer(const struct moe_placement_shape *shape, const struct work *work,
                        const double *tokens, const uint32_t *copies, uint16_t *expert_of_slot)
{
    const uint32_t per_gpu = moe_placement_slots_per_gpu(shape);
    memset(work->gpu_load, 0, shape->gpu_count * sizeof *work->gpu_load);
    memset(work->fill, 0, shape->gpu_count * sizeof *work->fill);
    order_experts(work, tokens, copies, shape->expert_count);
    for (uint32_t i = 0; i < shape->expert_count; i++) {
        const uint32_t expert = (uint32_t) work->order[i];
        const double share = tokens[expert] / copies[expert];
        for (uint32_t copy = 0; copy < copies[expert]; copy++) {
            uint32_t found = UINT32_MAX;
            for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
                const uint16_t *last = expert_of_slot + (size_t) gpu * per_gpu + work->fill[gpu];
                if (work->fill[gpu] == per_gpu || (work->fill[gpu] > 0 && last[-1] == expert)) {
                    continue;
                }
                if (found == UINT32_MAX || work->gpu_load[gpu] < work->gpu_load[found]) {
                    found = gpu;
                }
            }
            if (found == UINT32_MAX) {
                break; /* room only beside another copy of it */
            }
            expert_of_slot[(size_t) found * per_gpu + work->fill[found]++] = (uint16_t) expert;
            work->gpu_load[found] += share;
        }
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    const struct work work = {
        .tokens = MOE_NEW(scratch, double, cells),
        .copies = MOE_NEW(scratch, uint32_t, cells),
        .tree = MOE_NEW(scratch, uint64_t, 2 * (size_t) moe_winner_leaf_count((uint32_t) cells)),
        .order = MOE_NEW(scratch, uint64_t, shape->expert_count),
        .gpu_load = MOE_NEW(scratch, double, shape->gpu_count),
        .fill = MOE_NEW(scratch, uint32_t, shape->gpu_count),
    };
    if (work.tokens == NULL || work.copies == NULL || work.tree == NULL || work.order == NULL ||
        work.gpu_load == NULL || work.fill == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to replicate %zu experts", cells);
    }
    predict(view, work.tokens);
    replicate(view, &work);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const size_t first = (size_t) layer * shape->expert_count;
        place_layer(shape, &work, work.tokens + first, work.copies + first,
                    moe_placement_layer(plan, layer));
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(predictive) = {
    MOE_POLICY_HEADER,
    .name = "predictive",
    .summary = "predictive replication: as many copies as the next batch's predicted tokens can "
               "use, under a cap of memory, each on a GPU of its own",
    .source = "arXiv 2605.11537, expert-parallel reading; its code has no replication, so the rule "
              "is reconstructed (predictive_solver.h)",
    .tie_rule = "of equal tokens per copy the first expert, of equally loaded GPUs the first",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_BATCHES,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

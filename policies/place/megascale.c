/* MegaScale's greedy copies: an expert that would overload a GPU by itself is copied until each
 * copy fits, and no other is. Going down the load, an expert gets as many copies as bring its
 * load per copy to `target` times the mean GPU load, hottest first while slots last; then all
 * copies, heaviest first, go to the least loaded GPU with room that does not hold the expert yet.
 * Slots that no expert needs stay empty, and their memory free for the KV cache.
 *
 * The paper spreads fractions of experts over GPUs of an expert pool by a greedy approximation;
 * of it the notes keep "copies of historically hot experts". Fractions that differ per copy need
 * a dispatcher that knows them; here copies share evenly, as in all other policies. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/copy_budget.h"
#include "policies/solve/greedy.h"
#include "sim/base/no_malloc.h"

enum { TARGET };

static const struct moe_policy_parameter parameters[] = {
    [TARGET] = { .name = "target",
                 .kind = MOE_PARAMETER_REAL,
                 .standard = 0.5,
                 .min = 0.01,
                 .max = 100,
                 .help = "largest load of a copy, in mean GPU loads",
                 .source = "own" },
};

struct megascale {
    struct moe_greedy greedy;
    uint32_t *copies; /* [expert_count] */
    double *unit;     /* [expert_count] load per copy */
    uint32_t *order;  /* [expert_count] */
    uint32_t *fill;   /* [gpu_count] */
    double *gpu_load; /* [gpu_count] */
};

static void replicate(struct megascale *m, const struct moe_place_view *view, uint32_t layer,
                      const double *load)
{
    const struct moe_placement_shape *shape = &view->shape;
    uint32_t left = moe_copy_budget(view, layer);
    double total = 0.0;
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        total += load[expert];
    }
    const double limit = view->parameters[TARGET] * total / shape->gpu_count;
    moe_greedy_sort(load, shape->expert_count, m->order, m->greedy.spare);
    for (uint32_t i = 0; i < shape->expert_count; i++) {
        const uint32_t expert = m->order[i];
        const double wanted = limit > 0.0 ? ceil(load[expert] / limit) - 1.0 : 0.0;
        const uint32_t most = left < shape->gpu_count - 1 ? left : shape->gpu_count - 1;
        const uint32_t extra = wanted < most ? (wanted > 0.0 ? (uint32_t) wanted : 0) : most;
        m->copies[expert] = 1 + extra;
        m->unit[expert] = load[expert] / m->copies[expert];
        left -= extra;
    }
}

static uint32_t choose_gpu(const struct megascale *m, const struct moe_placement_shape *shape,
                           const uint16_t *slots, uint32_t expert)
{
    const uint32_t capacity = moe_placement_slots_per_gpu(shape);
    uint32_t best = UINT32_MAX;
    bool best_holds = true;
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        bool holds = false;
        if (m->fill[gpu] == capacity) {
            continue;
        }
        for (uint32_t i = 0; i < m->fill[gpu]; i++) {
            holds |= slots[gpu * capacity + i] == expert;
        }
        if (best == UINT32_MAX || (best_holds && !holds) ||
            (best_holds == holds && m->gpu_load[gpu] < m->gpu_load[best])) {
            best = gpu;
            best_holds = holds;
        }
    }
    assert(best != UINT32_MAX);
    return best;
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint32_t capacity = moe_placement_slots_per_gpu(shape);
    struct megascale m = {
        .copies = MOE_NEW(scratch, uint32_t, shape->expert_count),
        .unit = MOE_NEW(scratch, double, shape->expert_count),
        .order = MOE_NEW(scratch, uint32_t, shape->expert_count),
        .fill = MOE_NEW(scratch, uint32_t, shape->gpu_count),
        .gpu_load = MOE_NEW(scratch, double, shape->gpu_count),
    };
    if (m.copies == NULL || m.unit == NULL || m.order == NULL || m.fill == NULL ||
        m.gpu_load == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to place %u experts", shape->expert_count);
    }
    MOE_TRY(moe_greedy_init(&m.greedy, scratch, shape->expert_count, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        replicate(&m, view, layer, view->load + (size_t) layer * shape->expert_count);
        memset(m.fill, 0, shape->gpu_count * sizeof *m.fill);
        memset(m.gpu_load, 0, shape->gpu_count * sizeof *m.gpu_load);
        moe_greedy_sort(m.unit, shape->expert_count, m.order, m.greedy.spare);
        for (uint32_t i = 0; i < shape->expert_count; i++) {
            const uint32_t expert = m.order[i];
            for (uint32_t copy = 0; copy < m.copies[expert]; copy++) {
                const uint32_t gpu = choose_gpu(&m, shape, slots, expert);
                slots[gpu * capacity + m.fill[gpu]++] = (uint16_t) expert;
                m.gpu_load[gpu] += m.unit[expert];
            }
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(megascale) = {
    MOE_POLICY_HEADER,
    .name = "megascale",
    .summary = "copies only for experts too hot for a GPU, as many as they need; other slots "
               "stay empty",
    .source = "MegaScale-Infer, arXiv 2504.02263 (greedy copies of historically hot experts); "
              "its fractions made even shares",
    .tie_rule = "of equal loads the first expert, of equal GPUs the first",
    .needs = MOE_POLICY_NEEDS_LOAD,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

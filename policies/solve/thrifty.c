#include "policies/solve/thrifty.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum moe_status moe_thrifty_init(struct moe_thrifty *t, struct moe_arena *arena,
                                 const struct moe_placement_shape *shape, struct moe_error *err)
{
    *t = (struct moe_thrifty){
        .shape = *shape,
        .capacity = moe_placement_slots_per_gpu(shape),
        .weight = MOE_NEW(arena, double, shape->expert_count),
        .spread = MOE_NEW(arena, double, shape->expert_count),
        .gpu_load = MOE_NEW(arena, double, shape->gpu_count),
        .copies = MOE_NEW(arena, uint32_t, shape->expert_count),
        .busy = MOE_NEW(arena, uint8_t, shape->gpu_count),
        .rank_of_slot = MOE_NEW(arena, uint16_t, shape->slot_count),
        .copy_count = MOE_NEW(arena, uint16_t, shape->expert_count),
    };
    if (t->weight == NULL || t->spread == NULL || t->gpu_load == NULL || t->copies == NULL ||
        t->busy == NULL || t->rank_of_slot == NULL || t->copy_count == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to rebalance %u experts", shape->expert_count);
    }
    MOE_TRY(moe_eplb_solver_init(&t->eplb, arena, shape, err));
    return moe_realign_init(&t->realign, arena, shape->gpu_count, t->capacity, shape->expert_count,
                            err);
}

static const float *batch_of(const struct moe_place_view *view, uint32_t batch, uint32_t layer)
{
    return moe_place_view_batch(view, batch) + (size_t) layer * view->shape.expert_count;
}

void moe_thrifty_average(struct moe_thrifty *t, const struct moe_place_view *view, uint32_t layer,
                         uint32_t begin, uint32_t end, double oldest, double newest)
{
    const uint32_t experts = t->shape.expert_count;
    const double step = end - begin > 1 ? (newest - oldest) / (end - begin - 1) : 0.0;
    const double total = (end - begin) * (oldest + newest) / 2.0;
    memset(t->weight, 0, experts * sizeof *t->weight);
    memset(t->spread, 0, experts * sizeof *t->spread);
    for (uint32_t batch = begin; batch < end; batch++) {
        const float *load = batch_of(view, batch, layer);
        const double share = end - begin > 1 ? (oldest + step * (batch - begin)) / total : 1.0;
        for (uint32_t expert = 0; expert < experts; expert++) {
            t->weight[expert] += share * (double) load[expert];
        }
    }
    for (uint32_t batch = begin; batch < end && end - begin > 1; batch++) {
        const float *load = batch_of(view, batch, layer);
        const double share = (oldest + step * (batch - begin)) / total;
        for (uint32_t expert = 0; expert < experts; expert++) {
            const double off = (double) load[expert] - t->weight[expert];
            t->spread[expert] += share * off * off;
        }
    }
    for (uint32_t expert = 0; expert < experts; expert++) {
        t->spread[expert] = sqrt(t->spread[expert]);
    }
}

double moe_thrifty_drift(const struct moe_place_view *view, uint32_t layer)
{
    const uint32_t half = view->batch_count / 2;
    double sum[2] = { 0.0, 0.0 };
    double drift = 0.0;
    for (uint32_t batch = 0; batch < view->batch_count; batch++) {
        for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
            sum[batch >= half] += (double) batch_of(view, batch, layer)[expert];
        }
    }
    if (!(sum[0] > 0.0 && sum[1] > 0.0)) {
        return 0.0;
    }
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        double share[2] = { 0.0, 0.0 };
        for (uint32_t batch = 0; batch < view->batch_count; batch++) {
            share[batch >= half] += (double) batch_of(view, batch, layer)[expert];
        }
        drift += fabs(share[0] / sum[0] - share[1] / sum[1]);
    }
    return drift / 2.0;
}

static double copy_load(const struct moe_thrifty *t, uint16_t expert)
{
    return expert == MOE_SLOT_EMPTY ? 0.0 : t->weight[expert] / t->copies[expert];
}

double moe_thrifty_measure(struct moe_thrifty *t, const uint16_t *row)
{
    double total = 0.0;
    double max = 0.0;
    memset(t->copies, 0, t->shape.expert_count * sizeof *t->copies);
    for (uint32_t slot = 0; slot < t->shape.slot_count; slot++) {
        if (row[slot] != MOE_SLOT_EMPTY) {
            t->copies[row[slot]]++;
        }
    }
    for (uint32_t gpu = 0; gpu < t->shape.gpu_count; gpu++) {
        double load = 0.0;
        for (uint32_t i = 0; i < t->capacity; i++) {
            load += copy_load(t, row[gpu * t->capacity + i]);
        }
        t->gpu_load[gpu] = load;
        total += load;
        max = load > max ? load : max;
    }
    return total > 0.0 ? max * t->shape.gpu_count / total : 1.0;
}

void moe_thrifty_replan(struct moe_thrifty *t, const uint16_t *before, uint16_t *plan)
{
    const bool bound = t->shape.group_count % t->shape.node_count == 0;
    const struct moe_eplb_layer layer = { .expert_of_slot = plan,
                                          .rank_of_slot = t->rank_of_slot,
                                          .copies = t->copy_count };
    moe_eplb_solver_run(&t->eplb, t->weight, &layer);
    moe_realign_gpus(&t->realign, before, plan,
                     bound ? t->shape.gpu_count / t->shape.node_count : t->shape.gpu_count);
}

static bool holds(const struct moe_thrifty *t, const uint16_t *row, uint32_t gpu, uint16_t expert)
{
    for (uint32_t i = 0; i < t->capacity; i++) {
        if (row[gpu * t->capacity + i] == expert) {
            return expert != MOE_SLOT_EMPTY;
        }
    }
    return false;
}

struct exchange {
    double worth; /* the larger of the two loads afterwards */
    uint32_t from;
    uint32_t to;
};

static void look_at(const struct moe_thrifty *t, const uint16_t *row, uint32_t full, uint32_t other,
                    struct exchange *best)
{
    for (uint32_t i = full * t->capacity; i < (full + 1) * t->capacity; i++) {
        if (row[i] == MOE_SLOT_EMPTY || holds(t, row, other, row[i])) {
            continue;
        }
        for (uint32_t j = other * t->capacity; j < (other + 1) * t->capacity; j++) {
            const double moved = copy_load(t, row[i]) - copy_load(t, row[j]);
            const double worth = fmax(t->gpu_load[full] - moved, t->gpu_load[other] + moved);
            if (moved > 0.0 && worth < best->worth && !holds(t, row, full, row[j])) {
                *best = (struct exchange){ worth, i, j };
            }
        }
    }
}

bool moe_thrifty_exchange(struct moe_thrifty *t, uint16_t *row, uint32_t *fullest,
                          uint32_t *partner)
{
    uint32_t full = UINT32_MAX;
    for (uint32_t gpu = 0; gpu < t->shape.gpu_count; gpu++) {
        if (!t->busy[gpu] && (full == UINT32_MAX || t->gpu_load[gpu] > t->gpu_load[full])) {
            full = gpu;
        }
    }
    if (full == UINT32_MAX) {
        return false;
    }
    /* A hair less than now, so that rounding alone is no gain and exchanges come to an end. */
    const double enough = t->gpu_load[full] * (1.0 - 1e-9);
    struct exchange best = { .worth = enough };
    for (uint32_t other = 0; other < t->shape.gpu_count; other++) {
        if (other != full && !t->busy[other]) {
            look_at(t, row, full, other, &best);
        }
    }
    if (!(best.worth < enough)) {
        return false;
    }
    assert(t->capacity > 0);
    const uint16_t moved = row[best.from];
    row[best.from] = row[best.to];
    row[best.to] = moved;
    *fullest = full;
    *partner = best.to / t->capacity;
    (void) moe_thrifty_measure(t, row);
    return true;
}

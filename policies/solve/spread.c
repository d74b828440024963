/* Source by source over all experts, because the quotas lie so in memory: at 64 GPUs a walk down
 * the sources of one copy would touch a cache line for each. */
#include "policies/solve/spread.h"

#include <assert.h>
#include <string.h>

#include "sim/base/no_malloc.h"

const char *const moe_spread_ways[] = { "share", "gpu", "node", NULL };

enum moe_status moe_spread_init(struct moe_spread *spread, struct moe_arena *arena,
                                const struct moe_placement_shape *shape, struct moe_error *err)
{
    spread->copy = MOE_NEW(arena, struct moe_spread_copy, shape->slot_count);
    spread->divided = MOE_NEW(arena, uint16_t, shape->expert_count);
    if (spread->copy == NULL || spread->divided == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to spread the tokens of %u experts over %u slots",
                        shape->expert_count, shape->slot_count);
    }
    return MOE_OK;
}

void moe_spread_first(const struct moe_dispatch_view *view, uint32_t *quota)
{
    const uint32_t experts = view->shape.expert_count;
    for (uint32_t source = 0; source < view->shape.gpu_count; source++) {
        const uint32_t *demand = view->demand + (size_t) source * experts;
        uint32_t *row = quota + (size_t) source * view->copy_count;
        for (uint32_t expert = 0; expert < experts; expert++) {
            row[view->first_copy[expert]] = demand[expert];
        }
    }
}

/* Experts with tokens whose first copy is not to have them all. */
static uint32_t list_divided(struct moe_spread *spread, const struct moe_dispatch_view *view,
                             const uint64_t *goal)
{
    uint32_t count = 0;
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        const uint32_t begin = view->first_copy[expert];
        const uint32_t end = view->first_copy[expert + 1];
        if (goal[begin] == view->expert_total[expert]) {
            continue;
        }
        assert(view->expert_total[expert] <= INT32_MAX);
        spread->divided[count++] = (uint16_t) expert;
        for (uint32_t copy = begin; copy < end; copy++) {
            spread->copy[copy] = (struct moe_spread_copy){ .goal = (int64_t) goal[copy] };
        }
    }
    return count;
}

/* To a copy from the sources first .. end-1, as much as both sides have left. */
static void send_near(struct moe_spread *spread, const struct moe_dispatch_view *view,
                      uint32_t expert, uint32_t copy, uint32_t first, uint32_t end, uint32_t *quota)
{
    int64_t *goal = &spread->copy[copy].goal;
    for (uint32_t source = first; source<end && * goal> 0; source++) {
        uint32_t *row = quota + (size_t) source * view->copy_count;
        uint32_t left = view->demand[(size_t) source * view->shape.expert_count + expert];
        for (uint32_t i = view->first_copy[expert]; i < view->first_copy[expert + 1]; i++) {
            left -= row[i];
        }
        const uint32_t sent = left < *goal ? left : (uint32_t) *goal;
        row[copy] += sent;
        *goal -= sent;
    }
}

static void send_all_near(struct moe_spread *spread, const struct moe_dispatch_view *view,
                          uint32_t expert, enum moe_spread_way way, uint32_t *quota)
{
    const uint32_t node_gpus = view->shape.gpu_count / view->shape.node_count;
    const uint32_t begin = view->first_copy[expert];
    const uint32_t end = view->first_copy[expert + 1];
    assert(node_gpus > 0);
    for (uint32_t copy = begin; copy < end; copy++) {
        const uint32_t gpu = view->gpu_of_copy[copy];
        send_near(spread, view, expert, copy, gpu, gpu + 1, quota);
    }
    for (uint32_t copy = begin; way == MOE_SPREAD_NODE && copy < end; copy++) {
        const uint32_t first = view->gpu_of_copy[copy] / node_gpus * node_gpus;
        send_near(spread, view, expert, copy, first, first + node_gpus, quota);
    }
}

/* What is left of an expert's tokens: copy after copy takes its part of every source's rest, so
 * the last takes all there is, unless tokens are dropped. */
static void begin_sharing(struct moe_spread *spread, const struct moe_dispatch_view *view,
                          uint32_t expert, const uint64_t *goal)
{
    int64_t rest = (int64_t) view->expert_total[expert];
    for (uint32_t i = view->first_copy[expert]; i < view->first_copy[expert + 1]; i++) {
        rest -= (int64_t) goal[i] - spread->copy[i].goal; /* sent near */
    }
    for (uint32_t i = view->first_copy[expert]; i < view->first_copy[expert + 1]; i++) {
        struct moe_spread_copy *copy = &spread->copy[i];
        assert(copy->goal <= rest);
        copy->rest = rest > 0 ? rest : 1;
        copy->inverse = 1.0 / (double) copy->rest;
        rest -= copy->goal;
    }
}

static void share(struct moe_spread_copy *copy, uint32_t copies, uint32_t demand, uint32_t *row)
{
    uint32_t left = demand;
    for (uint32_t i = 0; i < copies; i++) {
        left -= row[i];
    }
    for (uint32_t i = 0; i < copies; i++) {
        uint32_t goes = left; /* of a copy that takes all there is: mostly the last */
        if (copy[i].goal < copy[i].rest) {
            copy[i].seen += left;
            const int64_t upto =
                moe_spread_portion(copy[i].seen, copy[i].goal, copy[i].rest, copy[i].inverse);
            goes = (uint32_t) (upto - copy[i].sent);
            copy[i].sent = upto;
        }
        row[i] += goes;
        left -= goes;
    }
}

void moe_spread_goals(struct moe_spread *spread, const struct moe_dispatch_view *view,
                      const uint64_t *goal, enum moe_spread_way way, uint32_t *quota)
{
    const uint32_t gpus = view->shape.gpu_count;
    const uint32_t count = list_divided(spread, view, goal);
    for (uint32_t source = 0; source < gpus; source++) {
        uint32_t *row = quota + (size_t) source * view->copy_count;
        for (uint32_t i = 0; i < count; i++) {
            row[view->first_copy[spread->divided[i]]] = 0;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (way != MOE_SPREAD_SHARE) {
            send_all_near(spread, view, spread->divided[i], way, quota);
        }
        begin_sharing(spread, view, spread->divided[i], goal);
    }
    for (uint32_t source = 0; source < gpus; source++) {
        const uint32_t *demand = view->demand + (size_t) source * view->shape.expert_count;
        uint32_t *row = quota + (size_t) source * view->copy_count;
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t expert = spread->divided[i];
            const uint32_t begin = view->first_copy[expert];
            share(spread->copy + begin, view->first_copy[expert + 1] - begin, demand[expert],
                  row + begin);
        }
    }
}

#include "policies/spread.h"

#include <assert.h>
#include <string.h>

#include "sim/base/no_malloc.h"

const char *const moe_spread_ways[] = { "share", "gpu", "node", NULL };

enum moe_status moe_spread_init(struct moe_spread *spread, struct moe_arena *arena,
                                const struct moe_placement_shape *shape, struct moe_error *err)
{
    spread->left = MOE_NEW(arena, uint32_t, shape->gpu_count);
    spread->goal = MOE_NEW(arena, uint64_t, shape->slot_count);
    if (spread->left == NULL || spread->goal == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to spread the tokens of %u GPUs over %u slots",
                        shape->gpu_count, shape->slot_count);
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

/* To every copy from the sources first .. end-1, as much as both sides have left. */
static void send_within(struct moe_spread *spread, const struct moe_dispatch_view *view,
                        uint32_t copy, uint32_t first, uint32_t end, uint64_t *goal,
                        uint32_t *quota)
{
    for (uint32_t source = first; source<end && * goal> 0; source++) {
        const uint32_t sent =
            spread->left[source] < *goal ? spread->left[source] : (uint32_t) *goal;
        quota[(size_t) source * view->copy_count + copy] += sent;
        spread->left[source] -= sent;
        *goal -= sent;
    }
}

/* The goals share what the sources have left: copy after copy takes its part of every source's
 * rest, so the last takes all there is, unless tokens are dropped. */
static void send_shares(struct moe_spread *spread, const struct moe_dispatch_view *view,
                        uint32_t expert, const uint64_t *goal, uint32_t *quota)
{
    const uint32_t gpus = view->shape.gpu_count;
    const uint32_t begin = view->first_copy[expert];
    const uint32_t end = view->first_copy[expert + 1];
    uint64_t rest = 0;
    for (uint32_t source = 0; source < gpus; source++) {
        rest += spread->left[source];
    }
    for (uint32_t copy = begin; copy < end; copy++) {
        const uint64_t part = goal[copy - begin];
        assert(part <= rest);
        if (part == 0) {
            continue;
        }
        const double inverse = 1.0 / (double) rest;
        uint64_t seen = 0;
        uint64_t sent = 0;
        uint32_t *column = quota + copy;
        for (uint32_t source = 0; source < gpus; source++, column += view->copy_count) {
            seen += spread->left[source];
            const uint64_t goes = moe_spread_portion(seen, part, rest, inverse) - sent;
            sent += goes;
            *column += (uint32_t) goes;
            spread->left[source] -= (uint32_t) goes;
        }
        assert(sent == part);
        rest -= part;
    }
}

void moe_spread_expert(struct moe_spread *spread, const struct moe_dispatch_view *view,
                       uint32_t expert, const uint64_t *goal, enum moe_spread_way way,
                       uint32_t *quota)
{
    const uint32_t experts = view->shape.expert_count;
    const uint32_t gpus = view->shape.gpu_count;
    const uint32_t node_gpus = gpus / view->shape.node_count;
    const uint32_t begin = view->first_copy[expert];
    const uint32_t copies = view->first_copy[expert + 1] - begin;
    assert(view->expert_total[expert] <= UINT32_MAX);
    for (uint32_t source = 0; source < gpus; source++) {
        spread->left[source] = view->demand[(size_t) source * experts + expert];
        memset(quota + (size_t) source * view->copy_count + begin, 0, copies * sizeof *quota);
    }
    if (way == MOE_SPREAD_SHARE) {
        send_shares(spread, view, expert, goal, quota);
        return;
    }
    uint64_t *unmet = spread->goal;
    for (uint32_t copy = 0; copy < copies; copy++) {
        const uint32_t gpu = view->gpu_of_copy[begin + copy];
        unmet[copy] = goal[copy];
        send_within(spread, view, begin + copy, gpu, gpu + 1, &unmet[copy], quota);
    }
    for (uint32_t copy = 0; way == MOE_SPREAD_NEAR_NODE && copy < copies; copy++) {
        const uint32_t node = view->gpu_of_copy[begin + copy] / node_gpus;
        send_within(spread, view, begin + copy, node * node_gpus, (node + 1) * node_gpus,
                    &unmet[copy], quota);
    }
    send_shares(spread, view, expert, unmet, quota);
}

void moe_spread_split(struct moe_spread *spread, const struct moe_dispatch_view *view,
                      const struct moe_hosts *hosts, const struct moe_split *split,
                      enum moe_spread_way way, uint32_t *quota)
{
    for (uint32_t item = 0; item < split->item_count; item++) {
        const uint32_t expert = split->item_expert[item];
        const uint32_t begin = view->first_copy[expert];
        uint64_t *goal = spread->goal;
        memset(goal, 0, (view->first_copy[expert + 1] - begin) * sizeof *goal);
        for (uint32_t edge = split->first_edge[item]; edge < split->first_edge[item + 1]; edge++) {
            const uint32_t host = hosts->first_host[expert] + edge - split->first_edge[item];
            goal[hosts->first_copy_of_host[host] - begin] = (uint64_t) split->flow[edge];
        }
        moe_spread_expert(spread, view, expert, goal, way, quota);
    }
}

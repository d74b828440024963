#include "policies/solve/fetch_plan.h"

#include <assert.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum { ABSENT, LASTING, FETCHED };

enum moe_status moe_fetch_plan_init(struct moe_fetch_plan *plan, struct moe_arena *arena,
                                    const struct moe_placement_shape *shape, struct moe_error *err)
{
    *plan = (struct moe_fetch_plan){
        .gpu_count = shape->gpu_count,
        .expert_count = shape->expert_count,
        .gift_limit = shape->slot_count,
        .has = MOE_NEW(arena, uint8_t, (size_t) shape->expert_count * shape->gpu_count),
        .used = MOE_NEW(arena, uint32_t, shape->gpu_count),
        .home = MOE_NEW(arena, uint16_t, shape->expert_count),
        .gift = MOE_NEW(arena, struct moe_fetch_gift, shape->slot_count),
    };
    if (plan->has == NULL || plan->used == NULL || plan->home == NULL || plan->gift == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to plan which of %u experts are fetched",
                        shape->expert_count);
    }
    return MOE_OK;
}

void moe_fetch_plan_begin(struct moe_fetch_plan *plan, const struct moe_dispatch_view *view)
{
    memset(plan->has, ABSENT, (size_t) plan->expert_count * plan->gpu_count);
    memset(plan->used, 0, plan->gpu_count * sizeof *plan->used);
    for (uint32_t expert = 0; expert < plan->expert_count; expert++) {
        const uint32_t begin = view->first_copy[expert];
        plan->home[expert] = view->gpu_of_copy[begin];
        for (uint32_t copy = begin; copy < view->first_copy[expert + 1]; copy++) {
            plan->has[(size_t) expert * plan->gpu_count + view->gpu_of_copy[copy]] = LASTING;
        }
    }
    plan->limit = view->fetch_limit;
    plan->gift_count = 0;
    plan->made = false;
}

void moe_fetch_plan_again(struct moe_fetch_plan *plan)
{
    for (uint32_t i = 0; i < plan->gift_count; i++) {
        uint8_t *has =
            &plan->has[(size_t) plan->gift[i].expert * plan->gpu_count + plan->gift[i].gpu];
        *has = *has == FETCHED ? ABSENT : *has;
    }
    memset(plan->used, 0, plan->gpu_count * sizeof *plan->used);
    plan->gift_count = 0;
}

void moe_fetch_plan_give(struct moe_fetch_plan *plan, uint32_t expert, uint32_t gpu, int64_t tokens)
{
    uint8_t *has = &plan->has[(size_t) expert * plan->gpu_count + gpu];
    assert(tokens > 0 && moe_fetch_plan_may(plan, expert, gpu));
    if (*has == ABSENT) {
        *has = FETCHED;
        plan->used[gpu]++;
    }
    /* An expert's gifts come one after the other, so its last ones are looked at first. */
    for (uint32_t i = plan->gift_count; i-- > 0;) {
        if (plan->gift[i].expert == expert && plan->gift[i].gpu == gpu) {
            plan->gift[i].tokens += tokens;
            return;
        }
    }
    assert(plan->gift_count < plan->gift_limit);
    plan->gift[plan->gift_count++] = (struct moe_fetch_gift){ expert, gpu, tokens };
}

void moe_fetch_plan_answer(struct moe_fetch_plan *plan, struct moe_dispatch_fetch *fetch,
                           uint32_t *count)
{
    *count = 0;
    for (uint32_t i = 0; i < plan->gift_count; i++) {
        const struct moe_fetch_gift *gift = &plan->gift[i];
        if (plan->has[(size_t) gift->expert * plan->gpu_count + gift->gpu] == FETCHED) {
            fetch[(*count)++] = (struct moe_dispatch_fetch){ .expert = (uint16_t) gift->expert,
                                                             .gpu = (uint16_t) gift->gpu };
        }
    }
    plan->made = true;
}

static uint32_t copy_on(const struct moe_dispatch_view *view, uint32_t expert, uint32_t gpu)
{
    uint32_t copy = view->first_copy[expert];
    while (view->gpu_of_copy[copy] != gpu) {
        copy++;
        assert(copy < view->first_copy[expert + 1]);
    }
    return copy;
}

void moe_fetch_plan_goals(struct moe_fetch_plan *plan, const struct moe_dispatch_view *view,
                          uint64_t *goal)
{
    memset(goal, 0, view->copy_count * sizeof *goal);
    for (uint32_t expert = 0; expert < plan->expert_count; expert++) {
        goal[copy_on(view, expert, plan->home[expert])] = view->expert_total[expert];
    }
    for (uint32_t i = 0; i < plan->gift_count; i++) {
        const struct moe_fetch_gift *gift = &plan->gift[i];
        goal[copy_on(view, gift->expert, plan->home[gift->expert])] -= (uint64_t) gift->tokens;
        goal[copy_on(view, gift->expert, gift->gpu)] += (uint64_t) gift->tokens;
    }
    plan->made = false;
}

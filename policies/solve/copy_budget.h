/*
 * Copy budget: how many copies beyond the first a policy that knows no better may make in one
 * layer: all spare slots, or an even share of the view's total budget (the first layers take
 * the remainder).
 */
#ifndef MOE_POLICIES_COPY_BUDGET_H
#define MOE_POLICIES_COPY_BUDGET_H

#include <stdint.h>

#include "policies/policy_view.h"

static inline uint32_t moe_copy_budget(const struct moe_place_view *view, uint32_t layer)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint32_t spare = shape->slot_count - shape->expert_count;
    const uint32_t share = view->replica_budget_total / shape->layer_count +
                           (layer < view->replica_budget_total % shape->layer_count);
    return view->replica_budget_total == 0 || share > spare ? spare : share;
}

#endif

/*
 * What the ViBE policies share: scaling a window's loads to one step, and slots.
 *
 * Curves are measured in tokens of one step and layer; a window's loads are sums over many.
 * The step is taken to be step_tokens assignments per layer, in the mix of the window.
 */
#ifndef MOE_POLICIES_VIBE_PLAN_H
#define MOE_POLICIES_VIBE_PLAN_H

#include "policies/policy_view.h"

/* What one layer of load is multiplied by so that it sums to step_tokens, or with
 * step_tokens = 0 to a batch's share of it: 1 / batch_count. 0 for a layer without load. */
double moe_vibe_scale(const struct moe_place_view *view, const double *load, double step_tokens);

/* expert_of_slot[slot_count] of one layer from its GPUs: ascending experts, the rest empty. */
void moe_vibe_fill_slots(const struct moe_placement_shape *shape, const uint32_t *gpu_of_expert,
                         uint16_t *expert_of_slot);

#endif

/* ViBE: finish-time balance by the measured speed of every GPU, solved anew. */
#include "policies/policy.h"
#include "policies/solve/vibe_plan.h"
#include "policies/solve/vibe_solver.h"
#include "sim/base/no_malloc.h"

enum { STEP_TOKENS };

static const struct moe_policy_parameter parameters[] = {
    [STEP_TOKENS] = { .name = "step_tokens",
                      .kind = MOE_PARAMETER_REAL,
                      .standard = 0.0,
                      .min = 0.0,
                      .max = 1e9,
                      .help = "assignments per layer of the step that is balanced, over all GPUs; "
                              "0: those of a mean planning batch",
                      .source = "own; the paper does not say at which batch it balances" },
};

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    struct moe_vibe vibe;
    MOE_TRY(moe_vibe_init(&vibe, scratch, shape->expert_count, shape->gpu_count, view->speed, err));
    double *load = MOE_NEW(scratch, double, shape->expert_count);
    uint32_t *gpu_of_expert = MOE_NEW(scratch, uint32_t, shape->expert_count);
    if (load == NULL || gpu_of_expert == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to place %u experts", shape->expert_count);
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const double *counts = view->load + (size_t) layer * shape->expert_count;
        const double scale = moe_vibe_scale(view, counts, view->parameters[STEP_TOKENS]);
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            load[expert] = counts[expert] * scale;
        }
        moe_vibe_solve(&vibe, load, gpu_of_expert);
        moe_vibe_fill_slots(shape, gpu_of_expert, moe_placement_layer(plan, layer));
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(vibe) = {
    MOE_POLICY_HEADER,
    .name = "vibe",
    .summary = "ViBE: one copy each, equally many experts per GPU, the slowest GPU's measured "
               "finish time smallest; spare slots stay empty",
    .source = "arXiv 2606.00735; objective from the paper, solver own (vibe_solver.h)",
    .tie_rule = "of equal loads the first expert, of equal finish times the first GPU, of equally "
                "good exchanges the first pair of experts",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_BATCHES | MOE_POLICY_NEEDS_GPU_SPEED,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

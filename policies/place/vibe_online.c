/* ViBE between two plans: keeps the placement in force until the routing has drifted, then
 * repairs it with a few exchanges. A view holds no earlier window, so drift is measured inside
 * this one: its older half against its newer half, which is what is planned on. A layer whose
 * placement in force has copies or lopsided GPUs is not ViBE's and is solved anew. */
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/vibe_plan.h"
#include "policies/solve/vibe_solver.h"
#include "sim/base/no_malloc.h"

enum { STEP_TOKENS, THETA, SWAPS };

static const struct moe_policy_parameter parameters[] = {
    [STEP_TOKENS] = { .name = "step_tokens",
                      .kind = MOE_PARAMETER_REAL,
                      .standard = 0.0,
                      .min = 0.0,
                      .max = 1e9,
                      .help = "assignments per layer of the step that is balanced, over all GPUs; "
                              "0: those of a mean planning batch",
                      .source = "own; the paper does not say at which batch it balances" },
    [THETA] = { .name = "theta",
                .kind = MOE_PARAMETER_REAL,
                .standard = 0.01,
                .min = 0.0,
                .max = 1.0,
                .help = "cosine distance between older and newer loads of a layer above which "
                        "its placement is repaired",
                .source = "own; ViBE has such a threshold and does not state it" },
    [SWAPS] = { .name = "swaps",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 30,
                .min = 0,
                .max = 65534,
                .help = "most exchanges of two experts in a layer",
                .source = "ViBE: 5 to 30 cross-GPU exchanges where solving anew moves over 200" },
};

struct halves {
    double *older; /* [expert_count] */
    double *newer;
};

static void split_window(const struct moe_place_view *view, uint32_t layer,
                         const struct halves *halves)
{
    const uint32_t experts = view->shape.expert_count;
    memset(halves->older, 0, experts * sizeof *halves->older);
    memset(halves->newer, 0, experts * sizeof *halves->newer);
    for (uint32_t batch = 0; batch < view->batch_count; batch++) {
        const float *row = moe_place_view_batch(view, batch) + (size_t) layer * experts;
        /* Of an odd number the middle one is new; a single batch is both. */
        double *sum = batch < view->batch_count / 2 ? halves->older : halves->newer;
        for (uint32_t expert = 0; expert < experts; expert++) {
            sum[expert] += (double) row[expert];
        }
    }
    if (view->batch_count == 1) {
        memcpy(halves->older, halves->newer, experts * sizeof *halves->older);
    }
}

/* Reads one layer in force; false when it is not one copy each, equally many per GPU. */
static bool read_layer(const struct moe_place_view *view, uint32_t layer, uint32_t *gpu_of_expert)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint16_t *slots = moe_placement_layer(view->previous, layer);
    const uint32_t per_gpu = moe_placement_slots_per_gpu(shape);
    const uint32_t base = shape->expert_count / shape->gpu_count;
    memset(gpu_of_expert, 0xff, shape->expert_count * sizeof *gpu_of_expert);
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        uint32_t fill = 0;
        for (uint32_t slot = gpu * per_gpu; slot < (gpu + 1) * per_gpu; slot++) {
            if (slots[slot] == MOE_SLOT_EMPTY) {
                continue;
            }
            if (gpu_of_expert[slots[slot]] != UINT32_MAX) {
                return false;
            }
            gpu_of_expert[slots[slot]] = gpu;
            fill++;
        }
        if (fill < base || fill > base + (shape->expert_count % shape->gpu_count > 0)) {
            return false;
        }
    }
    return true;
}

/* Experts that stay on their GPU keep their slots; newcomers take the slots left free. */
static void keep_slots(const struct moe_place_view *view, uint32_t layer,
                       const uint32_t *gpu_of_expert, uint32_t *was_on, uint16_t *slots)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint16_t *before = moe_placement_layer(view->previous, layer);
    const uint32_t per_gpu = moe_placement_slots_per_gpu(shape);
    memset(was_on, 0xff, shape->expert_count * sizeof *was_on);
    for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
        if (before[slot] != MOE_SLOT_EMPTY && gpu_of_expert[before[slot]] == slot / per_gpu) {
            was_on[before[slot]] = slot / per_gpu;
            slots[slot] = before[slot];
        }
    }
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        uint32_t slot = gpu_of_expert[expert] * per_gpu;
        if (was_on[expert] == gpu_of_expert[expert]) {
            continue;
        }
        while (slots[slot] != MOE_SLOT_EMPTY) {
            slot++;
        }
        slots[slot] = (uint16_t) expert;
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint32_t experts = shape->expert_count;
    struct moe_vibe vibe;
    MOE_TRY(moe_vibe_init(&vibe, scratch, experts, shape->gpu_count, view->speed, err));
    const struct halves halves = { .older = MOE_NEW(scratch, double, experts),
                                   .newer = MOE_NEW(scratch, double, experts) };
    uint32_t *gpu_of_expert = MOE_NEW(scratch, uint32_t, experts);
    uint32_t *was_on = MOE_NEW(scratch, uint32_t, experts);
    if (halves.older == NULL || halves.newer == NULL || gpu_of_expert == NULL || was_on == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to place %u experts", experts);
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        split_window(view, layer, &halves);
        const double drift = moe_vibe_drift(halves.older, halves.newer, experts);
        const uint32_t newer = view->batch_count - view->batch_count / 2;
        double scale = moe_vibe_scale(view, halves.newer, view->parameters[STEP_TOKENS]);
        scale *= view->parameters[STEP_TOKENS] > 0.0 ? 1.0 : (double) view->batch_count / newer;
        for (uint32_t expert = 0; expert < experts; expert++) {
            halves.newer[expert] *= scale;
        }
        if (!read_layer(view, layer, gpu_of_expert)) {
            moe_vibe_solve(&vibe, halves.newer, gpu_of_expert);
            moe_vibe_fill_slots(shape, gpu_of_expert, slots);
            continue;
        }
        if (drift > view->parameters[THETA]) {
            (void) moe_vibe_exchange(&vibe, halves.newer, (uint32_t) view->parameters[SWAPS],
                                     gpu_of_expert);
        }
        keep_slots(view, layer, gpu_of_expert, was_on, slots);
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(vibe_online) = {
    MOE_POLICY_HEADER,
    .name = "vibe_online",
    .summary = "ViBE kept up to date: layers whose loads have turned by more than theta get a few "
               "exchanges of experts, the others stay",
    .source = "arXiv 2606.00735 (drift trigger, incremental re-solve); departs: drift is between "
              "the halves of the planning window",
    .tie_rule = "of equally good exchanges the first expert of the slowest GPU, then the first "
                "partner; of equally slow GPUs the first",
    .needs = MOE_POLICY_NEEDS_BATCHES | MOE_POLICY_NEEDS_GPU_SPEED | MOE_POLICY_NEEDS_PREVIOUS,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

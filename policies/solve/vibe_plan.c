#include "policies/solve/vibe_plan.h"

double moe_vibe_scale(const struct moe_place_view *view, const double *load, double step_tokens)
{
    double sum = 0.0;
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        sum += load[expert];
    }
    if (!(sum > 0.0)) {
        return 0.0;
    }
    return step_tokens > 0.0 ? step_tokens / sum : 1.0 / view->batch_count;
}

void moe_vibe_fill_slots(const struct moe_placement_shape *shape, const uint32_t *gpu_of_expert,
                         uint16_t *expert_of_slot)
{
    const uint32_t per_gpu = moe_placement_slots_per_gpu(shape);
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        uint16_t *slot = expert_of_slot + (size_t) gpu * per_gpu;
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            if (gpu_of_expert[expert] == gpu) {
                *slot++ = (uint16_t) expert;
            }
        }
    }
}

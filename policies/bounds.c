#include "policies/bounds.h"

double moe_bound_perfect(const double *load, uint32_t expert_count, uint32_t gpu_count)
{
    double sum = 0.0;
    for (uint32_t expert = 0; expert < expert_count; expert++) {
        sum += load[expert];
    }
    return sum / gpu_count;
}

double moe_bound_no_copy(const double *load, uint32_t expert_count, uint32_t gpu_count)
{
    double bound = moe_bound_perfect(load, expert_count, gpu_count);
    for (uint32_t expert = 0; expert < expert_count; expert++) {
        bound = load[expert] > bound ? load[expert] : bound;
    }
    return bound;
}

double moe_bound_no_copy_balancedness(const struct moe_placement_shape *shape, const double *load)
{
    double total = 0.0;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const double *row = load + (size_t) layer * shape->expert_count;
        const double bound = moe_bound_no_copy(row, shape->expert_count, shape->gpu_count);
        total += bound > 0.0 ? moe_bound_perfect(row, shape->expert_count, shape->gpu_count) / bound
                             : 1.0;
    }
    return total / shape->layer_count;
}

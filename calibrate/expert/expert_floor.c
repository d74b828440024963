#include "calibrate/expert/expert_floor.h"

#include <assert.h>
#include <math.h>

static double blocks(int32_t columns)
{
    return ceil((double) columns / MOE_EXPERT_SCALE_BLOCK);
}

static double matrix_count(const struct moe_expert_ffn_shape *shape)
{
    return shape->activation == MOE_EXPERT_SWIGLU ? 3.0 : 2.0;
}

double moe_expert_weight_bytes(const struct moe_expert_ffn_shape *shape)
{
    const double cells = (double) shape->hidden * (double) shape->inter;
    if (shape->dtype == MOE_EXPERT_BF16) {
        return matrix_count(shape) * cells * 2.0;
    }
    return matrix_count(shape) * (cells + 4.0 * blocks(shape->hidden) * blocks(shape->inter));
}

struct moe_expert_work moe_expert_work_count(const struct moe_expert_ffn_shape *shape,
                                             const struct moe_row_load *load)
{
    const double rows = (double) load->row_count;
    const double in_bytes = shape->dtype == MOE_EXPERT_BF16
                                ? 2.0 * (double) shape->hidden
                                : (double) shape->hidden + 4.0 * blocks(shape->hidden);
    return (struct moe_expert_work){
        .weight_bytes = moe_expert_weight_bytes(shape) * (double) load->active_count,
        .row_bytes = rows * (in_bytes + 2.0 * (double) shape->hidden),
        .flops = 2.0 * rows * matrix_count(shape) * (double) shape->hidden * (double) shape->inter,
    };
}

double moe_expert_floor_us(const struct moe_expert_work *work, enum moe_expert_dtype dtype,
                           double read_bytes_per_s, uint32_t sm_count, double mhz)
{
    assert(read_bytes_per_s > 0.0);
    assert(sm_count > 0);
    assert(mhz > 0.0);
    const double per_clock = dtype == MOE_EXPERT_BF16 ? MOE_SM_FLOPS_BF16 : MOE_SM_FLOPS_FP8;
    const double memory_us = (work->weight_bytes + work->row_bytes) / read_bytes_per_s * 1e6;
    const double compute_us = work->flops / ((double) sm_count * per_clock * mhz);
    return fmax(memory_us, compute_us);
}

/*
 * Lt scales: fp8 scales by block in the layouts that cuBLASLt asks for, made from those of
 * kernels/expert/expert_ffn.h.
 *
 * The library knows no stride between the scales of neighbouring 128 columns, so each expert's
 * rows have their own matrix [ceil(depth / 128)][rows]; those of weights are padded to a multiple
 * of 4 per row of blocks.
 */
#ifndef MOE_CALIBRATE_LT_SCALES_H
#define MOE_CALIBRATE_LT_SCALES_H

#include <stdint.h>

#include "calibrate/expert/expert_data.h"
#include "sim/base/error.h"

struct moe_lt_scales {
    float *w1_dev;
    float *w2_dev;
    float *x_dev;
    float *mid_dev;    /* to be written by the activation */
    int64_t w1_stride; /* floats from expert to expert */
    int64_t w2_stride;
    int64_t x_offset[MOE_EXPERT_COUNT_LIMIT]; /* floats up to the expert's matrix */
    int64_t mid_offset[MOE_EXPERT_COUNT_LIMIT];
};

/* Why block scales can't be used for this shape, as a sentence, or NULL. */
const char *moe_lt_scales_refusal(const struct moe_expert_ffn_shape *shape);

/* Errors: MOE_DEVICE, MOE_LIMIT. On error nothing is held. */
enum moe_status moe_lt_scales_init(struct moe_lt_scales *scales, const struct moe_expert_case *kase,
                                   struct moe_error *err) MOE_MUST_CHECK;
void moe_lt_scales_finish(struct moe_lt_scales *scales); /* a zeroed one is allowed */

#endif

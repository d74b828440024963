/*
 * CPU twin of the expert FFN: every sum in double, one product after another. Shapes, types and
 * scales stand in expert_ffn.h; here all pointers are host memory.
 */
#ifndef MOE_KERNELS_REFERENCE_EXPERT_H
#define MOE_KERNELS_REFERENCE_EXPERT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/expert/expert_ffn.h"

struct moe_reference_expert {
    struct moe_expert_ffn_shape shape;
    const int32_t *row_offset; /* [expert_count + 1] */
    int32_t scale_stride;
    const void *x; /* uint16_t bf16 or uint8_t e4m3, likewise below */
    const float *x_scale;
    const void *w1;
    const float *w1_scale;
    const void *w2;
    const float *w2_scale;
};

/* Doubles that the two GEMMs need as scratch. */
size_t moe_reference_expert_scratch_count(const struct moe_expert_ffn_shape *shape);

/* The first GEMM with the activation: mid[row_count][inter] before it is rounded. */
void moe_reference_expert_first(const struct moe_reference_expert *ffn, double *scratch,
                                double *mid);

/* mid as the kernels store it: values[row_count][inter] in bf16 or e4m3, and in e4m3 the scales
 * [ceil(inter / 128)][scale_stride] (in bf16 scales is not touched and may be NULL). */
void moe_reference_expert_round(const struct moe_reference_expert *ffn, const double *mid,
                                void *values, float *scales);

/* The second GEMM on a stored mid, ours or a kernel's: out[row_count][hidden] before it is rounded.
 * Thus each GEMM is judged by itself: a value of mid near the middle of two e4m3 numbers may
 * fall to either side, which is 6 % of it, and no error. */
void moe_reference_expert_second(const struct moe_reference_expert *ffn, const void *values,
                                 const float *scales, double *scratch, double *out);

#endif

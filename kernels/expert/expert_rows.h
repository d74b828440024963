/*
 * Chosen rows of the expert FFN in float64: the slow answer that backends are compared with.
 * Written for being right: one warp per output, sums in double, no tiles, and nothing shared with
 * expert_ffn.h but the meaning of the symbols there.
 *
 * As in kernels.h, results are cudaError_t as int, device pointers end in _dev, everything is
 * asynchronous on stream. Bad arguments are cudaErrorInvalidValue.
 */
#ifndef MOE_KERNELS_EXPERT_ROWS_H
#define MOE_KERNELS_EXPERT_ROWS_H

#include <stdint.h>

#include "kernels/expert/expert_ffn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What an fp8 scale covers. */
enum moe_expert_scaling {
    MOE_EXPERT_SCALING_BLOCK, /* as expert_ffn.h has it: 1 x 128 and 128 x 128 */
    MOE_EXPERT_SCALING_ROW,   /* one per row of x and of mid: [row_count]; one per row of a weight
                                 matrix: w1 [expert][matrix][inter], w2 [expert][hidden] */
};

struct moe_expert_rows {
    struct moe_expert_ffn_shape shape;
    struct moe_expert_ffn_weights weights;
    enum moe_expert_scaling scaling; /* fp8 only */
    int64_t scale_stride;            /* fp8 by block: of x_scale_dev */
    const void *x_dev;
    const float *x_scale_dev;
    int32_t sample_count;
    const int32_t *row_dev;    /* [sample_count]: rows of x */
    const int32_t *expert_dev; /* [sample_count]: the expert of each */
    double *mid_dev;           /* [sample_count][inter]: after rounding to bf16, or after being
                                  quantised and multiplied back */
    double *out_dev;           /* [sample_count][hidden] */
};
int moe_kernel_expert_rows(const struct moe_expert_rows *rows, void *stream);

/* Adds to *found_dev how many of src_dev[count] (bf16, 16-byte aligned, count a multiple of 8)
 * are infinite or no number: what is left of an output poisoned with 0xff bytes. */
int moe_kernel_count_poison(const void *src_dev, int64_t count, uint64_t *found_dev, void *stream);

#ifdef __cplusplus
}
#endif
#endif

/*
 * Lt plan: one matrix product by cuBLASLt with the algorithm that was fastest when tried.
 *
 *     out[row][column] = sum over depth of rows[row][k] * weight[column][k]
 *
 * row-major, which is the library's TN case. The library proposes algorithms by heuristics that
 * know nothing of this GPU's clock and memory; the ten best are run, and the first of
 * them is kept unless another is clearly faster. A plan is kept for as long as its moe_blas.
 */
#ifndef MOE_CALIBRATE_LT_PLAN_H
#define MOE_CALIBRATE_LT_PLAN_H

#include <stdint.h>

#include "calibrate/blas/blas.h"
#include "sim/base/error.h"

enum moe_lt_precision {
    MOE_LT_BF16,
    MOE_LT_FP8_ROW,   /* a scale per row of either operand */
    MOE_LT_FP8_BLOCK, /* 1 x 128 of rows, 128 x 128 of the weight */
};

enum { MOE_LT_TRIED_LIMIT = 10 };

/* Plans are looked up by the bytes of this: only 32-bit fields, so there is no padding. */
struct moe_lt_problem {
    int32_t columns;
    int32_t rows;
    int32_t depth;
    int32_t batch_count; /* products; operands of each follow those of the one before */
    int32_t precision;   /* enum moe_lt_precision */
    int32_t relu;        /* 1: fused into the product */
};

/* Device pointers. Scales: fp8 only. By row [rows], [columns]; by block of rows
 * [ceil(depth / 128)][rows], of the weight [ceil(columns / 128)][ceil(depth / 128) rounded up to
 * a multiple of 4]. out is bf16. */
struct moe_lt_operands {
    const void *weight;
    const void *rows;
    void *out;
    const float *weight_scale;
    const float *row_scale;
};

struct moe_lt_plan; /* opaque; owned by the cache in moe_blas */

enum moe_status moe_lt_cache_create(struct moe_lt_cache **out,
                                    struct moe_error *err) MOE_MUST_CHECK;
void moe_lt_cache_destroy(struct moe_lt_cache *cache); /* NULL is allowed */

/* The plan of this problem, tried out on samples[sample_count] (real operands, several so that
 * they do not sit in the cache) the first time it is asked for; the samples' out is overwritten.
 * Errors: MOE_UNSUPPORTED when the library has no algorithm; MOE_DEVICE, MOE_LIMIT. */
enum moe_status moe_lt_plan_find(struct moe_blas *blas, const struct moe_lt_problem *problem,
                                 const struct moe_lt_operands *samples, uint32_t sample_count,
                                 void *stream, struct moe_lt_plan **out,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Launches it on stream with the workspace of this lane. */
enum moe_status moe_lt_plan_run(struct moe_blas *blas, const struct moe_lt_plan *plan,
                                const struct moe_lt_operands *operands, uint32_t lane, void *stream,
                                struct moe_error *err) MOE_MUST_CHECK;

#endif

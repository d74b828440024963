/*
 * What brings tokens to experts and back: rows put into expert order, their weighted sum, and the
 * rounding of activations to fp8.
 *
 *   symbol       shape                      meaning
 *   expert_ids   [token][top_k] int32       the gate's choice; an id outside of 0 .. expert_count
 *                                           - 1 (-1: unknown; another GPU's expert) has no row
 *   row_offset   [expert_count + 1] int32   expert e has rows row_offset[e] .. row_offset[e + 1];
 *                                           the last one is the number of rows
 *   position     [token][top_k] int32       the row of this choice, -1 for none
 *   row_source   [row] int32                token * top_k + place of the choice; room for
 *                                           token_count * top_k
 *   scales       [ceil(hidden / 128)][scale_stride] fp32, as in expert_ffn.h
 *
 * Rows of an expert stand in order of (token, place), whatever the version and the GPU.
 *
 * As in kernels.h, results are cudaError_t as int: cudaErrorInvalidValue for what breaks the above
 * or the stated limits, cudaErrorNotSupported where the GPU is too old for a version. Asynchronous
 * on stream, may be captured. hidden: a multiple of 16. Pointers are aligned to 16 bytes.
 */
#ifndef MOE_KERNELS_PERMUTE_H
#define MOE_KERNELS_PERMUTE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/expert/expert_ffn.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MOE_PERMUTE_EXPERT_LIMIT = 1024,
    MOE_PERMUTE_TOP_K_LIMIT = 32,
    MOE_PERMUTE_HIDDEN_LIMIT = 32768,
    MOE_PERMUTE_VERSION_COUNT = 3,
    MOE_COMBINE_VERSION_COUNT = 2,
    MOE_QUANTISE_VERSION_COUNT = 2,
};

struct moe_permute_shape {
    int32_t token_count;  /* at least 1; token_count * top_k below 2^31 */
    int32_t top_k;        /* 1 .. MOE_PERMUTE_TOP_K_LIMIT */
    int32_t expert_count; /* 1 .. MOE_PERMUTE_EXPERT_LIMIT */
    int32_t hidden;       /* 16 .. MOE_PERMUTE_HIDDEN_LIMIT */
};

/* Where each choice's row goes. One launch up to 2048 choices, three beyond: each block of 2048
 * choices is counted; the counts are added up per expert; each block then numbers its choices, in
 * which eight warps go over 256 of them each in order, 32 at a time, and equal ids within 32 find
 * each other by one match instruction. Nothing is decided by which thread comes first.
 * row_source_dev may be NULL. workspace_dev: moe_permute_workspace_bytes of it. */
size_t moe_permute_workspace_bytes(const struct moe_permute_shape *shape);
int moe_permute_plan(const struct moe_permute_shape *shape, const int32_t *expert_ids_dev,
                     int32_t *row_offset_dev, int32_t *position_dev, int32_t *row_source_dev,
                     void *workspace_dev, void *stream);

/* rows[position[token][place]] = x[token]: bf16, or e4m3 with the scales that belong to each row.
 * Rows that no choice has stay as they are. Moves about
 * hidden * bytes per value * (tokens + rows) bytes.
 *   1  a block per row of the result, which finds its token in row_source (only version 1 reads
 *      it): each row of x is read up to top_k times
 *   2  128 threads per token: read once, written top_k times, 16 bytes at a time
 *   3  the copy engine brings up to 16 KiB of a token's row to shared memory, and takes them from
 *      there to all its places: 128 KiB under way per SM (compute capability 9.0) */
struct moe_permute_operands {
    enum moe_expert_dtype dtype; /* of rows and x */
    void *rows_dev;
    float *row_scale_dev; /* scale pointers and strides: fp8 only, else NULL and 0 */
    int32_t row_scale_stride;
    const void *x_dev;
    const float *x_scale_dev;
    int32_t x_scale_stride;
    const int32_t *position_dev;
    const int32_t *row_source_dev; /* these two: version 1 only, else may be NULL */
    const int32_t *row_offset_dev;
};

int moe_permute_rows(const struct moe_permute_shape *shape,
                     const struct moe_permute_operands *operands, int version, void *stream);

/* out[token] = sum over places, ascending, of weight[token][place] * rows[position[token][place]],
 * places without a row left out: fused multiply-adds in fp32 from 0, rounded to bf16 once. rows
 * and out are bf16. Moves about hidden * 2 * (rows + tokens) bytes.
 *   1  a thread per value of the result
 *   2  a thread per 8 values, 16-byte accesses, up to 8 rows in flight */
int moe_combine_rows(const struct moe_permute_shape *shape, void *out_dev, const void *rows_dev,
                     const int32_t *position_dev, const float *weight_dev, int version,
                     void *stream);

/* Rounds bf16 rows to e4m3 with one scale per row and 128 columns:
 *     scale = largest magnitude * (1 / 448),    q = e4m3(x * (1 / scale))
 * each operation rounded in fp32 as written. A block whose largest magnitude is below 2^-100
 * counts as zeros: scale 1, values 0 of their sign. x holds no infinity and no NaN.
 *   1  a thread per scale
 *   2  16 threads per scale, 16-byte reads, 4 in flight; eight neighbouring rows by one block, so
 *      that their scales fill a memory sector */
int moe_quantise_rows(int32_t row_count, int32_t hidden, void *q_dev, float *scale_dev,
                      int32_t scale_stride, const void *x_dev, int version, void *stream);

#ifdef __cplusplus
}
#endif
#endif

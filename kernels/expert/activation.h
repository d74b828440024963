/*
 * The activation between the two GEMMs as a kernel of its own, for the library backends, which
 * cannot fuse it; expert_ffn.h has it in its first GEMM. Symbols as there, and
 *
 *   projected         [row_count][matrix_count * inter]   bf16: gate columns, then up columns
 *
 * SwiGLU: mid = silu(gate) * up; ReLU and GELU of the only matrix otherwise. Sums and products
 * are fp32. inter is a multiple of 16; pointers are 16-byte aligned.
 * In fp8 the result is quantised: scale = largest magnitude / 448, mid = e4m3(value / scale);
 * where all values are 0 the scale is 1, as in permute.h and the fused kernels.
 *
 * As in kernels.h, results are cudaError_t as int, device pointers end in _dev, everything is
 * asynchronous on stream. row_count 0 is allowed and launches nothing.
 */
#ifndef MOE_KERNELS_ACTIVATION_H
#define MOE_KERNELS_ACTIVATION_H

#include <stdint.h>

#include "kernels/expert/expert_ffn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* mid_dev[row_count][inter] in bf16. */
int moe_kernel_activation_bf16(const void *projected_dev, void *mid_dev, int64_t row_count,
                               int32_t inter, enum moe_expert_activation activation, void *stream);

/* mid_dev[row_count][inter] in e4m3, one scale per row and 128 columns:
 * scale_dev[ceil(inter / 128)][scale_stride], scale_stride >= row_count. */
int moe_kernel_activation_fp8(const void *projected_dev, void *mid_dev, float *scale_dev,
                              int64_t row_count, int32_t inter, int64_t scale_stride,
                              enum moe_expert_activation activation, void *stream);

/* The same with one scale per row: scale_dev[row_count]. */
int moe_kernel_activation_fp8_row(const void *projected_dev, void *mid_dev, float *scale_dev,
                                  int64_t row_count, int32_t inter,
                                  enum moe_expert_activation activation, void *stream);

#ifdef __cplusplus
}
#endif
#endif

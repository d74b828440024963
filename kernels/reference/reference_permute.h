/* CPU twins of permute.h: same contracts, host pointers, no versions. Results are equal to the
 * bit: whole numbers, copies, or operations whose order and rounding the contract states. */
#ifndef MOE_KERNELS_REFERENCE_PERMUTE_H
#define MOE_KERNELS_REFERENCE_PERMUTE_H

#include "kernels/route/permute.h"

/* row_source may be NULL. */
void moe_reference_permute_plan(const struct moe_permute_shape *shape, const int32_t *expert_ids,
                                int32_t *row_offset, int32_t *position, int32_t *row_source);

/* moe_permute_rows in two: the values, and with fp8 their scales. */
void moe_reference_permute_values(const struct moe_permute_shape *shape,
                                  enum moe_expert_dtype dtype, void *rows, const void *x,
                                  const int32_t *position);
void moe_reference_permute_scales(const struct moe_permute_shape *shape, float *row_scale,
                                  int32_t row_scale_stride, const float *x_scale,
                                  int32_t x_scale_stride, const int32_t *position);

void moe_reference_combine_rows(const struct moe_permute_shape *shape, uint16_t *out,
                                const uint16_t *rows, const int32_t *position, const float *weight);

void moe_reference_quantise_rows(int32_t row_count, int32_t hidden, uint8_t *q, float *scale,
                                 int32_t scale_stride, const uint16_t *x);

#endif

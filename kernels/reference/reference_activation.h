/*
 * CPU twin of activation.h: host pointers, nothing asynchronous, nothing fails. Values are computed
 * in double and rounded once, where the GPU's are in float with a fast exponential: results may
 * differ by one step of their type.
 */
#ifndef MOE_KERNELS_REFERENCE_ACTIVATION_H
#define MOE_KERNELS_REFERENCE_ACTIVATION_H

#include <stdint.h>

#include "kernels/expert/expert_ffn.h"

/* One value: silu(gate) * up, relu(gate) or gelu(gate). */
double moe_reference_activate(double gate, double up, enum moe_expert_activation activation);

void moe_reference_activation_bf16(const uint16_t *projected, uint16_t *mid, int64_t row_count,
                                   int32_t inter, enum moe_expert_activation activation);

void moe_reference_activation_fp8(const uint16_t *projected, uint8_t *mid, float *scale,
                                  int64_t row_count, int32_t inter, int64_t scale_stride,
                                  enum moe_expert_activation activation);

void moe_reference_activation_fp8_row(const uint16_t *projected, uint8_t *mid, float *scale,
                                      int64_t row_count, int32_t inter,
                                      enum moe_expert_activation activation);

#endif

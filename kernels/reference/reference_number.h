/*
 * The short floating-point numbers of the kernels, on the CPU.
 *
 * bf16: 1 sign, 8 exponent and 7 fraction bits, the upper half of a float.
 * e4m3: 1 sign, 4 exponent (bias 7) and 3 fraction bits; no infinity; NaN is 0x7f and 0xff, so
 *       the largest is 448; the smallest above zero is 2^-9.
 *       Source: P. Micikevicius et al., "FP8 formats for deep learning", arXiv 2209.05433.
 * Rounding is to nearest, ties to even; what lies beyond the largest e4m3 becomes the largest, as
 * the GPU's satfinite conversion does. NaN stays NaN.
 */
#ifndef MOE_KERNELS_REFERENCE_NUMBER_H
#define MOE_KERNELS_REFERENCE_NUMBER_H

#include <stdint.h>

uint16_t moe_bf16_from_float(float value);
float moe_float_from_bf16(uint16_t bits);

uint8_t moe_e4m3_from_float(float value);
float moe_float_from_e4m3(uint8_t bits);

/* The scale of a block whose largest magnitude is that: value / scale fills e4m3, 448 at most.
 * Below 2^-100 the block counts as zeros and its scale is 1, so that scales can be divided by and
 * their inverses are finite. */
float moe_e4m3_scale(float largest);

#endif

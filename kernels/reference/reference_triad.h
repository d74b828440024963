/*
 * CPU twin of the triad (kernels.h), and what all twins here keep to: slow, obvious, and right by
 * reading them; pointers are host memory, nothing is asynchronous and nothing fails. The GPU may
 * fuse a * x + y into one rounding and this twin does not, so tests take values whose results are
 * exact in float.
 */
#ifndef MOE_KERNELS_REFERENCE_TRIAD_H
#define MOE_KERNELS_REFERENCE_TRIAD_H

#include <stdint.h>

void moe_reference_triad(float *dst, const float *x, const float *y, float a, int64_t count);

#endif

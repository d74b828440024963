/*
 * CPU twins of the kernels: slow, obvious, and right by reading them. A kernel's
 * contract stands in kernels.h; here the pointers are host memory, nothing is
 * asynchronous and nothing fails. The GPU may fuse a * x + y into one rounding and the
 * twin does not, so tests take values whose results are exact in float.
 */
#ifndef MOE_KERNELS_REFERENCE_H
#define MOE_KERNELS_REFERENCE_H

#include <stdint.h>

void moe_reference_triad(float *dst, const float *x, const float *y, float a, int64_t count);

#endif

#include "kernels/reference/reference_triad.h"

void moe_reference_triad(float *dst, const float *x, const float *y, float a, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        dst[i] = a * x[i] + y[i];
    }
}

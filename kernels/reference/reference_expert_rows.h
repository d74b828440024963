/*
 * CPU twin of expert_rows.h: the same struct with host pointers. It sums in another order than the
 * GPU, in double both, so the two agree to about 1e-13, but where an intermediate value lies so
 * close to the middle between two bf16 or e4m3 numbers that this decides its rounding.
 */
#ifndef MOE_KERNELS_REFERENCE_EXPERT_ROWS_H
#define MOE_KERNELS_REFERENCE_EXPERT_ROWS_H

#include "kernels/expert/expert_rows.h"

void moe_reference_expert_rows(const struct moe_expert_rows *rows);

#endif

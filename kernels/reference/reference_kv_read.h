/* CPU twin of kv_read.h, in double, one score after the other. Host pointers; splits do not exist
 * here; out is not rounded to bf16. */
#ifndef MOE_KERNELS_REFERENCE_KV_READ_H
#define MOE_KERNELS_REFERENCE_KV_READ_H

#include "kernels/attention/kv_read.h"

/* v: NULL for MLA. out: [sequence][q_heads][head_dim, of MLA 512]. */
void moe_reference_kv_read(const struct moe_kv_shape *shape, double *out, const uint16_t *q,
                           const uint16_t *k, const uint16_t *v, const int32_t *page_table,
                           const int32_t *context);

#endif

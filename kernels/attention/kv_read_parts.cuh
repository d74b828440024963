/* What the kernels of kv_read.h share: their arguments, how the context is divided, where the
 * results of a split go. */
#ifndef MOE_KERNELS_KV_READ_PARTS_CUH
#define MOE_KERNELS_KV_READ_PARTS_CUH

#include <math_constants.h>
#include <stdint.h>

enum { KV_TILE_TOKENS = 64 };

struct kv_case {
    const uint16_t *q;
    const uint16_t *k;
    const uint16_t *v;
    const int32_t *page_table;
    const int32_t *context;
    uint16_t *out;
    float *part;      /* [sequence][q_head][split][columns]: sums, not yet divided */
    float2 *part_sum; /* [sequence][q_head][split]: largest score, sum of exp */
    int32_t q_heads;
    int32_t kv_heads;
    int32_t page_tokens;
    int32_t page_limit;
    int32_t split_count;
    float exponent_scale; /* softmax_scale * log2(e): exp(scale * x) = exp2(exponent_scale * x) */
};

struct kv_split {
    int32_t context;
    int32_t first_tile;
    int32_t tile_count;
};

static __device__ __forceinline__ kv_split kv_split_of(const kv_case &c, int32_t sequence,
                                                       int32_t split)
{
    const int32_t context = c.context[sequence];
    const int32_t tiles = (context + KV_TILE_TOKENS - 1) / KV_TILE_TOKENS;
    const int32_t each = (tiles + c.split_count - 1) / c.split_count;
    const int32_t first = min(split * each, tiles);
    return { context, first, min(each, tiles - first) };
}

/* The largest score to subtract: 0 where there is none, so that exp2(-inf - it) is 0. */
static __device__ __forceinline__ float kv_base(float largest)
{
    return largest == -CUDART_INF_F ? 0.0F : largest;
}

#endif

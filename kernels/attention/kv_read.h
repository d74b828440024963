/*
 * Attention of decoding: each sequence's one new token against all tokens of its context, whose
 * keys and values lie in pages. Memory-bound up to about 200 FLOP per byte of cache, so its cost is
 * that of reading the cache; it is here to measure that cost by bytes and FLOPs.
 *
 *   symbol      GQA                                      MLA (absorbed form)
 *   q           [sequence][q_heads][head_dim]            [sequence][q_heads][576]
 *   k           [page][page_tokens][kv_heads][head_dim]  [page][page_tokens][576], all heads'
 *   v           as k                                     the first 512 columns of k
 *   out         [sequence][q_heads][head_dim]            [sequence][q_heads][512]
 *   page_table  [sequence][page_limit] int32: page of tokens i * page_tokens onwards
 *   context     [sequence] int32, 0 .. context_limit: tokens to attend to; 0 gives zeros
 *
 * q, k, v and out are bf16; products and sums are fp32, probabilities are rounded to bf16 before
 * they meet v. In GQA q head h reads kv head h / (q_heads / kv_heads). Pages may be shared.
 *   out = softmax(softmax_scale * q k^T) v
 * Bytes: GQA context * kv_heads * head_dim * 4, MLA context * 1152, per sequence. FLOPs: GQA
 * context * q_heads * head_dim * 4, MLA context * q_heads * 2176.
 *
 * How: the context is split over as many blocks as fill the GPU (flash-decoding), each of which
 * keeps a running maximum and sum (online softmax), and a second kernel joins the splits. All q
 * heads of a kv head go through the tensor cores together, padded to 16, so that the cache is read
 * once. GQA: every warp has its own ring of 16 tokens' keys and values on their way, and no warp
 * waits for another until the end. MLA: 16 to 64 heads per block, two tiles of 64 tokens, shared
 * by eight warps, which split heads and tokens for the scores, heads and columns for the output.
 * Source: T. Dao et al., "Flash-Decoding for long-context inference", 2023.
 *
 * As in kernels.h, results are cudaError_t as int: cudaErrorInvalidValue for what breaks a limit,
 * cudaErrorNotSupported below compute capability 8.0 or, for MLA, with too little shared memory.
 */
#ifndef MOE_KERNELS_KV_READ_H
#define MOE_KERNELS_KV_READ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum moe_kv_kind { MOE_KV_GQA, MOE_KV_MLA, MOE_KV_KIND_COUNT };

enum {
    MOE_KV_MLA_COLUMNS = 576,     /* of a key: 512 latent, 64 with position */
    MOE_KV_MLA_OUT_COLUMNS = 512, /* of a value */
    MOE_KV_SPLIT_LIMIT = 256,
};

struct moe_kv_shape {
    enum moe_kv_kind kind;
    int32_t sequence_count; /* at least 1 */
    int32_t q_heads;        /* GQA: 1 .. 16 times kv_heads; MLA: 16 .. 128, a multiple of 16 */
    int32_t kv_heads;       /* MLA: 1 */
    int32_t head_dim;       /* GQA: 64 or 128; MLA: 576 */
    int32_t page_tokens;    /* a multiple of 16 */
    int32_t page_limit;
    int32_t context_limit; /* 1 .. page_limit * page_tokens */
    float softmax_scale;   /* above 0 */
};

struct moe_kv_batch {
    const void *q_dev;
    const void *k_dev;
    const void *v_dev; /* MLA: NULL */
    const int32_t *page_table_dev;
    const int32_t *context_dev;
    void *out_dev;
    void *workspace_dev; /* moe_kv_workspace_bytes; may be NULL for one split */
};

/* Number of splits that suits the current device when contexts are near context_limit
 * (sim/base/split_plan.h: what decode attention costs is counted by the same plan). */
int moe_kv_split_count(const struct moe_kv_shape *shape, int32_t *out);
size_t moe_kv_workspace_bytes(const struct moe_kv_shape *shape, int32_t split_count);

/* split_count: 1 .. MOE_KV_SPLIT_LIMIT. Asynchronous on stream, may be captured. */
int moe_kv_read(const struct moe_kv_shape *shape, const struct moe_kv_batch *batch,
                int32_t split_count, void *stream);

#ifdef __cplusplus
}
#endif
#endif

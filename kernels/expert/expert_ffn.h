/*
 * The expert feed-forward network of one GPU: every local expert's rows through
 *
 *     mid = activation(x W1^T),    out = mid W2^T
 *
 * in two grouped GEMMs, one launch each or (version 3) one for both, whatever the counts per expert
 * (zeros included). Rows come in expert order, as the permute kernel (permute.h) leaves them; the weights of
 * the combine are not applied here.
 *
 *   symbol            shape                           meaning
 *   x                 [row_count][hidden]             activations
 *   w1, gated         [expert][2][inter][hidden]      gate matrix, then up matrix
 *   w1, ungated       [expert][inter][hidden]
 *   mid               [row_count][inter]              SwiGLU: silu(gate) * up; ReLU; GELU
 *   w2                [expert][hidden][inter]
 *   out               [row_count][hidden]             bf16 always
 *
 * bf16: x, w1, mid and w2 are bf16, sums are fp32, mid is rounded to bf16.
 * fp8:  x, w1, mid and w2 are e4m3 with fp32 scales: one per row and 128 consecutive columns
 *       of x and mid, one per 128 x 128 block of a weight matrix (a short last block has its
 *       own). Scales multiply: value = e4m3 * scale. The scales of x and mid are stored
 *       [ceil(columns / 128)][scale_stride], so that neighbouring rows lie side by side;
 *       those of the weights [expert][matrix][ceil(rows / 128)][ceil(columns / 128)]. Sums of
 *       128 products are taken by the tensor cores and added in fp32 outside of them, since
 *       the tensor cores of Hopper keep about 14 bits in an fp8 sum (DeepSeek-V3 technical
 *       report, section 3.3.2).
 *
 * Versions, from naive to fast (each .cu says why it is faster than the one before):
 *   1  one thread per output element, no shared memory: right by reading it
 *   2  mma.sync and cp.async, tiles in shared memory: any GPU from compute capability 8.0
 *   3  wgmma fed by TMA, persistent, warp-specialised: compute capability 9.0 only
 *
 * As in kernels.h, results are cudaError_t as int, device pointers end in _dev.
 */
#ifndef MOE_KERNELS_EXPERT_FFN_H
#define MOE_KERNELS_EXPERT_FFN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum moe_expert_dtype { MOE_EXPERT_BF16, MOE_EXPERT_FP8, MOE_EXPERT_DTYPE_COUNT };

enum moe_expert_activation {
    MOE_EXPERT_SWIGLU, /* gated */
    MOE_EXPERT_RELU,
    MOE_EXPERT_GELU, /* the exact one, with erf */
    MOE_EXPERT_ACTIVATION_COUNT
};

enum {
    MOE_EXPERT_SCALE_BLOCK = 128, /* columns under one fp8 scale */
    MOE_EXPERT_COUNT_LIMIT = 1024,
    MOE_EXPERT_FFN_VERSION_COUNT = 3,
};

struct moe_expert_ffn_shape {
    int32_t hidden;       /* a multiple of 16, at least 64 */
    int32_t inter;        /* a multiple of 16, at least 64 */
    int32_t expert_count; /* local experts, 1 .. MOE_EXPERT_COUNT_LIMIT */
    enum moe_expert_dtype dtype;
    enum moe_expert_activation activation;
};

/* All pointers are 16-byte aligned (cudaMalloc's are) and stay the caller's. */
struct moe_expert_ffn_weights {
    const void *w1_dev;
    const void *w2_dev;
    const float *w1_scale_dev; /* fp8; else NULL */
    const float *w2_scale_dev;
};

struct moe_expert_ffn_batch {
    int32_t row_count;             /* all rows, at least 1 */
    const int32_t *row_offset;     /* host, [expert_count + 1]: expert e has rows row_offset[e]
                                       up to row_offset[e + 1]; from 0 up to row_count. Decides
                                       the tile shapes only, and may be freed after the call. */
    const int32_t *row_offset_dev; /* the same on the device */
    int32_t scale_stride;          /* fp8: at least row_count, a multiple of 4 */
    const void *x_dev;
    const float *x_scale_dev; /* fp8; else NULL */
    void *mid_dev;            /* scratch */
    float *mid_scale_dev;     /* fp8: scratch; else NULL */
    void *out_dev;
};

struct moe_expert_ffn; /* opaque: tile shapes and tensor maps for one set of the above */

/* Number of weight matrices in w1: 2 when gated, else 1. */
int32_t moe_expert_ffn_w1_matrix_count(enum moe_expert_activation activation);

/* Why this version can't run the shape on the current device, as a sentence, or NULL. */
const char *moe_expert_ffn_refusal(const struct moe_expert_ffn_shape *shape, int version);

/* Prepares the launches on the current device. version: 1 .. MOE_EXPERT_FFN_VERSION_COUNT, or 0
 * for the fastest that runs here. Errors: cudaErrorNotSupported where there is a refusal,
 * cudaErrorInvalidValue for a shape or a pointer that breaks the above,
 * cudaErrorMemoryAllocation. */
int moe_expert_ffn_create(const struct moe_expert_ffn_shape *shape,
                          const struct moe_expert_ffn_weights *weights,
                          const struct moe_expert_ffn_batch *batch, int version,
                          struct moe_expert_ffn **out);
void moe_expert_ffn_destroy(struct moe_expert_ffn *ffn); /* NULL is allowed */

/* The version and the tile shapes in use, such as "v3 wide"; valid as long as ffn. */
const char *moe_expert_ffn_describe(const struct moe_expert_ffn *ffn);

/* Both GEMMs, asynchronous on stream; may be captured into a graph. Runs of one ffn must not
 * overlap: they share mid and a queue. */
int moe_expert_ffn_run(const struct moe_expert_ffn *ffn, void *stream);

#ifdef __cplusplus
}
#endif
#endif

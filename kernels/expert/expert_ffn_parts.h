/*
 * Between expert_ffn.c, which knows the FFN, and the versions, which know grouped GEMMs: versions 1
 * and 2 launch one at a time, version 3 takes both into one launch. Each is
 *
 *     out[row][c] = activation(sum over d of x[row][d] * w[expert of row][matrix][c][d])
 *
 * Shapes, types and scales as in expert_ffn.h. Of the FFN's two GEMMs the first has the activation
 * and one or two matrices, the second no activation and one matrix.
 */
#ifndef MOE_KERNELS_EXPERT_FFN_PARTS_H
#define MOE_KERNELS_EXPERT_FFN_PARTS_H

#include <cuda.h>
#include <stdint.h>

#include "kernels/expert/expert_ffn.h"
#include "kernels/expert/expert_split.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is done to a sum before it is stored. */
enum moe_expert_epilogue {
    MOE_EPILOGUE_NONE,
    MOE_EPILOGUE_SWIGLU, /* two matrices: gate, then up */
    MOE_EPILOGUE_RELU,
    MOE_EPILOGUE_GELU,
};

struct moe_expert_gemm {
    int32_t expert_count;
    int32_t columns;           /* rows of one weight matrix */
    int32_t depth;             /* columns of it, over which is summed */
    int32_t row_count;         /* of all experts together */
    int32_t largest_row_count; /* of one expert, as the host knew it */
    int32_t scale_stride;
    enum moe_expert_dtype dtype; /* of x and w */
    enum moe_expert_epilogue epilogue;
    int out_is_fp8; /* else bf16 */
    const int32_t *row_offset_dev;
    const void *x_dev;
    const float *x_scale_dev;
    const void *w_dev;
    const float *w_scale_dev;
    void *out_dev;
    float *out_scale_dev;
};

static inline int32_t moe_expert_gemm_matrix_count(const struct moe_expert_gemm *gemm)
{
    return gemm->epilogue == MOE_EPILOGUE_SWIGLU ? 2 : 1;
}

/* Version 1 and 2 need nothing prepared. */
int moe_expert_gemm_v1(const struct moe_expert_gemm *gemm, void *stream);
int moe_expert_gemm_v2(const struct moe_expert_gemm *gemm, void *stream);

/* Version 3 reads through tensor maps, which are made once. */
enum {
    MOE_V3_WEIGHT_ROWS = 128, /* of one tensor map box */
    MOE_V3_ROW_BYTES = 128,   /* of depth in a box: the width of the swizzle */
    /* Row scales of a tile: a box must start at a multiple of 16 bytes, a tile starts anywhere. */
    MOE_V3_SCALE_BOX = MOE_V3_TOKEN_TILE_MOST + 4,
};

struct moe_expert_v3_gemm {
    CUtensorMap w;                          /* [expert * matrix][columns][depth] */
    CUtensorMap x[MOE_V3_TOKEN_TILE_COUNT]; /* [row][depth] */
    CUtensorMap x_scale;                    /* [depth block][row], fp8 only */
    struct moe_expert_gemm gemm;
};

/* Both GEMMs of the FFN: x of the second is out of the first. */
struct moe_expert_v3 {
    struct moe_expert_v3_gemm first;
    struct moe_expert_v3_gemm second;
    int is_wide;        /* its wide launch (expert_split.h) */
    int32_t *queue_dev; /* [moe_expert_v3_queue_count], zero between launches (expert_tiles.cuh) */
};

/* The queue's counters of all experts, before one of each. */
enum { MOE_V3_QUEUE_TOTALS = 3 };

static inline int32_t moe_expert_v3_queue_count(int32_t expert_count)
{
    return MOE_V3_QUEUE_TOTALS + expert_count;
}

int moe_expert_v3_init(struct moe_expert_v3_gemm *v3, const struct moe_expert_gemm *gemm);
int moe_expert_v3_run(const struct moe_expert_v3 *v3, void *stream);

#ifdef __cplusplus
}
#endif
#endif

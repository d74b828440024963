/* The tensor maps of version 3: what the copy engine needs to know of the operands. */
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stddef.h>

#include "kernels/expert/expert_ffn_parts.h"

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The driver's function by way of the runtime, so that nothing links libcuda and the program
 * starts where there is no driver. */
static encode_function find_encode(void)
{
    void *function = NULL;
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                               12000, cudaEnableDefault, &found);
    union {
        void *object;
        encode_function function;
    } symbol = { .object = function };
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess ? symbol.function : NULL;
}

/* A tensor of rank dimensions, innermost first, tightly packed but for the second, whose
 * elements lie row_bytes apart. */
struct tensor {
    void *base; /* only read, but the driver's function takes it so */
    CUtensorMapDataType type;
    cuuint32_t rank;
    cuuint64_t size[3];
    cuuint64_t row_bytes;
    cuuint32_t box[3];
    CUtensorMapSwizzle swizzle;
};

static void *pointer(const void *base)
{
    union {
        const void *in;
        void *out;
    } both = { .in = base };
    return both.out;
}

static int encode(encode_function function, CUtensorMap *map, const struct tensor *tensor)
{
    const cuuint64_t strides[2] = { tensor->row_bytes, tensor->row_bytes * tensor->size[1] };
    const cuuint32_t steps[3] = { 1, 1, 1 };
    const CUresult result =
        function(map, tensor->type, tensor->rank, tensor->base, tensor->size, strides, tensor->box,
                 steps, CU_TENSOR_MAP_INTERLEAVE_NONE, tensor->swizzle,
                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? 0 : (int) cudaErrorInvalidValue;
}

int moe_expert_v3_init(struct moe_expert_v3_gemm *v3, const struct moe_expert_gemm *gemm)
{
    const encode_function function = find_encode();
    if (function == NULL) {
        return (int) cudaErrorNotSupported;
    }
    const int fp8 = gemm->dtype == MOE_EXPERT_FP8;
    const cuuint32_t depth_box = fp8 ? MOE_V3_ROW_BYTES : MOE_V3_ROW_BYTES / 2;
    struct tensor tensor = {
        .base = pointer(gemm->w_dev),
        .type = fp8 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        .rank = 3,
        .size = { (cuuint64_t) gemm->depth, (cuuint64_t) gemm->columns,
                  (cuuint64_t) gemm->expert_count *
                      (cuuint64_t) moe_expert_gemm_matrix_count(gemm) },
        .row_bytes = (cuuint64_t) gemm->depth * (fp8 ? 1 : 2),
        .box = { depth_box, MOE_V3_WEIGHT_ROWS, 1 },
        .swizzle = CU_TENSOR_MAP_SWIZZLE_128B,
    };
    int error = encode(function, &v3->w, &tensor);
    tensor.base = pointer(gemm->x_dev);
    tensor.rank = 2;
    tensor.size[1] = (cuuint64_t) gemm->row_count;
    for (int i = 0; error == 0 && i < MOE_V3_TOKEN_TILE_COUNT; i++) {
        tensor.box[1] = (cuuint32_t) moe_token_tile_rows(i);
        error = encode(function, &v3->x[i], &tensor);
    }
    if (error == 0 && fp8) {
        const struct tensor scales = {
            .base = pointer(gemm->x_scale_dev),
            .type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
            .rank = 2,
            .size = { (cuuint64_t) gemm->row_count,
                      (cuuint64_t) ((gemm->depth + MOE_EXPERT_SCALE_BLOCK - 1) /
                                    MOE_EXPERT_SCALE_BLOCK) },
            .row_bytes = (cuuint64_t) gemm->scale_stride * sizeof(float),
            .box = { MOE_V3_SCALE_BOX, 1 },
            .swizzle = CU_TENSOR_MAP_SWIZZLE_NONE,
        };
        error = encode(function, &v3->x_scale, &scales);
    }
    v3->gemm = *gemm;
    return error;
}

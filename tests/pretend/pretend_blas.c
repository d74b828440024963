/* cuBLAS and cuBLASLt of the pretend GPU: products by the layouts, one sum after the other. */
#include <cublasLt.h>
#include <cublas_v2.h>
#include <stdlib.h>
#include <string.h>

#include "tests/pretend/pretend_gpu.h"

struct pretend_handle {
    void *stream;
};

struct pretend_desc {
    int32_t transposed_a;
    int32_t relu;
    const float *scale[2]; /* of A and B */
    int32_t scale_mode[2];
};

struct pretend_layout {
    int type;
    long rows;
    long columns;
    long stride; /* between columns */
    int32_t batch_count;
    int64_t batch_stride;
};

static int type_of(cudaDataType type)
{
    return type == CUDA_R_16BF ? 0 : 1;
}

cublasStatus_t cublasCreate_v2(cublasHandle_t *out)
{
    *out = calloc(1, sizeof(struct pretend_handle));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t handle, int *version)
{
    (void) handle;
    *version = 130100;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "pretend error";
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    ((struct pretend_handle *) (void *) handle)->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes)
{
    (void) handle;
    return workspace != NULL && bytes > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out)
{
    *out = calloc(1, 8);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    (void) compute;
    (void) scale;
    *out = calloc(1, sizeof(struct pretend_desc));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    free(desc);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    struct pretend_desc *made = (void *) desc;
    void *target = NULL;
    if (attribute == CUBLASLT_MATMUL_DESC_TRANSA) {
        target = &made->transposed_a;
    } else if (attribute == CUBLASLT_MATMUL_DESC_EPILOGUE) {
        target = &made->relu;
    } else if (attribute == CUBLASLT_MATMUL_DESC_A_SCALE_POINTER) {
        target = &made->scale[0];
    } else if (attribute == CUBLASLT_MATMUL_DESC_B_SCALE_POINTER) {
        target = &made->scale[1];
    } else if (attribute == CUBLASLT_MATMUL_DESC_A_SCALE_MODE) {
        target = &made->scale_mode[0];
    } else if (attribute == CUBLASLT_MATMUL_DESC_B_SCALE_MODE) {
        target = &made->scale_mode[1];
    } else {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    memcpy(target, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t stride)
{
    struct pretend_layout *made = calloc(1, sizeof *made);
    made->type = type_of(type);
    made->rows = (long) rows;
    made->columns = (long) columns;
    made->stride = stride;
    made->batch_count = 1;
    *out = (void *) made;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    free(layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    struct pretend_layout *made = (void *) layout;
    if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && bytes == sizeof made->batch_count) {
        memcpy(&made->batch_count, value, bytes);
    } else if (attribute == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET &&
               bytes == sizeof made->batch_stride) {
        memcpy(&made->batch_stride, value, bytes);
    } else {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    *out = calloc(1, 8);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    free(preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    (void) preference;
    (void) attribute;
    (void) value;
    return bytes == 4 || bytes == 8 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

/* Two proposals, so that there is a choice. One row with scales by block is refused, as the real
 * library does. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t *results, int *count)
{
    const struct pretend_desc *made = (void *) desc;
    const struct pretend_layout *rows = (void *) b;
    (void) handle;
    (void) a;
    (void) c;
    (void) d;
    (void) preference;
    *count = 0;
    if (made->scale_mode[1] == CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F && rows->columns < 4) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    for (int i = 0; i < 2 && i < asked; i++) {
        memset(&results[i], 0, sizeof results[i]);
        results[i].state = CUBLAS_STATUS_SUCCESS;
        (*count)++;
    }
    return CUBLAS_STATUS_SUCCESS;
}

/* Scale of element (k, index) of an operand [depth][count], column-major. */
static double scale_at(const struct pretend_desc *desc, int operand, long depth, long count, long k,
                       long index)
{
    const float *scale = desc->scale[operand];
    const long blocks = (depth + 127) / 128;
    switch (desc->scale_mode[operand]) {
    case CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F:
        return (double) scale[index];
    case CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F:
        return (double) scale[k / 128 * count + index];
    case CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F:
        return (double) scale[index / 128 * ((blocks + 3) / 4 * 4) + k / 128];
    default:
        return 1.0;
    }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    const struct pretend_desc *made = (void *) desc;
    const struct pretend_layout *la = (void *) a_layout;
    const struct pretend_layout *lb = (void *) b_layout;
    const struct pretend_layout *ld = (void *) d_layout;
    (void) handle;
    (void) c;
    (void) c_layout;
    (void) workspace_bytes;
    if (*(const float *) alpha != 1.0F || *(const float *) beta != 0.0F || algo == NULL ||
        workspace == NULL || made->transposed_a != CUBLAS_OP_T || la->rows != lb->rows ||
        ld->rows != la->columns || ld->columns != lb->columns) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (pretend_launch(stream) != 0) {
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    for (long batch = 0; batch < ld->batch_count; batch++) {
        for (long j = 0; j < ld->columns; j++) {
            for (long i = 0; i < ld->rows; i++) {
                double sum = 0.0;
                for (long k = 0; k < la->rows; k++) {
                    sum +=
                        pretend_read(a, la->type, batch * la->batch_stride + i * la->stride + k) *
                        scale_at(made, 0, la->rows, la->columns, k, i) *
                        pretend_read(b, lb->type, batch * lb->batch_stride + j * lb->stride + k) *
                        scale_at(made, 1, lb->rows, lb->columns, k, j);
                }
                sum = made->relu == CUBLASLT_EPILOGUE_RELU && sum < 0.0 ? 0.0 : sum;
                pretend_write(d, ld->type, batch * ld->batch_stride + j * ld->stride + i, sum);
            }
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasGemmGroupedBatchedEx(cublasHandle_t handle, const cublasOperation_t *transposed_a,
                           const cublasOperation_t *transposed_b, const int *m, const int *n,
                           const int *k, const void *alpha, const void *const *a,
                           cudaDataType_t a_type, const int *lda, const void *const *b,
                           cudaDataType_t b_type, const int *ldb, const void *beta, void *const *c,
                           cudaDataType_t c_type, const int *ldc, int group_count,
                           const int *group_size, cublasComputeType_t compute)
{
    (void) compute;
    if (pretend_launch(((struct pretend_handle *) (void *) handle)->stream) != 0) {
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
    for (int group = 0; group < group_count; group++) {
        if (transposed_a[group] != CUBLAS_OP_T || transposed_b[group] != CUBLAS_OP_N ||
            group_size[group] != 1 || ((const float *) alpha)[group] != 1.0F ||
            ((const float *) beta)[group] != 0.0F) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
        for (long j = 0; j < n[group]; j++) {
            for (long i = 0; i < m[group]; i++) {
                double sum = 0.0;
                for (long x = 0; x < k[group]; x++) {
                    sum += pretend_read(a[group], type_of(a_type), i * lda[group] + x) *
                           pretend_read(b[group], type_of(b_type), j * ldb[group] + x);
                }
                pretend_write(c[group], type_of(c_type), j * ldc[group] + i, sum);
            }
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

/* cuBLAS grouped: one call per GEMM for all experts, a group each. */
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/device/device.h"
#include "calibrate/expert/expert_backend.h"
#include "kernels/expert/activation.h"

/* Host arrays by place among the active experts; the library reads pointers from the device. */
struct grouped {
    const struct moe_expert_case *kase;
    struct moe_blas *blas;
    int32_t matrix_count;
    int group_count;
    int columns1[MOE_EXPERT_COUNT_LIMIT];
    int columns2[MOE_EXPERT_COUNT_LIMIT];
    int rows[MOE_EXPERT_COUNT_LIMIT];
    int depth1[MOE_EXPERT_COUNT_LIMIT];
    int depth2[MOE_EXPERT_COUNT_LIMIT];
    int size[MOE_EXPERT_COUNT_LIMIT]; /* 1 each */
    float one[MOE_EXPERT_COUNT_LIMIT];
    float zero[MOE_EXPERT_COUNT_LIMIT];
    cublasOperation_t transposed[MOE_EXPERT_COUNT_LIMIT];
    cublasOperation_t plain[MOE_EXPERT_COUNT_LIMIT];
    const void **pointers_dev; /* [set][6][group_count] */
};

enum { LISTS = 6 }; /* w1, x, projected, w2, mid, out */

static const void **list(const struct grouped *grouped, uint32_t set, int which)
{
    return grouped->pointers_dev +
           ((size_t) set * LISTS + (size_t) which) * (size_t) grouped->group_count;
}

static enum moe_status product(const struct grouped *grouped, const int *columns, const int *depth,
                               const void **weight, const void **rows, const void **out,
                               struct moe_error *err)
{
    return moe_blas_check((int) cublasGemmGroupedBatchedEx(
                              grouped->blas->handle, grouped->transposed, grouped->plain, columns,
                              grouped->rows, depth, grouped->one, weight, CUDA_R_16BF, depth, rows,
                              CUDA_R_16BF, depth, grouped->zero, (void *const *) (const void *) out,
                              CUDA_R_16BF, columns, grouped->group_count, grouped->size,
                              CUBLAS_COMPUTE_32F),
                          "cublasGemmGroupedBatchedEx", err);
}

static enum moe_status grouped_run(void *state, uint32_t set, void *stream, struct moe_error *err)
{
    const struct grouped *grouped = state;
    const struct moe_expert_data *data = grouped->kase->data;
    MOE_TRY(moe_blas_check((int) cublasSetStream(grouped->blas->handle, stream), "cublasSetStream",
                           err));
    /* Setting the stream takes the workspace away. */
    MOE_TRY(
        moe_blas_check((int) cublasSetWorkspace(grouped->blas->handle, grouped->blas->workspaces[0],
                                                MOE_BLAS_WORKSPACE_BYTES),
                       "cublasSetWorkspace", err));
    MOE_TRY(product(grouped, grouped->columns1, grouped->depth1, list(grouped, set, 0),
                    list(grouped, set, 1), list(grouped, set, 2), err));
    MOE_TRY(moe_device_check(moe_kernel_activation_bf16(
                                 data->projected_dev, data->mid_dev, grouped->kase->load.row_count,
                                 data->shape.inter, data->shape.activation, stream),
                             "moe_kernel_activation_bf16", err));
    return product(grouped, grouped->columns2, grouped->depth2, list(grouped, set, 3),
                   list(grouped, set, 4), list(grouped, set, 5), err);
}

/* One expert's six pointers go to [which * group_count + group]. */
static void set_pointers(const struct grouped *grouped, uint32_t set, int32_t expert, int group,
                         const void **pointers)
{
    const struct moe_expert_data *data = grouped->kase->data;
    const int64_t hidden = data->shape.hidden;
    const int64_t inter = data->shape.inter;
    const int64_t matrices = grouped->matrix_count;
    const int64_t row = grouped->kase->row_offset[expert];
    const struct {
        const void *base;
        int64_t cells;
    } place[LISTS] = {
        { data->w1_dev[set], expert * matrices * inter * hidden },
        { data->x_dev, row * hidden },
        { data->projected_dev, row * matrices * inter },
        { data->w2_dev[set], expert * hidden * inter },
        { data->mid_dev, row * inter },
        { data->out_dev, row * hidden },
    };
    for (int which = 0; which < LISTS; which++) {
        pointers[which * grouped->group_count + group] =
            (const char *) place[which].base + place[which].cells * 2;
    }
}

static void make_groups(struct grouped *grouped, int32_t *experts)
{
    const struct moe_expert_case *kase = grouped->kase;
    const struct moe_expert_ffn_shape *shape = &kase->data->shape;
    for (int32_t e = 0; e < shape->expert_count; e++) {
        const int rows = kase->row_offset[e + 1] - kase->row_offset[e];
        if (rows == 0) {
            continue;
        }
        const int group = grouped->group_count++;
        experts[group] = e;
        grouped->rows[group] = rows;
        grouped->columns1[group] = shape->inter * grouped->matrix_count;
        grouped->columns2[group] = shape->hidden;
        grouped->depth1[group] = shape->hidden;
        grouped->depth2[group] = shape->inter;
        grouped->size[group] = 1;
        grouped->one[group] = 1.0F;
        grouped->transposed[group] = CUBLAS_OP_T;
        grouped->plain[group] = CUBLAS_OP_N;
    }
}

static void grouped_destroy(void *state)
{
    struct grouped *grouped = state;
    (void) cudaFree((void *) grouped->pointers_dev);
    free(grouped);
}

static enum moe_status prepare(struct grouped *grouped, struct moe_error *err)
{
    int32_t experts[MOE_EXPERT_COUNT_LIMIT];
    const uint32_t set_count = grouped->kase->data->set_count;
    make_groups(grouped, experts);
    if (grouped->group_count == 0) {
        return moe_fail(err, MOE_RANGE, "no expert has rows");
    }
    const size_t per_set = LISTS * (size_t) grouped->group_count;
    const size_t bytes = set_count * per_set * sizeof(void *);
    const void **pointers = calloc(set_count * per_set, sizeof(void *));
    if (pointers == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for pointers");
    }
    for (uint32_t set = 0; set < set_count; set++) {
        for (int group = 0; group < grouped->group_count; group++) {
            set_pointers(grouped, set, experts[group], group, pointers + set * per_set);
        }
    }
    void *place = NULL;
    enum moe_status status =
        moe_device_check((int) cudaMalloc(&place, bytes), "cudaMalloc of pointers", err);
    grouped->pointers_dev = place;
    if (status == MOE_OK) {
        status = moe_device_check(
            (int) cudaMemcpy(place, (const void *) pointers, bytes, cudaMemcpyHostToDevice),
            "cudaMemcpy of pointers", err);
    }
    free((void *) pointers);
    return status;
}

static enum moe_status grouped_create(const struct moe_expert_tools *tools,
                                      const struct moe_expert_case *kase, void **state,
                                      struct moe_error *err)
{
    struct grouped *grouped = calloc(1, sizeof *grouped);
    if (grouped == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a backend");
    }
    grouped->kase = kase;
    grouped->blas = tools->blas;
    grouped->matrix_count = moe_expert_ffn_w1_matrix_count(kase->data->shape.activation);
    const enum moe_status status = prepare(grouped, err);
    if (status != MOE_OK) {
        grouped_destroy(grouped);
        return status;
    }
    *state = grouped;
    return MOE_OK;
}

static const char *grouped_describe(void *state)
{
    (void) state;
    return "one call per GEMM";
}

const struct moe_expert_backend moe_expert_backend_blas_grouped = {
    .name = "blas-grouped",
    .help = "cuBLAS grouped, one call per GEMM",
    .is_library = true,
    .chosen = true,
    .dtype = MOE_EXPERT_BF16,
    .create = grouped_create,
    .run = grouped_run,
    .describe = grouped_describe,
    .destroy = grouped_destroy,
};

/*
 * cuBLASLt, strided batched: one product for all experts, each padded to the rows of the fullest.
 * The padded input is made beforehand, as a permute kernel would write it there at once; padding
 * rows are zeros.
 */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/blas/lt_plan.h"
#include "calibrate/device/device.h"
#include "calibrate/expert/expert_backend.h"
#include "kernels/expert/activation.h"

/* More padding than this is refused: it could only lose. */
static const int64_t PADDED_BYTES_MAX = INT64_C(24) << 30;
enum { PADDING_FACTOR_MAX = 12 };

struct padded {
    const struct moe_expert_case *kase;
    struct moe_blas *blas;
    int32_t matrix_count;
    bool fused;
    void *x_dev; /* all [expert_count][row_max][columns] */
    void *projected_dev;
    void *mid_dev;
    void *out_dev;
    struct moe_lt_plan *first;
    struct moe_lt_plan *second;
    char text[64];
};

static int64_t padded_rows(const struct moe_expert_case *kase)
{
    return (int64_t) kase->load.row_max * kase->data->shape.expert_count;
}

static const char *padded_refuse(const struct moe_expert_case *kase)
{
    const struct moe_expert_ffn_shape *shape = &kase->data->shape;
    const int64_t columns =
        2 * (int64_t) shape->hidden +
        (int64_t) shape->inter * (1 + moe_expert_ffn_w1_matrix_count(shape->activation));
    if (padded_rows(kase) > PADDING_FACTOR_MAX * (int64_t) kase->load.row_count) {
        return "padding to the fullest expert makes more than 12 times the rows";
    }
    if (padded_rows(kase) * columns * 2 > PADDED_BYTES_MAX) {
        return "the padded rows take more than 24 GiB";
    }
    return NULL;
}

static struct moe_lt_operands first_operands(const struct padded *padded, uint32_t set)
{
    return (struct moe_lt_operands){ .weight = padded->kase->data->w1_dev[set],
                                     .rows = padded->x_dev,
                                     .out =
                                         padded->fused ? padded->mid_dev : padded->projected_dev };
}

static struct moe_lt_operands second_operands(const struct padded *padded, uint32_t set)
{
    return (struct moe_lt_operands){ .weight = padded->kase->data->w2_dev[set],
                                     .rows = padded->mid_dev,
                                     .out = padded->out_dev };
}

static enum moe_status padded_run(void *state, uint32_t set, void *stream, struct moe_error *err)
{
    struct padded *padded = state;
    const struct moe_expert_ffn_shape *shape = &padded->kase->data->shape;
    const struct moe_lt_operands first = first_operands(padded, set);
    const struct moe_lt_operands second = second_operands(padded, set);
    MOE_TRY(moe_lt_plan_run(padded->blas, padded->first, &first, 0, stream, err));
    if (!padded->fused) {
        MOE_TRY(moe_device_check(moe_kernel_activation_bf16(padded->projected_dev, padded->mid_dev,
                                                            padded_rows(padded->kase), shape->inter,
                                                            shape->activation, stream),
                                 "moe_kernel_activation_bf16", err));
    }
    return moe_lt_plan_run(padded->blas, padded->second, &second, 0, stream, err);
}

/* Rows of every expert between the dense matrix and the padded one. */
static enum moe_status copy_rows(const struct padded *padded, void *dst_dev, const void *src_dev,
                                 bool pad, void *stream, struct moe_error *err)
{
    const struct moe_expert_case *kase = padded->kase;
    const size_t row_bytes = (size_t) kase->data->shape.hidden * 2;
    for (int32_t e = 0; e < kase->data->shape.expert_count; e++) {
        const size_t dense = (size_t) kase->row_offset[e] * row_bytes;
        const size_t apart = (size_t) e * (size_t) kase->load.row_max * row_bytes;
        const size_t bytes = (size_t) (kase->row_offset[e + 1] - kase->row_offset[e]) * row_bytes;
        if (bytes == 0) {
            continue;
        }
        MOE_TRY(
            moe_device_check((int) cudaMemcpyAsync((char *) dst_dev + (pad ? apart : dense),
                                                   (const char *) src_dev + (pad ? dense : apart),
                                                   bytes, cudaMemcpyDeviceToDevice, stream),
                             "cudaMemcpyAsync of rows", err));
    }
    return MOE_OK;
}

static enum moe_status padded_collect(void *state, void *stream, struct moe_error *err)
{
    const struct padded *padded = state;
    return copy_rows(padded, padded->kase->data->out_dev, padded->out_dev, false, stream, err);
}

static void padded_destroy(void *state)
{
    struct padded *padded = state;
    (void) cudaFree(padded->x_dev);
    (void) cudaFree(padded->projected_dev);
    (void) cudaFree(padded->mid_dev);
    (void) cudaFree(padded->out_dev);
    free(padded);
}

static enum moe_status take(void **target, int64_t cells, struct moe_error *err)
{
    return moe_device_check((int) cudaMalloc(target, (size_t) cells * 2),
                            "cudaMalloc of padded rows", err);
}

static enum moe_status prepare(struct padded *padded, void *stream, struct moe_error *err)
{
    const struct moe_expert_ffn_shape *shape = &padded->kase->data->shape;
    const int64_t rows = padded_rows(padded->kase);
    const struct moe_lt_problem first = { .columns = shape->inter * padded->matrix_count,
                                          .rows = padded->kase->load.row_max,
                                          .depth = shape->hidden,
                                          .batch_count = shape->expert_count,
                                          .precision = MOE_LT_BF16,
                                          .relu = padded->fused };
    const struct moe_lt_problem second = { .columns = shape->hidden,
                                           .rows = padded->kase->load.row_max,
                                           .depth = shape->inter,
                                           .batch_count = shape->expert_count,
                                           .precision = MOE_LT_BF16 };
    MOE_TRY(take(&padded->x_dev, rows * shape->hidden, err));
    MOE_TRY(take(&padded->out_dev, rows * shape->hidden, err));
    MOE_TRY(take(&padded->mid_dev, rows * shape->inter, err));
    if (!padded->fused) {
        MOE_TRY(take(&padded->projected_dev, rows * shape->inter * padded->matrix_count, err));
    }
    MOE_TRY(moe_device_check(
        (int) cudaMemsetAsync(padded->x_dev, 0, (size_t) rows * (size_t) shape->hidden * 2, stream),
        "cudaMemsetAsync", err));
    MOE_TRY(copy_rows(padded, padded->x_dev, padded->kase->data->x_dev, true, stream, err));
    /* The whole batch is larger than the cache, so one sample is enough. */
    const struct moe_lt_operands first_sample = first_operands(padded, 0);
    const struct moe_lt_operands second_sample = second_operands(padded, 0);
    MOE_TRY(moe_lt_plan_find(padded->blas, &first, &first_sample, 1, stream, &padded->first, err));
    return moe_lt_plan_find(padded->blas, &second, &second_sample, 1, stream, &padded->second, err);
}

static enum moe_status padded_create(const struct moe_expert_tools *tools,
                                     const struct moe_expert_case *kase, void **state,
                                     struct moe_error *err)
{
    struct padded *padded = calloc(1, sizeof *padded);
    if (padded == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a backend");
    }
    padded->kase = kase;
    padded->blas = tools->blas;
    padded->matrix_count = moe_expert_ffn_w1_matrix_count(kase->data->shape.activation);
    padded->fused = kase->data->shape.activation == MOE_EXPERT_RELU;
    const enum moe_status status = prepare(padded, moe_graph_timer_stream(tools->timer), err);
    if (status != MOE_OK) {
        padded_destroy(padded);
        return status;
    }
    (void) snprintf(padded->text, sizeof padded->text, "%.2f times the rows",
                    (double) padded_rows(kase) / (double) kase->load.row_count);
    *state = padded;
    return MOE_OK;
}

static const char *padded_describe(void *state)
{
    return ((const struct padded *) state)->text;
}

const struct moe_expert_backend moe_expert_backend_lt_padded = {
    .name = "lt-padded",
    .help = "cuBLASLt, strided batched, padded to the fullest expert",
    .is_library = true,
    .chosen = true,
    .dtype = MOE_EXPERT_BF16,
    .refuse = padded_refuse,
    .create = padded_create,
    .run = padded_run,
    .collect = padded_collect,
    .describe = padded_describe,
    .destroy = padded_destroy,
};

#include "calibrate/expert/expert_reference.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/expert/expert_rows.h"

struct moe_expert_reference {
    int32_t count;
    int32_t rows[MOE_EXPERT_REFERENCE_ROWS];
    int32_t experts[MOE_EXPERT_REFERENCE_ROWS];
    double *right; /* [count][hidden] */
    void *found_dev;
};

double moe_expert_error_limit(enum moe_expert_dtype dtype)
{
    return dtype == MOE_EXPERT_BF16 ? 1.5e-2 : 6e-2;
}

static void choose_rows(const struct moe_expert_case *kase, struct moe_expert_reference *reference)
{
    const int32_t experts = kase->data->shape.expert_count;
    const int32_t last = kase->load.row_count - 1;
    int32_t fullest = 0;
    for (int32_t e = 1; e < experts; e++) {
        const int32_t most = kase->row_offset[fullest + 1] - kase->row_offset[fullest];
        fullest = kase->row_offset[e + 1] - kase->row_offset[e] > most ? e : fullest;
    }
    const int32_t wanted[MOE_EXPERT_REFERENCE_ROWS] = {
        0,        last,     kase->row_offset[fullest], kase->row_offset[fullest + 1] - 1, last / 7,
        last / 3, last / 2, last - last / 5,
    };
    for (int i = 0; i < MOE_EXPERT_REFERENCE_ROWS; i++) {
        int32_t expert = 0;
        while (kase->row_offset[expert + 1] <= wanted[i]) {
            expert++;
        }
        reference->rows[i] = wanted[i];
        reference->experts[i] = expert;
    }
    reference->count = MOE_EXPERT_REFERENCE_ROWS;
}

static struct moe_expert_rows question(const struct moe_expert_case *kase,
                                       enum moe_expert_scaling scaling)
{
    const struct moe_expert_data *data = kase->data;
    struct moe_expert_rows rows = {
        .shape = data->shape,
        .weights = moe_expert_data_weights(data, 0),
        .scaling = scaling,
        .scale_stride = data->scale_stride,
        .x_dev = data->x_dev,
        .x_scale_dev = data->x_scale_dev,
    };
    if (scaling == MOE_EXPERT_SCALING_ROW) {
        rows.weights.w1_scale_dev = data->w1_row_scale_dev;
        rows.weights.w2_scale_dev = data->w2_row_scale_dev;
        rows.x_scale_dev = data->x_row_scale_dev;
    }
    return rows;
}

/* What one computation holds on the GPU. */
struct scratch {
    void *row_dev;
    void *expert_dev;
    void *mid_dev;
    void *out_dev;
};

static enum moe_status upload(void **target, const int32_t *from, size_t bytes,
                              struct moe_error *err)
{
    MOE_TRY(moe_device_check((int) cudaMalloc(target, bytes), "cudaMalloc", err));
    return moe_device_check((int) cudaMemcpy(*target, from, bytes, cudaMemcpyHostToDevice),
                            "cudaMemcpy", err);
}

static enum moe_status compute(const struct moe_expert_case *kase, enum moe_expert_scaling scaling,
                               struct moe_expert_reference *reference, struct scratch *scratch,
                               struct moe_error *err)
{
    struct moe_expert_rows rows = question(kase, scaling);
    const size_t count = (size_t) reference->count;
    const size_t index_bytes = count * sizeof(int32_t);
    const size_t mid_bytes = count * (size_t) rows.shape.inter * sizeof(double);
    const size_t out_bytes = count * (size_t) rows.shape.hidden * sizeof(double);
    MOE_TRY(upload(&scratch->row_dev, reference->rows, index_bytes, err));
    MOE_TRY(upload(&scratch->expert_dev, reference->experts, index_bytes, err));
    MOE_TRY(moe_device_check((int) cudaMalloc(&scratch->mid_dev, mid_bytes), "cudaMalloc", err));
    MOE_TRY(moe_device_check((int) cudaMalloc(&scratch->out_dev, out_bytes), "cudaMalloc", err));
    rows.sample_count = reference->count;
    rows.row_dev = scratch->row_dev;
    rows.expert_dev = scratch->expert_dev;
    rows.mid_dev = scratch->mid_dev;
    rows.out_dev = scratch->out_dev;
    MOE_TRY(moe_device_check(moe_kernel_expert_rows(&rows, NULL), "moe_kernel_expert_rows", err));
    return moe_device_check(
        (int) cudaMemcpy(reference->right, scratch->out_dev, out_bytes, cudaMemcpyDeviceToHost),
        "moe_kernel_expert_rows", err);
}

enum moe_status moe_expert_reference_create(const struct moe_expert_case *kase,
                                            enum moe_expert_scaling scaling,
                                            struct moe_expert_reference **out,
                                            struct moe_error *err)
{
    struct scratch scratch = { 0 };
    struct moe_expert_reference *reference = calloc(1, sizeof *reference);
    if (reference == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a reference");
    }
    choose_rows(kase, reference);
    reference->right = calloc((size_t) reference->count * (size_t) kase->data->shape.hidden,
                              sizeof *reference->right);
    if (reference->right == NULL) {
        free(reference);
        return moe_fail(err, MOE_LIMIT, "no memory for a reference");
    }
    enum moe_status status = moe_device_check(
        (int) cudaMalloc(&reference->found_dev, sizeof(uint64_t)), "cudaMalloc", err);
    if (status == MOE_OK) {
        status = compute(kase, scaling, reference, &scratch, err);
    }
    (void) cudaFree(scratch.row_dev);
    (void) cudaFree(scratch.expert_dev);
    (void) cudaFree(scratch.mid_dev);
    (void) cudaFree(scratch.out_dev);
    if (status != MOE_OK) {
        moe_expert_reference_destroy(reference);
        return status;
    }
    *out = reference;
    return MOE_OK;
}

void moe_expert_reference_destroy(struct moe_expert_reference *reference)
{
    if (reference == NULL) {
        return;
    }
    (void) cudaFree(reference->found_dev);
    free(reference->right);
    free(reference);
}

static double from_bf16(uint16_t bits)
{
    const uint32_t wide = (uint32_t) bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return (double) value;
}

static double distance(const struct moe_expert_reference *reference, const uint16_t *got,
                       int32_t hidden)
{
    double apart = 0.0;
    double length = 0.0;
    for (int64_t i = 0; i < (int64_t) reference->count * hidden; i++) {
        const double difference = from_bf16(got[i]) - reference->right[i];
        apart += difference * difference;
        length += reference->right[i] * reference->right[i];
    }
    const double error = sqrt(apart / length);
    return error >= 0.0 ? error : (double) INFINITY; /* no number is not right either */
}

static enum moe_status count_unwritten(const struct moe_expert_reference *reference,
                                       const struct moe_expert_case *kase, uint64_t *unwritten,
                                       struct moe_error *err)
{
    const int64_t cells = (int64_t) kase->load.row_count * kase->data->shape.hidden;
    MOE_TRY(moe_device_check((int) cudaMemset(reference->found_dev, 0, sizeof *unwritten),
                             "cudaMemset", err));
    MOE_TRY(moe_device_check(
        moe_kernel_count_poison(kase->data->out_dev, cells, reference->found_dev, NULL),
        "moe_kernel_count_poison", err));
    return moe_device_check((int) cudaMemcpy(unwritten, reference->found_dev, sizeof *unwritten,
                                             cudaMemcpyDeviceToHost),
                            "moe_kernel_count_poison", err);
}

enum moe_status moe_expert_reference_judge(const struct moe_expert_reference *reference,
                                           const struct moe_expert_case *kase,
                                           struct moe_expert_verdict *out, struct moe_error *err)
{
    const int32_t hidden = kase->data->shape.hidden;
    const size_t row_bytes = (size_t) hidden * sizeof(uint16_t);
    struct moe_expert_verdict verdict = { 0 };
    uint16_t *got = calloc((size_t) reference->count, row_bytes);
    if (got == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a comparison");
    }
    enum moe_status status = count_unwritten(reference, kase, &verdict.unwritten, err);
    for (int32_t i = 0; status == MOE_OK && i < reference->count; i++) {
        status = moe_device_check((int) cudaMemcpy(got + (size_t) i * (size_t) hidden,
                                                   (const char *) kase->data->out_dev +
                                                       (size_t) reference->rows[i] * row_bytes,
                                                   row_bytes, cudaMemcpyDeviceToHost),
                                  "cudaMemcpy of output rows", err);
    }
    if (status == MOE_OK) {
        verdict.error = distance(reference, got, hidden);
        *out = verdict;
    }
    free(got);
    return status;
}

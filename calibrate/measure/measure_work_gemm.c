/* Dense matrix products by cuBLASLt: out[row][column] = sum over depth of x * weight. */
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/blas/lt_plan.h"
#include "calibrate/device/device.h"
#include "calibrate/measure/measure_work.h"
#include "kernels/expert/expert_rows.h"
#include "kernels/memory/random_fill.h"
#include "kernels/reference/reference_number.h"

enum { CHECKED_ROWS = 2, CHECKED_COLUMNS = 8, SAMPLES = 4, LARGE_ROWS = 1024 };

/* e4m3 values of this deviation fill their range; the scales bring them back to a layer's. */
static const float E4M3_SIGMA = 128.0F;

struct gemm {
    struct moe_measure_tools tools;
    int32_t depth;
    int32_t columns;
    enum moe_expert_dtype dtype;
    struct moe_measure_buffers buffers;
    uint32_t set_count;
    void *weight_dev[MOE_GRAPH_SET_LIMIT];
    void *x_dev;
    void *out_dev;
    float *weight_scale_dev; /* fp8: one per column, one per row */
    float *x_scale_dev;
    void *found_dev;
    struct moe_lt_plan *plan;
    int32_t rows; /* of the point that is set */
};

static enum moe_status take_filled(struct gemm *gemm, double cells, float sigma, uint64_t seed,
                                   void *target, struct moe_error *err)
{
    void **slot = target;
    const bool bf16 = gemm->dtype == MOE_EXPERT_BF16;
    MOE_TRY(moe_measure_take(&gemm->buffers, cells * (bf16 ? 2.0 : 1.0), target, err));
    const int code = bf16 ? moe_kernel_fill_bf16(*slot, (int64_t) cells, sigma, seed, NULL)
                          : moe_kernel_fill_e4m3(*slot, (int64_t) cells, E4M3_SIGMA, seed, NULL);
    return moe_device_check(code, "filling", err);
}

static enum moe_status take_scales(struct gemm *gemm, double count, float sigma, uint64_t seed,
                                   float **target, struct moe_error *err)
{
    const float scale = sigma / E4M3_SIGMA;
    MOE_TRY(moe_measure_take(&gemm->buffers, count * 4.0, target, err));
    return moe_device_check(
        moe_kernel_fill_f32(*target, (int64_t) count, 0.75F * scale, 1.25F * scale, seed, NULL),
        "filling", err);
}

static enum moe_status take_all(struct gemm *gemm, double rows, struct moe_error *err)
{
    const float sigma = 1.0F / sqrtf((float) gemm->depth);
    const double cells = (double) gemm->depth * (double) gemm->columns;
    for (uint32_t set = 0; set < gemm->set_count; set++) {
        MOE_TRY(take_filled(gemm, cells, sigma, 100 + set, &gemm->weight_dev[set], err));
    }
    MOE_TRY(take_filled(gemm, rows * (double) gemm->depth, 1.0F, 1, &gemm->x_dev, err));
    MOE_TRY(
        moe_measure_take(&gemm->buffers, rows * (double) gemm->columns * 2.0, &gemm->out_dev, err));
    MOE_TRY(moe_measure_take(&gemm->buffers, 8.0, &gemm->found_dev, err));
    if (gemm->dtype == MOE_EXPERT_FP8) {
        MOE_TRY(take_scales(gemm, (double) gemm->columns, sigma, 2, &gemm->weight_scale_dev, err));
        MOE_TRY(take_scales(gemm, rows, 1.0F, 3, &gemm->x_scale_dev, err));
    }
    return moe_device_check((int) cudaDeviceSynchronize(), "filling", err);
}

static void gemm_close(void *state)
{
    struct gemm *gemm = state;
    moe_measure_give(&gemm->buffers);
    free(gemm);
}

static enum moe_status gemm_open(const struct moe_measure_tools *tools,
                                 const struct moe_measure_series *series,
                                 const struct moe_measure_extent *extent, void **state,
                                 struct moe_error *err)
{
    struct gemm *gemm = calloc(1, sizeof *gemm);
    if (gemm == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a series");
    }
    gemm->tools = *tools;
    gemm->depth = series->hidden;
    gemm->columns = series->inter;
    gemm->dtype = series->dtype;
    gemm->set_count = moe_graph_set_count((double) series->hidden * (double) series->inter *
                                              (series->dtype == MOE_EXPERT_BF16 ? 2.0 : 1.0),
                                          tools->cache_bytes);
    const enum moe_status status = take_all(gemm, extent->tokens, err);
    if (status != MOE_OK) {
        gemm_close(gemm);
        return status;
    }
    *state = gemm;
    return MOE_OK;
}

static struct moe_lt_operands operands_of(const struct gemm *gemm, uint32_t set)
{
    return (struct moe_lt_operands){ .weight = gemm->weight_dev[set],
                                     .rows = gemm->x_dev,
                                     .out = gemm->out_dev,
                                     .weight_scale = gemm->weight_scale_dev,
                                     .row_scale = gemm->x_scale_dev };
}

static enum moe_status gemm_launch(void *context, uint32_t set, void *stream, struct moe_error *err)
{
    const struct gemm *gemm = context;
    const struct moe_lt_operands operands = operands_of(gemm, set);
    return moe_lt_plan_run(gemm->tools.blas, gemm->plan, &operands, 0, stream, err);
}

static enum moe_status gemm_set(void *state, const struct moe_measure_point *point,
                                struct moe_measure_launch *out, struct moe_error *err)
{
    struct gemm *gemm = state;
    struct moe_lt_operands samples[SAMPLES];
    /* Where weights are a small part it does not matter whether they are in the cache. */
    const uint32_t most = point->tokens > LARGE_ROWS ? 1 : SAMPLES;
    const uint32_t sample_count = gemm->set_count < most ? gemm->set_count : most;
    const struct moe_lt_problem problem = {
        .columns = gemm->columns,
        .rows = (int32_t) point->tokens,
        .depth = gemm->depth,
        .batch_count = 1,
        .precision = gemm->dtype == MOE_EXPERT_BF16 ? MOE_LT_BF16 : MOE_LT_FP8_ROW,
    };
    for (uint32_t set = 0; set < sample_count; set++) {
        samples[set] = operands_of(gemm, set);
    }
    gemm->rows = problem.rows;
    MOE_TRY(moe_lt_plan_find(gemm->tools.blas, &problem, samples, sample_count,
                             moe_graph_timer_stream(gemm->tools.timer), &gemm->plan, err));
    *out = (struct moe_measure_launch){ .launch = gemm_launch,
                                        .context = gemm,
                                        .set_count = gemm->set_count };
    return MOE_OK;
}

static enum moe_status gemm_poison(void *state, const struct moe_measure_point *point,
                                   struct moe_error *err)
{
    const struct gemm *gemm = state;
    const size_t bytes = (size_t) point->tokens * (size_t) gemm->columns * 2;
    MOE_TRY(moe_device_check((int) cudaMemset(gemm->out_dev, 0xff, bytes), "cudaMemset", err));
    return moe_device_check((int) cudaDeviceSynchronize(), "cudaMemset", err);
}

/* Values of one row of an operand, multiplied by its scale; scratch holds depth cells. */
static enum moe_status read_row(const struct gemm *gemm, const void *base_dev,
                                const float *scale_dev, int64_t row, unsigned char *scratch,
                                double *out, struct moe_error *err)
{
    const size_t cell = gemm->dtype == MOE_EXPERT_BF16 ? 2 : 1;
    const size_t bytes = (size_t) gemm->depth * cell;
    float scale = 1.0F;
    MOE_TRY(
        moe_device_check((int) cudaMemcpy(scratch, (const char *) base_dev + (size_t) row * bytes,
                                          bytes, cudaMemcpyDeviceToHost),
                         "cudaMemcpy", err));
    if (scale_dev != NULL) {
        MOE_TRY(moe_device_check(
            (int) cudaMemcpy(&scale, scale_dev + row, sizeof scale, cudaMemcpyDeviceToHost),
            "cudaMemcpy", err));
    }
    for (size_t k = 0; k < (size_t) gemm->depth; k++) {
        out[k] = (double) scale *
                 (double) (cell == 1 ? moe_float_from_e4m3(scratch[k])
                                     : moe_float_from_bf16(
                                           (uint16_t) (scratch[2 * k] | scratch[2 * k + 1] << 8)));
    }
    return MOE_OK;
}

/* Sums of squares of distance and length over some columns of one row. */
static enum moe_status compare_row(const struct gemm *gemm, int64_t row, unsigned char *scratch,
                                   double *x, double *weight, double sums[2], struct moe_error *err)
{
    MOE_TRY(read_row(gemm, gemm->x_dev, gemm->x_scale_dev, row, scratch, x, err));
    for (int64_t i = 0; i < CHECKED_COLUMNS; i++) {
        const int64_t column = i * (gemm->columns - 1) / (CHECKED_COLUMNS - 1);
        uint16_t bits = 0;
        double right = 0.0;
        MOE_TRY(read_row(gemm, gemm->weight_dev[0], gemm->weight_scale_dev, column, scratch, weight,
                         err));
        for (int32_t k = 0; k < gemm->depth; k++) {
            right += x[k] * weight[k];
        }
        const char *cell = (const char *) gemm->out_dev +
                           ((size_t) row * (size_t) gemm->columns + (size_t) column) * 2;
        MOE_TRY(moe_device_check((int) cudaMemcpy(&bits, cell, 2, cudaMemcpyDeviceToHost),
                                 "cudaMemcpy", err));
        const double apart = (double) moe_float_from_bf16(bits) - right;
        sums[0] += apart * apart;
        sums[1] += right * right;
    }
    return MOE_OK;
}

static enum moe_status count_unwritten(const struct gemm *gemm, uint64_t *out,
                                       struct moe_error *err)
{
    const int64_t cells = (int64_t) gemm->rows * gemm->columns / 8 * 8;
    MOE_TRY(moe_device_check((int) cudaMemset(gemm->found_dev, 0, sizeof *out), "cudaMemset", err));
    if (cells > 0) {
        MOE_TRY(
            moe_device_check(moe_kernel_count_poison(gemm->out_dev, cells, gemm->found_dev, NULL),
                             "moe_kernel_count_poison", err));
    }
    return moe_device_check(
        (int) cudaMemcpy(out, gemm->found_dev, sizeof *out, cudaMemcpyDeviceToHost), "cudaMemcpy",
        err);
}

static enum moe_status gemm_judge(void *state, const struct moe_measure_point *point,
                                  struct moe_measure_verdict *out, struct moe_error *err)
{
    const struct gemm *gemm = state;
    uint64_t unwritten = 0;
    double sums[2] = { 0.0, 0.0 };
    double *values = calloc((size_t) gemm->depth * 3, sizeof *values);
    (void) point;
    if (values == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a comparison");
    }
    enum moe_status status = count_unwritten(gemm, &unwritten, err);
    for (int i = 0; status == MOE_OK && i < CHECKED_ROWS; i++) {
        status = compare_row(gemm, i == 0 ? 0 : gemm->rows - 1,
                             (unsigned char *) (values + 2 * (size_t) gemm->depth), values,
                             values + gemm->depth, sums, err);
    }
    free(values);
    if (status != MOE_OK) {
        return status;
    }
    out->error = sums[1] > 0.0 ? sqrt(sums[0] / sums[1]) : 0.0;
    out->wrong = unwritten != 0 || !(out->error <= 1.5e-2);
    (void) snprintf(out->why, sizeof out->why, "%llu cells unwritten, relative error %.2e",
                    (unsigned long long) unwritten, out->error);
    return MOE_OK;
}

const struct moe_measure_work moe_measure_work_gemm = {
    .open = gemm_open,
    .set = gemm_set,
    .poison = gemm_poison,
    .judge = gemm_judge,
    .close = gemm_close,
};

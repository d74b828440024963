#include "calibrate/blas/lt_plan.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/device/device.h"

enum { PLAN_LIMIT = 4096 };

struct moe_lt_plan {
    struct moe_lt_problem problem;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t weight;
    cublasLtMatrixLayout_t rows;
    cublasLtMatrixLayout_t out;
    cublasLtMatmulAlgo_t algo;
};

struct moe_lt_cache {
    struct moe_lt_plan *plans[PLAN_LIMIT];
    uint32_t count;
    cudaEvent_t begin;
    cudaEvent_t end;
};

enum moe_status moe_lt_cache_create(struct moe_lt_cache **out, struct moe_error *err)
{
    struct moe_lt_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for plans");
    }
    enum moe_status status =
        moe_device_check((int) cudaEventCreate(&cache->begin), "cudaEventCreate", err);
    if (status == MOE_OK) {
        status = moe_device_check((int) cudaEventCreate(&cache->end), "cudaEventCreate", err);
    }
    if (status != MOE_OK) {
        moe_lt_cache_destroy(cache);
        return status;
    }
    *out = cache;
    return MOE_OK;
}

static void plan_destroy(struct moe_lt_plan *plan)
{
    if (plan->out != NULL) {
        (void) cublasLtMatrixLayoutDestroy(plan->out);
    }
    if (plan->rows != NULL) {
        (void) cublasLtMatrixLayoutDestroy(plan->rows);
    }
    if (plan->weight != NULL) {
        (void) cublasLtMatrixLayoutDestroy(plan->weight);
    }
    if (plan->desc != NULL) {
        (void) cublasLtMatmulDescDestroy(plan->desc);
    }
    free(plan);
}

void moe_lt_cache_destroy(struct moe_lt_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    for (uint32_t i = 0; i < cache->count; i++) {
        plan_destroy(cache->plans[i]);
    }
    if (cache->begin != NULL) {
        (void) cudaEventDestroy(cache->begin);
    }
    if (cache->end != NULL) {
        (void) cudaEventDestroy(cache->end);
    }
    free(cache);
}

static enum moe_status set_desc(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                const void *value, size_t bytes, struct moe_error *err)
{
    return moe_blas_check((int) cublasLtMatmulDescSetAttribute(desc, attribute, value, bytes),
                          "cublasLtMatmulDescSetAttribute", err);
}

static enum moe_status set_scales(const struct moe_lt_plan *plan,
                                  const struct moe_lt_operands *operands, struct moe_error *err)
{
    if (plan->problem.precision == MOE_LT_BF16) {
        return MOE_OK;
    }
    MOE_TRY(set_desc(plan->desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
                     &(const void *){ operands->weight_scale }, sizeof(void *), err));
    return set_desc(plan->desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER,
                    &(const void *){ operands->row_scale }, sizeof(void *), err);
}

static enum moe_status make_desc(struct moe_lt_plan *plan, struct moe_error *err)
{
    const struct moe_lt_problem *problem = &plan->problem;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    MOE_TRY(
        moe_blas_check((int) cublasLtMatmulDescCreate(&plan->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                       "cublasLtMatmulDescCreate", err));
    MOE_TRY(set_desc(plan->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed, err));
    if (problem->relu != 0) {
        const cublasLtEpilogue_t relu = CUBLASLT_EPILOGUE_RELU;
        MOE_TRY(set_desc(plan->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &relu, sizeof relu, err));
    }
    if (problem->precision == MOE_LT_BF16) {
        return MOE_OK;
    }
    const bool by_row = problem->precision == MOE_LT_FP8_ROW;
    const int32_t weight_mode = by_row ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
                                       : CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F;
    const int32_t row_mode = by_row ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
                                    : CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
    MOE_TRY(set_desc(plan->desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &weight_mode,
                     sizeof weight_mode, err));
    return set_desc(plan->desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &row_mode, sizeof row_mode, err);
}

/* One row-major matrix [rows][columns] is the library's column-major [columns][rows]. */
static enum moe_status make_layout(cublasLtMatrixLayout_t *layout, cudaDataType type, int32_t rows,
                                   int32_t columns, int32_t batch_count, struct moe_error *err)
{
    MOE_TRY(moe_blas_check((int) cublasLtMatrixLayoutCreate(layout, type, (uint64_t) columns,
                                                            (uint64_t) rows, columns),
                           "cublasLtMatrixLayoutCreate", err));
    if (batch_count == 1) {
        return MOE_OK;
    }
    const int64_t stride = (int64_t) rows * columns;
    MOE_TRY(moe_blas_check(
        (int) cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                               &batch_count, sizeof batch_count),
        "cublasLtMatrixLayoutSetAttribute", err));
    return moe_blas_check(
        (int) cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                               &stride, sizeof stride),
        "cublasLtMatrixLayoutSetAttribute", err);
}

/* Rows of an expert begin anywhere, so a pointer is aligned no better than its rows are long. */
static uint32_t alignment_of(int64_t row_bytes)
{
    uint32_t alignment = 256;
    while (row_bytes % alignment != 0) {
        alignment /= 2;
    }
    return alignment;
}

static enum moe_status make_preference(const struct moe_lt_problem *problem,
                                       cublasLtMatmulPreference_t preference, struct moe_error *err)
{
    const uint64_t workspace = MOE_BLAS_WORKSPACE_BYTES;
    const int64_t cell = problem->precision == MOE_LT_BF16 ? 2 : 1;
    const uint32_t in = alignment_of(problem->depth * cell);
    const uint32_t out = alignment_of((int64_t) problem->columns * 2);
    const struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        const void *value;
        size_t bytes;
    } settings[] = {
        { CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &in, sizeof in },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &in, sizeof in },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &out, sizeof out },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &out, sizeof out },
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        MOE_TRY(moe_blas_check(
            (int) cublasLtMatmulPreferenceSetAttribute(preference, settings[i].attribute,
                                                       settings[i].value, settings[i].bytes),
            "cublasLtMatmulPreferenceSetAttribute", err));
    }
    return MOE_OK;
}

static enum moe_status propose(struct moe_blas *blas, const struct moe_lt_plan *plan,
                               cublasLtMatmulHeuristicResult_t *results, int *count,
                               struct moe_error *err)
{
    cublasLtMatmulPreference_t preference = NULL;
    MOE_TRY(moe_blas_check((int) cublasLtMatmulPreferenceCreate(&preference),
                           "cublasLtMatmulPreferenceCreate", err));
    enum moe_status status = make_preference(&plan->problem, preference, err);
    if (status == MOE_OK) {
        status = moe_blas_check((int) cublasLtMatmulAlgoGetHeuristic(
                                    blas->lt, plan->desc, plan->weight, plan->rows, plan->out,
                                    plan->out, preference, MOE_LT_TRIED_LIMIT, results, count),
                                "cublasLtMatmulAlgoGetHeuristic", err);
    }
    (void) cublasLtMatmulPreferenceDestroy(preference);
    if (status == MOE_OK && *count == 0) {
        status = moe_fail(err, MOE_UNSUPPORTED, "cuBLASLt has no algorithm for %d x %d x %d",
                          plan->problem.rows, plan->problem.columns, plan->problem.depth);
    }
    return status;
}

enum moe_status moe_lt_plan_run(struct moe_blas *blas, const struct moe_lt_plan *plan,
                                const struct moe_lt_operands *operands, uint32_t lane, void *stream,
                                struct moe_error *err)
{
    const float one = 1.0F;
    const float zero = 0.0F;
    MOE_TRY(set_scales(plan, operands, err));
    return moe_blas_check((int) cublasLtMatmul(blas->lt, plan->desc, &one, operands->weight,
                                               plan->weight, operands->rows, plan->rows, &zero,
                                               operands->out, plan->out, operands->out, plan->out,
                                               &plan->algo, blas->workspaces[lane],
                                               MOE_BLAS_WORKSPACE_BYTES, stream),
                          "cublasLtMatmul", err);
}

/* Another algorithm than the library's first must be faster by this to be taken: among equals the
 * choice would be an accident, and a point's repeat on another GPU or day measure another
 * kernel. */
static const float CHOICE_GAIN = 0.97F;

/* The better of two runs over all samples after a first one that loads the kernel. */
static enum moe_status try_algorithm(struct moe_blas *blas, const struct moe_lt_plan *plan,
                                     const struct moe_lt_operands *samples, uint32_t sample_count,
                                     void *stream, float *best_ms, struct moe_error *err)
{
    enum { ROUNDS = 2 };
    *best_ms = INFINITY;
    MOE_TRY(moe_lt_plan_run(blas, plan, &samples[0], 0, stream, err));
    for (int round = 0; round < ROUNDS; round++) {
        float ms = 0.0F;
        MOE_TRY(moe_device_check((int) cudaEventRecord(blas->cache->begin, stream),
                                 "cudaEventRecord", err));
        for (uint32_t i = 0; i < sample_count; i++) {
            MOE_TRY(moe_lt_plan_run(blas, plan, &samples[sample_count - 1 - i], 0, stream, err));
        }
        MOE_TRY(moe_device_check((int) cudaEventRecord(blas->cache->end, stream), "cudaEventRecord",
                                 err));
        MOE_TRY(moe_device_check((int) cudaEventSynchronize(blas->cache->end), "a cuBLASLt product",
                                 err));
        MOE_TRY(
            moe_device_check((int) cudaEventElapsedTime(&ms, blas->cache->begin, blas->cache->end),
                             "cudaEventElapsedTime", err));
        *best_ms = ms < *best_ms ? ms : *best_ms;
    }
    return MOE_OK;
}

static enum moe_status choose(struct moe_blas *blas, struct moe_lt_plan *plan,
                              const struct moe_lt_operands *samples, uint32_t sample_count,
                              void *stream, struct moe_error *err)
{
    cublasLtMatmulHeuristicResult_t results[MOE_LT_TRIED_LIMIT];
    int count = 0;
    int best = -1;
    float best_ms = INFINITY;
    MOE_TRY(propose(blas, plan, results, &count, err));
    for (int i = 0; i < count; i++) {
        float ms = 0.0F;
        if (results[i].state != CUBLAS_STATUS_SUCCESS) {
            continue;
        }
        plan->algo = results[i].algo;
        const enum moe_status status =
            try_algorithm(blas, plan, samples, sample_count, stream, &ms, err);
        /* What an algorithm refuses is no loss; after a failed GPU all others would fail too. */
        if (status == MOE_DEVICE && cudaStreamSynchronize(stream) != cudaSuccess) {
            return status;
        }
        if (status == MOE_OK && (best < 0 || ms < CHOICE_GAIN * best_ms)) {
            best = i;
            best_ms = ms;
        }
    }
    if (best < 0) {
        return moe_fail(err, MOE_UNSUPPORTED, "none of cuBLASLt's %d algorithms runs %d x %d x %d",
                        count, plan->problem.rows, plan->problem.columns, plan->problem.depth);
    }
    plan->algo = results[best].algo;
    return MOE_OK;
}

static enum moe_status plan_make(struct moe_blas *blas, struct moe_lt_plan *plan,
                                 const struct moe_lt_operands *samples, uint32_t sample_count,
                                 void *stream, struct moe_error *err)
{
    const struct moe_lt_problem *problem = &plan->problem;
    const cudaDataType type = problem->precision == MOE_LT_BF16 ? CUDA_R_16BF : CUDA_R_8F_E4M3;
    MOE_TRY(make_desc(plan, err));
    MOE_TRY(set_scales(plan, &samples[0], err));
    MOE_TRY(make_layout(&plan->weight, type, problem->columns, problem->depth, problem->batch_count,
                        err));
    MOE_TRY(
        make_layout(&plan->rows, type, problem->rows, problem->depth, problem->batch_count, err));
    MOE_TRY(make_layout(&plan->out, CUDA_R_16BF, problem->rows, problem->columns,
                        problem->batch_count, err));
    return choose(blas, plan, samples, sample_count, stream, err);
}

enum moe_status moe_lt_plan_find(struct moe_blas *blas, const struct moe_lt_problem *problem,
                                 const struct moe_lt_operands *samples, uint32_t sample_count,
                                 void *stream, struct moe_lt_plan **out, struct moe_error *err)
{
    struct moe_lt_cache *cache = blas->cache;
    for (uint32_t i = 0; i < cache->count; i++) {
        if (memcmp(&cache->plans[i]->problem, problem, sizeof *problem) == 0) {
            *out = cache->plans[i];
            return MOE_OK;
        }
    }
    if (cache->count == PLAN_LIMIT) {
        return moe_fail(err, MOE_LIMIT, "more than %d different matrix products", PLAN_LIMIT);
    }
    struct moe_lt_plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a plan");
    }
    plan->problem = *problem;
    const enum moe_status status = plan_make(blas, plan, samples, sample_count, stream, err);
    if (status != MOE_OK) {
        plan_destroy(plan);
        return status;
    }
    cache->plans[cache->count++] = plan;
    *out = plan;
    return MOE_OK;
}

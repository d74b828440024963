#include "calibrate/blas/blas.h"

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/blas/lt_plan.h"
#include "calibrate/device/device.h"

enum moe_status moe_blas_check(int blas_status, const char *call, struct moe_error *err)
{
    const cublasStatus_t code = (cublasStatus_t) blas_status;
    if (code == CUBLAS_STATUS_SUCCESS) {
        return MOE_OK;
    }
    enum moe_status status = MOE_DEVICE;
    if (code == CUBLAS_STATUS_NOT_SUPPORTED || code == CUBLAS_STATUS_ARCH_MISMATCH ||
        code == CUBLAS_STATUS_INVALID_VALUE) {
        status = MOE_UNSUPPORTED;
    } else if (code == CUBLAS_STATUS_ALLOC_FAILED) {
        status = MOE_LIMIT;
    }
    return moe_fail(err, status, "%s: %s", call, cublasGetStatusString(code));
}

static enum moe_status make_lanes(struct moe_blas *blas, struct moe_error *err)
{
    for (int i = 0; i < MOE_BLAS_LANE_LIMIT; i++) {
        cudaStream_t stream = NULL;
        cudaEvent_t event = NULL;
        MOE_TRY(moe_device_check((int) cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                                 "cudaStreamCreateWithFlags", err));
        blas->lanes[i] = stream;
        MOE_TRY(moe_device_check((int) cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                                 "cudaEventCreateWithFlags", err));
        blas->done[i] = event;
        MOE_TRY(moe_device_check((int) cudaMalloc(&blas->workspaces[i], MOE_BLAS_WORKSPACE_BYTES),
                                 "cudaMalloc of a workspace", err));
    }
    cudaEvent_t event = NULL;
    MOE_TRY(moe_device_check((int) cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                             "cudaEventCreateWithFlags", err));
    blas->fork = event;
    return MOE_OK;
}

static enum moe_status make_handles(struct moe_blas *blas, struct moe_error *err)
{
    cublasHandle_t handle = NULL;
    cublasLtHandle_t lt = NULL;
    MOE_TRY(moe_blas_check((int) cublasCreate(&handle), "cublasCreate", err));
    blas->handle = handle;
    /* A workspace of our own, since a capture must not allocate. */
    MOE_TRY(moe_blas_check(
        (int) cublasSetWorkspace(handle, blas->workspaces[0], MOE_BLAS_WORKSPACE_BYTES),
        "cublasSetWorkspace", err));
    MOE_TRY(moe_blas_check((int) cublasLtCreate(&lt), "cublasLtCreate", err));
    blas->lt = lt;
    return moe_lt_cache_create(&blas->cache, err);
}

enum moe_status moe_blas_create(struct moe_blas **out, struct moe_error *err)
{
    struct moe_blas *blas = calloc(1, sizeof *blas);
    if (blas == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for BLAS");
    }
    enum moe_status status = make_lanes(blas, err);
    if (status == MOE_OK) {
        status = make_handles(blas, err);
    }
    if (status != MOE_OK) {
        moe_blas_destroy(blas);
        return status;
    }
    *out = blas;
    return MOE_OK;
}

void moe_blas_destroy(struct moe_blas *blas)
{
    if (blas == NULL) {
        return;
    }
    moe_lt_cache_destroy(blas->cache);
    if (blas->lt != NULL) {
        (void) cublasLtDestroy(blas->lt);
    }
    if (blas->handle != NULL) {
        (void) cublasDestroy(blas->handle);
    }
    if (blas->fork != NULL) {
        (void) cudaEventDestroy(blas->fork);
    }
    for (int i = 0; i < MOE_BLAS_LANE_LIMIT; i++) {
        (void) cudaFree(blas->workspaces[i]);
        if (blas->done[i] != NULL) {
            (void) cudaEventDestroy(blas->done[i]);
        }
        if (blas->lanes[i] != NULL) {
            (void) cudaStreamDestroy(blas->lanes[i]);
        }
    }
    free(blas);
}

enum moe_status moe_blas_fork(struct moe_blas *blas, void *stream, uint32_t lane_count,
                              struct moe_error *err)
{
    if (lane_count <= 1) {
        return MOE_OK;
    }
    MOE_TRY(moe_device_check((int) cudaEventRecord(blas->fork, stream), "cudaEventRecord", err));
    for (uint32_t i = 1; i < lane_count; i++) {
        MOE_TRY(moe_device_check((int) cudaStreamWaitEvent(blas->lanes[i], blas->fork, 0),
                                 "cudaStreamWaitEvent", err));
    }
    return MOE_OK;
}

enum moe_status moe_blas_join(struct moe_blas *blas, void *stream, uint32_t lane_count,
                              struct moe_error *err)
{
    for (uint32_t i = 1; i < lane_count; i++) {
        MOE_TRY(moe_device_check((int) cudaEventRecord(blas->done[i], blas->lanes[i]),
                                 "cudaEventRecord", err));
        MOE_TRY(moe_device_check((int) cudaStreamWaitEvent(stream, blas->done[i], 0),
                                 "cudaStreamWaitEvent", err));
    }
    return MOE_OK;
}

void moe_blas_version(const struct moe_blas *blas, char *out, size_t size)
{
    int number = 0;
    if (cublasGetVersion(blas->handle, &number) != CUBLAS_STATUS_SUCCESS) {
        (void) snprintf(out, size, "unknown");
        return;
    }
    (void) snprintf(out, size, "%d.%d.%d", number / 10000, number / 100 % 100, number % 100);
}

#include "calibrate/device/bandwidth.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <stdlib.h>

#include "calibrate/device/device.h"
#include "kernels/kernels.h"

enum { WARM_UP_COUNT = 3 };

/* What one measurement holds on the GPU. */
struct bench {
    float *arrays_dev[3];
    cudaEvent_t begin;
    cudaEvent_t end;
};

static enum moe_status bench_init(struct bench *bench, size_t array_bytes, struct moe_error *err)
{
    for (int i = 0; i < 3; i++) {
        MOE_TRY(moe_device_check((int) cudaMalloc((void **) &bench->arrays_dev[i], array_bytes),
                                 "cudaMalloc", err));
        /* 0x3f3f3f3f is the float 0.747: plain numbers, no denormals. */
        MOE_TRY(moe_device_check((int) cudaMemset(bench->arrays_dev[i], 0x3f, array_bytes),
                                 "cudaMemset", err));
    }
    MOE_TRY(moe_device_check((int) cudaEventCreate(&bench->begin), "cudaEventCreate", err));
    return moe_device_check((int) cudaEventCreate(&bench->end), "cudaEventCreate", err);
}

/* Nothing to do about a failure here: the measurement is over, or has failed already. */
static void bench_finish(struct bench *bench)
{
    if (bench->end != NULL) {
        (void) cudaEventDestroy(bench->end);
    }
    if (bench->begin != NULL) {
        (void) cudaEventDestroy(bench->begin);
    }
    for (int i = 0; i < 3; i++) {
        (void) cudaFree(bench->arrays_dev[i]);
    }
}

static enum moe_status bench_run(const struct bench *bench, int64_t count, float *ms,
                                 struct moe_error *err)
{
    MOE_TRY(moe_device_check((int) cudaEventRecord(bench->begin, NULL), "cudaEventRecord", err));
    MOE_TRY(moe_device_check(moe_kernel_triad(bench->arrays_dev[0], bench->arrays_dev[1],
                                              bench->arrays_dev[2], 0.5F, count, NULL),
                             "moe_kernel_triad", err));
    MOE_TRY(moe_device_check((int) cudaEventRecord(bench->end, NULL), "cudaEventRecord", err));
    MOE_TRY(moe_device_check((int) cudaEventSynchronize(bench->end), "moe_kernel_triad", err));
    return moe_device_check((int) cudaEventElapsedTime(ms, bench->begin, bench->end),
                            "cudaEventElapsedTime", err);
}

static int compare(const void *left, const void *right)
{
    const double a = *(const double *) left;
    const double b = *(const double *) right;
    return (a > b) - (a < b);
}

enum moe_status moe_bandwidth_measure(uint32_t gpu, uint64_t array_bytes, uint32_t repeat_count,
                                      struct moe_bandwidth *out, struct moe_error *err)
{
    assert(array_bytes >= sizeof(float));
    assert(array_bytes % sizeof(float) == 0);
    assert(repeat_count >= 1);
    assert(repeat_count <= MOE_BANDWIDTH_REPEAT_LIMIT);
    double rates[MOE_BANDWIDTH_REPEAT_LIMIT];
    struct bench bench = { 0 };
    enum moe_status status = moe_device_check((int) cudaSetDevice((int) gpu), "cudaSetDevice", err);
    if (status != MOE_OK) {
        return status;
    }
    status = bench_init(&bench, array_bytes, err);
    for (uint32_t i = 0; status == MOE_OK && i < WARM_UP_COUNT + repeat_count; i++) {
        float ms = 0.0F;
        status = bench_run(&bench, (int64_t) (array_bytes / sizeof(float)), &ms, err);
        if (i >= WARM_UP_COUNT) {
            rates[i - WARM_UP_COUNT] = 3.0 * (double) array_bytes / ((double) ms * 1e6);
        }
    }
    if (status == MOE_OK) {
        qsort(rates, repeat_count, sizeof rates[0], compare);
        out->min_gb_per_s = rates[0];
        out->median_gb_per_s = 0.5 * (rates[(repeat_count - 1) / 2] + rates[repeat_count / 2]);
        out->max_gb_per_s = rates[repeat_count - 1];
    }
    bench_finish(&bench);
    return status;
}

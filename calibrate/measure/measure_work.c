#include "calibrate/measure/measure_work.h"

#include <assert.h>
#include <cuda_runtime_api.h>

#include "calibrate/device/device.h"

const struct moe_measure_work *moe_measure_work_of(enum moe_measure_kind kind)
{
    switch (kind) {
    case MOE_MEASURE_EXPERT:
        return &moe_measure_work_expert;
    case MOE_MEASURE_GEMM:
        return &moe_measure_work_gemm;
    case MOE_MEASURE_PERMUTE:
    case MOE_MEASURE_COMBINE:
    case MOE_MEASURE_GATE:
        return &moe_measure_work_route;
    case MOE_MEASURE_KV_GQA:
    case MOE_MEASURE_KV_MLA:
        return &moe_measure_work_kv;
    case MOE_MEASURE_STREAM:
    case MOE_MEASURE_LAUNCH:
    case MOE_MEASURE_KIND_COUNT:
        break;
    }
    return &moe_measure_work_stream;
}

enum moe_status moe_measure_take(struct moe_measure_buffers *buffers, double bytes, void *out,
                                 struct moe_error *err)
{
    void **slot = out;
    assert(buffers->count < MOE_MEASURE_BUFFER_LIMIT);
    MOE_TRY(moe_device_check((int) cudaMalloc(slot, bytes < 16.0 ? 16 : (size_t) bytes),
                             "cudaMalloc", err));
    buffers->owned[buffers->count++] = *slot;
    return MOE_OK;
}

void moe_measure_give(struct moe_measure_buffers *buffers)
{
    for (uint32_t i = 0; i < buffers->count; i++) {
        (void) cudaFree(buffers->owned[i]);
    }
    buffers->count = 0;
}

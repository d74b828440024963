#include "calibrate/bench/probe_ceilings.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/bench/ceilings.h"
#include "calibrate/device/device.h"
#include "calibrate/timing/launch_cost.h"

enum { PRODUCT_SIZE = 8192, SMALL_PRODUCT = 256, SMALL_BYTES = 64 << 20 };

static enum moe_status measure(const struct moe_device *device, int64_t stream_bytes,
                               struct moe_bench_moves *moves, struct moe_error *err)
{
    struct moe_graph_timer *timer = NULL;
    struct moe_blas *blas = NULL;
    struct moe_bench_ceilings c = { 0 };
    struct moe_launch_cost launch = { 0 };
    /* Small arrays are asked for where there is little time, as in tests. */
    const int32_t product = stream_bytes < SMALL_BYTES ? SMALL_PRODUCT : PRODUCT_SIZE;
    enum moe_status status = moe_graph_timer_create(device, NULL, &timer, err);
    if (status == MOE_OK) {
        status = moe_blas_create(&blas, err);
    }
    if (status == MOE_OK) {
        status = moe_ceilings_measure(blas, timer, stream_bytes, product, moves, &c, err);
    }
    if (status == MOE_OK) {
        status = moe_launch_cost_measure(timer, &launch, err);
    }
    if (status == MOE_OK) {
        (void) printf(
            "  read %.3f, write %.3f, copy %.3f TB/s; %d^3 products %.1f TFLOP/s in bf16, "
            "%.1f in fp8\n  empty graph %.2f us, a node more %.0f ns, a launch %.0f ns\n",
            c.read_bytes_per_s / 1e12, c.write_bytes_per_s / 1e12, c.copy_bytes_per_s / 1e12,
            (int) product, c.bf16_flops_per_s / 1e12, c.fp8_flops_per_s / 1e12, c.empty_graph_us,
            launch.graph_node_ns, launch.launch_ns);
    }
    if (timer == NULL || !moe_graph_timer_stuck(timer)) {
        moe_blas_destroy(blas);
        moe_graph_timer_destroy(timer);
    }
    return status;
}

enum moe_status moe_probe_ceilings(uint32_t gpu, int64_t stream_bytes, struct moe_error *err)
{
    struct moe_device device;
    MOE_TRY(moe_device_check((int) cudaSetDevice((int) gpu), "cudaSetDevice", err));
    MOE_TRY(moe_device_read(gpu, &device, err));
    (void) printf("GPU %u  %s %s, %u SMs, %.1f GiB\n", gpu, device.name, device.uuid,
                  device.sm_count, (double) device.memory_bytes / 0x1p30);
    struct moe_bench_moves *moves = calloc(1, sizeof *moves);
    if (moves == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for ceilings");
    }
    const enum moe_status status = measure(&device, stream_bytes, moves, err);
    free(moves);
    return status;
}

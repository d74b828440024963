/* The triad kernel against its CPU twin, to the bit. Exit code 77 without a GPU.
 *
 * Values are small whole numbers, so every result is exact in float whether or not the GPU
 * fuses a * x + y. The counts lie around a block and around the whole grid; the element behind
 * the last one must stay as it was. */
#include <cuda_runtime_api.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/device/device.h"
#include "kernels/kernels.h"
#include "kernels/reference/reference_triad.h"

enum { BLOCK = 256, GRID = 1024 * BLOCK, COUNT_MAX = 3 * GRID + 1 };

static float x[COUNT_MAX + 1];
static float y[COUNT_MAX + 1];
static float expected[COUNT_MAX + 1];
static float found[COUNT_MAX + 1];

static void demand(int cuda_error, const char *call)
{
    struct moe_error err = { 0 };
    if (moe_device_check(cuda_error, call, &err) != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        exit(EXIT_FAILURE);
    }
}

static void copy(void *dst, const void *src, enum cudaMemcpyKind kind)
{
    demand((int) cudaMemcpy(dst, src, sizeof x, kind), "cudaMemcpy");
}

int main(void)
{
    static const int64_t counts[] = {
        0, 1, BLOCK - 1, BLOCK, BLOCK + 1, GRID, GRID + 1, COUNT_MAX
    };
    struct moe_error err = { 0 };
    uint32_t gpu_count = 0;
    float *dev[3] = { NULL };
    const enum moe_status status = moe_device_count(&gpu_count, &err);
    if (status != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        return status == MOE_UNSUPPORTED ? 77 : EXIT_FAILURE;
    }
    for (int64_t i = 0; i <= COUNT_MAX; i++) {
        x[i] = (float) (i % 8191 - 4095);
        y[i] = (float) (i % 4093);
    }
    for (int i = 0; i < 3; i++) {
        demand((int) cudaMalloc((void **) &dev[i], sizeof x), "cudaMalloc");
    }
    copy(dev[1], x, cudaMemcpyHostToDevice);
    copy(dev[2], y, cudaMemcpyHostToDevice);
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        for (int64_t i = 0; i <= COUNT_MAX; i++) {
            expected[i] = -1.0F;
        }
        copy(dev[0], expected, cudaMemcpyHostToDevice);
        demand(moe_kernel_triad(dev[0], dev[1], dev[2], 3.0F, counts[c], NULL), "moe_kernel_triad");
        demand((int) cudaDeviceSynchronize(), "moe_kernel_triad");
        copy(found, dev[0], cudaMemcpyDeviceToHost);
        moe_reference_triad(expected, x, y, 3.0F, counts[c]);
        for (int64_t i = 0; i <= COUNT_MAX; i++) {
            if (found[i] != expected[i]) {
                (void) fprintf(stderr,
                               "count %" PRId64 ", element %" PRId64 ": %.9g, its twin says %.9g\n",
                               counts[c], i, (double) found[i], (double) expected[i]);
                return EXIT_FAILURE;
            }
        }
    }
    for (int i = 0; i < 3; i++) {
        demand((int) cudaFree(dev[i]), "cudaFree");
    }
    return EXIT_SUCCESS;
}

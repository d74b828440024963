/*
 * What every gpu_NAME.c does around its kernels: the first GPU or exit code 77, memory that is
 * poisoned, copies that are checked. A GPU test has no more use for a failed call than to say
 * which and end.
 */
#ifndef MOE_TESTS_GPU_CASE_H
#define MOE_TESTS_GPU_CASE_H

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/device/device.h"
#include "sim/base/random.h"

enum { GPU_POISON = 0xff }; /* NaN in bf16, in e4m3 and in float, -1 as a number */

static inline void gpu_demand(int cuda_error, const char *call)
{
    struct moe_error err = { 0 };
    if (moe_device_check(cuda_error, call, &err) != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        exit(EXIT_FAILURE);
    }
}

/* Ends the program when cond is false; the rest is a message for printf. */
#define gpu_require(cond, ...)                   \
    do {                                         \
        if (!(cond)) {                           \
            (void) fprintf(stderr, __VA_ARGS__); \
            (void) fputc('\n', stderr);          \
            exit(EXIT_FAILURE);                  \
        }                                        \
    } while (0)

/* Whether --small was asked for: as little as still reaches every path, for the tools that watch
 * each memory access. Exits with 77 without a GPU. */
static inline int gpu_begin(int argc, char **argv)
{
    struct moe_error err = { 0 };
    uint32_t gpu_count = 0;
    const enum moe_status status = moe_device_count(&gpu_count, &err);
    if (status != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        exit(status == MOE_UNSUPPORTED ? 77 : EXIT_FAILURE);
    }
    gpu_require(argc == 1 || (argc == 2 && strcmp(argv[1], "--small") == 0), "usage: %s [--small]",
                argv[0]);
    return argc == 2;
}

static inline void *gpu_host(size_t bytes)
{
    void *host = malloc(bytes);
    gpu_require(host != NULL, "no memory for %zu bytes", bytes);
    memset(host, GPU_POISON, bytes);
    return host;
}

static inline void *gpu_alloc(size_t bytes)
{
    void *dev = NULL;
    gpu_demand((int) cudaMalloc(&dev, bytes), "cudaMalloc");
    gpu_demand((int) cudaMemset(dev, GPU_POISON, bytes), "cudaMemset");
    return dev;
}

static inline void gpu_poison(void *dev, size_t bytes)
{
    gpu_demand((int) cudaMemset(dev, GPU_POISON, bytes), "cudaMemset");
}

static inline void *gpu_upload(const void *host, size_t bytes)
{
    void *dev = gpu_alloc(bytes);
    gpu_demand((int) cudaMemcpy(dev, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    return dev;
}

/* Waits for what was launched; what names it in a message. */
static inline void gpu_download(void *host, const void *dev, size_t bytes, const char *what)
{
    gpu_demand((int) cudaDeviceSynchronize(), what);
    gpu_demand((int) cudaMemcpy(host, dev, bytes, cudaMemcpyDeviceToHost), what);
}

static inline void gpu_free(void *dev)
{
    gpu_demand((int) cudaFree(dev), "cudaFree");
}

/* Frees host and device memory of one case: count pointers each. */
static inline void gpu_free_all(void *const *dev, int dev_count, void *const *host, int host_count)
{
    for (int i = 0; i < dev_count; i++) {
        gpu_free(dev[i]);
    }
    for (int i = 0; i < host_count; i++) {
        free(host[i]);
    }
}

/* Uniform in [-1, 1). */
static inline float gpu_draw(uint64_t key, uint64_t counter)
{
    return (float) (2.0 * moe_random_uniform(key, counter) - 1.0);
}

#endif

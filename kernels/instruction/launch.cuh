/* What launchers ask of the current device, and how they ask for much shared memory. */
#ifndef MOE_KERNELS_LAUNCH_CUH
#define MOE_KERNELS_LAUNCH_CUH

#include <cuda_runtime.h>
#include <stdint.h>

struct launch_device {
    int sm_count;
    int capability;       /* 90 for 9.0 */
    int shared_bytes_max; /* dynamic shared memory that one block may have */
};

static inline cudaError_t launch_device_read(launch_device *out)
{
    int device = 0;
    int major = 0;
    int minor = 0;
    const struct {
        int *value;
        cudaDeviceAttr attribute;
    } wanted[] = {
        { &out->sm_count, cudaDevAttrMultiProcessorCount },
        { &major, cudaDevAttrComputeCapabilityMajor },
        { &minor, cudaDevAttrComputeCapabilityMinor },
        { &out->shared_bytes_max, cudaDevAttrMaxSharedMemoryPerBlockOptin },
    };
    cudaError_t code = cudaGetDevice(&device);
    for (const auto &one : wanted) {
        if (code == cudaSuccess) {
            code = cudaDeviceGetAttribute(one.value, one.attribute, device);
        }
    }
    out->capability = major * 10 + minor;
    return code;
}

/* Lets kernel take that much dynamic shared memory, and says how many blocks of it fit one SM. */
template <typename Kernel>
static inline cudaError_t launch_prepare(Kernel kernel, int threads, int shared_bytes,
                                         int *blocks_per_sm)
{
    cudaError_t code = cudaSuccess;
    if (shared_bytes > 32 * 1024) { /* static shared memory counts towards the 48 KiB too */
        code = cudaFuncSetAttribute((const void *) kernel,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    }
    if (code == cudaSuccess) {
        code = cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks_per_sm, (const void *) kernel,
                                                             threads, (size_t) shared_bytes);
    }
    return code == cudaSuccess && *blocks_per_sm < 1 ? cudaErrorInvalidConfiguration : code;
}

static inline int launch_is_aligned(const void *pointer, int bytes)
{
    return pointer != nullptr && (uintptr_t) pointer % (uintptr_t) bytes == 0;
}

static inline int64_t launch_ceil(int64_t count, int64_t size)
{
    return (count + size - 1) / size;
}

static inline int64_t launch_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

#endif

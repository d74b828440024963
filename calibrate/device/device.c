#include "calibrate/device/device.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <stdio.h>

enum moe_status moe_device_check(int cuda_error, const char *call, struct moe_error *err)
{
    const cudaError_t code = (cudaError_t) cuda_error;
    if (code == cudaSuccess) {
        return MOE_OK;
    }
    return moe_fail(err, code == cudaErrorMemoryAllocation ? MOE_LIMIT : MOE_DEVICE, "%s: %s", call,
                    cudaGetErrorString(code));
}

/* CUDA writes 13.2 as 13020. */
static struct moe_cuda_version version_from(int number)
{
    const uint32_t n = (uint32_t) number;
    return (struct moe_cuda_version){ .major = n / 1000, .minor = n % 1000 / 10 };
}

enum moe_status moe_cuda_versions(struct moe_cuda_version *driver, struct moe_cuda_version *runtime,
                                  struct moe_error *err)
{
    int driver_number = 0;
    int runtime_number = 0;
    MOE_TRY(
        moe_device_check((int) cudaDriverGetVersion(&driver_number), "cudaDriverGetVersion", err));
    MOE_TRY(moe_device_check((int) cudaRuntimeGetVersion(&runtime_number), "cudaRuntimeGetVersion",
                             err));
    if (driver_number == 0) {
        return moe_fail(err, MOE_UNSUPPORTED, "no NVIDIA driver on this machine");
    }
    *driver = version_from(driver_number);
    *runtime = version_from(runtime_number);
    return MOE_OK;
}

enum moe_status moe_device_count(uint32_t *count, struct moe_error *err)
{
    struct moe_cuda_version driver;
    struct moe_cuda_version runtime;
    int found = 0;
    MOE_TRY(moe_cuda_versions(&driver, &runtime, err));
    const cudaError_t code = cudaGetDeviceCount(&found);
    if (code == cudaErrorInsufficientDriver) {
        return moe_fail(err, MOE_DEVICE,
                        "the driver runs CUDA up to %u.%u, and this program was built with %u.%u",
                        driver.major, driver.minor, runtime.major, runtime.minor);
    }
    if (code == cudaErrorNoDevice || (code == cudaSuccess && found == 0)) {
        return moe_fail(err, MOE_UNSUPPORTED, "the driver shows no GPU to this process");
    }
    MOE_TRY(moe_device_check((int) code, "cudaGetDeviceCount", err));
    *count = (uint32_t) found;
    return MOE_OK;
}

static void format_uuid(char *out, size_t size, const char *bytes)
{
    size_t used = (size_t) snprintf(out, size, "GPU");
    for (int i = 0; i < 16; i++) {
        const int dash = i == 0 || i == 4 || i == 6 || i == 8 || i == 10;
        used += (size_t) snprintf(out + used, size - used, "%s%02x", dash ? "-" : "",
                                  (unsigned) (unsigned char) bytes[i]);
    }
    assert(used < size);
}

enum moe_status moe_device_read(uint32_t index, struct moe_device *out, struct moe_error *err)
{
    struct cudaDeviceProp properties;
    struct moe_device device = { 0 };
    MOE_TRY(moe_device_check((int) cudaGetDeviceProperties(&properties, (int) index),
                             "cudaGetDeviceProperties", err));
    MOE_TRY(moe_device_check(
        (int) cudaDeviceGetPCIBusId(device.pci_bus_id, (int) sizeof device.pci_bus_id, (int) index),
        "cudaDeviceGetPCIBusId", err));
    (void) snprintf(device.name, sizeof device.name, "%s", properties.name);
    format_uuid(device.uuid, sizeof device.uuid, properties.uuid.bytes);
    device.memory_bytes = properties.totalGlobalMem;
    device.sm_count = (uint32_t) properties.multiProcessorCount;
    device.capability_major = (uint32_t) properties.major;
    device.capability_minor = (uint32_t) properties.minor;
    *out = device;
    return MOE_OK;
}

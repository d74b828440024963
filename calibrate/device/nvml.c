#include "calibrate/device/nvml.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The few declarations we need of NVML's stable C interface.
 * Source: NVML API Reference Guide, docs.nvidia.com/deploy/nvml-api. */
typedef struct moe_nvml_gpu *nvml_device;
enum { NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2 };
enum { NVML_TEMPERATURE_GPU = 0, NVML_FIELD_POWER_INSTANT = 186 };

struct nvml_field {
    unsigned id;
    unsigned scope;
    long long timestamp;
    long long latency_us;
    int value_type;
    int code;
    union {
        double real;
        unsigned count;
        unsigned long long large;
    } value;
};

struct moe_nvml {
    void *library;
    char driver[80];
    int (*init)(void);
    int (*shutdown)(void);
    int (*get_driver)(char *version, unsigned size);
    int (*get_handle)(const char *pci_bus_id, nvml_device *device);
    int (*get_clock)(nvml_device device, int kind, unsigned *mhz);
    int (*get_clock_max)(nvml_device device, int kind, unsigned *mhz);
    int (*get_power)(nvml_device device, unsigned *mw);
    int (*get_power_limit)(nvml_device device, unsigned *mw);
    /* Absent from older drivers: NULL. */
    int (*get_temperature)(nvml_device device, int sensor, unsigned *celsius);
    int (*get_throttle)(nvml_device device, unsigned long long *reasons);
    int (*get_energy)(nvml_device device, unsigned long long *mj);
    int (*get_fields)(nvml_device device, int count, struct nvml_field *fields);
};

static enum moe_status bind(struct moe_nvml *nvml, struct moe_error *err)
{
    const struct {
        const char *name;
        void *target;
        bool optional;
    } symbols[] = {
        { "nvmlInit_v2", &nvml->init, false },
        { "nvmlShutdown", &nvml->shutdown, false },
        { "nvmlSystemGetDriverVersion", &nvml->get_driver, false },
        { "nvmlDeviceGetHandleByPciBusId_v2", &nvml->get_handle, false },
        { "nvmlDeviceGetClockInfo", &nvml->get_clock, false },
        { "nvmlDeviceGetMaxClockInfo", &nvml->get_clock_max, false },
        { "nvmlDeviceGetPowerUsage", &nvml->get_power, false },
        { "nvmlDeviceGetEnforcedPowerLimit", &nvml->get_power_limit, false },
        { "nvmlDeviceGetTemperature", &nvml->get_temperature, true },
        { "nvmlDeviceGetCurrentClocksThrottleReasons", &nvml->get_throttle, true },
        { "nvmlDeviceGetTotalEnergyConsumption", &nvml->get_energy, true },
        { "nvmlDeviceGetFieldValues", &nvml->get_fields, true },
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *found = dlsym(nvml->library, symbols[i].name);
        if (found == NULL && !symbols[i].optional) {
            return moe_fail(err, MOE_UNSUPPORTED, "NVML lacks %s", symbols[i].name);
        }
        memcpy(symbols[i].target, &found, sizeof found);
    }
    return MOE_OK;
}

enum moe_status moe_nvml_create(struct moe_nvml **out, struct moe_error *err)
{
    enum moe_status status;
    struct moe_nvml *nvml = calloc(1, sizeof *nvml);
    if (nvml == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for NVML");
    }
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (nvml->library == NULL) {
        status = moe_fail(err, MOE_UNSUPPORTED, "%s", dlerror());
        goto failed;
    }
    status = bind(nvml, err);
    if (status != MOE_OK) {
        goto failed;
    }
    const int code = nvml->init();
    if (code != 0) {
        status = moe_fail(err, MOE_DEVICE, "nvmlInit_v2 returned %d", code);
        goto failed;
    }
    if (nvml->get_driver(nvml->driver, sizeof nvml->driver) != 0) {
        (void) snprintf(nvml->driver, sizeof nvml->driver, "unknown");
    }
    *out = nvml;
    return MOE_OK;

failed:
    if (nvml->library != NULL) {
        (void) dlclose(nvml->library);
    }
    free(nvml);
    return status;
}

void moe_nvml_destroy(struct moe_nvml *nvml)
{
    if (nvml == NULL) {
        return;
    }
    (void) nvml->shutdown();
    (void) dlclose(nvml->library);
    free(nvml);
}

const char *moe_nvml_driver(const struct moe_nvml *nvml)
{
    return nvml->driver;
}

/* Some GPUs do not tell their power, some virtual ones not even their clocks: that is no
 * error, and the value stays 0. */
static uint32_t known(int code, unsigned value)
{
    return code == 0 ? value : 0;
}

enum moe_status moe_nvml_read(const struct moe_nvml *nvml, const char *pci_bus_id,
                              struct moe_nvml_sample *out, struct moe_error *err)
{
    nvml_device device = NULL;
    unsigned value = 0;
    int code = nvml->get_handle(pci_bus_id, &device);
    if (code != 0) {
        return moe_fail(err, MOE_DEVICE, "NVML returned %d for the GPU at PCI bus %s", code,
                        pci_bus_id);
    }
    code = nvml->get_clock(device, NVML_CLOCK_SM, &value);
    out->sm_clock_mhz = known(code, value);
    code = nvml->get_clock_max(device, NVML_CLOCK_SM, &value);
    out->sm_clock_max_mhz = known(code, value);
    code = nvml->get_clock(device, NVML_CLOCK_MEM, &value);
    out->memory_clock_mhz = known(code, value);
    code = nvml->get_clock_max(device, NVML_CLOCK_MEM, &value);
    out->memory_clock_max_mhz = known(code, value);
    code = nvml->get_power(device, &value);
    out->power_mw = known(code, value);
    code = nvml->get_power_limit(device, &value);
    out->power_limit_mw = known(code, value);
    return MOE_OK;
}

enum moe_status moe_nvml_find(const struct moe_nvml *nvml, const char *pci_bus_id,
                              struct moe_nvml_gpu **out, struct moe_error *err)
{
    const int code = nvml->get_handle(pci_bus_id, out);
    if (code != 0) {
        return moe_fail(err, MOE_DEVICE, "NVML returned %d for the GPU at PCI bus %s", code,
                        pci_bus_id);
    }
    return MOE_OK;
}

void moe_nvml_read_load(const struct moe_nvml *nvml, struct moe_nvml_gpu *gpu,
                        struct moe_nvml_load *out)
{
    struct nvml_field power = { .id = NVML_FIELD_POWER_INSTANT };
    unsigned value = 0;
    unsigned long long large = 0;
    *out = (struct moe_nvml_load){ 0 };
    int code = nvml->get_clock(gpu, NVML_CLOCK_SM, &value);
    out->sm_clock_mhz = known(code, value);
    if (nvml->get_fields != NULL && nvml->get_fields(gpu, 1, &power) == 0 && power.code == 0) {
        out->power_mw = power.value.count;
    } else {
        code = nvml->get_power(gpu, &value);
        out->power_mw = known(code, value);
    }
    if (nvml->get_temperature != NULL) {
        code = nvml->get_temperature(gpu, NVML_TEMPERATURE_GPU, &value);
        out->celsius = known(code, value);
    }
    if (nvml->get_throttle != NULL && nvml->get_throttle(gpu, &large) == 0) {
        out->throttle = large;
    }
    if (nvml->get_energy != NULL && nvml->get_energy(gpu, &large) == 0) {
        out->energy_mj = large;
    }
}

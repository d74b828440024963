#include <inttypes.h>
#include <stdio.h>

#include "calibrate/device/device.h"
#include "calibrate/device/nvml.h"
#include "calibrate/verb.h"
#include "sim/base/options.h"

/* "345/1980 MHz", or "-" for what NVML does not know. */
static const char *pair(char *out, size_t size, double now, double most, const char *unit)
{
    char left[32] = "-";
    char right[32] = "-";
    if (now > 0.0) {
        (void) snprintf(left, sizeof left, "%.0f", now);
    }
    if (most > 0.0) {
        (void) snprintf(right, sizeof right, "%.0f", most);
    }
    (void) snprintf(out, size, "%s/%s %s", left, right, unit);
    return out;
}

static enum moe_status print_device(uint32_t index, const struct moe_nvml *nvml,
                                    struct moe_error *err)
{
    struct moe_device device;
    struct moe_nvml_sample sample = { 0 };
    char text[80];
    MOE_TRY(moe_device_read(index, &device, err));
    if (nvml != NULL) {
        MOE_TRY(moe_nvml_read(nvml, device.pci_bus_id, &sample, err));
    }
    (void) printf("GPU %" PRIu32 "  %s\n", index, device.name);
    (void) printf("  UUID          %s\n", device.uuid);
    (void) printf("  PCI bus       %s\n", device.pci_bus_id);
    (void) printf("  memory        %.1f GiB\n", (double) device.memory_bytes / 0x1p30);
    (void) printf("  SMs           %" PRIu32 ", compute capability %" PRIu32 ".%" PRIu32 "\n",
                  device.sm_count, device.capability_major, device.capability_minor);
    (void) printf("  SM clock      %s (now/most)\n",
                  pair(text, sizeof text, sample.sm_clock_mhz, sample.sm_clock_max_mhz, "MHz"));
    (void) printf(
        "  memory clock  %s (now/most)\n",
        pair(text, sizeof text, sample.memory_clock_mhz, sample.memory_clock_max_mhz, "MHz"));
    (void) printf("  power         %s (now/limit)\n",
                  pair(text, sizeof text, sample.power_mw / 1e3, sample.power_limit_mw / 1e3, "W"));
    return MOE_OK;
}

enum moe_status moe_verb_list(int argc, char **argv, struct moe_error *err)
{
    struct moe_positionals none = { 0 };
    struct moe_cuda_version driver;
    struct moe_cuda_version runtime;
    struct moe_nvml *nvml = NULL;
    struct moe_error nvml_err = { 0 };
    uint32_t count = 0;
    MOE_TRY(moe_options_parse(NULL, 0, &none, argc, argv, err));
    MOE_TRY(moe_device_count(&count, err));
    MOE_TRY(moe_cuda_versions(&driver, &runtime, err));
    if (moe_nvml_create(&nvml, &nvml_err) != MOE_OK) {
        (void) fprintf(stderr, "moecal: going on without clocks and power: %s\n", nvml_err.text);
    }
    (void) printf("driver %s, which runs CUDA up to %" PRIu32 ".%" PRIu32
                  "; built with CUDA %" PRIu32 ".%" PRIu32 "\n",
                  nvml == NULL ? "unknown" : moe_nvml_driver(nvml), driver.major, driver.minor,
                  runtime.major, runtime.minor);
    enum moe_status status = MOE_OK;
    for (uint32_t i = 0; status == MOE_OK && i < count; i++) {
        status = print_device(i, nvml, err);
    }
    moe_nvml_destroy(nvml);
    return status;
}

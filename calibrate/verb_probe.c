#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "calibrate/bench/probe_ceilings.h"
#include "calibrate/device/bandwidth.h"
#include "calibrate/device/device.h"
#include "calibrate/verb.h"
#include "sim/base/options.h"

enum moe_status moe_verb_probe(int argc, char **argv, struct moe_error *err)
{
    const char *gpu = NULL; /* NULL: each of them */
    uint32_t array_mib = 256;
    uint32_t repeat_count = 20;
    bool ceilings = false;
    const struct moe_option options[] = {
        { .name = "gpu",
          .kind = MOE_OPTION_TEXT,
          .target = &gpu,
          .value = "N",
          .help = "only this GPU, as `moecal list` numbers them (otherwise each)" },
        { .name = "mib",
          .kind = MOE_OPTION_COUNT,
          .target = &array_mib,
          .value = "N",
          .help = "size of each of the three arrays",
          .min = 1,
          .max = 16384 },
        { .name = "repeats",
          .kind = MOE_OPTION_COUNT,
          .target = &repeat_count,
          .value = "N",
          .help = "timed runs",
          .min = 1,
          .max = MOE_BANDWIDTH_REPEAT_LIMIT },
        { .name = "ceilings",
          .kind = MOE_OPTION_FLAG,
          .target = &ceilings,
          .help = "besides: identity, memory read, written and copied, products, launches" },
    };
    struct moe_positionals none = { 0 };
    uint32_t count = 0;
    if (argc > 0 && strcmp(argv[0], "--help") == 0) {
        moe_options_print(stdout, options, sizeof options / sizeof options[0]);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, sizeof options / sizeof options[0], &none, argc, argv, err));
    MOE_TRY(moe_device_count(&count, err));
    uint64_t first = 0;
    uint64_t last = count - 1;
    if (gpu != NULL) {
        MOE_TRY(moe_parse_count(gpu, "--gpu", 0, last, &first, err));
        last = first;
    }
    (void) printf("triad over 3 arrays of %" PRIu32 " MiB, %" PRIu32
                  " runs, 10^9 bytes per second\n%-4s %9s %9s %9s\n",
                  array_mib, repeat_count, "GPU", "median", "min", "max");
    for (uint64_t i = first; i <= last; i++) {
        struct moe_bandwidth rate;
        MOE_TRY(moe_bandwidth_measure((uint32_t) i, (uint64_t) array_mib << 20, repeat_count, &rate,
                                      err));
        (void) printf("%-4" PRIu64 " %9.1f %9.1f %9.1f\n", i, rate.median_gb_per_s,
                      rate.min_gb_per_s, rate.max_gb_per_s);
    }
    for (uint64_t i = first; ceilings && i <= last; i++) {
        MOE_TRY(moe_probe_ceilings((uint32_t) i, (int64_t) array_mib << 20, err));
    }
    return MOE_OK;
}

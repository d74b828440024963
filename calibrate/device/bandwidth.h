/*
 * Memory bandwidth of one GPU, by the triad kernel: the figure that bounds every decode step.
 */
#ifndef MOE_CALIBRATE_BANDWIDTH_H
#define MOE_CALIBRATE_BANDWIDTH_H

#include <stdint.h>

#include "sim/base/error.h"

enum { MOE_BANDWIDTH_REPEAT_LIMIT = 1000 };

/* Bytes moved (two arrays read, one written) per second, in units of 10^9. */
struct moe_bandwidth {
    double median_gb_per_s;
    double min_gb_per_s;
    double max_gb_per_s;
};

/* Runs the triad over three arrays of array_bytes each (a multiple of 4, at least 4)
 * repeat_count times (1 .. MOE_BANDWIDTH_REPEAT_LIMIT) after a warm-up, each run timed by
 * itself with CUDA events. Arrays that fit into the cache measure the cache.
 * Errors: MOE_LIMIT when the GPU has no room for the arrays; MOE_DEVICE. */
enum moe_status moe_bandwidth_measure(uint32_t gpu, uint64_t array_bytes, uint32_t repeat_count,
                                      struct moe_bandwidth *out,
                                      struct moe_error *err) MOE_MUST_CHECK;

#endif

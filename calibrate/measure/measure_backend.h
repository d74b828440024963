/*
 * Measured backends: the names of calibrate/expert/expert_backend.h that a plan may ask for, free
 * of CUDA. verb_measure.c holds each against the real one.
 */
#ifndef MOE_CALIBRATE_MEASURE_BACKEND_H
#define MOE_CALIBRATE_MEASURE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/expert/expert_ffn.h"

struct moe_measure_backend {
    const char *name;
    enum moe_expert_dtype dtype; /* MOE_EXPERT_DTYPE_COUNT: each */
    bool is_library;
};

extern const struct moe_measure_backend moe_measure_backends[];
extern const size_t moe_measure_backend_count;

/* NULL when there is none of that name. */
const struct moe_measure_backend *moe_measure_backend_find(const char *name);

#endif

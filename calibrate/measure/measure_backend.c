#include "calibrate/measure/measure_backend.h"

#include <string.h>

const struct moe_measure_backend moe_measure_backends[] = {
    { "own", MOE_EXPERT_DTYPE_COUNT, false }, { "lt-expert", MOE_EXPERT_BF16, true },
    { "lt-padded", MOE_EXPERT_BF16, true },   { "blas-grouped", MOE_EXPERT_BF16, true },
    { "lt-fp8-row", MOE_EXPERT_FP8, true },   { "lt-fp8-block", MOE_EXPERT_FP8, true },
};

const size_t moe_measure_backend_count =
    sizeof moe_measure_backends / sizeof moe_measure_backends[0];

const struct moe_measure_backend *moe_measure_backend_find(const char *name)
{
    for (size_t i = 0; i < moe_measure_backend_count; i++) {
        if (strcmp(moe_measure_backends[i].name, name) == 0) {
            return &moe_measure_backends[i];
        }
    }
    return NULL;
}

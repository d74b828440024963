/* In the place of verb_bench_kernels.c where the build found no cuBLAS to measure against. */
#include "calibrate/verb.h"

enum moe_status moe_verb_bench_kernels(int argc, char **argv, struct moe_error *err)
{
    (void) argc;
    (void) argv;
    return moe_fail(err, MOE_UNSUPPORTED,
                    "this moecal was built without cuBLAS, which bench-kernels measures against");
}

#include "calibrate/bench/probe_ceilings.h"

enum moe_status moe_probe_ceilings(uint32_t gpu, int64_t stream_bytes, struct moe_error *err)
{
    (void) gpu;
    (void) stream_bytes;
    return moe_fail(
        err, MOE_UNSUPPORTED,
        "--ceilings: this moecal was built without cuBLAS, which it takes for products");
}

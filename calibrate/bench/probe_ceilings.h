/*
 * Probed ceilings: one GPU's identity and what it reaches on plain work, printed.
 *
 * probe_ceilings.c where the build found cuBLAS, else probe_ceilings_none.c, which refuses.
 */
#ifndef MOE_CALIBRATE_PROBE_CEILINGS_H
#define MOE_CALIBRATE_PROBE_CEILINGS_H

#include <stdint.h>

#include "sim/base/error.h"

/* stream_bytes: size of an array. Prints to standard output.
 * Errors: MOE_UNSUPPORTED without cuBLAS; MOE_LIMIT, MOE_DEVICE. */
enum moe_status moe_probe_ceilings(uint32_t gpu, int64_t stream_bytes,
                                   struct moe_error *err) MOE_MUST_CHECK;

#endif

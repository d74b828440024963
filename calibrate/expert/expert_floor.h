/*
 * Expert floor: the least time that the expert FFN can take on a GPU with measured ceilings.
 *
 * Bytes: the weights of experts that have rows, the input rows and the output rows, each once;
 * the intermediate rows could stay in the cache and count nothing. FLOPs: 2 per multiply-add.
 * floor = max(bytes / read ceiling, FLOPs / (SMs * FLOPs per SM and clock * clock)).
 */
#ifndef MOE_CALIBRATE_EXPERT_FLOOR_H
#define MOE_CALIBRATE_EXPERT_FLOOR_H

#include <stdint.h>

#include "calibrate/expert/row_histogram.h"
#include "kernels/expert/expert_ffn.h"

/* Dense FLOPs of Hopper's tensor cores per SM and clock (NVIDIA H100 white paper). */
enum { MOE_SM_FLOPS_BF16 = 4096, MOE_SM_FLOPS_FP8 = 8192 };

struct moe_expert_work {
    double weight_bytes; /* of the active experts, scales included */
    double row_bytes;    /* in and out, scales included */
    double flops;
};
struct moe_expert_work moe_expert_work_count(const struct moe_expert_ffn_shape *shape,
                                             const struct moe_row_load *load);

/* Microseconds; mhz: the clock of the SMs while the work ran. All arguments positive. */
double moe_expert_floor_us(const struct moe_expert_work *work, enum moe_expert_dtype dtype,
                           double read_bytes_per_s, uint32_t sm_count, double mhz);

/* Bytes of one expert's matrices, scales included. */
double moe_expert_weight_bytes(const struct moe_expert_ffn_shape *shape);

#endif

/*
 * Bench of the expert FFN: all backends side by side at one point.
 */
#ifndef MOE_CALIBRATE_BENCH_FFN_H
#define MOE_CALIBRATE_BENCH_FFN_H

#include <stddef.h>
#include <stdint.h>

#include "calibrate/bench/bench_result.h"
#include "calibrate/expert/expert_backend.h"
#include "sim/base/error.h"

/* Operands are kept from point to point, as many as the GPU has room for: points of one shape do
 * not follow each other. */
enum { MOE_BENCH_DATA_LIMIT = 16 };

/* What the points of one run share. */
struct moe_bench_ffn {
    struct moe_expert_tools tools;
    const struct moe_expert_backend *backends[MOE_BENCH_CELL_LIMIT];
    uint32_t backend_count;
    double cache_bytes;
    uint64_t seed; /* of the order in which backends take turns */
    struct moe_expert_data *data[MOE_BENCH_DATA_LIMIT]; /* of the points before, oldest first */
    uint32_t data_count;
};

/* Frees the operands; the rest is the caller's. */
void moe_bench_ffn_finish(struct moe_bench_ffn *bench);

/* Checks and measures every backend that takes the row's dtype. The row comes with its shape,
 * histogram and rows_per_expert, and gets the rest. row_capacity: the most rows that a point of
 * this shape has, so that the data serve them all. A backend that refuses, fails to build or
 * computes a wrong answer is named in its cell and not measured.
 * Errors: MOE_DEVICE and MOE_LIMIT, when going on makes no sense. */
enum moe_status moe_bench_ffn_measure(struct moe_bench_ffn *bench, int32_t row_capacity,
                                      struct moe_bench_row *row,
                                      struct moe_error *err) MOE_MUST_CHECK;

#endif

/*
 * Ceilings: what this GPU reaches in this run on plain work, by which everything else is judged:
 * memory read, written and copied, and large matrix products.
 */
#ifndef MOE_CALIBRATE_CEILINGS_H
#define MOE_CALIBRATE_CEILINGS_H

#include <stdint.h>

#include "calibrate/bench/bench_result.h"
#include "calibrate/blas/blas.h"
#include "calibrate/timing/graph_timer.h"
#include "sim/base/error.h"

/* The best version of stream.h counts, and for copies and fills also the runtime's own;
 * all are appended to *moves. stream_bytes: size of an array, a multiple of 16, many times the
 * cache (1 GiB); product_size: of the square matrices, a multiple of 16 (8192). With these it takes
 * about 2 s of the GPU and 3 GiB of its memory. Errors: MOE_DEVICE, MOE_LIMIT. */
enum moe_status moe_ceilings_measure(struct moe_blas *blas, struct moe_graph_timer *timer,
                                     int64_t stream_bytes, int32_t product_size,
                                     struct moe_bench_moves *moves, struct moe_bench_ceilings *out,
                                     struct moe_error *err) MOE_MUST_CHECK;

#endif

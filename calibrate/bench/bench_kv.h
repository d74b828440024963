/*
 * Bench of decode attention: what reading the cache costs, GQA and MLA (kv_read.h).
 */
#ifndef MOE_CALIBRATE_BENCH_KV_H
#define MOE_CALIBRATE_BENCH_KV_H

#include <stdint.h>

#include "calibrate/bench/bench_plan.h"
#include "calibrate/bench/bench_result.h"
#include "calibrate/timing/graph_timer.h"
#include "sim/base/error.h"

/* Every sequence has the whole context, in pages that lie in random order. Appends one move per
 * kind of attention; bytes are those of the cache. Errors: MOE_DEVICE, MOE_LIMIT. */
enum moe_status moe_bench_kv_measure(struct moe_graph_timer *timer,
                                     const struct moe_bench_context *size, uint64_t seed,
                                     struct moe_bench_moves *moves,
                                     struct moe_error *err) MOE_MUST_CHECK;

#endif

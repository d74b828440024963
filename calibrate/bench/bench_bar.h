/*
 * Bench bars: what the kernels have to show, judged on the results of one run.
 */
#ifndef MOE_CALIBRATE_BENCH_BAR_H
#define MOE_CALIBRATE_BENCH_BAR_H

#include <stddef.h>
#include <stdint.h>

#include "calibrate/bench/bench_result.h"

enum moe_bench_verdict {
    MOE_BENCH_PASS,
    MOE_BENCH_MISS,
    MOE_BENCH_UNMEASURED, /* the points it is about are not in this run */
};

struct moe_bench_bar {
    const char *name; /* static */
    enum moe_bench_verdict verdict;
    uint32_t met;    /* of the points it is about */
    uint32_t count;  /* points measured */
    char worst[256]; /* the point furthest below the bar, or nearest to it */
};

enum { MOE_BENCH_BAR_COUNT = 11 };

/* What the bars are judged on. */
struct moe_bench_run {
    const struct moe_bench_row *rows;
    size_t row_count;
    const struct moe_bench_moves *moves;
    struct moe_bench_ceilings ceilings;
    uint32_t sm_count;
    double fallback_mhz;
};

/* "pass", "MISS", "not measured". */
const char *moe_bench_verdict_name(enum moe_bench_verdict verdict);

/* Bars, in which `ours` is the fastest of ours and `the library` the fastest of its backends:
 *   - ahead or behind is told by the medians; 1 % and intervals that overlap are noise
 *   - the share of the read ceiling is (weights + rows in and out) / time / ceiling
 *   - an expert 8 times hotter is predicted from the uniform point of the same size: its time
 *     times the ratio of the two floors, in which FLOPs are counted over row tiles of 64 (up to 64
 *     rows per expert) or 128 */
void moe_bench_bars_judge(const struct moe_bench_run *run,
                          struct moe_bench_bar bars[MOE_BENCH_BAR_COUNT]);

#endif

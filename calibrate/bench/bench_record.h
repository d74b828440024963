/*
 * Bench records: the results of a run as files. CSV has one line per point and backend, JSON
 * everything: what was asked for, on what, ceilings, points, moves, bars.
 *
 * Times are microseconds, rates are 10^9 bytes or 10^12 FLOPs per second, sizes are bytes. Each
 * point says what it was measured as: "role" is "point" or "sentinel".
 */
#ifndef MOE_CALIBRATE_BENCH_RECORD_H
#define MOE_CALIBRATE_BENCH_RECORD_H

#include <stddef.h>
#include <stdio.h>

#include "calibrate/bench/bench_bar.h"
#include "calibrate/bench/bench_result.h"
#include "calibrate/bench/bench_table.h"

struct moe_bench_record {
    int argc; /* as the program was called */
    char **argv;
    const struct moe_bench_gpu *gpu;
    const struct moe_bench_ceilings *ceilings;
    const struct moe_bench_row *rows;
    size_t row_count;
    const struct moe_bench_row *sentinels;
    size_t sentinel_count;
    const struct moe_bench_moves *moves;
    const struct moe_bench_bar *bars; /* [MOE_BENCH_BAR_COUNT] */
    const char *failure;              /* why the run ended early, or "" */
};

/* Errors of writing show on the stream. */
void moe_bench_write_csv(FILE *out, const struct moe_bench_record *record);
void moe_bench_write_json(FILE *out, const struct moe_bench_record *record);

#endif

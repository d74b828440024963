/*
 * Bench table: results as text, one line per point, grouped by shape and dtype.
 */
#ifndef MOE_CALIBRATE_BENCH_TABLE_H
#define MOE_CALIBRATE_BENCH_TABLE_H

#include <stddef.h>
#include <stdio.h>

#include "calibrate/bench/bench_bar.h"
#include "calibrate/bench/bench_result.h"

/* What the lines are computed against. */
struct moe_bench_gpu {
    const char *name;
    const char *uuid;
    const char *driver;
    const char *cuda;
    const char *cublas;
    uint32_t sm_count;
    double fallback_mhz; /* for floors where no clock was measured */
};

void moe_bench_print_ceilings(FILE *out, const struct moe_bench_ceilings *ceilings);

/* Rows that were not measured (cell_count 0) are left out; the order is by shape, dtype, spread
 * and rows per expert, whatever the order of measuring was. */
void moe_bench_print_tables(FILE *out, const struct moe_bench_row *rows, size_t row_count,
                            const struct moe_bench_ceilings *ceilings,
                            const struct moe_bench_gpu *gpu);

/* Streams and what stands around the experts, with the share of the copy ceiling, or of the read
 * or write ceiling for those. */
void moe_bench_print_moves(FILE *out, const struct moe_bench_moves *moves,
                           const struct moe_bench_ceilings *ceilings);

void moe_bench_print_bars(FILE *out, const struct moe_bench_bar bars[MOE_BENCH_BAR_COUNT]);

/* One line of one point, for watching a run. */
void moe_bench_print_progress(FILE *out, const struct moe_bench_row *row);

#endif

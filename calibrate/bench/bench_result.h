/*
 * Bench results: what one run of `moecal bench-kernels` found, free of CUDA so that tables, bars
 * and files are made and tested where there is no GPU.
 */
#ifndef MOE_CALIBRATE_BENCH_RESULT_H
#define MOE_CALIBRATE_BENCH_RESULT_H

#include <stdbool.h>
#include <stdint.h>

#include "calibrate/expert/expert_floor.h"
#include "calibrate/expert/row_histogram.h"
#include "calibrate/timing/timing.h"
#include "kernels/expert/expert_ffn.h"

enum { MOE_BENCH_CELL_LIMIT = 12 };

/* Measured in this run on this GPU; bytes and FLOPs per second. */
struct moe_bench_ceilings {
    double read_bytes_per_s;
    double write_bytes_per_s;
    double copy_bytes_per_s; /* read and written */
    double bf16_flops_per_s; /* 8192^3 by cuBLASLt */
    double fp8_flops_per_s;  /* 0: not measured */
    /* The same at the clock that they keep; those above: right after light load. */
    double bf16_sustained_flops_per_s;
    double fp8_sustained_flops_per_s;
    double empty_graph_us; /* replay of a graph with one empty node, as every time here has it */
};

/* One backend at one point. */
struct moe_bench_cell {
    const char *backend; /* static */
    bool is_library;
    bool measured;
    char refusal[200]; /* why it was not measured; "" when it was */
    char detail[96];   /* what the backend chose */
    double error;      /* relative, on sampled rows */
    struct moe_timing timing;
    double mhz; /* 0: unknown */
    double watts;
    double celsius;
    uint64_t throttle;
};

/* One point: a shape, a dtype, rows per expert and how they are spread. */
struct moe_bench_row {
    struct moe_expert_ffn_shape shape;
    enum moe_row_histogram histogram;
    int32_t rows_per_expert;
    bool sentinel; /* measured again at the end, to see drift; not a point of its own */
    struct moe_row_load load;
    struct moe_expert_work work;
    double begin_s; /* since the run began */
    uint32_t cell_count;
    struct moe_bench_cell cells[MOE_BENCH_CELL_LIMIT];
};

/* One way to do one thing that moves bytes: a stream, a permute, a gate. */
struct moe_bench_move {
    char family[32];  /* "copy", "permute bf16" */
    char size[48];    /* "1024 MiB", "4096 tokens x 7168, top 8" */
    char variant[32]; /* "v3", "cudaMemcpyAsync" */
    bool is_library;
    bool measured;
    char refusal[200];
    double bytes;   /* moved: read and written */
    int32_t tokens; /* 0: not counted in tokens */
    struct moe_timing timing;
    double mhz;
    double watts;
};

enum { MOE_BENCH_MOVE_LIMIT = 192 };

struct moe_bench_moves {
    uint32_t count;
    struct moe_bench_move items[MOE_BENCH_MOVE_LIMIT];
};

/* Bytes per second; 0 when not measured. */
double moe_bench_move_rate(const struct moe_bench_move *move);

/* The fastest measured one of a family and size (NULL: any size), among ours or the library's;
 * NULL when there is none. */
const struct moe_bench_move *moe_bench_move_best(const struct moe_bench_moves *moves,
                                                 const char *family, const char *size,
                                                 bool library);

/* The measured cell of least median among ours or the library's; NULL when there is none. */
const struct moe_bench_cell *moe_bench_best(const struct moe_bench_row *row, bool library);

/* The floor of a row at the clock of this cell, or at fallback_mhz where that is unknown. */
double moe_bench_floor_us(const struct moe_bench_row *row, const struct moe_bench_cell *cell,
                          const struct moe_bench_ceilings *ceilings, uint32_t sm_count,
                          double fallback_mhz);

#endif

/*
 * Evidence: the samples of a calibration file, read whole and checked cell by cell.
 *
 * The tables are those of calibrate/samples/sample_tables.sql. References become indices, so
 * the arrays below are all there is; every array is sorted by the file's id. A cell that is no
 * number, not finite, zero or negative where that cannot be, or a reference to nothing is
 * refused with table, row id and column: nothing is skipped in silence.
 */
#ifndef MOE_SIM_CALIBRATION_EVIDENCE_H
#define MOE_SIM_CALIBRATION_EVIDENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/database.h"
#include "sim/base/error.h"

/* Names: moe_evidence_kind_name. */
enum moe_evidence_kind {
    MOE_EVIDENCE_EXPERT,
    MOE_EVIDENCE_GEMM,
    MOE_EVIDENCE_PERMUTE,
    MOE_EVIDENCE_COMBINE,
    MOE_EVIDENCE_GATE,
    MOE_EVIDENCE_KV_GQA,
    MOE_EVIDENCE_KV_MLA,
    MOE_EVIDENCE_STREAM,
    MOE_EVIDENCE_LAUNCH,
    MOE_EVIDENCE_ALL_TO_ALL,
    MOE_EVIDENCE_ALL_TO_ALL_API,
    MOE_EVIDENCE_ALL_TO_ALL_V,
    MOE_EVIDENCE_ALL_GATHER,
    MOE_EVIDENCE_REDUCE_SCATTER,
    MOE_EVIDENCE_ALL_REDUCE,
    MOE_EVIDENCE_P2P,
    MOE_EVIDENCE_P2P_BOTH,
    MOE_EVIDENCE_PEER_COPY,
    MOE_EVIDENCE_HOST_TO_DEVICE,
    MOE_EVIDENCE_OVERLAP,
    MOE_EVIDENCE_KIND_COUNT
};

/* What a point is for. Only anchors, refinements, sentinels and, for one figure of a shape, uneven
 * anchors are ever fitted. */
enum moe_evidence_role {
    MOE_EVIDENCE_ANCHOR,
    MOE_EVIDENCE_REFINE,
    MOE_EVIDENCE_HELDOUT,
    MOE_EVIDENCE_SKEW,
    MOE_EVIDENCE_SENTINEL,
    MOE_EVIDENCE_SUSTAINED,
    MOE_EVIDENCE_UNEVEN, /* rows of experts: fits the weight of the fullest one and nothing else */
    MOE_EVIDENCE_BURST,  /* an anchor after light load; all others are settled */
    MOE_EVIDENCE_ROLE_COUNT
};

enum moe_evidence_flag {
    MOE_EVIDENCE_UNPHYSICAL = 1, /* faster than the run's ceilings */
    MOE_EVIDENCE_WRONG = 2,      /* the output failed its check */
    MOE_EVIDENCE_UNSTABLE = 4,
    MOE_EVIDENCE_BIMODAL = 8,
    MOE_EVIDENCE_REPEATED = 16, /* measured again: a sentinel had moved */
};

struct moe_evidence_gpu {
    int64_t id;
    const char *uuid;
    const char *name;
    const char *kind;
    uint32_t sm_count;
    double memory_bytes;
    double boost_mhz; /* 0: not known, as in all that follows */
    double power_limit_w;
};

struct moe_evidence_run {
    int64_t id;
    const char *started_at;
    const char *command;
    const char *moecal;
    const char *driver;
    const char *cuda;
    const char *cublas;
    const char *nccl;
    const char *settings;
    bool is_settled; /* every point was run until the clock that it keeps by itself had come */
    int64_t seed;
    uint32_t gpu_count;
    double wall_s; /* 0: did not end in order */
};

struct moe_evidence_ceiling {
    uint32_t run;
    uint32_t gpu;
    const char *name;
    double value;
};

struct moe_evidence_series {
    int64_t id;
    const char *name;
    enum moe_evidence_kind kind;
    const char *models;
    uint32_t hidden;
    uint32_t inter;
    uint32_t units;
    uint32_t top_k;
    const char *dtype;
    const char *activation;
    const char *backend;
    uint32_t ranks;
    int32_t src;
    int32_t dst;
};

struct moe_evidence_point {
    int64_t id;
    uint32_t series;
    enum moe_evidence_role role;
    double tokens;
    uint32_t active;
    uint32_t row_max;
    double tiles64;
    double tiles128;
    double context;
    double bytes;
    double bytes_per_peer;
    double flops;
    const char *histogram;
    const unsigned char *rows; /* NULL: none */
    size_t rows_bytes;
};

struct moe_evidence_sample {
    int64_t id;
    uint32_t point;
    uint32_t run;
    uint32_t gpu;
    uint32_t gpu_rank;
    uint32_t pass;
    uint32_t n;
    uint32_t flags; /* of moe_evidence_flag */
    double begin_s;
    double median_us;
    double quantile_us[6]; /* min, 5, 25, 75, 95, 99 %; all 0 when any is not known */
    double mhz;
};

struct moe_evidence {
    const char *name; /* of the file, for errors */
    const struct moe_evidence_gpu *gpus;
    const struct moe_evidence_run *runs;
    const struct moe_evidence_ceiling *ceilings;
    const struct moe_evidence_series *series;
    const struct moe_evidence_point *points;
    const struct moe_evidence_sample *samples;
    uint32_t gpu_count;
    uint32_t run_count;
    uint32_t ceiling_count;
    uint32_t series_count;
    uint32_t point_count;
    uint32_t sample_count;
    uint64_t hash; /* of all that is read here */
    struct moe_arena arena;
};

/* Reads db, which stays the caller's; finish gives the memory back.
 * Errors: MOE_RANGE for a file without samples or with a bad cell, MOE_PARSE for one that
 * cannot be read, MOE_LIMIT without memory. On error *out is untouched. */
enum moe_status moe_evidence_read(struct moe_evidence *out, struct moe_database *db,
                                  const char *name, struct moe_error *err) MOE_MUST_CHECK;

/* Opens path for reading, and closes it again. */
enum moe_status moe_evidence_load(struct moe_evidence *out, const char *path,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct. */
void moe_evidence_finish(struct moe_evidence *evidence);

const char *moe_evidence_kind_name(enum moe_evidence_kind kind);
const char *moe_evidence_role_name(enum moe_evidence_role role);

/* Whether several GPUs take part in one operation, and the last of them says how long it took. */
static inline bool moe_evidence_is_collective(enum moe_evidence_kind kind)
{
    return kind >= MOE_EVIDENCE_ALL_TO_ALL && kind <= MOE_EVIDENCE_PEER_COPY;
}

/* The largest, or 0, of a ceiling's values over runs and GPUs of one kind. */
double moe_evidence_ceiling(const struct moe_evidence *evidence, const char *gpu_kind,
                            const char *name);

#endif

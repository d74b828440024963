/*
 * Sample store: the tables of sample_tables.sql in a calibration file, written by moecal.
 *
 * A store is the cal.db that moesim reads: the same kind of database, whose fitted tables are added
 * later by `moesim fit`. The functions may be called from several threads, each with its own rows;
 * they queue up behind one lock. Rows are made durable about once a second, so that a killed run
 * loses no more than that.
 */
#ifndef MOE_CALIBRATE_SAMPLES_SAMPLE_STORE_H
#define MOE_CALIBRATE_SAMPLES_SAMPLE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/database.h"
#include "sim/base/error.h"

/* Kind and schema version of a calibration file, for both programs. */
enum { MOE_CALIBRATION_APPLICATION_ID = 0x6d6f6343 /* "mocC" */, MOE_CALIBRATION_VERSION = 2 };

/* All texts below are the caller's, copied by the store. Columns are those of sample_tables.sql. */
struct moe_sample_gpu {
    const char *uuid;
    const char *name;
    const char *kind;
    int64_t sm_count;
    int64_t l2_bytes;
    int64_t memory_bytes;
    double boost_mhz;
    double power_limit_w;
};

struct moe_sample_run {
    const char *started_at;
    const char *command;
    const char *moecal;
    const char *driver;
    const char *cuda;
    const char *cublas;
    const char *nccl;
    uint64_t seed; /* above 2^63 - 1 it is stored as its negative twin */
    uint32_t gpu_count;
    const char *settings;
};

struct moe_sample_series {
    const char *name;
    const char *kind;
    const char *models;
    int32_t hidden;
    int32_t inter;
    int32_t units;
    int32_t top_k;
    const char *dtype;
    const char *activation;
    const char *backend;
    int32_t ranks;
    int32_t src;
    int32_t dst;
};

struct moe_sample_point {
    int64_t series;
    const char *role;
    double tokens;
    int32_t active;
    int32_t row_max;
    int64_t tiles64;
    int64_t tiles128;
    double context;
    double bytes;
    double bytes_per_peer;
    double flops;
    const char *histogram;
    const void *rows; /* NULL: none */
    size_t rows_bytes;
};

struct moe_sample_row {
    int64_t point;
    int64_t run;
    int64_t gpu;
    int32_t gpu_rank;
    int32_t pass;
    int64_t seq;
    double begin_s;
    uint32_t n;
    double min_us;
    double p5_us;
    double p25_us;
    double median_us;
    double p75_us;
    double p95_us;
    double p99_us;
    double mad_us;
    double low_us;
    double high_us;
    double mhz;
    double watts;
    double celsius;
    uint64_t throttle;
    double error;
    uint32_t dropped;
    const char *flags;
};

/* Below 0: not known, stored as NULL. */
struct moe_sample_nvml {
    int64_t run;
    int64_t gpu;
    double t_s;
    double sm_mhz;
    double memory_mhz;
    double watts;
    double celsius;
    int64_t throttle;
};

struct moe_sample_store; /* opaque */

/* Opens a store, made when absent; a calibration without sample tables gets them.
 * Errors: as moe_database_open with MOE_DATABASE_RESUME. On error a new file is not left behind. */
enum moe_status moe_sample_store_open(const char *path, struct moe_sample_store **out,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Makes all rows durable. Errors: MOE_IO. */
enum moe_status moe_sample_store_commit(struct moe_sample_store *store,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* Commits what it can; a file that this store made and that holds no run is removed. NULL is
 * allowed. */
void moe_sample_store_close(struct moe_sample_store *store);

/* For reading; not while another thread writes. */
struct moe_database *moe_sample_store_database(struct moe_sample_store *store);

/* Each finds a row of the same key or inserts one, and gives its id. A GPU is known by its UUID, a
 * series by its name, a point by its UNIQUE columns. Errors: as moe_database_error; MOE_RANGE when
 * a series of that name has another shape, or a point or series holds what is no number. */
enum moe_status moe_sample_add_gpu(struct moe_sample_store *store, const struct moe_sample_gpu *gpu,
                                   int64_t *id, struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_sample_add_series(struct moe_sample_store *store,
                                      const struct moe_sample_series *series, int64_t *id,
                                      struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_sample_add_point(struct moe_sample_store *store,
                                     const struct moe_sample_point *point, int64_t *id,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* A run has begun; wall_s stays NULL until it ends in order. */
enum moe_status moe_sample_begin_run(struct moe_sample_store *store,
                                     const struct moe_sample_run *run, int64_t *id,
                                     struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_sample_end_run(struct moe_sample_store *store, int64_t run, double wall_s,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* Replaces an older value of the same run, GPU and name. */
enum moe_status moe_sample_add_ceiling(struct moe_sample_store *store, int64_t run, int64_t gpu,
                                       const char *name, double value,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* id may be NULL. Errors: as moe_database_error; MOE_RANGE when the median is not above 0. */
enum moe_status moe_sample_add_row(struct moe_sample_store *store, const struct moe_sample_row *row,
                                   int64_t *id, struct moe_error *err) MOE_MUST_CHECK;
/* Median of the first visit of this pass, 0 when there is none. Errors: as moe_database_error. */
enum moe_status moe_sample_find_median(struct moe_sample_store *store, int64_t run, int64_t gpu,
                                       int64_t point, int32_t pass, double *median_us,
                                       struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_sample_add_raw(struct moe_sample_store *store, int64_t sample, const float *us,
                                   uint32_t count, struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_sample_add_nvml(struct moe_sample_store *store,
                                    const struct moe_sample_nvml *reading,
                                    struct moe_error *err) MOE_MUST_CHECK;

#endif

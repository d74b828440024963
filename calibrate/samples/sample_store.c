#include "calibrate/samples/sample_store.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/embedded.h"
#include "sim/base/wall_clock.h"

extern const struct moe_embedded_file moe_sample_tables[];

static const double COMMIT_EVERY_S = 1.0;

enum statement {
    FIND_GPU,
    ADD_GPU,
    FIND_SERIES,
    ADD_SERIES,
    FIND_POINT,
    ADD_POINT,
    ADD_RUN,
    END_RUN,
    ADD_CEILING,
    ADD_ROW,
    FIND_MEDIAN,
    ADD_RAW,
    ADD_NVML,
    STATEMENT_COUNT
};

static const char *const texts[STATEMENT_COUNT] = {
    [FIND_GPU] = "SELECT id FROM sample_gpu WHERE uuid = ?",
    [ADD_GPU] = "INSERT INTO sample_gpu (uuid, name, kind, sm_count, l2_bytes, memory_bytes,"
                " boost_mhz, power_limit_w) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    [FIND_SERIES] = "SELECT id, kind = ?2 AND hidden = ?4 AND inter = ?5 AND units = ?6"
                    " AND top_k = ?7 AND dtype = ?8 AND activation = ?9 AND backend = ?10"
                    " AND ranks = ?11 AND src = ?12 AND dst = ?13"
                    " FROM sample_series WHERE name = ?1 AND ?3 = ?3",
    [ADD_SERIES] = "INSERT INTO sample_series (name, kind, models, hidden, inter, units, top_k,"
                   " dtype, activation, backend, ranks, src, dst)"
                   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [FIND_POINT] = "SELECT id FROM sample_point WHERE series = ? AND role = ? AND tokens = ?"
                   " AND active = ? AND context = ? AND bytes_per_peer = ? AND histogram = ?",
    [ADD_POINT] = "INSERT INTO sample_point (series, role, tokens, active, context, bytes_per_peer,"
                  " histogram, row_max, tiles64, tiles128, bytes, flops, rows)"
                  " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [ADD_RUN] = "INSERT INTO sample_run (started_at, command, moecal, driver, cuda, cublas, nccl,"
                " seed, gpu_count, settings) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [END_RUN] = "UPDATE sample_run SET wall_s = ? WHERE id = ?",
    [ADD_CEILING] =
        "INSERT OR REPLACE INTO sample_ceiling (run, gpu, name, value) VALUES (?, ?, ?, ?)",
    [ADD_ROW] =
        "INSERT INTO sample (point, run, gpu, gpu_rank, pass, seq, begin_s, n, min_us, p5_us,"
        " p25_us, median_us, p75_us, p95_us, p99_us, mad_us, low_us, high_us, mhz, watts, celsius,"
        " throttle, error, dropped, flags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
        " ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [FIND_MEDIAN] = "SELECT median_us FROM sample WHERE run = ? AND gpu = ? AND point = ?"
                    " AND pass = ? ORDER BY id LIMIT 1",
    [ADD_RAW] = "INSERT OR REPLACE INTO sample_raw (sample, us) VALUES (?, ?)",
    [ADD_NVML] = "INSERT INTO sample_nvml (run, gpu, t_s, sm_mhz, memory_mhz, watts, celsius,"
                 " throttle) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
};

struct moe_sample_store {
    struct moe_database db;
    struct moe_database_kind kind;
    sqlite3_stmt *statements[STATEMENT_COUNT]; /* prepared when first used */
    pthread_mutex_t lock;
    bool created;
    bool open; /* a transaction */
    double opened_s;
};

static enum moe_status commit(struct moe_sample_store *store, struct moe_error *err)
{
    if (!store->open) {
        return MOE_OK;
    }
    MOE_TRY(moe_database_exec(&store->db, "COMMIT", err));
    store->open = false;
    return MOE_OK;
}

/* Before every write: a transaction that has been open for long enough gives way to a new one. */
static enum moe_status begin(struct moe_sample_store *store, struct moe_error *err)
{
    const double now = moe_wall_clock_s();
    if (store->open && now - store->opened_s > COMMIT_EVERY_S) {
        MOE_TRY(commit(store, err));
    }
    if (!store->open) {
        MOE_TRY(moe_database_exec(&store->db, "BEGIN IMMEDIATE", err));
        store->open = true;
        store->opened_s = now;
    }
    return MOE_OK;
}

/* Binds the values of a statement. kinds has a letter per value: i int64_t, d double (one that is
 * no number becomes NULL), t const char *, b const void * and size_t (a NULL pointer: NULL). */
static enum moe_status bind(struct moe_sample_store *store, struct moe_error *err,
                            enum statement which, const char *kinds, ...)
{
    sqlite3_stmt **stmt = &store->statements[which];
    va_list values;
    int code = SQLITE_OK;
    if (*stmt == NULL) {
        MOE_TRY(moe_database_prepare(&store->db, texts[which], stmt, err));
    }
    assert((int) strlen(kinds) == sqlite3_bind_parameter_count(*stmt));
    va_start(values, kinds);
    for (int i = 0; code == SQLITE_OK && kinds[i] != '\0'; i++) {
        if (kinds[i] == 'i') {
            code = sqlite3_bind_int64(*stmt, i + 1, va_arg(values, int64_t));
        } else if (kinds[i] == 'd') {
            const double value = va_arg(values, double);
            code = isnan(value) ? sqlite3_bind_null(*stmt, i + 1)
                                : sqlite3_bind_double(*stmt, i + 1, value);
        } else if (kinds[i] == 't') {
            const char *text = va_arg(values, const char *);
            code = sqlite3_bind_text(*stmt, i + 1, text, -1, SQLITE_TRANSIENT);
        } else {
            const void *bytes = va_arg(values, const void *);
            const size_t size = va_arg(values, size_t);
            code = bytes == NULL ? sqlite3_bind_null(*stmt, i + 1)
                                 : sqlite3_bind_blob64(*stmt, i + 1, bytes, size, SQLITE_TRANSIENT);
        }
    }
    va_end(values);
    return code == SQLITE_OK ? MOE_OK : moe_database_error(&store->db, err);
}

/* Inserts or updates one row; bound: of the statement's values. */
static enum moe_status put(struct moe_sample_store *store, enum statement which,
                           enum moe_status bound, struct moe_error *err)
{
    MOE_TRY(bound);
    MOE_TRY(begin(store, err));
    return moe_database_run(&store->db, store->statements[which], err);
}

/* First two columns of the row that is found; *id is 0 when there is none. */
static enum moe_status find(struct moe_sample_store *store, enum statement which,
                            enum moe_status bound, int64_t *id, int64_t *second,
                            struct moe_error *err)
{
    int row = 0;
    MOE_TRY(bound);
    MOE_TRY(moe_database_step(&store->db, store->statements[which], &row, err));
    *id = row ? sqlite3_column_int64(store->statements[which], 0) : 0;
    *second = row ? sqlite3_column_int64(store->statements[which], 1) : 0;
    (void) sqlite3_reset(store->statements[which]);
    return MOE_OK;
}

static void take(struct moe_sample_store *store)
{
    (void) pthread_mutex_lock(&store->lock);
}

static enum moe_status give(struct moe_sample_store *store, enum moe_status status)
{
    (void) pthread_mutex_unlock(&store->lock);
    return status;
}

static enum moe_status make_tables(struct moe_sample_store *store, struct moe_error *err)
{
    int64_t count = 0;
    MOE_TRY(moe_database_scalar(&store->db,
                                "SELECT count(*) FROM sqlite_schema WHERE name = 'sample_run'", 0,
                                &count, err));
    if (count > 0) {
        return MOE_OK;
    }
    MOE_TRY(begin(store, err));
    MOE_TRY(moe_database_exec(&store->db, store->kind.schema, err));
    return commit(store, err);
}

enum moe_status moe_sample_store_open(const char *path, struct moe_sample_store **out,
                                      struct moe_error *err)
{
    struct moe_sample_store *store = calloc(1, sizeof *store);
    if (store == NULL || pthread_mutex_init(&store->lock, NULL) != 0) {
        free(store);
        return moe_fail(err, MOE_LIMIT, "no memory for a sample store");
    }
    store->kind = (struct moe_database_kind){ .noun = "calibration",
                                              .application_id = MOE_CALIBRATION_APPLICATION_ID,
                                              .version = MOE_CALIBRATION_VERSION,
                                              .schema = moe_sample_tables[0].text };
    store->created = access(path, F_OK) != 0;
    enum moe_status status =
        moe_database_open(&store->db, &store->kind, path, MOE_DATABASE_RESUME, err);
    if (status == MOE_OK) {
        status = make_tables(store, err);
    }
    if (status != MOE_OK) {
        moe_sample_store_close(store);
        return status;
    }
    *out = store;
    return MOE_OK;
}

enum moe_status moe_sample_store_commit(struct moe_sample_store *store, struct moe_error *err)
{
    take(store);
    return give(store, commit(store, err));
}

void moe_sample_store_close(struct moe_sample_store *store)
{
    if (store == NULL) {
        return;
    }
    if (store->db.handle != NULL) {
        int64_t runs = 0;
        for (int i = 0; i < STATEMENT_COUNT; i++) {
            (void) sqlite3_finalize(store->statements[i]);
        }
        (void) commit(store, NULL);
        const bool known = moe_database_scalar(&store->db, "SELECT count(*) FROM sample_run", 0,
                                               &runs, NULL) == MOE_OK;
        moe_database_close(&store->db);
        if (store->created && (!known || runs == 0)) {
            (void) unlink(store->db.path);
        }
    }
    (void) pthread_mutex_destroy(&store->lock);
    free(store);
}

struct moe_database *moe_sample_store_database(struct moe_sample_store *store)
{
    return &store->db;
}

static int64_t last_id(struct moe_sample_store *store)
{
    return sqlite3_last_insert_rowid(store->db.handle);
}

static enum moe_status add_gpu(struct moe_sample_store *store, const struct moe_sample_gpu *gpu,
                               int64_t *id, struct moe_error *err)
{
    int64_t unused = 0;
    MOE_TRY(find(store, FIND_GPU, bind(store, err, FIND_GPU, "t", gpu->uuid), id, &unused, err));
    if (*id == 0) {
        MOE_TRY(put(store, ADD_GPU,
                    bind(store, err, ADD_GPU, "tttiiidd", gpu->uuid, gpu->name, gpu->kind,
                         gpu->sm_count, gpu->l2_bytes, gpu->memory_bytes, gpu->boost_mhz,
                         gpu->power_limit_w),
                    err));
        *id = last_id(store);
    }
    return MOE_OK;
}

enum moe_status moe_sample_add_gpu(struct moe_sample_store *store, const struct moe_sample_gpu *gpu,
                                   int64_t *id, struct moe_error *err)
{
    take(store);
    return give(store, add_gpu(store, gpu, id, err));
}

#define SERIES_VALUES(s)                                                                       \
    (s)->name, (s)->kind, (s)->models, (int64_t) (s)->hidden, (int64_t) (s)->inter,            \
        (int64_t) (s)->units, (int64_t) (s)->top_k, (s)->dtype, (s)->activation, (s)->backend, \
        (int64_t) (s)->ranks, (int64_t) (s)->src, (int64_t) (s)->dst

static enum moe_status add_series(struct moe_sample_store *store,
                                  const struct moe_sample_series *series, int64_t *id,
                                  struct moe_error *err)
{
    int64_t same = 0;
    MOE_TRY(find(store, FIND_SERIES,
                 bind(store, err, FIND_SERIES, "tttiiiitttiii", SERIES_VALUES(series)), id, &same,
                 err));
    if (*id == 0) {
        MOE_TRY(put(store, ADD_SERIES,
                    bind(store, err, ADD_SERIES, "tttiiiitttiii", SERIES_VALUES(series)), err));
        *id = last_id(store);
        return MOE_OK;
    }
    if (!same) {
        return moe_fail(err, MOE_RANGE, "%s: series %s is there with another shape", store->db.path,
                        series->name);
    }
    return MOE_OK;
}

enum moe_status moe_sample_add_series(struct moe_sample_store *store,
                                      const struct moe_sample_series *series, int64_t *id,
                                      struct moe_error *err)
{
    take(store);
    return give(store, add_series(store, series, id, err));
}

static enum moe_status add_point(struct moe_sample_store *store,
                                 const struct moe_sample_point *point, int64_t *id,
                                 struct moe_error *err)
{
    int64_t unused = 0;
    if (!isfinite(point->tokens) || !isfinite(point->context) || !isfinite(point->bytes) ||
        !isfinite(point->bytes_per_peer) || !isfinite(point->flops)) {
        return moe_fail(err, MOE_RANGE, "%s: a point of series %lld holds what is no number",
                        store->db.path, (long long) point->series);
    }
    MOE_TRY(
        find(store, FIND_POINT,
             bind(store, err, FIND_POINT, "itdiddt", point->series, point->role, point->tokens,
                  (int64_t) point->active, point->context, point->bytes_per_peer, point->histogram),
             id, &unused, err));
    if (*id == 0) {
        MOE_TRY(
            put(store, ADD_POINT,
                bind(store, err, ADD_POINT, "itdiddtiiiddb", point->series, point->role,
                     point->tokens, (int64_t) point->active, point->context, point->bytes_per_peer,
                     point->histogram, (int64_t) point->row_max, point->tiles64, point->tiles128,
                     point->bytes, point->flops, point->rows, point->rows_bytes),
                err));
        *id = last_id(store);
    }
    return MOE_OK;
}

enum moe_status moe_sample_add_point(struct moe_sample_store *store,
                                     const struct moe_sample_point *point, int64_t *id,
                                     struct moe_error *err)
{
    take(store);
    return give(store, add_point(store, point, id, err));
}

enum moe_status moe_sample_begin_run(struct moe_sample_store *store,
                                     const struct moe_sample_run *run, int64_t *id,
                                     struct moe_error *err)
{
    take(store);
    enum moe_status status =
        put(store, ADD_RUN,
            bind(store, err, ADD_RUN, "tttttttiit", run->started_at, run->command, run->moecal,
                 run->driver, run->cuda, run->cublas, run->nccl, (int64_t) run->seed,
                 (int64_t) run->gpu_count, run->settings),
            err);
    if (status == MOE_OK) {
        *id = last_id(store);
        status = commit(store, err); /* a killed run is to be found again */
    }
    return give(store, status);
}

enum moe_status moe_sample_end_run(struct moe_sample_store *store, int64_t run, double wall_s,
                                   struct moe_error *err)
{
    take(store);
    enum moe_status status = put(store, END_RUN, bind(store, err, END_RUN, "di", wall_s, run), err);
    if (status == MOE_OK) {
        status = commit(store, err);
    }
    return give(store, status);
}

enum moe_status moe_sample_add_ceiling(struct moe_sample_store *store, int64_t run, int64_t gpu,
                                       const char *name, double value, struct moe_error *err)
{
    take(store);
    return give(store, put(store, ADD_CEILING,
                           bind(store, err, ADD_CEILING, "iitd", run, gpu, name, value), err));
}

enum moe_status moe_sample_add_row(struct moe_sample_store *store, const struct moe_sample_row *row,
                                   int64_t *id, struct moe_error *err)
{
    if (!(row->median_us > 0.0) || !isfinite(row->median_us)) {
        return moe_fail(err, MOE_RANGE, "%s: a sample of point %lld has a median of %g us",
                        store->db.path, (long long) row->point, row->median_us);
    }
    take(store);
    const enum moe_status status =
        put(store, ADD_ROW,
            bind(store, err, ADD_ROW,
                 "iiiiiididdddddddddddd"
                 "idit",
                 row->point, row->run, row->gpu, (int64_t) row->gpu_rank, (int64_t) row->pass,
                 row->seq, row->begin_s, (int64_t) row->n, row->min_us, row->p5_us, row->p25_us,
                 row->median_us, row->p75_us, row->p95_us, row->p99_us, row->mad_us, row->low_us,
                 row->high_us, row->mhz, row->watts, row->celsius, (int64_t) row->throttle,
                 row->error, (int64_t) row->dropped, row->flags),
            err);
    if (status == MOE_OK && id != NULL) {
        *id = last_id(store);
    }
    return give(store, status);
}

enum moe_status moe_sample_find_median(struct moe_sample_store *store, int64_t run, int64_t gpu,
                                       int64_t point, int32_t pass, double *median_us,
                                       struct moe_error *err)
{
    int row = 0;
    take(store);
    enum moe_status status = bind(store, err, FIND_MEDIAN, "iiii", run, gpu, point, (int64_t) pass);
    if (status == MOE_OK) {
        status = moe_database_step(&store->db, store->statements[FIND_MEDIAN], &row, err);
    }
    if (status == MOE_OK) {
        *median_us = row ? sqlite3_column_double(store->statements[FIND_MEDIAN], 0) : 0.0;
        (void) sqlite3_reset(store->statements[FIND_MEDIAN]);
    }
    return give(store, status);
}

enum moe_status moe_sample_add_raw(struct moe_sample_store *store, int64_t sample, const float *us,
                                   uint32_t count, struct moe_error *err)
{
    take(store);
    return give(store, put(store, ADD_RAW,
                           bind(store, err, ADD_RAW, "ib", sample, (const void *) us,
                                (size_t) count * sizeof *us),
                           err));
}

static double known(double value)
{
    return value < 0.0 ? (double) NAN : value;
}

enum moe_status moe_sample_add_nvml(struct moe_sample_store *store,
                                    const struct moe_sample_nvml *reading, struct moe_error *err)
{
    take(store);
    return give(store, put(store, ADD_NVML,
                           bind(store, err, ADD_NVML, "iidddddi", reading->run, reading->gpu,
                                reading->t_s, known(reading->sm_mhz), known(reading->memory_mhz),
                                known(reading->watts), known(reading->celsius), reading->throttle),
                           err));
}

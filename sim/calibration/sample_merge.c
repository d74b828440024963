#include "sim/calibration/sample_merge.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "calibrate/samples/sample_store.h"
#include "sim/calibration/evidence.h"
#include "sim/cost/calibration.h"

/* The first text that a query gives, which says what does not fit; none when all does. */
static enum moe_status refuse_rows(struct moe_database *db, const char *path, const char *sql,
                                   const char *why, struct moe_error *err)
{
    sqlite3_stmt *select = NULL;
    int row = 0;
    MOE_TRY(moe_database_prepare(db, sql, &select, err));
    enum moe_status status = moe_database_step(db, select, &row, err);
    if (status == MOE_OK && row) {
        status = moe_fail(err, MOE_RANGE, "%s: %s: %s", path, why,
                          (const char *) sqlite3_column_text(select, 0));
    }
    (void) sqlite3_finalize(select);
    return status;
}

static enum moe_status check_same(struct moe_database *db, const char *path, struct moe_error *err)
{
    MOE_TRY(refuse_rows(
        db, path,
        "SELECT a.kind || ' in the first file, ' || b.kind || ' here' FROM main.sample_gpu a, "
        "from_.sample_gpu b WHERE a.kind <> b.kind LIMIT 1",
        "another kind of GPU; one kind a file is allowed", err));
    MOE_TRY(refuse_rows(db, path,
                        "SELECT name FROM (SELECT name, kind, hidden, inter, units, top_k, dtype, "
                        "activation, backend, ranks, src, dst FROM from_.sample_series EXCEPT "
                        "SELECT name, kind, hidden, inter, units, top_k, dtype, activation, "
                        "backend, ranks, src, dst FROM main.sample_series) WHERE name IN (SELECT "
                        "name FROM main.sample_series) ORDER BY name LIMIT 1",
                        "a series of this name has another shape in the first file", err));
    return refuse_rows(
        db, path,
        "SELECT s.name || ', tokens ' || b.tokens || ', active ' || b.active || ', ' || "
        "b.histogram FROM from_.sample_point b JOIN from_.sample_series s ON s.id = b.series JOIN "
        "main.sample_series t ON t.name = s.name JOIN main.sample_point a ON a.series = t.id AND "
        "a.role = b.role AND a.tokens = b.tokens AND a.active = b.active AND a.context = "
        "b.context AND a.bytes_per_peer = b.bytes_per_peer AND a.histogram = b.histogram WHERE "
        "a.bytes <> b.bytes OR a.flops <> b.flops OR a.rows IS NOT b.rows ORDER BY b.id LIMIT 1",
        "a point means something else in the first file", err);
}

/* Everything of from_ into main, ids mapped by tables of this connection alone. */
static const char copy_sql[] =
    "CREATE TEMP TABLE map_gpu (old INTEGER PRIMARY KEY, new INTEGER NOT NULL);"
    "CREATE TEMP TABLE map_run (old INTEGER PRIMARY KEY, new INTEGER NOT NULL);"
    "CREATE TEMP TABLE map_series (old INTEGER PRIMARY KEY, new INTEGER NOT NULL);"
    "CREATE TEMP TABLE map_point (old INTEGER PRIMARY KEY, new INTEGER NOT NULL);"
    "CREATE TEMP TABLE map_sample (old INTEGER PRIMARY KEY, new INTEGER NOT NULL);"
    "INSERT INTO main.sample_gpu (uuid, name, kind, sm_count, l2_bytes, memory_bytes, boost_mhz, "
    "power_limit_w) SELECT uuid, name, kind, sm_count, l2_bytes, memory_bytes, boost_mhz, "
    "power_limit_w FROM from_.sample_gpu WHERE uuid NOT IN (SELECT uuid FROM main.sample_gpu) "
    "ORDER BY id;"
    "INSERT INTO map_gpu SELECT b.id, a.id FROM from_.sample_gpu b JOIN main.sample_gpu a ON "
    "a.uuid = b.uuid;"
    "INSERT INTO main.sample_series (name, kind, models, hidden, inter, units, top_k, dtype, "
    "activation, backend, ranks, src, dst) SELECT name, kind, models, hidden, inter, units, "
    "top_k, dtype, activation, backend, ranks, src, dst FROM from_.sample_series WHERE name NOT IN "
    "(SELECT name FROM main.sample_series) ORDER BY id;"
    "INSERT INTO map_series SELECT b.id, a.id FROM from_.sample_series b JOIN main.sample_series a "
    "ON a.name = b.name;"
    "INSERT INTO main.sample_point (series, role, tokens, active, row_max, tiles64, tiles128, "
    "context, bytes, bytes_per_peer, flops, histogram, rows) SELECT m.new, role, tokens, active, "
    "row_max, tiles64, tiles128, context, bytes, bytes_per_peer, flops, histogram, rows FROM "
    "from_.sample_point b JOIN map_series m ON m.old = b.series WHERE NOT EXISTS (SELECT 1 FROM "
    "main.sample_point a WHERE a.series = m.new AND a.role = b.role AND a.tokens = b.tokens AND "
    "a.active = b.active AND a.context = b.context AND a.bytes_per_peer = b.bytes_per_peer AND "
    "a.histogram = b.histogram) ORDER BY b.id;"
    "INSERT INTO map_point SELECT b.id, a.id FROM from_.sample_point b JOIN map_series m ON m.old "
    "= b.series JOIN main.sample_point a ON a.series = m.new AND a.role = b.role AND a.tokens = "
    "b.tokens AND a.active = b.active AND a.context = b.context AND a.bytes_per_peer = "
    "b.bytes_per_peer AND a.histogram = b.histogram;"
    /* The runs that main does not have. */
    "INSERT INTO map_run SELECT b.id, (SELECT coalesce(max(id), 0) FROM main.sample_run) + "
    "row_number() OVER (ORDER BY b.id) FROM from_.sample_run b WHERE NOT EXISTS (SELECT 1 FROM "
    "main.sample_run a WHERE a.started_at = b.started_at AND a.command = b.command AND a.seed = "
    "b.seed AND EXISTS (SELECT 1 FROM from_.sample x JOIN map_gpu g ON g.old = x.gpu WHERE x.run = "
    "b.id AND g.new IN (SELECT gpu FROM main.sample WHERE run = a.id)));"
    "INSERT INTO main.sample_run SELECT m.new, started_at, command, moecal, driver, cuda, cublas, "
    "nccl, seed, gpu_count, wall_s, settings FROM from_.sample_run b JOIN map_run m ON m.old = "
    "b.id ORDER BY b.id;"
    "INSERT INTO main.sample_ceiling SELECT r.new, g.new, name, value FROM from_.sample_ceiling b "
    "JOIN map_run r ON r.old = b.run JOIN map_gpu g ON g.old = b.gpu ORDER BY b.rowid;"
    "INSERT INTO map_sample SELECT b.id, (SELECT coalesce(max(id), 0) FROM main.sample) + "
    "row_number() OVER (ORDER BY b.id) FROM from_.sample b JOIN map_run r ON r.old = b.run;"
    "INSERT INTO main.sample SELECT s.new, p.new, r.new, g.new, gpu_rank, pass, seq, begin_s, n, "
    "min_us, p5_us, p25_us, median_us, p75_us, p95_us, p99_us, mad_us, low_us, high_us, mhz, "
    "watts, celsius, throttle, error, dropped, flags FROM from_.sample b JOIN map_sample s ON "
    "s.old = b.id JOIN map_point p ON p.old = b.point JOIN map_run r ON r.old = b.run JOIN map_gpu "
    "g ON g.old = b.gpu ORDER BY b.id;"
    "INSERT INTO main.sample_raw SELECT s.new, us FROM from_.sample_raw b JOIN map_sample s ON "
    "s.old = b.sample ORDER BY b.sample;"
    "INSERT INTO main.sample_nvml SELECT r.new, g.new, t_s, sm_mhz, memory_mhz, watts, celsius, "
    "throttle FROM from_.sample_nvml b JOIN map_run r ON r.old = b.run JOIN map_gpu g ON g.old = "
    "b.gpu ORDER BY b.rowid;"
    "DROP TABLE map_gpu; DROP TABLE map_run; DROP TABLE map_series; DROP TABLE map_point; DROP "
    "TABLE map_sample;";

static enum moe_status attach(struct moe_database *db, const char *path, struct moe_error *err)
{
    sqlite3_stmt *statement = NULL;
    MOE_TRY(moe_database_prepare(db, "ATTACH ?1 AS from_", &statement, err));
    enum moe_status status = sqlite3_bind_text(statement, 1, path, -1, SQLITE_STATIC) == SQLITE_OK
                                 ? moe_database_run(db, statement, err)
                                 : moe_database_error(db, err);
    (void) sqlite3_finalize(statement);
    return status;
}

static enum moe_status add_file(struct moe_database *db, const char *path,
                                struct moe_sample_merge *merge, struct moe_error *err)
{
    int64_t before = 0;
    int64_t after = 0;
    int64_t here = 0;
    MOE_TRY(attach(db, path, err));
    enum moe_status status =
        moe_database_scalar(db, "SELECT count(*) FROM main.sample_run", 0, &before, err);
    if (status == MOE_OK) {
        status = moe_database_scalar(db, "SELECT count(*) FROM from_.sample_run", 0, &here, err);
    }
    if (status == MOE_OK) {
        status = check_same(db, path, err);
    }
    if (status == MOE_OK) {
        status = moe_database_exec(db, "BEGIN", err);
    }
    if (status == MOE_OK) {
        status = moe_database_exec(db, copy_sql, err);
        if (status == MOE_OK) {
            status = moe_database_exec(db, "COMMIT", err);
        } else {
            (void) sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
        }
    }
    if (status == MOE_OK) {
        status = moe_database_scalar(db, "SELECT count(*) FROM main.sample_run", 0, &after, err);
    }
    (void) sqlite3_exec(db->handle, "DETACH from_", NULL, NULL, NULL);
    merge->duplicate += (uint32_t) (here - (after - before));
    return status;
}

static enum moe_status count_result(struct moe_database *db, struct moe_sample_merge *merge,
                                    struct moe_error *err)
{
    int64_t values[4] = { 0 };
    MOE_TRY(moe_database_scalar(db, "SELECT count(*) FROM sample_run", 0, &values[0], err));
    MOE_TRY(moe_database_scalar(db, "SELECT count(*) FROM sample", 0, &values[1], err));
    MOE_TRY(moe_database_scalar(db, "SELECT count(*) FROM sample_gpu", 0, &values[2], err));
    MOE_TRY(moe_database_scalar(
        db,
        "SELECT count(*) FROM sample_run r WHERE NOT EXISTS (SELECT 1 FROM sample a JOIN sample b "
        "ON b.point = a.point AND b.run <> a.run WHERE a.run = r.id)",
        0, &values[3], err));
    merge->runs = (uint32_t) values[0];
    merge->samples = (uint32_t) values[1];
    merge->gpus = (uint32_t) values[2];
    merge->untied = values[0] > 1 ? (uint32_t) values[3] : 0;
    return MOE_OK;
}

static enum moe_status fill(const char *const *paths, uint32_t count, const char *partial,
                            struct moe_sample_merge *merge, struct moe_error *err)
{
    struct moe_sample_store *store = NULL;
    struct moe_evidence evidence;
    MOE_TRY(moe_sample_store_open(partial, &store, err));
    struct moe_database *db = moe_sample_store_database(store);
    enum moe_status status = moe_sample_store_commit(store, err);
    for (uint32_t i = 0; i < count && status == MOE_OK; i++) {
        /* Whole and checked before a row of it is taken. */
        status = moe_evidence_load(&evidence, paths[i], err);
        if (status == MOE_OK) {
            moe_evidence_finish(&evidence);
            status = add_file(db, paths[i], merge, err);
        }
    }
    if (status == MOE_OK) {
        status = count_result(db, merge, err);
    }
    moe_sample_store_close(store);
    return status;
}

enum moe_status moe_sample_merge(struct moe_sample_merge *out, const char *const *paths,
                                 uint32_t count, const char *out_path, bool overwrite,
                                 struct moe_error *err)
{
    char partial[4096];
    struct moe_sample_merge merge = { 0 };
    assert(count >= 2);
    const int bytes = snprintf(partial, sizeof partial, "%s.partial", out_path);
    if (bytes < 0 || (size_t) bytes >= sizeof partial) {
        return moe_fail(err, MOE_RANGE, "a path of %zu bytes; at most %zu are allowed",
                        strlen(out_path), sizeof partial - sizeof ".partial");
    }
    if (!overwrite && access(out_path, F_OK) == 0) {
        return moe_fail(err, MOE_RANGE, "%s: exists already; give --overwrite to replace it",
                        out_path);
    }
    (void) unlink(partial); /* of a merge that was killed */
    enum moe_status status = fill(paths, count, partial, &merge, err);
    if (status == MOE_OK && rename(partial, out_path) != 0) {
        status = moe_fail(err, MOE_IO, "%s: %s", out_path, strerror(errno));
    }
    if (status != MOE_OK) {
        (void) unlink(partial);
        return status;
    }
    *out = merge;
    return MOE_OK;
}

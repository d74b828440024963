#include "traces/trace_provenance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traces/trace_schema.h"

enum { PIECE_BYTES = 1 << 20 };

enum moe_status moe_trace_history_add(struct moe_trace_history *history,
                                      struct moe_trace_provenance **out, struct moe_error *err)
{
    struct moe_trace_provenance *records =
        realloc(history->records, (history->count + 1) * sizeof *records);
    if (records == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %zu provenance records", history->count + 1);
    }
    history->records = records;
    *out = &records[history->count++];
    **out = (struct moe_trace_provenance){ 0 };
    return MOE_OK;
}

void moe_trace_history_finish(struct moe_trace_history *history)
{
    for (size_t i = 0; i < history->count; i++) {
        free(history->records[i].sources);
    }
    free(history->records);
    *history = (struct moe_trace_history){ 0 };
}

enum moe_status moe_trace_provenance_add(struct moe_trace_provenance *record,
                                         const struct moe_trace_source *source,
                                         struct moe_error *err)
{
    struct moe_trace_source *sources =
        realloc(record->sources, (record->source_count + 1) * sizeof *sources);
    if (sources == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %zu source files", record->source_count + 1);
    }
    record->sources = sources;
    sources[record->source_count++] = *source;
    return MOE_OK;
}

static enum moe_status hash_file(int file, const char *path, struct moe_trace_source *source,
                                 struct moe_progress *progress, struct moe_error *err)
{
    struct moe_hash hash;
    unsigned char *piece = malloc(PIECE_BYTES);
    if (piece == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", path);
    }
    moe_hash_init(&hash, 0);
    ssize_t got = read(file, piece, PIECE_BYTES);
    while (got > 0) {
        moe_hash_add(&hash, piece, (size_t) got);
        source->size_bytes += (uint64_t) got;
        moe_progress_update(progress, source->size_bytes);
        got = read(file, piece, PIECE_BYTES);
    }
    free(piece);
    source->hash = moe_hash_value(&hash);
    return got == 0 ? MOE_OK : moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
}

enum moe_status moe_trace_provenance_add_file(struct moe_trace_provenance *record, const char *name,
                                              const char *path, struct moe_progress *progress,
                                              struct moe_error *err)
{
    struct moe_trace_source source = { 0 };
    if (strlen(name) >= sizeof source.name) {
        return moe_fail(err, MOE_RANGE, "%s: a file name of at most %zu bytes is expected", path,
                        sizeof source.name - 1);
    }
    (void) snprintf(source.name, sizeof source.name, "%s", name);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
    }
    const enum moe_status status = hash_file(file, path, &source, progress, err);
    (void) close(file);
    return status == MOE_OK ? moe_trace_provenance_add(record, &source, err) : status;
}

void moe_trace_history_hash(struct moe_hash *hash, const struct moe_trace_history *history)
{
    for (size_t i = 0; i < history->count; i++) {
        const struct moe_trace_provenance *record = &history->records[i];
        moe_hash_add_text(hash, record->engine);
        moe_hash_add_text(hash, record->format);
        moe_hash_add_text(hash, record->layer_map);
        moe_hash_add_u64(hash, record->rows_skipped);
        moe_hash_add_text(hash, record->skip_reason);
        moe_hash_add_text(hash, record->note);
        moe_hash_add_u64(hash, record->source_count);
        for (size_t j = 0; j < record->source_count; j++) {
            moe_hash_add_text(hash, record->sources[j].name);
            moe_hash_add_u64(hash, record->sources[j].size_bytes);
            moe_hash_add_u64(hash, record->sources[j].hash);
        }
    }
}

static void bind_text(sqlite3_stmt *stmt, int index, const char *text)
{
    (void) sqlite3_bind_text(stmt, index, text, -1, SQLITE_TRANSIENT);
}

static enum moe_status store_sources(const struct moe_trace_provenance *record, size_t number,
                                     struct moe_database *db, sqlite3_stmt *stmt,
                                     struct moe_error *err)
{
    for (size_t i = 0; i < record->source_count; i++) {
        (void) sqlite3_bind_int64(stmt, 1, (sqlite3_int64) number);
        bind_text(stmt, 2, record->sources[i].name);
        (void) sqlite3_bind_int64(stmt, 3, (sqlite3_int64) record->sources[i].size_bytes);
        (void) sqlite3_bind_int64(stmt, 4, (sqlite3_int64) record->sources[i].hash);
        MOE_TRY(moe_database_run(db, stmt, err));
    }
    return MOE_OK;
}

enum moe_status moe_trace_history_store(const struct moe_trace_history *history,
                                        struct moe_database *db, struct moe_error *err)
{
    sqlite3_stmt *record_stmt = NULL;
    sqlite3_stmt *source_stmt = NULL;
    enum moe_status status = moe_database_prepare(
        db, "INSERT INTO provenance VALUES (?, ?, ?, ?, ?, ?, ?)", &record_stmt, err);
    if (status == MOE_OK) {
        status = moe_database_prepare(db,
                                      "INSERT INTO source(provenance, name, size_bytes, hash)"
                                      " VALUES (?, ?, ?, ?)",
                                      &source_stmt, err);
    }
    for (size_t i = 0; status == MOE_OK && i < history->count; i++) {
        const struct moe_trace_provenance *record = &history->records[i];
        (void) sqlite3_bind_int64(record_stmt, 1, (sqlite3_int64) i);
        bind_text(record_stmt, 2, record->engine);
        bind_text(record_stmt, 3, record->format);
        bind_text(record_stmt, 4, record->layer_map);
        (void) sqlite3_bind_int64(record_stmt, 5, (sqlite3_int64) record->rows_skipped);
        bind_text(record_stmt, 6, record->skip_reason);
        bind_text(record_stmt, 7, record->note);
        status = moe_database_run(db, record_stmt, err);
        if (status == MOE_OK) {
            status = store_sources(record, i, db, source_stmt, err);
        }
    }
    (void) sqlite3_finalize(source_stmt);
    (void) sqlite3_finalize(record_stmt);
    return status;
}

static enum moe_status load_record(struct moe_trace_history *history, struct moe_database *db,
                                   sqlite3_stmt *stmt, struct moe_error *err)
{
    struct moe_trace_provenance *record = NULL;
    MOE_TRY(moe_trace_history_add(history, &record, err));
    MOE_TRY(moe_trace_column_text(db, stmt, 0, record->engine, sizeof record->engine, err));
    MOE_TRY(moe_trace_column_text(db, stmt, 1, record->format, sizeof record->format, err));
    MOE_TRY(moe_trace_column_text(db, stmt, 2, record->layer_map, sizeof record->layer_map, err));
    MOE_TRY(moe_trace_column_count(db, stmt, 3, 0, INT64_MAX, &record->rows_skipped, err));
    MOE_TRY(
        moe_trace_column_text(db, stmt, 4, record->skip_reason, sizeof record->skip_reason, err));
    return moe_trace_column_text(db, stmt, 5, record->note, sizeof record->note, err);
}

static enum moe_status load_source(struct moe_trace_history *history, struct moe_database *db,
                                   sqlite3_stmt *stmt, struct moe_error *err)
{
    struct moe_trace_source source = { 0 };
    uint64_t number = 0;
    if (history->count == 0) {
        return moe_fail(err, MOE_PARSE, "%s: sources without a provenance record", db->path);
    }
    MOE_TRY(moe_trace_column_count(db, stmt, 0, 0, history->count - 1, &number, err));
    MOE_TRY(moe_trace_column_text(db, stmt, 1, source.name, sizeof source.name, err));
    MOE_TRY(moe_trace_column_count(db, stmt, 2, 0, INT64_MAX, &source.size_bytes, err));
    source.hash = (uint64_t) sqlite3_column_int64(stmt, 3);
    return moe_trace_provenance_add(&history->records[number], &source, err);
}

static enum moe_status
load_all(struct moe_trace_history *history, struct moe_database *db, const char *sql,
         enum moe_status (*load)(struct moe_trace_history *, struct moe_database *, sqlite3_stmt *,
                                 struct moe_error *),
         struct moe_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int row = 1;
    MOE_TRY(moe_database_prepare(db, sql, &stmt, err));
    enum moe_status status = moe_database_step(db, stmt, &row, err);
    while (status == MOE_OK && row != 0) {
        status = load(history, db, stmt, err);
        if (status == MOE_OK) {
            status = moe_database_step(db, stmt, &row, err);
        }
    }
    (void) sqlite3_finalize(stmt);
    return status;
}

enum moe_status moe_trace_history_load(struct moe_trace_history *history, struct moe_database *db,
                                       struct moe_error *err)
{
    struct moe_trace_history loaded = { 0 };
    enum moe_status status = load_all(&loaded, db,
                                      "SELECT engine, format, layer_map, rows_skipped,"
                                      " skip_reason, note FROM provenance ORDER BY id",
                                      load_record, err);
    if (status == MOE_OK) {
        status = load_all(&loaded, db,
                          "SELECT provenance, name, size_bytes, hash FROM source ORDER BY id",
                          load_source, err);
    }
    if (status != MOE_OK) {
        moe_trace_history_finish(&loaded);
        return status;
    }
    *history = loaded;
    return MOE_OK;
}

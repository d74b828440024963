#include "sim/cost/calibration.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/embedded.h"
#include "sim/cost/calibration_check.h"
#include "sim/cost/calibration_csv.h"
#include "sim/cost/calibration_schema.h"

extern const struct moe_embedded_file moe_calibrations[];
extern const unsigned moe_calibrations_count;

static const char builtin_file[] = "h200-published.csv";
static const char builtin_name[] = "builtin";

const char *moe_parameter_name(enum moe_parameter parameter)
{
    static const char *const names[] = {
#define MOE_PARAMETER(constant, name, min, max)       name,
#define MOE_PARAMETER_MAYBE(constant, name, min, max) name,
#include "sim/cost/calibration_parameters.def"
#undef MOE_PARAMETER
#undef MOE_PARAMETER_MAYBE
    };
    assert(parameter < MOE_PARAMETER_COUNT);
    return names[parameter];
}

const char *moe_dtype_name(enum moe_dtype dtype)
{
    static const char *const names[] = { "bf16", "fp8", "fp4" };
    assert(dtype < MOE_DTYPE_COUNT);
    return names[dtype];
}

const char *moe_segment_op_name(enum moe_segment_op op)
{
    static const char *const names[] = {
        "all_to_all", "dispatch", "combine",  "all_gather", "reduce_scatter",
        "all_reduce", "p2p",      "p2p_both", "peer_copy",  "host_to_device",
    };
    static_assert(sizeof names / sizeof names[0] == MOE_SEGMENT_OP_COUNT, "one name each");
    assert(op < MOE_SEGMENT_OP_COUNT);
    return names[op];
}

double moe_dtype_bytes(enum moe_dtype dtype)
{
    static const double bytes[] = { 2.0, 1.0, 0.53125 };
    assert(dtype < MOE_DTYPE_COUNT);
    return bytes[dtype];
}

double moe_calibration_series_weights(const struct moe_calibration_series *series)
{
    const double product = (double) series->hidden * series->expert_size;
    return series->op == MOE_SERIES_GEMM ? product : product * (series->gated ? 3.0 : 2.0);
}

const struct moe_calibration_gpu_kind *
moe_calibration_find_kind(const struct moe_calibration *calibration, const char *name)
{
    for (uint32_t i = 0; i < calibration->gpu_kind_count; i++) {
        if (strcmp(calibration->gpu_kind_rows[i].name, name) == 0) {
            return &calibration->gpu_kind_rows[i];
        }
    }
    return NULL;
}

const struct moe_calibration_fit *
moe_calibration_find_fit(const struct moe_calibration *calibration, const char *series)
{
    for (uint32_t i = 0; i < calibration->fit_count; i++) {
        if (strcmp(calibration->fit_rows[i].series, series) == 0) {
            return &calibration->fit_rows[i];
        }
    }
    return NULL;
}

const struct moe_calibration_fullest *
moe_calibration_find_fullest(const struct moe_calibration *calibration, const char *series)
{
    for (uint32_t i = 0; i < calibration->fullest_count; i++) {
        if (strcmp(calibration->fullest_rows[i].series, series) == 0) {
            return &calibration->fullest_rows[i];
        }
    }
    return NULL;
}

const struct moe_calibration_decode *
moe_calibration_find_decode(const struct moe_calibration *calibration, const char *series)
{
    for (uint32_t i = 0; i < calibration->decode_count; i++) {
        if (strcmp(calibration->decode_rows[i].series, series) == 0) {
            return &calibration->decode_rows[i];
        }
    }
    return NULL;
}

double moe_calibration_decode_bytes(const struct moe_calibration_decode *decode)
{
    const double values = decode->kind == MOE_DECODE_MLA
                              ? decode->head_size
                              : (double) decode->head_size + decode->value_size;
    return moe_dtype_bytes(MOE_DTYPE_BF16) * values * decode->kv_heads;
}

void moe_calibration_count(const struct moe_calibration *calibration, uint32_t *counts)
{
    memset(counts, 0, MOE_PROVENANCE_COUNT * sizeof counts[0]);
    for (uint32_t t = 0; t < MOE_TABLE_COUNT; t++) {
        const struct moe_table *table = moe_calibration_table(t);
        const char *base = (const char *) calibration;
        const char *rows = *(const char *const *) (const void *) (base + table->rows_offset);
        const uint32_t count = *(const uint32_t *) (const void *) (base + table->count_offset);
        const size_t offset = table->columns[table->column_count - 2].offset;
        for (uint32_t i = 0; i < count; i++) {
            counts[*(const uint32_t *) (const void *) (rows + i * table->row_bytes + offset)]++;
        }
    }
}

static void store(void *row, const struct moe_column *column, const struct moe_cell *cell)
{
    char *at = (char *) row + column->offset;
    switch (column->kind) {
    case MOE_COLUMN_TEXT:
        *(const char **) (void *) at = cell->text;
        break;
    case MOE_COLUMN_REAL:
    case MOE_COLUMN_MAYBE:
        *(double *) (void *) at = cell->number;
        break;
    case MOE_COLUMN_COUNT:
    case MOE_COLUMN_CHOICE:
        *(uint32_t *) (void *) at = (uint32_t) cell->number;
        break;
    }
}

/* One row of the statement into one struct. Numbers are checked as the text that SQLite
 * gives for them (17 digits do not survive that, so the number itself is then taken). */
static enum moe_status read_row(void *row, sqlite3_stmt *select, const struct moe_table *table,
                                const char *place, struct moe_arena *arena, struct moe_error *err)
{
    for (uint32_t i = 0; i < table->column_count; i++) {
        const struct moe_column *column = &table->columns[i];
        const double number = sqlite3_column_double(select, (int) i);
        const char *text = (const char *) sqlite3_column_text(select, (int) i);
        struct moe_cell cell;
        MOE_TRY(moe_cell_parse(&cell, column, text == NULL ? "" : text, place, err));
        if (column->kind == MOE_COLUMN_REAL || column->kind == MOE_COLUMN_MAYBE) {
            cell.number = number;
        }
        if (column->kind == MOE_COLUMN_TEXT) {
            const size_t bytes = strlen(text) + 1;
            char *copy = MOE_NEW(arena, char, bytes);
            if (copy == NULL) {
                return moe_fail(err, MOE_LIMIT, "%s: no memory left for the calibration", place);
            }
            memcpy(copy, text, bytes);
            cell.text = copy;
        }
        store(row, column, &cell);
    }
    return MOE_OK;
}

/* The rows of one table into rows[count]. */
static enum moe_status read_rows(char *rows, int64_t count, sqlite3_stmt *select,
                                 const struct moe_table *table, const char *name,
                                 struct moe_arena *arena, struct moe_error *err)
{
    char place[240];
    for (int64_t i = 0; i < count; i++) {
        if (sqlite3_step(select) != SQLITE_ROW) {
            return moe_fail(err, MOE_PARSE, "%s: table %s cannot be read to its end: %s", name,
                            table->name, sqlite3_errmsg(sqlite3_db_handle(select)));
        }
        (void) snprintf(place, sizeof place, "%.180s: table %s, row %lld", name, table->name,
                        (long long) i + 1);
        MOE_TRY(read_row(rows + (size_t) i * table->row_bytes, select, table, place, arena, err));
    }
    return MOE_OK;
}

/* Whether the file is of a time before the table. A file that moecal wrote and nobody fitted has
 * none of the tables, which deserves an answer of its own. */
static enum moe_status find_table(bool *absent, const struct moe_table *table,
                                  struct moe_database *db, const char *name, struct moe_error *err)
{
    char sql[200];
    int64_t there = 0;
    int64_t samples = 0;
    (void) snprintf(sql, sizeof sql,
                    "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '%s'",
                    table->name);
    MOE_TRY(moe_database_scalar(db, sql, 0, &there, err));
    *absent = there == 0 && moe_calibration_table_find(table->name) >= MOE_TABLE_COUNT_1;
    if (there == 0 && !*absent) {
        MOE_TRY(moe_database_scalar(
            db, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'sample_gpu'",
            0, &samples, err));
        if (samples != 0) {
            return moe_fail(err, MOE_RANGE,
                            "%s: holds samples that are not fitted; `moesim fit` makes the tables "
                            "of them",
                            name);
        }
    }
    return MOE_OK;
}

static enum moe_status read_table(struct moe_calibration *calibration,
                                  const struct moe_table *table, struct moe_database *db,
                                  struct moe_arena *arena, struct moe_error *err)
{
    enum { ROW_LIMIT = 1 << 20 };
    char sql[512];
    int64_t count = 0;
    bool absent = false;
    MOE_TRY(find_table(&absent, table, db, calibration->name, err));
    if (absent) {
        return MOE_OK;
    }
    (void) snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", table->name);
    MOE_TRY(moe_database_scalar(db, sql, 0, &count, err));
    char *rows =
        count > ROW_LIMIT ? NULL : moe_arena_alloc(arena, (size_t) count, table->row_bytes);
    if (rows == NULL && count > 0) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for the %lld rows of table %s",
                        calibration->name, (long long) count, table->name);
    }
    int used = snprintf(sql, sizeof sql, "SELECT ");
    for (uint32_t i = 0; i < table->column_count; i++) {
        used += snprintf(sql + used, sizeof sql - (size_t) used, "%s%s", i == 0 ? "" : ", ",
                         table->columns[i].name);
    }
    (void) snprintf(sql + used, sizeof sql - (size_t) used, " FROM %s ORDER BY rowid", table->name);
    sqlite3_stmt *select = NULL;
    MOE_TRY(moe_database_prepare(db, sql, &select, err));
    const enum moe_status status =
        read_rows(rows, count, select, table, calibration->name, arena, err);
    (void) sqlite3_finalize(select);
    if (status == MOE_OK) {
        char *base = (char *) calibration;
        *(const void **) (void *) (base + table->rows_offset) = rows;
        *(uint32_t *) (void *) (base + table->count_offset) = (uint32_t) count;
    }
    return status;
}

static enum moe_status read_database(const struct moe_calibration **out, struct moe_database *db,
                                     const char *name, enum moe_calibration_state state,
                                     struct moe_arena *arena, struct moe_error *err)
{
    const size_t bytes = strlen(name) + 1;
    struct moe_calibration *calibration = MOE_NEW(arena, struct moe_calibration, 1);
    char *copy = MOE_NEW(arena, char, bytes);
    if (calibration == NULL || copy == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory left for the calibration", name);
    }
    memcpy(copy, name, bytes);
    calibration->name = copy;
    for (uint32_t i = 0; i < MOE_TABLE_COUNT; i++) {
        MOE_TRY(read_table(calibration, moe_calibration_table(i), db, arena, err));
    }
    MOE_TRY(moe_calibration_check(calibration, state, err));
    *out = calibration;
    return MOE_OK;
}

enum moe_status moe_calibration_read(const struct moe_calibration **out, struct moe_database *db,
                                     const char *name, struct moe_arena *arena,
                                     struct moe_error *err)
{
    return read_database(out, db, name, MOE_CALIBRATION_FITTED, arena, err);
}

enum moe_status moe_calibration_parse(const struct moe_calibration **out, const char *text,
                                      size_t text_bytes, const char *name,
                                      enum moe_calibration_state state, struct moe_arena *arena,
                                      struct moe_error *err)
{
    struct moe_database db;
    MOE_TRY(
        moe_database_open(&db, &moe_calibration_database, ":memory:", MOE_DATABASE_CREATE, err));
    enum moe_status status = moe_calibration_csv_read(&db, text, text_bytes, name, err);
    if (status == MOE_OK) {
        status = read_database(out, &db, name, state, arena, err);
    }
    moe_database_close(&db);
    return status;
}

static enum moe_status load_builtin(const struct moe_calibration **out, struct moe_arena *arena,
                                    struct moe_error *err)
{
    for (unsigned i = 0; i < moe_calibrations_count; i++) {
        if (strcmp(moe_calibrations[i].name, builtin_file) == 0) {
            return moe_calibration_parse(out, moe_calibrations[i].text, moe_calibrations[i].bytes,
                                         builtin_name, MOE_CALIBRATION_FITTED, arena, err);
        }
    }
    assert(0);
    return moe_fail(err, MOE_UNSUPPORTED, "this build holds no %s", builtin_file);
}

enum moe_status moe_calibration_load(const struct moe_calibration **out, const char *path,
                                     struct moe_arena *arena, struct moe_error *err)
{
    struct moe_database db;
    if (path[0] == '\0' || strcmp(path, builtin_name) == 0) {
        return load_builtin(out, arena, err);
    }
    MOE_TRY(moe_database_open(&db, &moe_calibration_database, path, MOE_DATABASE_READ, err));
    const enum moe_status status = moe_calibration_read(out, &db, path, arena, err);
    moe_database_close(&db);
    return status;
}

/* The whole file; the caller frees *text. */
static enum moe_status read_file(const char *path, char **text, size_t *text_bytes,
                                 struct moe_error *err)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
    }
    enum moe_status status = MOE_OK;
    char *bytes = malloc(MOE_CALIBRATION_CSV_BYTES + 1);
    if (bytes == NULL) {
        status =
            moe_fail(err, MOE_LIMIT, "%s: no memory for %d bytes", path, MOE_CALIBRATION_CSV_BYTES);
        goto done;
    }
    const size_t count = fread(bytes, 1, MOE_CALIBRATION_CSV_BYTES + 1, file);
    if (ferror(file) != 0) {
        status = moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    *text = bytes;
    *text_bytes = count;
    bytes = NULL;
done:
    free(bytes);
    (void) fclose(file);
    return status;
}

enum moe_status moe_calibration_parse_file(const struct moe_calibration **out, const char *csv_path,
                                           enum moe_calibration_state state,
                                           struct moe_arena *arena, struct moe_error *err)
{
    char *text = NULL;
    size_t text_bytes = 0;
    MOE_TRY(read_file(csv_path, &text, &text_bytes, err));
    const enum moe_status status =
        moe_calibration_parse(out, text, text_bytes, csv_path, state, arena, err);
    free(text);
    return status;
}

/* Fills the file at partial_path and reads it back: what a run will refuse is refused now. */
static enum moe_status fill(const char *csv_path, const char *partial_path, struct moe_error *err)
{
    enum { CHECK_BYTES = 64 << 20 };
    char *text = NULL;
    size_t text_bytes = 0;
    struct moe_database db = { 0 };
    struct moe_arena arena = { 0 };
    const struct moe_calibration *calibration = NULL;
    MOE_TRY(read_file(csv_path, &text, &text_bytes, err));
    enum moe_status status = moe_arena_init(&arena, CHECK_BYTES, err);
    if (status == MOE_OK) {
        status = moe_database_open(&db, &moe_calibration_database, partial_path,
                                   MOE_DATABASE_CREATE, err);
    }
    if (status == MOE_OK) {
        status = moe_calibration_csv_read(&db, text, text_bytes, csv_path, err);
    }
    if (status == MOE_OK) {
        status = moe_calibration_read(&calibration, &db, csv_path, &arena, err);
    }
    moe_database_close(&db);
    moe_arena_finish(&arena);
    free(text);
    return status;
}

enum moe_status moe_calibration_import(const char *csv_path, const char *db_path, bool overwrite,
                                       struct moe_error *err)
{
    char partial_path[4096];
    const int bytes = snprintf(partial_path, sizeof partial_path, "%s.partial", db_path);
    if (bytes < 0 || (size_t) bytes >= sizeof partial_path) {
        return moe_fail(err, MOE_RANGE, "a path of %zu bytes; at most %zu are allowed",
                        strlen(db_path), sizeof partial_path - sizeof ".partial");
    }
    if (!overwrite && access(db_path, F_OK) == 0) {
        return moe_fail(err, MOE_RANGE, "%s: exists already; give --overwrite to replace it",
                        db_path);
    }
    /* Left over from an import that was killed; nobody else's files end so. */
    (void) unlink(partial_path);
    enum moe_status status = fill(csv_path, partial_path, err);
    if (status == MOE_OK && rename(partial_path, db_path) != 0) {
        status = moe_fail(err, MOE_IO, "%s: %s", db_path, strerror(errno));
    }
    if (status != MOE_OK) {
        (void) unlink(partial_path);
    }
    return status;
}

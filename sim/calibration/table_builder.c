#include "sim/calibration/table_builder.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "sim/cost/calibration_schema.h"

void moe_table_builder_init(struct moe_table_builder *builder, const char *name,
                            struct moe_arena *arena)
{
    *builder = (struct moe_table_builder){ .arena = arena };
    builder->calibration.name = name;
    static_assert(MOE_TABLE_COUNT <= sizeof builder->capacity / sizeof builder->capacity[0],
                  "one each");
}

void *moe_table_builder_row(struct moe_table_builder *builder, const char *table_name)
{
    const uint32_t index = moe_calibration_table_find(table_name);
    assert(index < MOE_TABLE_COUNT);
    const struct moe_table *table = moe_calibration_table(index);
    char *base = (char *) &builder->calibration;
    char **rows = (char **) (void *) (base + table->rows_offset);
    uint32_t *count = (uint32_t *) (void *) (base + table->count_offset);
    if (*count == builder->capacity[index]) {
        const uint32_t capacity = *count == 0 ? 16 : 2 * *count;
        char *larger = moe_arena_alloc(builder->arena, capacity, table->row_bytes);
        if (larger == NULL) {
            return NULL;
        }
        if (*count > 0) {
            memcpy(larger, *rows, *count * table->row_bytes);
        }
        *rows = larger;
        builder->capacity[index] = capacity;
    }
    return *rows + (size_t) (*count)++ * table->row_bytes;
}

enum moe_status moe_table_builder_copy(struct moe_table_builder *builder, const char *table_name,
                                       const struct moe_calibration *from, struct moe_error *err)
{
    const struct moe_table *table = moe_calibration_table(moe_calibration_table_find(table_name));
    const char *base = (const char *) from;
    const char *rows = *(const char *const *) (const void *) (base + table->rows_offset);
    const uint32_t count = *(const uint32_t *) (const void *) (base + table->count_offset);
    for (uint32_t i = 0; i < count; i++) {
        void *row = moe_table_builder_row(builder, table_name);
        if (row == NULL) {
            return moe_fail(err, MOE_LIMIT, "no memory for %u rows of table %s", count, table_name);
        }
        memcpy(row, rows + (size_t) i * table->row_bytes, table->row_bytes);
    }
    return MOE_OK;
}

const char *moe_table_builder_text(struct moe_table_builder *builder, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char text[512];
    const int bytes = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    assert(bytes >= 0 && (size_t) bytes < sizeof text);
    char *copy = MOE_NEW(builder->arena, char, (size_t) bytes + 1);
    if (copy == NULL) {
        return "";
    }
    memcpy(copy, text, (size_t) bytes + 1);
    return copy;
}

static int bind(sqlite3_stmt *insert, int index, const char *row, const struct moe_column *column)
{
    const void *at = row + column->offset;
    const char *name = column->choices;
    double number = 0.0;
    switch (column->kind) {
    case MOE_COLUMN_TEXT:
        return sqlite3_bind_text(insert, index, *(const char *const *) at, -1, SQLITE_STATIC);
    case MOE_COLUMN_COUNT:
        return sqlite3_bind_int64(insert, index, *(const uint32_t *) at);
    case MOE_COLUMN_CHOICE:
        for (uint32_t i = *(const uint32_t *) at; i > 0; i--) {
            name += strcspn(name, " ") + 1;
        }
        return sqlite3_bind_text(insert, index, name, (int) strcspn(name, " "), SQLITE_STATIC);
    case MOE_COLUMN_REAL:
    case MOE_COLUMN_MAYBE:
        break;
    }
    memcpy(&number, at, sizeof number);
    if (column->kind == MOE_COLUMN_MAYBE && number == 0.0) {
        return sqlite3_bind_null(insert, index);
    }
    return sqlite3_bind_double(insert, index, number);
}

enum moe_status moe_table_builder_try(const struct moe_table_builder *builder,
                                      struct moe_arena *arena, struct moe_error *err)
{
    struct moe_database db;
    const struct moe_calibration *read = NULL;
    MOE_TRY(
        moe_database_open(&db, &moe_calibration_database, ":memory:", MOE_DATABASE_CREATE, err));
    enum moe_status status = moe_table_builder_write(builder, &db, err);
    if (status == MOE_OK) {
        status = moe_calibration_read(&read, &db, builder->calibration.name, arena, err);
    }
    moe_database_close(&db);
    return status;
}

static enum moe_status write_table(const struct moe_table_builder *builder,
                                   const struct moe_table *table, struct moe_database *db,
                                   struct moe_error *err)
{
    const char *base = (const char *) &builder->calibration;
    const char *row = *(const char *const *) (const void *) (base + table->rows_offset);
    const uint32_t count = *(const uint32_t *) (const void *) (base + table->count_offset);
    char sql[256];
    sqlite3_stmt *insert = NULL;
    int used = snprintf(sql, sizeof sql, "INSERT INTO %s VALUES (?", table->name);
    for (uint32_t i = 1; i < table->column_count; i++) {
        used += snprintf(sql + used, sizeof sql - (size_t) used, ", ?");
    }
    (void) snprintf(sql + used, sizeof sql - (size_t) used, ")");
    MOE_TRY(moe_database_prepare(db, sql, &insert, err));
    enum moe_status status = MOE_OK;
    for (uint32_t r = 0; r < count && status == MOE_OK; r++, row += table->row_bytes) {
        for (uint32_t c = 0; c < table->column_count; c++) {
            if (bind(insert, (int) c + 1, row, &table->columns[c]) != SQLITE_OK) {
                status = moe_database_error(db, err);
                break;
            }
        }
        if (status == MOE_OK) {
            status = moe_database_run(db, insert, err);
        }
    }
    (void) sqlite3_finalize(insert);
    return status;
}

static enum moe_status write_tables(const struct moe_table_builder *builder,
                                    struct moe_database *db, struct moe_error *err)
{
    char sql[80];
    for (uint32_t i = 0; i < MOE_TABLE_COUNT; i++) {
        (void) snprintf(sql, sizeof sql, "DROP TABLE IF EXISTS %s", moe_calibration_table(i)->name);
        MOE_TRY(moe_database_exec(db, sql, err));
    }
    MOE_TRY(moe_database_exec(db, moe_calibration_database.schema, err));
    for (uint32_t i = 0; i < MOE_TABLE_COUNT; i++) {
        MOE_TRY(write_table(builder, moe_calibration_table(i), db, err));
    }
    (void) snprintf(sql, sizeof sql, "PRAGMA user_version = %d", moe_calibration_database.version);
    return moe_database_exec(db, sql, err);
}

enum moe_status moe_table_builder_write(const struct moe_table_builder *builder,
                                        struct moe_database *db, struct moe_error *err)
{
    MOE_TRY(moe_database_exec(db, "BEGIN IMMEDIATE", err));
    enum moe_status status = write_tables(builder, db, err);
    if (status == MOE_OK) {
        status = moe_database_exec(db, "COMMIT", err);
    }
    if (status != MOE_OK) {
        (void) sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    }
    return status;
}

#include "sim/cost/calibration_csv.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/cost/calibration_schema.h"

enum { FIELD_LIMIT = MOE_COLUMN_LIMIT + 2 };

struct field {
    char *text;    /* terminated in place */
    size_t column; /* 1-based byte of the line */
};

struct reader {
    struct moe_database *db;
    const char *name;
    unsigned line;
    const struct moe_table *table; /* of the last `table` line; NULL before it */
    uint32_t columns[FIELD_LIMIT]; /* field i + 1 of a row -> the table's column */
    uint32_t column_count;
    sqlite3_stmt *insert[MOE_TABLE_COUNT]; /* prepared when first used */
    struct field fields[FIELD_LIMIT];
    uint32_t field_count;
};

static enum moe_status fail_at(const struct reader *reader, size_t column, const char *text,
                               struct moe_error *err)
{
    return moe_fail(err, MOE_PARSE, "%s:%u:%zu: %s", reader->name, reader->line, column, text);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Ends a quoted field whose opening quote stands at *cursor, turning "" into ". Moves
 * *cursor behind the closing quote. */
static enum moe_status unquote(const struct reader *reader, char *line, char **cursor,
                               struct moe_error *err)
{
    char *from = *cursor + 1;
    char *to = from;
    while (*from != '\0' && !(from[0] == '"' && from[1] != '"')) {
        from += from[0] == '"' ? 1 : 0;
        *to++ = *from++;
    }
    if (*from == '\0') {
        return fail_at(reader, (size_t) (*cursor - line) + 1, "a quote that does not end", err);
    }
    /* When nothing was doubled, this overwrites the closing quote itself. */
    *cursor = from + 1;
    *to = '\0';
    return MOE_OK;
}

static enum moe_status split(struct reader *reader, char *line, struct moe_error *err)
{
    char *cursor = line;
    reader->field_count = 0;
    for (;;) {
        while (is_blank(*cursor)) {
            cursor++;
        }
        if (reader->field_count == FIELD_LIMIT) {
            return fail_at(reader, (size_t) (cursor - line) + 1, "more fields than any table has",
                           err);
        }
        struct field *field = &reader->fields[reader->field_count++];
        field->column = (size_t) (cursor - line) + 1;
        char *end = NULL;
        if (*cursor == '"') {
            field->text = cursor + 1;
            MOE_TRY(unquote(reader, line, &cursor, err));
            while (is_blank(*cursor)) {
                cursor++;
            }
        } else {
            field->text = cursor;
            cursor += strcspn(cursor, ",\"");
            for (end = cursor; end > field->text && is_blank(end[-1]); end--) {
            }
        }
        const char after = *cursor;
        if (after != ',' && after != '\0') {
            return fail_at(reader, (size_t) (cursor - line) + 1,
                           "a comma or the end of the line must follow here", err);
        }
        if (end != NULL) {
            *end = '\0';
        }
        if (after == '\0') {
            return MOE_OK;
        }
        cursor++;
    }
}

/* A `table` line: which columns follow, and that none is missing or there twice. */
static enum moe_status begin_table(struct reader *reader, struct moe_error *err)
{
    reader->table = NULL;
    if (reader->field_count < 2) {
        return fail_at(reader, 1, "`table` needs the table's name and its columns", err);
    }
    const struct field *field = &reader->fields[1];
    const uint32_t index = moe_calibration_table_find(field->text);
    if (index == MOE_TABLE_COUNT) {
        char names[240] = "";
        size_t used = 0;
        for (uint32_t i = 0; i < MOE_TABLE_COUNT; i++) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s",
                                      moe_calibration_table(i)->name);
        }
        return moe_fail(err, MOE_RANGE, "%s:%u:%zu: no table '%.40s'; there are:%s", reader->name,
                        reader->line, field->column, field->text, names);
    }
    const struct moe_table *table = moe_calibration_table(index);
    bool seen[MOE_COLUMN_LIMIT] = { false };
    for (uint32_t i = 2; i < reader->field_count; i++) {
        field = &reader->fields[i];
        const uint32_t column = moe_column_find(table, field->text);
        if (column == table->column_count || seen[column]) {
            return moe_fail(err, MOE_RANGE, "%s:%u:%zu: table %s %s '%.40s'", reader->name,
                            reader->line, field->column, table->name,
                            column == table->column_count ? "has no column" : "is given twice its",
                            field->text);
        }
        seen[column] = true;
        reader->columns[i - 2] = column;
    }
    for (uint32_t column = 0; column < table->column_count; column++) {
        if (!seen[column] && table->columns[column].kind != MOE_COLUMN_MAYBE) {
            return moe_fail(err, MOE_RANGE, "%s:%u:%zu: table %s needs a column '%s'", reader->name,
                            reader->line, reader->fields[1].column, table->name,
                            table->columns[column].name);
        }
    }
    reader->column_count = reader->field_count - 2;
    reader->table = table;
    return MOE_OK;
}

static enum moe_status prepare(struct reader *reader, sqlite3_stmt **out, struct moe_error *err)
{
    const struct moe_table *table = reader->table;
    sqlite3_stmt **slot = &reader->insert[moe_calibration_table_find(table->name)];
    if (*slot == NULL) {
        char sql[256];
        int used = snprintf(sql, sizeof sql, "INSERT INTO %s VALUES (?", table->name);
        for (uint32_t i = 1; i < table->column_count; i++) {
            used += snprintf(sql + used, sizeof sql - (size_t) used, ", ?");
        }
        (void) snprintf(sql + used, sizeof sql - (size_t) used, ")");
        MOE_TRY(moe_database_prepare(reader->db, sql, slot, err));
    }
    *out = *slot;
    return MOE_OK;
}

static int bind(sqlite3_stmt *insert, uint32_t column, enum moe_column_kind kind,
                const struct moe_cell *cell)
{
    const int index = (int) column + 1;
    switch (kind) {
    case MOE_COLUMN_TEXT:
    case MOE_COLUMN_CHOICE:
        return sqlite3_bind_text(insert, index, cell->text, -1, SQLITE_STATIC);
    case MOE_COLUMN_COUNT:
        return sqlite3_bind_int64(insert, index, (int64_t) cell->number);
    case MOE_COLUMN_MAYBE:
        if (cell->text[0] == '\0') {
            return sqlite3_bind_null(insert, index);
        }
        return sqlite3_bind_double(insert, index, cell->number);
    case MOE_COLUMN_REAL:
        break;
    }
    return sqlite3_bind_double(insert, index, cell->number);
}

static enum moe_status insert_row(struct reader *reader, struct moe_error *err)
{
    const struct moe_table *table = reader->table;
    sqlite3_stmt *insert = NULL;
    char place[200];
    if (table == NULL || strcmp(reader->fields[0].text, table->name) != 0) {
        return moe_fail(err, MOE_PARSE, "%s:%u:%zu: '%.40s' stands where %s%s%s was expected",
                        reader->name, reader->line, reader->fields[0].column,
                        reader->fields[0].text, table == NULL ? "" : "`",
                        table == NULL ? "a line that begins with `table`" : table->name,
                        table == NULL ? "" : "` or `table`");
    }
    if (reader->field_count != reader->column_count + 1) {
        return moe_fail(err, MOE_PARSE, "%s:%u:1: %u fields; the table's line names %u",
                        reader->name, reader->line, reader->field_count, reader->column_count + 1);
    }
    MOE_TRY(prepare(reader, &insert, err));
    (void) sqlite3_clear_bindings(insert);
    for (uint32_t i = 0; i < reader->column_count; i++) {
        const struct moe_column *column = &table->columns[reader->columns[i]];
        const struct field *field = &reader->fields[i + 1];
        struct moe_cell cell;
        (void) snprintf(place, sizeof place, "%.150s:%u:%zu", reader->name, reader->line,
                        field->column);
        MOE_TRY(moe_cell_parse(&cell, column, field->text, place, err));
        if (bind(insert, reader->columns[i], column->kind, &cell) != SQLITE_OK) {
            return moe_database_error(reader->db, err);
        }
    }
    const int code = sqlite3_step(insert);
    (void) sqlite3_reset(insert);
    if ((code & 0xff) == SQLITE_CONSTRAINT) {
        return moe_fail(err, MOE_RANGE, "%s:%u:1: a second row of table %s for the same thing",
                        reader->name, reader->line, table->name);
    }
    return code == SQLITE_DONE ? MOE_OK : moe_database_error(reader->db, err);
}

static enum moe_status read_line(struct reader *reader, char *line, struct moe_error *err)
{
    const char *first = line + strspn(line, " \t");
    if (*first == '\0' || *first == '#') {
        return MOE_OK;
    }
    MOE_TRY(split(reader, line, err));
    return strcmp(reader->fields[0].text, "table") == 0 ? begin_table(reader, err)
                                                        : insert_row(reader, err);
}

static enum moe_status read_lines(struct reader *reader, char *text, size_t text_bytes,
                                  struct moe_error *err)
{
    char *end = text + text_bytes;
    for (char *line = text; line < end;) {
        char *next = memchr(line, '\n', (size_t) (end - line));
        next = next == NULL ? end : next;
        char *stop = next > line && next[-1] == '\r' ? next - 1 : next;
        *stop = '\0';
        reader->line++;
        if (strlen(line) != (size_t) (stop - line)) {
            return fail_at(reader, strlen(line) + 1, "a zero byte", err);
        }
        MOE_TRY(read_line(reader, line, err));
        line = next + 1;
    }
    return MOE_OK;
}

enum moe_status moe_calibration_csv_read(struct moe_database *db, const char *text,
                                         size_t text_bytes, const char *name, struct moe_error *err)
{
    struct reader reader = { .db = db, .name = name };
    if (text_bytes > MOE_CALIBRATION_CSV_BYTES) {
        return moe_fail(err, MOE_LIMIT, "%s: %zu bytes; at most %d are allowed", name, text_bytes,
                        MOE_CALIBRATION_CSV_BYTES);
    }
    char *copy = malloc(text_bytes + 1);
    if (copy == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %zu bytes", name, text_bytes);
    }
    if (text_bytes > 0) {
        memcpy(copy, text, text_bytes);
    }
    copy[text_bytes] = '\0';
    enum moe_status status = moe_database_exec(db, "BEGIN", err);
    if (status == MOE_OK) {
        status = read_lines(&reader, copy, text_bytes, err);
        for (uint32_t i = 0; i < MOE_TABLE_COUNT; i++) {
            (void) sqlite3_finalize(reader.insert[i]);
        }
        if (status == MOE_OK) {
            status = moe_database_exec(db, "COMMIT", err);
        }
        if (status != MOE_OK) {
            (void) sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
        }
    }
    free(copy);
    return status;
}

#include "sim/cost/calibration_schema.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "calibrate/samples/sample_store.h"
#include "sim/base/options.h"
#include "sim/cost/calibration.h"

#define PROVENANCES "measured interpolated extrapolated published assumed"

/* Each table becomes a function, so that `row` can name its struct in every line. */
/* clang-format off */
#define MOE_TABLE(table)                                                              \
    static const struct moe_table *table_##table(void)                                \
    {                                                                                 \
        typedef struct moe_calibration_##table row;                                   \
        static const struct moe_column columns[] = {
#define MOE_TEXT(column, bytes) \
            { #column, MOE_COLUMN_TEXT, 1, (bytes), NULL, offsetof(row, column) },
#define MOE_REAL(column, min, max) \
            { #column, MOE_COLUMN_REAL, (min), (max), NULL, offsetof(row, column) },
#define MOE_MAYBE(column, min, max) \
            { #column, MOE_COLUMN_MAYBE, (min), (max), NULL, offsetof(row, column) },
#define MOE_COUNT(column, min, max) \
            { #column, MOE_COLUMN_COUNT, (min), (max), NULL, offsetof(row, column) },
#define MOE_CHOICE(column, names) \
            { #column, MOE_COLUMN_CHOICE, 0, 0, (names), offsetof(row, column) },
#define MOE_END(table, ...)                                                           \
            { "provenance", MOE_COLUMN_CHOICE, 0, 0, PROVENANCES, offsetof(row, provenance) }, \
            { "source", MOE_COLUMN_TEXT, 1, 400, NULL, offsetof(row, source) },       \
        };                                                                            \
        static const struct moe_table description = {                                 \
            #table, columns, sizeof columns / sizeof columns[0], sizeof(row),         \
            offsetof(struct moe_calibration, table##_rows),                           \
            offsetof(struct moe_calibration, table##_count),                          \
        };                                                                            \
        static_assert(sizeof columns / sizeof columns[0] <= MOE_COLUMN_LIMIT, "limit"); \
        return &description;                                                          \
    }
#include "sim/cost/calibration_tables.def"
#undef MOE_TABLE
#undef MOE_TEXT
#undef MOE_REAL
#undef MOE_MAYBE
#undef MOE_COUNT
#undef MOE_CHOICE
#undef MOE_END

/* The schema; the provenance's check keeps an own tool from inventing a word. */
#define MOE_TABLE(table)            "CREATE TABLE " #table " ("
#define MOE_TEXT(column, bytes)     #column " TEXT NOT NULL, "
#define MOE_REAL(column, min, max)  #column " REAL NOT NULL, "
#define MOE_MAYBE(column, min, max) #column " REAL, "
#define MOE_COUNT(column, min, max) #column " INTEGER NOT NULL, "
#define MOE_CHOICE(column, names)   #column " TEXT NOT NULL, "
#define MOE_END(table, ...) \
    "provenance TEXT NOT NULL, source TEXT NOT NULL, UNIQUE (" #__VA_ARGS__ "));"
const struct moe_database_kind moe_calibration_database = {
    .noun = "calibration",
    .application_id = MOE_CALIBRATION_APPLICATION_ID,
    .version = MOE_CALIBRATION_VERSION,
    .schema =
#include "sim/cost/calibration_tables.def"
};
#undef MOE_TABLE
#undef MOE_TEXT
#undef MOE_REAL
#undef MOE_MAYBE
#undef MOE_COUNT
#undef MOE_CHOICE
#undef MOE_END

static const struct moe_table *(*const tables[])(void) = {
#define MOE_TABLE(table) table_##table,
#define MOE_TEXT(column, bytes)
#define MOE_REAL(column, min, max)
#define MOE_MAYBE(column, min, max)
#define MOE_COUNT(column, min, max)
#define MOE_CHOICE(column, names)
#define MOE_END(table, ...)
#include "sim/cost/calibration_tables.def"
};
/* clang-format on */
static_assert(sizeof tables / sizeof tables[0] == MOE_TABLE_COUNT, "one function each");

const struct moe_table *moe_calibration_table(uint32_t index)
{
    assert(index < MOE_TABLE_COUNT);
    return tables[index]();
}

uint32_t moe_calibration_table_find(const char *name)
{
    uint32_t index = 0;
    while (index < MOE_TABLE_COUNT && strcmp(moe_calibration_table(index)->name, name) != 0) {
        index++;
    }
    return index;
}

uint32_t moe_column_find(const struct moe_table *table, const char *name)
{
    uint32_t index = 0;
    while (index < table->column_count && strcmp(table->columns[index].name, name) != 0) {
        index++;
    }
    return index;
}

static enum moe_status parse_text(const struct moe_column *column, const char *text,
                                  const char *place, struct moe_error *err)
{
    const size_t bytes = strlen(text);
    if ((double) bytes < column->min || (double) bytes > column->max) {
        return moe_fail(err, MOE_RANGE, "%s: %s has %zu bytes; 1 to %g are allowed", place,
                        column->name, bytes, column->max);
    }
    for (size_t i = 0; i < bytes; i++) {
        if ((unsigned char) text[i] < ' ') {
            return moe_fail(err, MOE_RANGE, "%s: %s holds a control character (byte %u)", place,
                            column->name, (unsigned) (unsigned char) text[i]);
        }
    }
    return MOE_OK;
}

static enum moe_status parse_choice(struct moe_cell *cell, const struct moe_column *column,
                                    const char *text, const char *place, struct moe_error *err)
{
    const size_t bytes = strlen(text);
    const char *name = column->choices;
    for (int index = 0; *name != '\0'; index++) {
        const size_t length = strcspn(name, " ");
        if (length == bytes && strncmp(name, text, bytes) == 0) {
            cell->number = index;
            return MOE_OK;
        }
        name += length + (name[length] == ' ' ? 1 : 0);
    }
    return moe_fail(err, MOE_RANGE, "%s: %s is '%.60s'; allowed: %s", place, column->name, text,
                    column->choices);
}

enum moe_status moe_cell_parse(struct moe_cell *cell, const struct moe_column *column,
                               const char *text, const char *place, struct moe_error *err)
{
    char what[300];
    uint64_t count = 0;
    *cell = (struct moe_cell){ .text = text };
    (void) snprintf(what, sizeof what, "%s: %s", place, column->name);
    switch (column->kind) {
    case MOE_COLUMN_TEXT:
        return parse_text(column, text, place, err);
    case MOE_COLUMN_CHOICE:
        return parse_choice(cell, column, text, place, err);
    case MOE_COLUMN_MAYBE:
        if (text[0] == '\0') {
            return MOE_OK;
        }
        return moe_parse_real(text, what, column->min, column->max, &cell->number, err);
    case MOE_COLUMN_REAL:
        return moe_parse_real(text, what, column->min, column->max, &cell->number, err);
    case MOE_COLUMN_COUNT:
        MOE_TRY(moe_parse_count(text, what, (uint64_t) column->min, (uint64_t) column->max, &count,
                                err));
        cell->number = (double) count;
        return MOE_OK;
    }
    assert(0);
    return MOE_OK;
}

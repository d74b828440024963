/*
 * Calibration schema: the tables of calibration_tables.def as data, so that the CSV reader
 * and the database reader share one generic row and one set of checks.
 */
#ifndef MOE_SIM_COST_CALIBRATION_SCHEMA_H
#define MOE_SIM_COST_CALIBRATION_SCHEMA_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

enum moe_column_kind {
    MOE_COLUMN_TEXT,
    MOE_COLUMN_REAL,
    MOE_COLUMN_MAYBE,
    MOE_COLUMN_COUNT,
    MOE_COLUMN_CHOICE
};

struct moe_column {
    const char *name;
    enum moe_column_kind kind;
    double min; /* of a number; of a text its bytes */
    double max;
    const char *choices; /* names separated by one space; NULL for other kinds */
    size_t offset;       /* in the C struct of the table */
};

struct moe_table {
    const char *name;
    const struct moe_column *columns; /* the last two are provenance and source */
    uint32_t column_count;
    size_t row_bytes;    /* size of the C struct */
    size_t rows_offset;  /* in struct moe_calibration: const row *rows */
    size_t count_offset; /* and uint32_t count */
};

/* The first MOE_TABLE_COUNT_1 are in files of version 1 too. */
enum { MOE_TABLE_COUNT = 18, MOE_TABLE_COUNT_1 = 10, MOE_COLUMN_LIMIT = 20 };

/* The tables in the order of the list; index < MOE_TABLE_COUNT. */
const struct moe_table *moe_calibration_table(uint32_t index);

/* One cell, as text and, for every kind but text, as number (a choice's index; 0 for a
 * left-out value). */
struct moe_cell {
    const char *text;
    double number;
};

/* Checks text against the column and fills *cell (which keeps the pointer). place stands
 * in front of the message: "FILE:7:12" or "FILE: table point, row 3".
 * Errors: MOE_RANGE naming place, column, value and what is allowed. */
enum moe_status moe_cell_parse(struct moe_cell *cell, const struct moe_column *column,
                               const char *text, const char *place,
                               struct moe_error *err) MOE_MUST_CHECK;

/* The index, or the count when there is none of that name. */
uint32_t moe_calibration_table_find(const char *name);
uint32_t moe_column_find(const struct moe_table *table, const char *name);

#endif

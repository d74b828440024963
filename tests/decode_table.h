/*
 * Decode table: rows of tests/data/decode-h200.csv, which says what its columns are.
 */
#ifndef MOE_TESTS_DECODE_TABLE_H
#define MOE_TESTS_DECODE_TABLE_H

#include <stdbool.h>
#include <stdio.h>

struct decode_table_row {
    char series[80];
    char kind[16];
    double q_heads;
    double kv_heads;
    double head_size;
    char role[16];
    double sequences;
    double context;
    double median_us;
};

/* The next row that is no comment; false at the end of the file. */
bool decode_table_next(FILE *file, struct decode_table_row *row);

#endif

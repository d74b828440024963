/*
 * Calibration twin: a calibration table in CSV, read by a few lines that know nothing of
 * its columns, and the noise that sim/cost/cost.h draws from it. Without any header of the
 * program but random numbers.
 */
#ifndef MOE_TESTS_CALIBRATION_TWIN_H
#define MOE_TESTS_CALIBRATION_TWIN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum twin_source {
    TWIN_MEASURED,
    TWIN_INTERPOLATED,
    TWIN_EXTRAPOLATED,
    TWIN_PUBLISHED,
    TWIN_ASSUMED,
    TWIN_SOURCES
};
enum twin_noise { TWIN_NOISE_COMPUTE, TWIN_NOISE_EXPERT, TWIN_NOISE_COMM };

struct twin_factor {
    double compute;
    double memory;
    double comm;
};

enum { TWIN_ROWS = 160, TWIN_CELLS = 24, TWIN_CELL_BYTES = 40 };

struct twin_row {
    char table[TWIN_CELL_BYTES];
    uint32_t cells;
    char column[TWIN_CELLS][TWIN_CELL_BYTES];
    char cell[TWIN_CELLS][TWIN_CELL_BYTES];
    double value[TWIN_CELLS]; /* of cells that are numbers */
};

struct calibration_twin {
    struct twin_row row[TWIN_ROWS];
    uint32_t rows;
};

static inline bool twin_same(const char *a, const char *b)
{
    return *a == *b && strcmp(a, b) == 0;
}

/* Reads a table without quoted fields and of one GPU kind only; false when it is something
 * else or too large. */
bool calibration_twin_read(struct calibration_twin *twin, const char *text);

/* The first row of a table with this cell (column NULL: the first row). There must be one. */
const struct twin_row *twin_row_with(const struct calibration_twin *twin, const char *table,
                                     const char *column, const char *value);
const char *twin_text(const struct twin_row *row, const char *column);
double twin_number(const struct twin_row *row, const char *column);
bool twin_is(const struct twin_row *row, const char *column, const char *value);
enum twin_source twin_source_of(const struct twin_row *row);

struct twin_factor calibration_twin_factor(const struct calibration_twin *twin, uint64_t seed,
                                           uint32_t gpu);
double calibration_twin_jitter(const struct calibration_twin *twin, enum twin_noise kind, double u);
double calibration_twin_drift(const struct calibration_twin *twin, const char *column);

/* What a normal deviate is below with probability u, 0 < u < 1. */
double calibration_twin_normal(double u);

#endif

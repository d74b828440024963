#include "tests/calibration_twin.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/random.h"

static void copy_cell(char *to, const char *from, size_t bytes)
{
    assert(bytes < TWIN_CELL_BYTES);
    memcpy(to, from, bytes);
    to[bytes] = '\0';
}

/* Cuts a line at its commas. */
static uint32_t split(const char *line, const char *end, char cell[][TWIN_CELL_BYTES])
{
    uint32_t count = 0;
    for (;;) {
        const char *comma = memchr(line, ',', (size_t) (end - line));
        assert(count < TWIN_CELLS);
        copy_cell(cell[count++], line, (size_t) ((comma == NULL ? end : comma) - line));
        if (comma == NULL) {
            return count;
        }
        line = comma + 1;
    }
}

bool calibration_twin_read(struct calibration_twin *twin, const char *text)
{
    char head[TWIN_CELLS][TWIN_CELL_BYTES] = { "" };
    uint32_t columns = 0;
    twin->rows = 0;
    while (*text != '\0') {
        const char *end = strchr(text, '\n');
        if (end == NULL || twin->rows == TWIN_ROWS || memchr(text, '"', (size_t) (end - text))) {
            return false;
        }
        if (strncmp(text, "table,", 6) == 0) {
            columns = split(text, end, head);
        } else if (*text != '#' && *text != '\n') {
            struct twin_row *row = &twin->row[twin->rows++];
            row->cells = split(text, end, row->cell);
            if (row->cells + 1 != columns || strcmp(row->cell[0], head[1]) != 0) {
                return false;
            }
            memcpy(row->table, head[1], sizeof row->table);
            for (uint32_t i = 1; i < row->cells; i++) {
                memcpy(row->column[i], head[i + 1], sizeof row->column[i]);
                row->value[i] = strtod(row->cell[i], NULL);
            }
        }
        text = end + 1;
    }
    return true;
}

static uint32_t find_column(const struct twin_row *row, const char *column)
{
    for (uint32_t i = 1; i < row->cells; i++) {
        if (twin_same(row->column[i], column)) {
            return i;
        }
    }
    abort();
}

const char *twin_text(const struct twin_row *row, const char *column)
{
    return row->cell[find_column(row, column)];
}

double twin_number(const struct twin_row *row, const char *column)
{
    return row->value[find_column(row, column)];
}

bool twin_is(const struct twin_row *row, const char *column, const char *value)
{
    return twin_same(twin_text(row, column), value);
}

enum twin_source twin_source_of(const struct twin_row *row)
{
    static const char *const names[] = { "measured", "interpolated", "extrapolated", "published",
                                         "assumed" };
    for (uint32_t i = 0; i < TWIN_SOURCES; i++) {
        if (twin_is(row, "provenance", names[i])) {
            return (enum twin_source) i;
        }
    }
    abort();
}

/* The first row of a table with this cell; there must be one. */
const struct twin_row *twin_row_with(const struct calibration_twin *twin, const char *table,
                                     const char *column, const char *value)
{
    for (uint32_t i = 0; i < twin->rows; i++) {
        if (twin_same(twin->row[i].table, table) &&
            (column == NULL || twin_is(&twin->row[i], column, value))) {
            return &twin->row[i];
        }
    }
    abort();
}

/* --- noise --- */

double calibration_twin_normal(double u)
{
    const double root_2 = 1.4142135623730951;
    const double root_2_pi = 2.5066282746310002;
    double x = 0;
    if (u > 0.5) {
        return -calibration_twin_normal(1 - u);
    }
    /* Newton from the right of the root of a convex function: it never oversteps. */
    for (int i = 0; i < 100; i++) {
        const double next = x - (0.5 * erfc(-x / root_2) - u) * root_2_pi * exp(0.5 * x * x);
        if (fabs(next - x) < 1e-15) {
            return next;
        }
        x = next;
    }
    return x;
}

static double factor_of(const struct calibration_twin *twin, const char *class, uint32_t which,
                        uint64_t key, uint32_t gpu)
{
    const struct twin_row *row = twin_row_with(twin, "factor", "class", class);
    const uint64_t first = (uint64_t) gpu * 8;
    if (moe_random_uniform(key, first + 1) < twin_number(row, "tail_share")) {
        const double least = twin_number(row, "tail_min");
        return least + moe_random_uniform(key, first + 2) * (twin_number(row, "tail_max") - least);
    }
    const double u = moe_random_uniform(key, first + 3 + which) + 0x1p-54;
    return floor(exp(twin_number(row, "sd") * calibration_twin_normal(u)) * 0x1p40 + 0.5) * 0x1p-40;
}

struct twin_factor calibration_twin_factor(const struct calibration_twin *twin, uint64_t seed,
                                           uint32_t gpu)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_GPU_FACTOR);
    uint32_t cards = 0;
    for (uint32_t i = 0; i < twin->rows; i++) {
        cards += twin_same(twin->row[i].table, "gpu");
    }
    if (cards == 0) {
        return (struct twin_factor){ factor_of(twin, "compute", 0, key, gpu),
                                     factor_of(twin, "memory", 1, key, gpu),
                                     factor_of(twin, "comm", 2, key, gpu) };
    }
    uint64_t wanted = moe_random_below(key, (uint64_t) gpu * 8, cards);
    for (uint32_t i = 0;; i++) {
        const struct twin_row *row = &twin->row[i];
        if (twin_same(row->table, "gpu") && wanted-- == 0) {
            return (struct twin_factor){ twin_number(row, "compute"), twin_number(row, "memory"),
                                         twin_number(row, "comm") };
        }
    }
}

double calibration_twin_jitter(const struct calibration_twin *twin, enum twin_noise kind, double u)
{
    static const char *const classes[] = { "compute", "expert", "comm" };
    static const char *const columns[] = { "min", "p5", "p25", "p50", "p75", "p95", "p99" };
    static const double at[] = { 0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99 };
    const struct twin_row *row = twin_row_with(twin, "jitter", "class", classes[kind]);
    for (uint32_t i = 0; i < 6; i++) {
        if (u < at[i + 1]) {
            const double low = twin_number(row, columns[i]);
            const double high = twin_number(row, columns[i + 1]);
            return low + (u - at[i]) / (at[i + 1] - at[i]) * (high - low);
        }
    }
    return twin_number(row, "p99");
}

double calibration_twin_drift(const struct calibration_twin *twin, const char *column)
{
    return twin_number(twin_row_with(twin, "drift", NULL, NULL), column);
}

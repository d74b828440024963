#include "tests/decode_table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

bool decode_table_next(FILE *file, struct decode_table_row *row)
{
    enum { SERIES, KIND, Q_HEADS, KV_HEADS, HEAD_SIZE, ROLE, SEQUENCES, CONTEXT, MEDIAN_US, CELLS };
    char line[200];
    const char *cells[CELLS];
    char *at = line;
    do {
        if (fgets(line, sizeof line, file) == NULL) {
            return false;
        }
    } while (line[0] == '#');
    for (int i = 0; i < CELLS; i++) {
        assert(*at != '\0');
        cells[i] = at;
        at += strcspn(at, ",\n");
        *at++ = '\0';
    }
    *row = (struct decode_table_row){
        .q_heads = strtod(cells[Q_HEADS], NULL),
        .kv_heads = strtod(cells[KV_HEADS], NULL),
        .head_size = strtod(cells[HEAD_SIZE], NULL),
        .sequences = strtod(cells[SEQUENCES], NULL),
        .context = strtod(cells[CONTEXT], NULL),
        .median_us = strtod(cells[MEDIAN_US], NULL),
    };
    (void) snprintf(row->series, sizeof row->series, "%s", cells[SERIES]);
    (void) snprintf(row->kind, sizeof row->kind, "%s", cells[KIND]);
    (void) snprintf(row->role, sizeof row->role, "%s", cells[ROLE]);
    return true;
}

/* Weights are whole, so that potentials are exact. Rows and columns count from 1; column 0 is
 * the free end of the path. */
#include "policies/solve/matching.h"

#include <assert.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum moe_status moe_matching_init(struct moe_matching *matching, struct moe_arena *arena,
                                  uint32_t limit, struct moe_error *err)
{
    const size_t count = (size_t) limit + 1;
    *matching = (struct moe_matching){
        .limit = limit,
        .of_row = MOE_NEW(arena, int64_t, count),
        .of_column = MOE_NEW(arena, int64_t, count),
        .least = MOE_NEW(arena, int64_t, count),
        .matched = MOE_NEW(arena, uint32_t, count),
        .way = MOE_NEW(arena, uint32_t, count),
        .visited = MOE_NEW(arena, uint8_t, count),
    };
    if (matching->of_row == NULL || matching->of_column == NULL || matching->least == NULL ||
        matching->matched == NULL || matching->way == NULL || matching->visited == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to match %u rows", limit);
    }
    return MOE_OK;
}

/* Extends the matching by one row. */
static void augment(struct moe_matching *m, const uint32_t *weight, uint32_t count, uint32_t row)
{
    uint32_t column = 0;
    m->matched[0] = row;
    for (uint32_t j = 0; j <= count; j++) {
        m->least[j] = INT64_MAX;
        m->visited[j] = 0;
    }
    do {
        const uint32_t current = m->matched[column];
        const uint32_t *weight_of = weight + (size_t) (current - 1) * count;
        int64_t step = INT64_MAX;
        uint32_t next = 0;
        m->visited[column] = 1;
        for (uint32_t j = 1; j <= count; j++) {
            if (m->visited[j]) {
                continue;
            }
            const int64_t cost = -(int64_t) weight_of[j - 1] - m->of_row[current] - m->of_column[j];
            if (cost < m->least[j]) {
                m->least[j] = cost;
                m->way[j] = column;
            }
            if (m->least[j] < step) {
                step = m->least[j];
                next = j;
            }
        }
        for (uint32_t j = 0; j <= count; j++) {
            if (m->visited[j]) {
                m->of_row[m->matched[j]] += step;
                m->of_column[j] -= step;
            } else {
                m->least[j] -= step;
            }
        }
        column = next;
    } while (m->matched[column] != 0);
    while (column != 0) {
        m->matched[column] = m->matched[m->way[column]];
        column = m->way[column];
    }
}

void moe_matching_solve(struct moe_matching *m, const uint32_t *weight, uint32_t count,
                        uint32_t *column_of)
{
    const size_t ends = (size_t) count + 1;
    assert(count <= m->limit);
    memset(m->of_row, 0, ends * sizeof *m->of_row);
    memset(m->of_column, 0, ends * sizeof *m->of_column);
    memset(m->matched, 0, ends * sizeof *m->matched);
    for (uint32_t row = 1; row <= count; row++) {
        augment(m, weight, count, row);
    }
    for (uint32_t column = 1; column <= count; column++) {
        column_of[m->matched[column] - 1] = column - 1;
    }
}

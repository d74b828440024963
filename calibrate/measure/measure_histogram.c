#include "calibrate/measure/measure_histogram.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/random.h"

enum { EXPERT_LIMIT = 1024 };

void moe_measure_histogram_spread(int32_t expert_count, int32_t active, int32_t rows_each,
                                  int32_t *rows)
{
    assert(active >= 1);
    assert(active <= expert_count);
    memset(rows, 0, (size_t) expert_count * sizeof *rows);
    for (int32_t i = 0; i < active; i++) {
        rows[(int64_t) i * expert_count / active] = rows_each;
    }
}

/* Exponential draws, normalised, are a flat Dirichlet draw. */
static void random_shares(int32_t expert_count, uint64_t seed, double *shares)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    for (int32_t e = 0; e < expert_count; e++) {
        shares[e] = -log(moe_random_inside(key, (uint64_t) e));
    }
}

static void shares_of(const char *name, int32_t expert_count, double *shares)
{
    if (strncmp(name, "random-", 7) == 0) {
        random_shares(expert_count, strtoull(name + 7, NULL, 10), shares);
        return;
    }
    if (strncmp(name, "zipf", 4) == 0) {
        moe_row_zipf_shares(expert_count, strtod(name + 4, NULL), shares);
        return;
    }
    const int half_empty = strcmp(name, "half-empty") == 0;
    for (int32_t e = 0; e < expert_count; e++) {
        shares[e] = half_empty && e % 2 == 1 ? 0.0 : 1.0;
    }
    if (strcmp(name, "hot8x") == 0) {
        shares[expert_count / 2] = 8.0;
    } else {
        assert(half_empty);
    }
}

void moe_measure_histogram_make(const char *name, int32_t expert_count, int32_t rows_per_expert,
                                int32_t *rows)
{
    assert(expert_count >= 1);
    assert(expert_count <= EXPERT_LIMIT);
    assert(rows_per_expert >= 1);
    double shares[EXPERT_LIMIT];
    const int32_t divisor = strcmp(name, "uniform") == 0   ? 1
                            : strcmp(name, "half") == 0    ? 2
                            : strcmp(name, "quarter") == 0 ? 4
                                                           : 0;
    if (divisor > 0) {
        const int32_t active = expert_count / divisor;
        moe_measure_histogram_spread(expert_count, active < 1 ? 1 : active, rows_per_expert, rows);
        return;
    }
    shares_of(name, expert_count, shares);
    moe_row_share_round(shares, expert_count, expert_count * rows_per_expert, rows);
}

struct moe_row_load moe_measure_histogram_load(const int32_t *rows, int32_t expert_count)
{
    int32_t offset[EXPERT_LIMIT + 1];
    offset[0] = 0;
    for (int32_t e = 0; e < expert_count; e++) {
        offset[e + 1] = offset[e] + rows[e];
    }
    return moe_row_load_read(offset, expert_count);
}

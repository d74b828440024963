#include "calibrate/expert/row_histogram.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "sim/base/random.h"

enum { EXPERT_LIMIT = 1024 };

static const uint64_t ORDER_SEED = 1; /* of the Zipf ranks: the same in every run */

const char *moe_row_histogram_name(enum moe_row_histogram kind)
{
    static const char *const names[] = { "uniform", "hot8x", "zipf1.2", "half-empty" };
    assert((size_t) kind < sizeof names / sizeof names[0]);
    return names[kind];
}

void moe_row_zipf_shares(int32_t expert_count, double exponent, double *shares)
{
    int32_t order[EXPERT_LIMIT];
    const uint64_t key = moe_random_key(ORDER_SEED, MOE_RANDOM_TEST);
    for (int32_t i = 0; i < expert_count; i++) {
        order[i] = i;
    }
    for (int32_t i = expert_count - 1; i > 0; i--) { /* Fisher and Yates */
        const int32_t j = (int32_t) moe_random_below(key, (uint64_t) i, (uint64_t) i + 1);
        const int32_t moved = order[i];
        order[i] = order[j];
        order[j] = moved;
    }
    for (int32_t rank = 0; rank < expert_count; rank++) {
        shares[order[rank]] = pow((double) rank + 1.0, -exponent);
    }
}

static void shares_of(enum moe_row_histogram kind, int32_t expert_count, double *shares)
{
    if (kind == MOE_ROW_ZIPF) {
        moe_row_zipf_shares(expert_count, 1.2, shares);
        return;
    }
    for (int32_t e = 0; e < expert_count; e++) {
        shares[e] = kind == MOE_ROW_HALF_EMPTY && e % 2 == 1 ? 0.0 : 1.0;
    }
    if (kind == MOE_ROW_HOT8X) {
        shares[expert_count / 2] = 8.0; /* in the middle: neither first nor last to be started */
    }
}

void moe_row_share_round(const double *shares, int32_t expert_count, int32_t total, int32_t *rows)
{
    double remainder[EXPERT_LIMIT];
    double sum = 0.0;
    int32_t given = 0;
    for (int32_t e = 0; e < expert_count; e++) {
        sum += shares[e];
    }
    for (int32_t e = 0; e < expert_count; e++) {
        const double exact = (double) total * shares[e] / sum;
        rows[e] = (int32_t) exact;
        remainder[e] = exact - (double) rows[e];
        given += rows[e];
    }
    for (; given < total; given++) {
        int32_t best = 0;
        for (int32_t e = 1; e < expert_count; e++) {
            best = remainder[e] > remainder[best] ? e : best;
        }
        rows[best]++;
        remainder[best] = -1.0;
    }
}

void moe_row_histogram_make(enum moe_row_histogram kind, int32_t expert_count,
                            int32_t rows_per_expert, int32_t *row_offset)
{
    assert(expert_count >= 1);
    assert(expert_count <= EXPERT_LIMIT);
    assert(rows_per_expert >= 0);
    double shares[EXPERT_LIMIT] = { 0.0 };
    int32_t rows[EXPERT_LIMIT];
    const int32_t total = expert_count * rows_per_expert;
    shares_of(kind, expert_count, shares);
    moe_row_share_round(shares, expert_count, total, rows);
    row_offset[0] = 0;
    for (int32_t e = 0; e < expert_count; e++) {
        row_offset[e + 1] = row_offset[e] + rows[e];
    }
}

struct moe_row_load moe_row_load_read(const int32_t *row_offset, int32_t expert_count)
{
    struct moe_row_load load = { .row_count = row_offset[expert_count] };
    for (int32_t e = 0; e < expert_count; e++) {
        const int32_t rows = row_offset[e + 1] - row_offset[e];
        load.active_count += rows > 0;
        load.row_max = rows > load.row_max ? rows : load.row_max;
        load.tiles64 += (rows + 63) / 64;
        load.tiles128 += (rows + 127) / 128;
    }
    return load;
}

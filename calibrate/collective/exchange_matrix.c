#include "calibrate/collective/exchange_matrix.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/collective/collective_op.h"
#include "sim/base/random.h"

const char *moe_exchange_matrix_name(uint32_t kind, uint64_t seed, char out[MOE_EXCHANGE_NAME])
{
    if (kind == 0) {
        (void) snprintf(out, MOE_EXCHANGE_NAME, "hot8x");
    } else if (kind == MOE_EXCHANGE_ONE_WAY) {
        (void) snprintf(out, MOE_EXCHANGE_NAME, "one-way");
    } else if (kind == MOE_EXCHANGE_OWN) {
        (void) snprintf(out, MOE_EXCHANGE_NAME, "own");
    } else if (seed == 1) {
        (void) snprintf(out, MOE_EXCHANGE_NAME, "random-%" PRIu32, kind);
    } else {
        (void) snprintf(out, MOE_EXCHANGE_NAME, "random-%" PRIu32 "-%" PRIu64, kind, seed);
    }
    return out;
}

/* Exponential draws, divided by their sum, are Dirichlet with parameters 1. */
static double weight_of(uint32_t kind, uint64_t key, uint32_t from, uint32_t to)
{
    if (kind == 0) {
        return to == 0 ? 8.0 : 1.0;
    }
    if (kind == MOE_EXCHANGE_ONE_WAY) {
        return to == 0 ? 31.0 : 1.0;
    }
    if (kind == MOE_EXCHANGE_OWN) {
        return to == from ? 31.0 : 1.0;
    }
    const uint64_t counter = ((uint64_t) kind << 32) | ((uint64_t) from << 16) | to;
    return -log(moe_random_inside(key, counter));
}

/* Largest remainder: the grains that rounding down left over go to the largest rests. */
static void apportion(const double *weights, uint32_t count, int64_t grains, int64_t *out)
{
    double rests[MOE_COLLECTIVE_RANK_LIMIT];
    double sum = 0.0;
    int64_t left = grains;
    for (uint32_t i = 0; i < count; i++) {
        sum += weights[i];
    }
    for (uint32_t i = 0; i < count; i++) {
        const double share = weights[i] / sum * (double) grains;
        out[i] = (int64_t) share;
        rests[i] = share - (double) out[i];
        left -= out[i];
    }
    while (left > 0) {
        uint32_t best = 0;
        for (uint32_t i = 1; i < count; i++) {
            best = rests[i] > rests[best] ? i : best;
        }
        rests[best] = -1.0;
        out[best]++;
        left--;
    }
}

void moe_exchange_matrix_make(uint32_t kind, uint32_t ranks, int64_t bytes_per_peer, uint64_t seed,
                              int64_t *bytes)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    double weights[MOE_COLLECTIVE_RANK_LIMIT];
    assert(ranks >= 1);
    assert(ranks <= MOE_COLLECTIVE_RANK_LIMIT);
    assert(bytes_per_peer % MOE_COLLECTIVE_GRAIN == 0);
    for (uint32_t from = 0; from < ranks; from++) {
        int64_t *row = bytes + (size_t) from * ranks;
        for (uint32_t to = 0; to < ranks; to++) {
            weights[to] = weight_of(kind, key, from, to);
        }
        apportion(weights, ranks, bytes_per_peer / MOE_COLLECTIVE_GRAIN * (int64_t) ranks, row);
        for (uint32_t to = 0; to < ranks; to++) {
            row[to] *= MOE_COLLECTIVE_GRAIN;
        }
    }
}

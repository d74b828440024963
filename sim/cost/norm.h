/*
 * p-norm of two times: (a^p + b^p)^(1/p), the smooth maximum of the cost model.
 *
 * moe_norm is the plain form, two logarithms and two exponentials. moe_norm_table_apply is
 * the same within 1e-15 for one fixed p, by a table of Taylor polynomials in the ratio of
 * the smaller to the larger: one division and eight coefficients, a third of the time.
 */
#ifndef MOE_SIM_COST_NORM_H
#define MOE_SIM_COST_NORM_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/cost/logarithm.h"

enum {
    MOE_NORM_OCTAVES = 12,   /* the table covers ratios of 2^-12 to 1 */
    MOE_NORM_PARTS_LOG2 = 5, /* parts of an octave: 2^5, so |t| <= 1/64 below */
    MOE_NORM_PARTS = 1 << MOE_NORM_PARTS_LOG2,
    MOE_NORM_TERMS = 8,
};

/* h(r) = (1 + r^p)^(1/p) around the middle c of each part, as polynomial in t = r/c - 1. */
struct moe_norm_part {
    double inverse_middle;
    double terms[MOE_NORM_TERMS];
};

struct moe_norm_table {
    double p;
    double inverse_p;
    const struct moe_norm_part *parts; /* [part_count], by rising r */
    uint64_t part_count;               /* 0: the plain form only */
};

/* p >= 1. Above 5 the series converges too slowly and the plain form is used.
 * Errors: MOE_LIMIT when the arena is full (28 KB). */
enum moe_status moe_norm_table_init(struct moe_norm_table *table, double p, struct moe_arena *arena,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* For a, b >= 0 and p >= 1; inverse_p is 1/p. */
static inline double moe_norm(double a, double b, double p, double inverse_p)
{
    const double large = a > b ? a : b;
    const double small = a > b ? b : a;
    /* Below 2^-60 of the larger one, the smaller one cannot reach its last bit. */
    if (small <= large * 0x1p-60) {
        return large;
    }
    const double power = moe_exp2(p * moe_log2(small / large));
    return large * moe_exp2(inverse_p * moe_log2(1.0 + power));
}

static inline double moe_norm_table_apply(const struct moe_norm_table *table, double a, double b)
{
    const double large = a > b ? a : b;
    const double small = a > b ? b : a;
    if (small <= large * 0x1p-12 || small == large) {
        return moe_norm(a, b, table->p, table->inverse_p);
    }
    const double r = small / large;
    uint64_t bits = 0;
    memcpy(&bits, &r, sizeof bits);
    /* Exponent and leading bits of the fraction number the parts, from 2^-12 on. */
    const uint64_t first = (uint64_t) (1023 - MOE_NORM_OCTAVES) << MOE_NORM_PARTS_LOG2;
    const uint64_t index = (bits >> (52 - MOE_NORM_PARTS_LOG2)) - first;
    if (index >= table->part_count) {
        return moe_norm(a, b, table->p, table->inverse_p);
    }
    const struct moe_norm_part *part = &table->parts[index];
    const double *c = part->terms;
    const double t = r * part->inverse_middle - 1.0;
    const double t2 = t * t;
    const double low = (c[0] + t * c[1]) + t2 * (c[2] + t * c[3]);
    const double high = (c[4] + t * c[5]) + t2 * (c[6] + t * c[7]);
    return large * (low + t2 * t2 * high);
}

#endif

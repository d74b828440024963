#include "sim/cost/norm.h"

/* The first term left out is about (p over 8) / 64^8 of the whole. */
static const double largest_p = 5.0;

/* The terms of h around c. With u = c^p: r^p = u (1 + t)^p, whose terms are binomial; so
 * g = 1 + r^p is a series, and h = g^(1/p) follows from g h' = (1/p) g' h term by term:
 *   k g_0 h_k = sum over j = 1..k of (j / p - (k - j)) g_j h_(k-j)   (J. C. P. Miller) */
static void expand(struct moe_norm_part *part, double c, double p)
{
    const double inverse_p = 1.0 / p;
    double g[MOE_NORM_TERMS];
    double *h = part->terms;
    double binomial = moe_exp2(p * moe_log2(c));
    g[0] = 1.0 + binomial;
    for (int k = 1; k < MOE_NORM_TERMS; k++) {
        binomial *= (p - (k - 1)) / k;
        g[k] = binomial;
    }
    h[0] = moe_exp2(inverse_p * moe_log2(g[0]));
    for (int k = 1; k < MOE_NORM_TERMS; k++) {
        double sum = 0.0;
        for (int j = 1; j <= k; j++) {
            sum += (j * inverse_p - (k - j)) * g[j] * h[k - j];
        }
        h[k] = sum / (k * g[0]);
    }
    part->inverse_middle = 1.0 / c;
}

enum moe_status moe_norm_table_init(struct moe_norm_table *table, double p, struct moe_arena *arena,
                                    struct moe_error *err)
{
    const uint32_t count = MOE_NORM_OCTAVES * MOE_NORM_PARTS;
    assert(p >= 1.0);
    if (p > largest_p) {
        *table = (struct moe_norm_table){ .p = p, .inverse_p = 1.0 / p };
        return MOE_OK;
    }
    struct moe_norm_part *parts = MOE_NEW(arena, struct moe_norm_part, count);
    if (parts == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory left for a table of %u norms", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        const int octave = (int) (i / MOE_NORM_PARTS) - MOE_NORM_OCTAVES;
        const double middle = 1.0 + ((i % MOE_NORM_PARTS) + 0.5) / MOE_NORM_PARTS;
        expand(&parts[i], middle * moe_exp2(octave), p);
    }
    *table = (struct moe_norm_table){
        .p = p, .inverse_p = 1.0 / p, .parts = parts, .part_count = count
    };
    return MOE_OK;
}

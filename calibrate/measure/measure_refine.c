#include "calibrate/measure/measure_refine.h"

#include <math.h>

static const double WORTH = 0.02;
static const double REPEATS = 40.0; /* of a visit, in its cost */

struct moe_refine_roofline moe_refine_roofline_of(const struct moe_refine_size *sizes,
                                                  uint32_t count)
{
    struct moe_refine_roofline roofline = { .start_us = INFINITY };
    for (uint32_t i = 0; i < count; i++) {
        roofline.start_us = fmin(roofline.start_us, 0.1 * sizes[i].us);
        roofline.bytes_per_us = fmax(roofline.bytes_per_us, sizes[i].bytes / sizes[i].us);
        roofline.flops_per_us = fmax(roofline.flops_per_us, sizes[i].flops / sizes[i].us);
    }
    return roofline;
}

double moe_refine_roofline_us(const struct moe_refine_roofline *roofline, double bytes,
                              double flops)
{
    const double memory = roofline->bytes_per_us > 0.0 ? bytes / roofline->bytes_per_us : 0.0;
    const double compute = roofline->flops_per_us > 0.0 ? flops / roofline->flops_per_us : 0.0;
    /* p = 4: between the sum and the larger of the two. */
    return roofline->start_us + pow(pow(memory, 4.0) + pow(compute, 4.0), 0.25);
}

/* Time at tokens between sizes a and b, where bytes and FLOPs grow evenly: by the ratio (the
 * roofline's shape), or straight. */
static double between(const struct moe_refine_roofline *roofline, const struct moe_refine_size *a,
                      const struct moe_refine_size *b, double tokens, bool by_ratio)
{
    const double part = (tokens - a->tokens) / (b->tokens - a->tokens);
    if (!by_ratio) {
        return a->us + part * (b->us - a->us);
    }
    const double ratio_a = a->us / moe_refine_roofline_us(roofline, a->bytes, a->flops);
    const double ratio_b = b->us / moe_refine_roofline_us(roofline, b->bytes, b->flops);
    const double place = log(tokens / a->tokens) / log(b->tokens / a->tokens);
    return moe_refine_roofline_us(roofline, a->bytes + part * (b->bytes - a->bytes),
                                  a->flops + part * (b->flops - a->flops)) *
           (ratio_a + place * (ratio_b - ratio_a));
}

/* How far an inner size is from what its neighbours say. */
static double error_of(const struct moe_refine_roofline *roofline,
                       const struct moe_refine_size *sizes, uint32_t count, uint32_t i)
{
    if (i == 0 || i + 1 >= count) {
        return 0.0;
    }
    const double told = between(roofline, &sizes[i - 1], &sizes[i + 1], sizes[i].tokens, true);
    return fabs(log(told / sizes[i].us));
}

double moe_refine_choose(const struct moe_refine_size *sizes, uint32_t count, double visit_s,
                         double *score)
{
    double chosen = 0.0;
    *score = 0.0;
    if (count < 3) {
        return 0.0;
    }
    const struct moe_refine_roofline roofline = moe_refine_roofline_of(sizes, count);
    for (uint32_t i = 0; i + 1 < count; i++) {
        const struct moe_refine_size *a = &sizes[i];
        const struct moe_refine_size *b = &sizes[i + 1];
        const double middle = round(sqrt(a->tokens * b->tokens));
        if (middle <= a->tokens || middle >= b->tokens) {
            continue; /* nothing lies between */
        }
        const double straight = between(&roofline, a, b, middle, false);
        const double shaped = between(&roofline, a, b, middle, true);
        const double apart = fabs(log(straight / shaped));
        const double ends =
            0.5 * (error_of(&roofline, sizes, count, i) + error_of(&roofline, sizes, count, i + 1));
        const double cost = visit_s + REPEATS * shaped * 1e-6;
        if (fmax(apart, ends) >= WORTH && (apart + ends) / cost > *score) {
            *score = (apart + ends) / cost;
            chosen = middle;
        }
    }
    return chosen;
}

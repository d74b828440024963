/* Refinement: it goes where interpolation is least sure, and leaves alone what is known. */
#include <criterion/criterion.h>
#include <math.h>

#include "calibrate/measure/measure_refine.h"

enum { COUNT = 6 };

/* A series of weights that are read and rows that are computed. */
static struct moe_refine_size size_at(double tokens, double us)
{
    return (struct moe_refine_size){
        .tokens = tokens, .us = us, .bytes = 4e9 + tokens * 1e5, .flops = tokens * 4e9
    };
}

static double roofline_us(double tokens)
{
    const struct moe_refine_size size = size_at(tokens, 1.0);
    return pow(pow(size.bytes / 4e6, 4.0) + pow(size.flops / 6e8, 4.0), 0.25);
}

static void fill(struct moe_refine_size *sizes)
{
    static const double tokens[COUNT] = { 1, 16, 128, 256, 512, 1024 };
    for (int i = 0; i < COUNT; i++) {
        sizes[i] = size_at(tokens[i], roofline_us(tokens[i]));
    }
}

Test(measure_refine, goes_to_the_knee_of_a_clean_roofline)
{
    struct moe_refine_size sizes[COUNT];
    double score = 0.0;
    fill(sizes);
    const double chosen = moe_refine_choose(sizes, COUNT, 0.03, &score);
    /* Bytes take 1000 us, rows 6.7 us each: the knee lies at 150. */
    cr_assert(chosen > 16.0 && chosen < 256.0, "%g", chosen);
    cr_assert_gt(score, 0.0);
}

Test(measure_refine, goes_to_a_step_that_the_roofline_does_not_have)
{
    struct moe_refine_size sizes[COUNT];
    double score = 0.0;
    fill(sizes);
    sizes[4].us *= 1.5; /* at 512 another kernel, half as fast again */
    const double chosen = moe_refine_choose(sizes, COUNT, 0.03, &score);
    cr_assert(chosen > 256.0 && chosen < 1024.0, "%g", chosen);
}

Test(measure_refine, leaves_alone_what_is_known)
{
    struct moe_refine_size sizes[COUNT];
    double score = 0.0;
    for (int i = 0; i < COUNT; i++) { /* memory alone, evenly growing */
        const double tokens = 100.0 + 10.0 * i;
        sizes[i] = (struct moe_refine_size){ tokens, tokens, tokens * 1e6, 0.0 };
    }
    cr_assert_eq(moe_refine_choose(sizes, COUNT, 0.03, &score), 0.0);
    cr_assert_eq(score, 0.0);
}

Test(measure_refine, needs_three_sizes_and_room_between)
{
    struct moe_refine_size sizes[COUNT];
    double score = 0.0;
    fill(sizes);
    cr_assert_eq(moe_refine_choose(sizes, 2, 0.03, &score), 0.0);
    for (int i = 0; i < 3; i++) {
        sizes[i] = size_at(1.0 + i, 100.0 * pow(3.0, i));
    }
    cr_assert_eq(moe_refine_choose(sizes, 3, 0.03, &score), 0.0);
}

Test(measure_refine, prefers_the_cheaper_of_two_alike)
{
    struct moe_refine_size sizes[COUNT];
    double cheap = 0.0;
    double dear = 0.0;
    fill(sizes);
    (void) moe_refine_choose(sizes, COUNT, 0.03, &cheap);
    (void) moe_refine_choose(sizes, COUNT, 0.3, &dear);
    cr_assert_gt(cheap, dear);
}

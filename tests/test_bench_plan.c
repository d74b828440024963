#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/bench/bench_plan.h"

Test(bench_plan, shapes_are_read_and_bad_ones_refused)
{
    static const char *const refused[] = {
        "",          "7168",         "7168x2048",      "7168x2048x",        "7168x2048x0",
        "48x64x1",   "7168x2040x32", "7168x2048x1025", "7168x2048x32:silu", "7168x2048x32x2",
        "7168:relu", "-64x64x1",     "7168x2048x32:",  "99999999999x64x1",
    };
    struct moe_bench_shape shape = { 0 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_bench_shape_parse("768x3072x128:relu", &shape, &err), MOE_OK);
    cr_assert_eq(shape.hidden, 768);
    cr_assert_eq(shape.inter, 3072);
    cr_assert_eq(shape.expert_count, 128);
    cr_assert_eq(shape.activation, MOE_EXPERT_RELU);
    cr_assert_eq(moe_bench_shape_parse("64x80x1", &shape, &err), MOE_OK);
    cr_assert_eq(shape.activation, MOE_EXPERT_SWIGLU);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        cr_assert_eq(moe_bench_shape_parse(refused[i], &shape, &err), MOE_RANGE, "%s", refused[i]);
        cr_assert_eq(shape.hidden, 64, "a refused text must leave the shape alone");
    }
}

Test(bench_plan, tokens_and_routes_are_read_and_bad_ones_refused)
{
    static const char *const tokens[] = { "", ",", "1,", "1,,2", "0", "1 2", "65537" };
    static const char *const routes[] = { "1x64x8",   "1x64x8x0",  "1x64x8x5",
                                          "1x72x8x2", "1x64x12x2", "1x64x8x2x1" };
    struct moe_bench_request request = { 0 };
    static const char *const contexts[] = { "", "64", "64x", "64x8192x1", "0x1", "4096x1025" };
    struct moe_bench_route route = { 0 };
    struct moe_bench_context context = { 0 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_bench_tokens_parse("1,16,1024", &request, &err), MOE_OK);
    cr_assert_eq(request.tokens_count, 3);
    cr_assert_eq(request.tokens[2], 1024);
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        cr_assert_eq(moe_bench_tokens_parse(tokens[i], &request, &err), MOE_RANGE, "'%s'",
                     tokens[i]);
    }
    cr_assert_eq(request.tokens_count, 3);
    cr_assert_eq(moe_bench_context_parse("4096x1024", &context, &err), MOE_OK);
    cr_assert_eq(context.tokens, 1024);
    for (size_t i = 0; i < sizeof contexts / sizeof contexts[0]; i++) {
        cr_assert_eq(moe_bench_context_parse(contexts[i], &context, &err), MOE_RANGE, "%s",
                     contexts[i]);
    }
    cr_assert_eq(moe_bench_route_parse("4096x7168x256x8", &route, &err), MOE_OK);
    cr_assert_eq(route.top_k, 8);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        cr_assert_eq(moe_bench_route_parse(routes[i], &route, &err), MOE_RANGE, "%s", routes[i]);
    }
}

static bool same_point(const struct moe_bench_row *a, const struct moe_bench_row *b)
{
    return moe_bench_same_shape(&a->shape, &b->shape) && a->histogram == b->histogram &&
           a->rows_per_expert == b->rows_per_expert;
}

Test(bench_plan, has_every_point_once_and_what_the_bars_ask_for_first)
{
    struct moe_bench_request request;
    struct moe_bench_row *rows = NULL;
    size_t count = 0;
    size_t last_wanted = 0;
    size_t wanted = 0;
    moe_bench_request_default(&request);
    cr_assert_eq(moe_bench_plan_make(&request, &rows, &count, NULL), MOE_OK);
    cr_assert_eq(count, 832, "8 shapes, 13 sizes, 4 spreads, 2 dtypes");
    for (size_t i = 0; i < count; i++) {
        const bool large = moe_bench_is_large(&rows[i].shape);
        if (rows[i].histogram == MOE_ROW_UNIFORM &&
            (large || (moe_bench_is_small(&rows[i].shape) && rows[i].rows_per_expert <= 16 &&
                       rows[i].shape.dtype == MOE_EXPERT_BF16))) {
            wanted++;
            last_wanted = i;
        }
        cr_assert_leq((int64_t) rows[i].rows_per_expert * rows[i].shape.expert_count,
                      moe_bench_plan_capacity(rows, count, i));
        for (size_t j = 0; j < i; j++) {
            cr_assert_not(same_point(&rows[i], &rows[j]));
        }
    }
    cr_assert_eq(wanted, 41, "13 in 2 dtypes of the large shape, 5 of 3 small ones");
    cr_assert_eq(last_wanted + 1, wanted);
    free(rows);
}

Test(bench_plan, order_follows_the_seed_alone)
{
    struct moe_bench_request request;
    struct moe_bench_row *rows[3] = { NULL };
    size_t count = 0;
    uint32_t same = 0;
    moe_bench_request_default(&request);
    for (int i = 0; i < 3; i++) {
        request.seed = i == 2 ? 7 : 1;
        cr_assert_eq(moe_bench_plan_make(&request, &rows[i], &count, NULL), MOE_OK);
    }
    for (size_t i = 0; i < count; i++) {
        cr_assert(same_point(&rows[0][i], &rows[1][i]));
        same += same_point(&rows[0][i], &rows[2][i]);
    }
    cr_assert_lt(same, count / 4);
    for (int i = 0; i < 3; i++) {
        free(rows[i]);
    }
}

Test(bench_plan, nothing_to_measure_is_refused)
{
    struct moe_bench_request request;
    struct moe_bench_row *rows = NULL;
    struct moe_error err = { 0 };
    size_t count = 0;
    moe_bench_request_default(&request);
    memset(request.dtypes, 0, sizeof request.dtypes);
    cr_assert_eq(moe_bench_plan_make(&request, &rows, &count, &err), MOE_RANGE);
    cr_assert_null(rows);
}

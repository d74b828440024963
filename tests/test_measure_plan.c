/* The plan of moecal measure: what is asked for, once; held out by seed; in order of importance. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "calibrate/measure/measure_model.h"
#include "calibrate/measure/measure_planner.h"
#include "calibrate/timing/settle_rule.h"

static struct moe_measure_request request;
static struct moe_measure_plan plan;
static struct moe_measure_plan other;
static struct moe_error err;

static void setup(void)
{
    moe_measure_request_default(&request);
    request.memory_bytes = 140e9;
    request.reserve_bytes = 1.2e9;
    request.cache_bytes = 50.0 * 1048576.0;
    cr_assert_eq(moe_measure_parse_models("deepseek-v3", &request, &err), MOE_OK);
}

static void teardown(void)
{
    moe_measure_plan_finish(&plan);
    moe_measure_plan_finish(&other);
}

TestSuite(measure_plan, .init = setup, .fini = teardown);

static void make(struct moe_measure_plan *out)
{
    cr_assert_eq(moe_measure_plan_make(&request, out, &err), MOE_OK, "%s", err.text);
}

static uint32_t find(const char *name)
{
    for (uint32_t i = 0; i < plan.series_count; i++) {
        if (strcmp(plan.series[i].name, name) == 0) {
            return i;
        }
    }
    cr_assert_fail("no series %s", name);
    return 0;
}

static uint32_t count_role(uint32_t series, enum moe_measure_role role)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan.point_count; i++) {
        count += plan.points[i].series == series && plan.points[i].role == role;
    }
    return count;
}

Test(measure_plan, is_the_same_for_the_same_seed_and_another_for_another)
{
    make(&plan);
    make(&other);
    cr_assert_eq(plan.hash, other.hash);
    moe_measure_plan_finish(&other);
    request.seed = 2;
    make(&other);
    cr_assert_neq(plan.hash, other.hash);
}

Test(measure_plan, draws_what_it_holds_out_of_a_series_whatever_else_is_measured)
{
    cr_assert_eq(moe_measure_parse_ep("8,16", &request, &err), MOE_OK);
    make(&plan);
    const uint32_t in_both = find("expert-7168x2048x16-bf16-own");
    cr_assert_eq(moe_measure_parse_ep("16", &request, &err), MOE_OK);
    make(&other);
    uint32_t compared = 0;
    for (uint32_t i = 0; i < plan.point_count; i++) {
        for (uint32_t j = 0; j < other.point_count; j++) {
            const struct moe_measure_point *a = &plan.points[i];
            const struct moe_measure_point *b = &other.points[j];
            compared += a->series == in_both && a->role == MOE_ROLE_HELDOUT &&
                        b->role == MOE_ROLE_HELDOUT && a->tokens == b->tokens &&
                        strcmp(a->histogram, b->histogram) == 0 &&
                        strcmp(other.series[b->series].name, plan.series[in_both].name) == 0 &&
                        memcmp(a->rows, b->rows, 16 * sizeof *a->rows) == 0;
        }
    }
    cr_assert_eq(compared, count_role(in_both, MOE_ROLE_HELDOUT));
}

Test(measure_plan, holds_out_about_a_fifth_that_is_no_anchor)
{
    make(&plan);
    for (uint32_t s = 0; s < plan.series_count; s++) {
        const uint32_t anchors = count_role(s, MOE_ROLE_ANCHOR);
        const uint32_t heldout = count_role(s, MOE_ROLE_HELDOUT);
        if (anchors >= 8) {
            cr_expect_geq(heldout * 100, (anchors + heldout) * 14, "%s", plan.series[s].name);
            cr_expect_leq(heldout * 100, (anchors + heldout) * 30, "%s", plan.series[s].name);
        }
    }
    for (uint32_t i = 0; i < plan.point_count; i++) {
        for (uint32_t j = 0; j < plan.point_count; j++) {
            const struct moe_measure_point *a = &plan.points[i];
            const struct moe_measure_point *b = &plan.points[j];
            cr_expect_not(a->role == MOE_ROLE_HELDOUT && b->role == MOE_ROLE_ANCHOR &&
                              a->series == b->series && a->tokens == b->tokens &&
                              a->active == b->active && a->row_max == b->row_max &&
                              a->context == b->context,
                          "%s: %g is an anchor", plan.series[a->series].name, a->tokens);
        }
    }
}

Test(measure_plan, brackets_the_edges_of_tiles_and_has_few_active_experts)
{
    static const double wanted[] = { 1, 32, 33, 64, 65, 128, 129, 192, 193, 640, 641, 1024 };
    make(&plan);
    const uint32_t series = find("expert-7168x2048x32-bf16-own");
    for (size_t w = 0; w < sizeof wanted / sizeof wanted[0]; w++) {
        bool found = false;
        for (uint32_t i = 0; i < plan.point_count; i++) {
            const struct moe_measure_point *point = &plan.points[i];
            found = found || (point->series == series && point->role == MOE_ROLE_ANCHOR &&
                              point->tokens == wanted[w] && point->active == 32);
        }
        cr_expect(found, "no anchor at %g rows", wanted[w]);
    }
    uint32_t few = 0;
    for (uint32_t i = 0; i < plan.point_count; i++) {
        few += plan.points[i].series == series && plan.points[i].role == MOE_ROLE_ANCHOR &&
               (plan.points[i].active == 8 || plan.points[i].active == 16);
    }
    cr_assert_eq(few, 14); /* no series has half as many experts */
}

/* The edges of tiles of 128 rows, in one series of a shape only: they are fitted together. */
Test(measure_plan, gives_all_sizes_to_one_number_of_experts_of_a_shape)
{
    cr_assert_eq(moe_measure_parse_ep("1,8,64", &request, &err), MOE_OK);
    make(&plan);
    uint32_t anchors[3] = { 0 };
    static const char *const names[] = { "expert-7168x2048x256-bf16-own",
                                         "expert-7168x2048x32-bf16-own",
                                         "expert-7168x2048x4-bf16-own" };
    for (int n = 0; n < 3; n++) {
        const uint32_t series = find(names[n]);
        for (uint32_t i = 0; i < plan.point_count; i++) {
            anchors[n] += plan.points[i].series == series &&
                          plan.points[i].role == MOE_ROLE_ANCHOR &&
                          (plan.points[i].tokens == 321.0 || plan.points[i].tokens == 449.0);
        }
    }
    cr_assert_eq(anchors[0], 0); /* too many experts for 1024 rows each */
    cr_assert_eq(anchors[1], 2);
    cr_assert_eq(anchors[2], 0);
}

/* Half of the experts at rows that half as many experts are measured at anyway are left out. */
Test(measure_plan, fills_few_active_experts_where_no_series_does)
{
    cr_assert_eq(moe_measure_parse_ep("8,16", &request, &err), MOE_OK);
    make(&plan);
    uint32_t halves[2] = { 0 };
    const uint32_t whole[2] = { find("expert-7168x2048x32-bf16-own"),
                                find("expert-7168x2048x16-bf16-own") };
    for (uint32_t i = 0; i < plan.point_count; i++) {
        const struct moe_measure_point *point = &plan.points[i];
        for (int n = 0; n < 2; n++) {
            halves[n] += point->series == whole[n] && point->role == MOE_ROLE_ANCHOR &&
                         point->active == plan.series[whole[n]].units / 2;
        }
    }
    cr_assert_eq(halves[0], 3);
    cr_assert_eq(halves[1], 11);
}

/* Fitted, so other rows than those that test it. */
Test(measure_plan, has_uneven_rows_to_fit_by_that_are_not_tested)
{
    make(&plan);
    const uint32_t series = find("expert-7168x2048x32-bf16-own");
    cr_assert_eq(count_role(series, MOE_ROLE_UNEVEN), 3);
    for (uint32_t i = 0; i < plan.point_count; i++) {
        const struct moe_measure_point *a = &plan.points[i];
        cr_assert(a->role != MOE_ROLE_UNEVEN || (double) a->row_max > a->tokens);
        for (uint32_t j = 0; a->role == MOE_ROLE_UNEVEN && j < plan.point_count; j++) {
            const struct moe_measure_point *b = &plan.points[j];
            cr_assert_not((b->role == MOE_ROLE_SKEW || b->role == MOE_ROLE_HELDOUT) &&
                          a->series == b->series && a->active == b->active &&
                          a->row_max == b->row_max && a->tokens == b->tokens);
        }
    }
}

/* "zipfS": the k-th fullest of many experts has k^-S times the rows of the fullest. */
Test(measure_plan, zipf_rows_fall_by_the_exponent_of_their_name)
{
    static const char *const names[] = { "zipf0.8", "zipf1.0", "zipf1.2" };
    static const double exponents[] = { 0.8, 1.0, 1.2 };
    for (int n = 0; n < 3; n++) {
        int32_t rows[64];
        int32_t first = 0;
        int32_t fourth = 0;
        moe_measure_histogram_make(names[n], 64, 10000, rows);
        for (int e = 0; e < 64; e++) {
            int32_t fuller = 0;
            for (int of = 0; of < 64; of++) {
                fuller += rows[of] > rows[e];
            }
            first = fuller == 0 ? rows[e] : first;
            fourth = fuller == 3 ? rows[e] : fourth;
        }
        cr_expect_float_eq((double) first / fourth, pow(4.0, exponents[n]), 1e-3, "%s", names[n]);
    }
}

/* Every burst has an anchor at its place that arithmetic holds up. */
Test(measure_plan, bursts_are_anchors_bound_by_arithmetic)
{
    make(&plan);
    uint32_t bursts = 0;
    for (uint32_t i = 0; i < plan.point_count; i++) {
        const struct moe_measure_point *burst = &plan.points[i];
        if (burst->role != MOE_ROLE_BURST || i == plan.burst_point) {
            continue;
        }
        uint32_t anchors = 0;
        for (uint32_t j = 0; j < plan.point_count; j++) {
            const struct moe_measure_point *point = &plan.points[j];
            anchors += point->role == MOE_ROLE_ANCHOR && point->series == burst->series &&
                       point->tokens == burst->tokens && point->active == burst->active &&
                       point->context == burst->context;
        }
        cr_expect_eq(anchors, 1);
        cr_expect_geq(moe_measure_compute_share(&plan.series[burst->series], burst), 1.0);
        bursts++;
    }
    cr_assert_gt(bursts, 10);
    cr_assert_eq(count_role(find("expert-7168x2048x32-bf16-own"), MOE_ROLE_BURST), 4);
    cr_assert_eq(count_role(find("permute-7168x256x8-bf16-own"), MOE_ROLE_BURST), 0);
}

/* Inside a tier each series turns from light to heavy points, or back, once. */
Test(measure_plan, does_not_alternate_light_and_heavy_points)
{
    make(&plan);
    uint32_t turns = 0;
    for (uint32_t i = 1; i < plan.visit_count; i++) {
        const struct moe_measure_point *before = &plan.points[plan.visits[i - 1].point];
        const struct moe_measure_point *point = &plan.points[plan.visits[i].point];
        const struct moe_measure_series *series = &plan.series[point->series];
        const bool same =
            before->series == point->series && plan.visits[i - 1].tier == plan.visits[i].tier;
        turns = same ? turns : 0;
        turns +=
            same && moe_measure_is_light(series, before) != moe_measure_is_light(series, point);
        cr_assert_leq(turns, 1, "%s", series->name);
    }
}

Test(measure_plan, derives_the_columns_of_a_point)
{
    make(&plan);
    const uint32_t series = find("expert-7168x2048x32-bf16-own");
    const int32_t rows[32] = { [0] = 1, [5] = 64, [31] = 130 };
    uint32_t index = 0;
    cr_assert_eq(
        moe_measure_expert_point(&plan, series, MOE_ROLE_SKEW, "random-7", rows, &index, &err),
        MOE_OK);
    const struct moe_measure_point *point = &plan.points[index];
    cr_assert_eq(point->active, 3);
    cr_assert_float_eq(point->tokens, 65.0, 1e-12);
    cr_assert_eq(point->row_max, 130);
    cr_assert_eq(point->tiles64, 5);
    cr_assert_eq(point->tiles128, 4);
    cr_assert_eq(point->cold_bytes, 3.0 * 88080384.0);
    cr_assert_eq(point->bytes, 3.0 * 88080384.0 + 195.0 * 7168.0 * 4.0);
    cr_assert_eq(point->flops, 195.0 * 6.0 * 7168.0 * 2048.0);
}

Test(measure_plan, visits_every_point_once_and_some_again_most_important_first)
{
    make(&plan);
    uint32_t first = 0;
    uint32_t again = 0;
    for (uint32_t i = 0; i < plan.visit_count; i++) {
        first += plan.visits[i].pass == 1;
        again += plan.visits[i].pass > 1;
        cr_assert(i == 0 || plan.visits[i].tier >= plan.visits[i - 1].tier);
        cr_assert_neq(plan.points[plan.visits[i].point].role, MOE_ROLE_SENTINEL);
    }
    const uint32_t apart =
        plan.sentinel_count + 2; /* sentinels, the soak and the burst before it */
    cr_assert_eq(first, plan.point_count - apart);
    cr_assert_gt(again * 10, first * 2);
    cr_assert_lt(again * 10, first * 4);
    moe_measure_plan_finish(&plan);
    request.repeat_percent = 0;
    make(&plan);
    for (uint32_t i = 0; i < plan.visit_count; i++) {
        cr_assert_eq(plan.visits[i].pass, 1);
    }
}

Test(measure_plan, gives_libraries_three_shapes)
{
    cr_assert_eq(moe_measure_parse_ep("1,2,4,8,16,32,64", &request, &err), MOE_OK);
    cr_assert_eq(moe_measure_parse_backends("own,lt-expert", &request, &err), MOE_OK);
    make(&plan);
    uint32_t own = 0;
    uint32_t library = 0;
    for (uint32_t s = 0; s < plan.series_count; s++) {
        own +=
            strcmp(plan.series[s].backend, "own") == 0 && plan.series[s].kind == MOE_MEASURE_EXPERT;
        library += strcmp(plan.series[s].backend, "lt-expert") == 0;
    }
    cr_assert_eq(own, 7);
    cr_assert_eq(library, 3);
}

Test(measure_plan, measures_a_shape_of_two_models_once)
{
    /* Kimi-K2 on 12 GPUs and DeepSeek-V3 on 8 have 32 of the same experts each. */
    cr_assert_eq(moe_measure_parse_models("deepseek-v3,kimi-k2", &request, &err), MOE_OK);
    cr_assert_eq(moe_measure_parse_kinds("expert", &request, &err), MOE_OK);
    cr_assert_eq(moe_measure_parse_ep("8,12", &request, &err), MOE_OK);
    make(&plan);
    uint32_t experts = 0;
    for (uint32_t s = 0; s < plan.series_count; s++) {
        experts += plan.series[s].kind == MOE_MEASURE_EXPERT;
    }
    cr_assert_eq(experts, 3); /* 32, 22, 48 */
    cr_assert_not_null(strstr(plan.series[find("expert-7168x2048x32-bf16-own")].models, "kimi-k2"));
}

Test(measure_plan, says_beforehand_what_does_not_fit)
{
    request.memory_bytes = 20e9;
    cr_assert_eq(moe_measure_parse_ep("1,16", &request, &err), MOE_OK);
    make(&plan);
    cr_assert_not_null(strstr(plan.left_out, "expert-7168x2048x256-bf16-own"));
    moe_measure_plan_finish(&plan);
    request.shapes[0] = (struct moe_bench_shape){ 7168, 2048, 256, MOE_EXPERT_SWIGLU };
    request.shape_count = 1;
    cr_assert_eq(moe_measure_plan_make(&request, &plan, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "GiB are free"), "%s", err.text);
    cr_assert_eq(plan.point_count, 0);
    request.shape_count = 0;
    request.memory_bytes = 2e9;
    cr_assert_eq(moe_measure_parse_kinds("expert", &request, &err), MOE_OK);
    cr_assert_eq(moe_measure_plan_make(&request, &plan, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "nothing fits"), "%s", err.text);
}

Test(measure_plan, refuses_more_series_than_a_run_takes)
{
    cr_assert_eq(moe_measure_parse_models("all", &request, &err), MOE_OK);
    cr_assert_eq(moe_measure_parse_ep("1,2,4,8,16,32,64", &request, &err), MOE_OK);
    cr_assert_eq(moe_measure_plan_make(&request, &plan, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "at most 48"), "%s", err.text);
}

Test(settle_rule, waits_for_windows_that_agree)
{
    static const double boosts[] = { 1725, 1725, 1965, 1966, 1965 };
    static const double plateau[] = { 1725, 1725, 1725, 1725, 1808 };
    static const double slow[] = { 1980, 1900, 1560, 1545, 1530, 1530, 1545, 1530 };
    cr_assert_not(moe_settle_done(boosts, 0, 1980.0));
    cr_assert_not(moe_settle_done(boosts, 4, 1980.0));
    cr_assert(moe_settle_done(boosts, 5, 1980.0));
    cr_assert_not(
        moe_settle_done(plateau, 4, 1980.0)); /* of the work before, too short to believe */
    cr_assert_not(moe_settle_done(plateau, 5, 1980.0));
    cr_assert_not(moe_settle_done(slow, 6, 1980.0));
    cr_assert_not(moe_settle_done(slow, 7, 1980.0)); /* 1560 is two steps from 1530 */
    cr_assert(moe_settle_done(slow, 8, 1980.0));
    cr_assert_not(moe_settle_done(boosts + 2, 3, 0.0)); /* no highest clock to go by */
}

Test(measure_plan, refuses_what_it_does_not_know)
{
    cr_assert_eq(moe_measure_parse_models("deepseek-v9", &request, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "deepseek-v3"), "%s", err.text);
    cr_assert_eq(moe_measure_parse_models("kimi-k2,kimi-k2", &request, &err), MOE_RANGE);
    cr_assert_eq(moe_measure_parse_models("", &request, &err), MOE_RANGE);
    cr_assert_eq(moe_measure_parse_backends("cutlass", &request, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "lt-expert"), "%s", err.text);
    cr_assert_eq(moe_measure_parse_ep("0", &request, &err), MOE_RANGE);
    cr_assert_eq(moe_measure_parse_ep("8,x", &request, &err), MOE_RANGE);
    cr_assert_eq(moe_measure_parse_dtypes("fp4", &request, &err), MOE_RANGE);
    cr_assert_eq(moe_measure_parse_kinds("attention", &request, &err), MOE_RANGE);
}

Test(measure_plan, histograms_keep_their_rows)
{
    static const char *const names[] = { "uniform", "hot8x",      "zipf1.0",
                                         "zipf1.2", "half-empty", "random-12345" };
    int32_t rows[48];
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        moe_measure_histogram_make(names[n], 48, 9, rows);
        cr_expect_eq(moe_measure_histogram_load(rows, 48).row_count, 48 * 9, "%s", names[n]);
    }
    moe_measure_histogram_make("quarter", 48, 9, rows);
    cr_assert_eq(moe_measure_histogram_load(rows, 48).active_count, 12);
    cr_assert_eq(moe_measure_histogram_load(rows, 48).row_max, 9);
    moe_measure_histogram_make("hot8x", 48, 55, rows);
    cr_assert_eq(moe_measure_histogram_load(rows, 48).row_max, 384);
    /* No stretch of neighbours: experts are spread. */
    moe_measure_histogram_spread(48, 5, 1, rows);
    cr_assert_eq(rows[0] + rows[9] + rows[19] + rows[28] + rows[38], 5);
}

Test(measure_plan, card_visits_sentinels_and_soaks_once)
{
    cr_assert_eq(moe_measure_plan_card(&request, &plan, &err), MOE_OK, "%s", err.text);
    uint32_t soaks = 0;
    for (uint32_t i = 0; i < plan.visit_count; i++) {
        soaks += plan.visits[i].point == plan.soak_point;
    }
    cr_assert_eq(soaks, 1);
    cr_assert_eq(plan.visit_count, 3 * (plan.point_count - 1) + 1);
    cr_assert_eq(plan.points[plan.burst_point].tokens, 256.0);
}

Test(measure_plan, degrees_beyond_every_model_are_refused_and_others_left_to_it)
{
    cr_assert_eq(moe_measure_parse_models("mixtral-8x7b", &request, &err), MOE_OK);
    cr_assert_eq(moe_measure_parse_ep("9", &request, &err), MOE_OK);
    cr_assert_eq(moe_measure_plan_make(&request, &plan, &err), MOE_RANGE);
    cr_expect_not_null(strstr(err.text, "9 GPUs for the 8 experts of mixtral-8x7b; 1 to 8"), "%s",
                       err.text);
    /* Beside a model that has as many it is that one's alone. */
    cr_assert_eq(moe_measure_parse_models("mixtral-8x7b,qwen3-30b-a3b", &request, &err), MOE_OK);
    make(&plan);
    (void) find("expert-2048x768x15-bf16-own"); /* 128 experts on 9 GPUs: the fullest one */
    for (uint32_t i = 0; i < plan.series_count; i++) {
        cr_expect(strncmp(plan.series[i].name, "expert-4096x14336", 17) != 0, "%s",
                  plan.series[i].name);
    }
}

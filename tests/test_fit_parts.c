/* The parts of a fit, each against something slower or known. */
#include <criterion/criterion.h>
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_errno.h>
#include <math.h>

#include "sim/base/random.h"
#include "sim/calibration/drift_fit.h"
#include "sim/calibration/level.h"
#include "sim/calibration/segment_fit.h"
#include "sim/calibration/shape_fit.h"
#include "sim/cost/roofline.h"

static struct moe_arena arena;

static void setup(void)
{
    (void) gsl_set_error_handler_off();
    cr_assert_eq(moe_arena_init(&arena, 256 << 20, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(fit_parts, .init = setup, .fini = teardown, .timeout = 600);

static double normal(uint64_t key, uint64_t counter)
{
    return gsl_cdf_ugaussian_Pinv(moe_random_inside(key, counter));
}

/* The least cost of k lines over points[from..count), by trying every cut. */
static double cut_cost(const struct moe_segment_point *points, uint32_t from, uint32_t count,
                       uint32_t k)
{
    double least = INFINITY;
    for (uint32_t end = k == 1 ? count : from + 2; end <= count; end++) {
        double w = 0, x = 0, y = 0, xx = 0, xy = 0; // NOLINT(readability-isolate-declaration)
        for (uint32_t i = from; i < end; i++) {
            const double weight = 1.0 / (points[i].ns * points[i].ns);
            w += weight;
            x += weight * points[i].bytes;
            y += weight * points[i].ns;
            xx += weight * points[i].bytes * points[i].bytes;
            xy += weight * points[i].bytes * points[i].ns;
        }
        double slope = (w * xy - x * y) / (w * xx - x * x);
        double alpha = (y - slope * x) / w;
        if (alpha < 0.0) { /* no line may begin below nothing, */
            alpha = 0.0;
            slope = xy / xx;
        } else if (slope < 1e-5) { /* or fall */
            slope = 1e-5;
            alpha = (y - slope * x) / w;
        }
        double cost = 0.0;
        for (uint32_t i = from; i < end; i++) {
            const double error = (alpha + slope * points[i].bytes) / points[i].ns - 1.0;
            cost += error * error;
        }
        if (k > 1) {
            cost += count - end < 2 * (k - 1) ? INFINITY : cut_cost(points, end, count, k - 1);
        }
        least = fmin(least, cost);
    }
    return least;
}

Test(fit_parts, segments_are_the_best_there_are)
{
    const uint64_t key = moe_random_key(11, MOE_RANDOM_TEST);
    for (uint32_t trial = 0; trial < 40; trial++) {
        struct moe_segment_point points[12];
        struct moe_segment_fit fit;
        double cost = 0.0;
        for (uint32_t i = 0; i < 12; i++) {
            const double bytes = ldexp(1000.0, (int) i);
            const bool jumped = i > 3 + trial % 5;
            points[i] = (struct moe_segment_point){
                .bytes = bytes,
                .ns = ((jumped ? 9e3 : 5e3) + bytes / (jumped ? 300.0 : 80.0)) *
                      exp(0.01 * normal(key, trial * 12 + i)),
            };
        }
        cr_assert_eq(moe_segment_fit(&fit, points, 12, MOE_SEGMENT_FIT_LIMIT, 0.0, &arena, NULL),
                     MOE_OK);
        for (uint32_t i = 0; i < 12; i++) {
            const double error = moe_segment_fit_ns(&fit, points[i].bytes) / points[i].ns - 1.0;
            cost += error * error;
        }
        cr_expect_leq(cost, cut_cost(points, 0, 12, fit.count) * (1.0 + 1e-6) + 1e-12,
                      "trial %u, %u lines: %g, not %g", trial, fit.count, cost,
                      cut_cost(points, 0, 12, fit.count));
        cr_expect_geq(fit.count, 2);
        cr_expect_eq(fit.lines[0].from_bytes, 0.0);
        cr_expect_eq(fit.lines[fit.count - 1].to_bytes, points[11].bytes);
        for (uint32_t i = 1; i < fit.count; i++) {
            cr_expect_eq(fit.lines[i].from_bytes, fit.lines[i - 1].to_bytes);
        }
        moe_arena_reset(&arena);
    }
}

/* Two lines with a jump at a round size, and round sizes quicker than others below it. */
Test(fit_parts, round_sizes_gain_and_libraries_switch_right_after_them)
{
    struct moe_segment_point points[24];
    struct moe_segment_fit fit;
    for (uint32_t i = 0; i < 24; i++) {
        const bool is_round = i % 2 == 0;
        const double bytes = floor(ldexp(1024.0, (int) i / 2) * (is_round ? 1.0 : 1.41));
        const bool jumped = i > 12; /* point 12 is the last of the first line */
        points[i] = (struct moe_segment_point){
            .bytes = bytes,
            .ns = jumped ? 2e4 + bytes / 250.0 : 9e3 + bytes / 60.0 - (is_round ? 1500.0 : 0.0),
            .is_round = is_round,
        };
    }
    cr_assert_eq(moe_segment_fit(&fit, points, 24, MOE_SEGMENT_FIT_LIMIT, 0.0, &arena, NULL),
                 MOE_OK);
    cr_assert_eq(fit.count, 2);
    cr_expect(fabs(fit.lines[0].round_gain_ns - 1500.0) < 1.0, "%g", fit.lines[0].round_gain_ns);
    cr_expect(fabs(fit.lines[0].alpha_ns - 9e3) < 1.0, "%g", fit.lines[0].alpha_ns);
    cr_expect_eq(fit.lines[1].round_gain_ns, 0.0);
    cr_expect_eq(fit.lines[0].to_bytes, points[12].bytes + 1.0);
    /* The same without knowing which are round: no gain, and the switch is anywhere between. */
    for (uint32_t i = 0; i < 24; i++) {
        points[i].is_round = false;
    }
    cr_assert_eq(moe_segment_fit(&fit, points, 24, MOE_SEGMENT_FIT_LIMIT, 0.0, &arena, NULL),
                 MOE_OK);
    for (uint32_t i = 0; i < fit.count; i++) {
        cr_expect_eq(fit.lines[i].round_gain_ns, 0.0);
    }
}

Test(fit_parts, one_line_where_there_is_one)
{
    struct moe_segment_point points[20];
    struct moe_segment_fit fit;
    for (uint32_t i = 0; i < 20; i++) {
        const double bytes = ldexp(1024.0, (int) i);
        points[i] = (struct moe_segment_point){ bytes, 7e3 + bytes / 350.0, true };
    }
    cr_assert_eq(moe_segment_fit(&fit, points, 20, MOE_SEGMENT_FIT_LIMIT, 0.0, &arena, NULL),
                 MOE_OK);
    cr_expect_eq(fit.count, 1);
    cr_expect(fabs(fit.lines[0].alpha_ns - 7e3) < 1.0);
    /* A single point still gives a line; times that fall give none that falls. */
    cr_assert_eq(moe_segment_fit(&fit, points, 1, MOE_SEGMENT_FIT_LIMIT, 0.0, &arena, NULL),
                 MOE_OK);
    cr_expect(fabs(moe_segment_fit_ns(&fit, points[0].bytes) - points[0].ns) < 1e-6);
    points[0].ns = 9e3;
    points[1].ns = 8e3;
    cr_assert_eq(moe_segment_fit(&fit, points, 2, MOE_SEGMENT_FIT_LIMIT, 0.0, &arena, NULL),
                 MOE_OK);
    cr_expect_gt(fit.lines[0].ns_per_byte, 0.0);
    cr_expect_geq(fit.lines[0].alpha_ns, 0.0);
}

static const struct moe_roofline truth = { 9e3, 3.5e12, 500e12, 2.0, 0.0 };

static void draw_points(struct moe_roofline_point *points, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        points[i] = (struct moe_roofline_point){ .bytes = 1e8 * (1 + i % 3),
                                                 .flops = ldexp(1e9, (int) (i % 14)),
                                                 .clock = 1.0 };
        points[i].ns = moe_roofline_ns(&truth, points[i].bytes, points[i].flops, 1.0);
    }
}

static struct moe_roofline_problem pose(const struct moe_roofline_point *points, uint32_t count)
{
    return (struct moe_roofline_problem){
        .points = points,
        .count = count,
        .bandwidth_ceiling = 4.6e12,
        .peak_ceiling = 850e12,
        .prior = { .mean = { 9.4, 2.0, 0.8, 0.7 }, .sd = { 0.7, 0.7, 0.7, 0.7 }, .weight = 0.01 },
        .soft = 0.05,
        .starts = MOE_ROOFLINE_STARTS,
    };
}

Test(fit_parts, one_odd_point_does_not_bend_a_roofline)
{
    struct moe_roofline_point points[30];
    struct moe_roofline fit;
    struct moe_roofline_problem problem = pose(points, 30);
    draw_points(points, 30);
    points[17].ns *= 3.0;
    cr_assert_eq(moe_roofline_fit(&fit, NULL, &problem, NULL), MOE_OK);
    cr_expect(fabs(fit.peak_flop_s / truth.peak_flop_s - 1.0) < 0.02, "%g", fit.peak_flop_s);
    cr_expect(fabs(fit.bandwidth_bytes_s / truth.bandwidth_bytes_s - 1.0) < 0.02);
    problem.soft = 0.0; /* plain squares do bend: the test can fail */
    cr_assert_eq(moe_roofline_fit(&fit, NULL, &problem, NULL), MOE_OK);
    cr_expect(fabs(fit.peak_flop_s / truth.peak_flop_s - 1.0) > 0.02 ||
              fabs(fit.bandwidth_bytes_s / truth.bandwidth_bytes_s - 1.0) > 0.02);
}

enum { ACTIVE_ROWS = 5, TOKEN_POINTS = 12, SHAPE_POINTS = ACTIVE_ROWS * TOKEN_POINTS };

/* An expert shape on several counts of active experts whose fullest one counts weight times. */
static struct moe_shape draw_shape(struct moe_shape_point *points, double weight)
{
    const struct moe_shape shape = {
        .name = "drawn",
        .gpu_kind = "K",
        .op = MOE_SERIES_EXPERT,
        .hidden = 1024,
        .expert_size = 512,
        .gated = true,
        .dtype = MOE_DTYPE_BF16,
        .backend = "own",
        .read_bytes_s = 4.6e12,
        .flop_s = 850e12,
        .sm_count = 132,
        .points = points,
        .count = SHAPE_POINTS,
    };
    for (uint32_t i = 0; i < SHAPE_POINTS; i++) {
        const double tokens = ldexp(1.0, (int) (i % TOKEN_POINTS));
        const uint32_t active = 1U << (i / TOKEN_POINTS);
        const double tiles = active * ceil(tokens / 64.0) * 64.0;
        const double rows = tiles + weight * fmin(tokens, MOE_SHAPE_FULLEST_ROWS);
        points[i] = (struct moe_shape_point){ .tokens = tokens, .active = active };
        points[i].ns = moe_roofline_ns(&truth, active * 2.0 * moe_shape_weights(&shape),
                                       rows * 2.0 * moe_shape_weights(&shape), 1.0);
    }
    return shape;
}

/* What the fullest expert adds is found where rows of several active counts show it, and is
 * nothing where they do not. */
Test(fit_parts, the_fullest_expert_is_told_from_the_tiles)
{
    static const double weights[] = { 0.0, 20.0 };
    for (int i = 0; i < 2; i++) {
        struct moe_shape_point points[SHAPE_POINTS];
        struct moe_shape shape = draw_shape(points, weights[i]);
        struct moe_shape_fit fit;
        double errors[MOE_SHAPE_TILES];
        bool by_rows = false;
        cr_assert_eq(moe_shape_foretell(errors, &by_rows, &shape, &arena, NULL), MOE_OK);
        cr_expect(by_rows);
        for (uint32_t t = 0; t < MOE_SHAPE_TILES; t++) {
            cr_expect_geq(errors[t], errors[4], "tile %u beats 64", moe_shape_tiles[t]);
        }
        cr_assert_eq(moe_shape_fit(&fit, &shape, 64, MOE_ROOFLINE_STARTS, &arena, NULL), MOE_OK);
        cr_expect(fabs(fit.roofline.weight - weights[i]) < 1.0, "%g, not %g", fit.roofline.weight,
                  weights[i]);
        shape.count = 2 * TOKEN_POINTS; /* two counts: both could be the tiles' doing */
        cr_assert_eq(moe_shape_foretell(errors, &by_rows, &shape, &arena, NULL), MOE_OK);
        cr_expect(!by_rows);
        cr_assert_eq(moe_shape_fit(&fit, &shape, 64, MOE_ROOFLINE_STARTS, &arena, NULL), MOE_OK);
        cr_expect_eq(fit.roofline.weight, 0.0);
    }
}

/* Two counts of active experts, the second on many points; the kernel takes a fifth longer beyond
 * 64 rows, and where odd is not 1 the first count's even points that many times as long. */
static struct moe_shape draw_steps(struct moe_shape_point *points, double odd)
{
    static const double thin[] = { 1, 2, 4, 8, 16, 32, 64, 128, 256, 512 };
    static const double dense[] = { 1, 2, 4, 8, 16, 32, 48, 64, 65, 80, 96, 128, 192, 256, 512 };
    struct moe_shape shape = draw_shape(points, 0.0);
    shape.count = 0;
    for (uint32_t i = 0; i < 25; i++) {
        const bool is_thin = i < 10;
        struct moe_shape_point *point = &points[shape.count++];
        *point = (struct moe_shape_point){ .tokens = is_thin ? thin[i] : dense[i - 10],
                                           .active = is_thin ? 4 : 8 };
        const double rows = point->active * ceil(point->tokens / 16.0) * 16.0;
        point->ns = moe_roofline_ns(&truth, point->active * 2.0 * moe_shape_weights(&shape),
                                    rows * 2.0 * moe_shape_weights(&shape), 1.0) *
                    (point->tokens > 64.0 ? 1.2 : 1.0) * (is_thin && i % 2 == 0 ? odd : 1.0);
    }
    return shape;
}

/* The table's time of 4 active experts at so many tokens; 0 when it has no such point. */
static double table_ns(const struct moe_shape *shape, double tokens, enum moe_provenance provenance)
{
    struct moe_table_builder builder;
    struct moe_shape_fit fit = { .roofline = truth, .tile_tokens = 16 };
    moe_table_builder_init(&builder, "drawn", &arena);
    cr_assert_eq(moe_shape_rows(&builder, shape, &fit, MOE_PROVENANCE_MEASURED, "here", NULL),
                 MOE_OK);
    for (uint32_t i = 0; i < builder.calibration.point_count; i++) {
        const struct moe_calibration_point *point = &builder.calibration.point_rows[i];
        if (point->active == 4.0 && point->tokens == tokens) {
            cr_expect_eq(point->provenance, provenance, "%g tokens", tokens);
            return point->median_ns;
        }
    }
    return 0.0;
}

Test(fit_parts, few_points_follow_the_steps_of_many)
{
    struct moe_shape_point points[SHAPE_POINTS];
    struct moe_shape shape = draw_steps(points, 1.0);
    const double bytes = 4 * 2.0 * moe_shape_weights(&shape);
    const double ns_65 =
        1.2 * moe_roofline_ns(&truth, bytes, 4 * 80.0 * 2.0 * moe_shape_weights(&shape), 1.0);
    const double found = table_ns(&shape, 65.0, MOE_PROVENANCE_INTERPOLATED);
    cr_expect(fabs(found / ns_65 - 1.0) < 1e-6, "65 rows: %g ns, not %g", found, ns_65);
    cr_expect_gt(table_ns(&shape, 64.0, MOE_PROVENANCE_MEASURED), 0.0);
    /* Cut off behind 32 rows, what lies beyond follows too, but says that it was never seen. */
    shape.points = &points[0];
    for (uint32_t i = 6; i < 10; i++) {
        points[i].active = 3; /* a row of its own */
    }
    struct moe_shape_point sorted[SHAPE_POINTS];
    for (uint32_t i = 0; i < 25; i++) {
        sorted[i] = points[i < 4 ? 6 + i : i < 10 ? i - 4 : i];
    }
    shape.points = sorted;
    const double beyond = table_ns(&shape, 65.0, MOE_PROVENANCE_EXTRAPOLATED);
    cr_expect(fabs(beyond / ns_65 - 1.0) < 1e-6, "65 rows: %g ns, not %g", beyond, ns_65);
    /* A row whose points go their own way is left alone between them. */
    shape = draw_steps(points, 1.3);
    cr_expect_eq(table_ns(&shape, 65.0, MOE_PROVENANCE_MEASURED), 0.0);
}

/* Ratio 1 up to 8 tokens and 2 beyond, tiles of one row: what uneven work meets around the step. */
Test(fit_parts, uneven_work_averages_the_ratio_around_its_mean)
{
    struct moe_shape_point points[SHAPE_POINTS];
    struct moe_shape shape = draw_shape(points, 0.0);
    struct moe_shape_fit fit = { .roofline = truth, .tile_tokens = 1 };
    struct moe_curve curve;
    enum moe_provenance provenance = MOE_PROVENANCE_MEASURED;
    fit.roofline.weight = 3.0;
    shape.count = 7;
    for (uint32_t i = 0; i < 7; i++) {
        points[i] = (struct moe_shape_point){ .tokens = ldexp(1.0, (int) i), .active = 4 };
        const struct moe_shape_work work = { 4 * points[i].tokens, 4, 4 * points[i].tokens,
                                             points[i].tokens };
        points[i].ns = moe_roofline_ns(&truth, 8.0 * moe_shape_weights(&shape),
                                       moe_shape_flops(&shape, &fit, &work), 1.0) *
                       (points[i].tokens > 8.0 ? 2.0 : 1.0);
    }
    cr_assert_eq(moe_shape_curve(&curve, &shape, &fit, &arena, NULL), MOE_OK);
    /* Places 4.8, 6.2, 8, 10.4 and 13.5: 5, 7, 8, 11 and 14 tiles; 1, 1, 1, 1.375 and 1.75. */
    const double around = (5 + 7 + 8 + 11 * 1.375 + 14 * 1.75) / (5 + 7 + 8 + 11 + 14);
    static const double fullest[] = { 8.0, 8.9, 9.0, 10.0, 64.0 };
    static const double shares[] = { 0.0, 0.0, 0.5, 1.0, 1.0 };
    for (int i = 0; i < 5; i++) {
        const double ratio = moe_curve_uneven_ratio(&curve, 8.0, 4.0, fullest[i], &provenance);
        const double truly = 1.0 + shares[i] * (around - 1.0);
        cr_expect(fabs(ratio - truly) < 1e-6, "fullest %g: %g, not %g", fullest[i], ratio, truly);
        const struct moe_shape_work work = { 32, 4, 32, fullest[i] };
        const double fitted = moe_shape_uneven_ratio(&shape, &fit, &work);
        cr_expect(fabs(fitted - truly) < 1e-6, "the fit has %g, not %g", fitted, truly);
    }
    /* Not below one token, and nothing where the fullest one adds nothing. */
    const double at_one = moe_curve_uneven_ratio(&curve, 1.0, 4.0, 9.0, &provenance);
    cr_expect(fabs(at_one - 1.0) < 1e-6, "%g", at_one);
    fit.roofline.weight = 0.0;
    cr_assert_eq(moe_shape_curve(&curve, &shape, &fit, &arena, NULL), MOE_OK);
    const double plain = moe_curve_ratio(&curve, 8.0, 4.0, &provenance);
    cr_expect_eq(moe_curve_uneven_ratio(&curve, 8.0, 4.0, 64.0, &provenance), plain);
}

Test(fit_parts, arithmetic_follows_the_clock_and_memory_does_not)
{
    struct moe_roofline_point points[30];
    struct moe_roofline fit;
    const struct moe_roofline_problem problem = pose(points, 30);
    draw_points(points, 30);
    for (uint32_t i = 0; i < 30; i++) {
        points[i].clock = 0.7 + 0.01 * i;
        points[i].ns = moe_roofline_ns(&truth, points[i].bytes, points[i].flops, points[i].clock);
    }
    cr_assert_eq(moe_roofline_fit(&fit, NULL, &problem, NULL), MOE_OK);
    cr_expect(fabs(fit.peak_flop_s / truth.peak_flop_s - 1.0) < 0.005, "%g", fit.peak_flop_s);
    const double compute = moe_roofline_compute_share(&truth, 1e8, 8e12, 1.0);
    const double memory = moe_roofline_memory_share(&truth, 1e8, 8e12, 1.0);
    const double ns = moe_roofline_ns(&truth, 1e8, 8e12, 1.0);
    cr_expect(fabs(compute + memory + truth.t0_ns / ns - 1.0) < 1e-9);
    /* The share is the derivative. */
    const double slower = moe_roofline_ns(&truth, 1e8, 8e12, 1.0 / 1.0001);
    cr_expect(fabs(log(slower / ns) / log(1.0001) - compute) < 1e-3);
}

Test(fit_parts, intervals_of_levels_cover)
{
    enum { SEEDS = 60, ROWS = 25, COLUMNS = 4 };
    static const double effects[COLUMNS] = { 0.0, 0.08, -0.01, 0.0 };
    uint32_t covered = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
        struct moe_level_cell cells[ROWS * COLUMNS];
        double found[COLUMNS];
        static double replicates[MOE_LEVEL_REPLICATES * COLUMNS];
        const struct moe_level_problem problem = { cells, ROWS * COLUMNS, ROWS, COLUMNS };
        for (uint32_t i = 0; i < ROWS * COLUMNS; i++) {
            const uint32_t row = i / COLUMNS;
            cells[i] = (struct moe_level_cell){ row, i % COLUMNS,
                                                row * 0.3 + 0.9 * effects[i % COLUMNS] +
                                                    0.01 * normal(key, i),
                                                0.9 };
        }
        cr_assert_eq(moe_level_fit(found, &problem, &arena, NULL), MOE_OK);
        cr_assert_eq(moe_level_bootstrap(replicates, &problem, seed, &arena, NULL), MOE_OK);
        for (uint32_t c = 0; c < COLUMNS; c++) {
            double low = INFINITY;
            double high = -INFINITY;
            uint32_t below = 0;
            uint32_t above = 0;
            for (uint32_t r = 0; r < MOE_LEVEL_REPLICATES; r++) {
                const double value = replicates[r * COLUMNS + c];
                below += value < effects[c] ? 1 : 0;
                above += value > effects[c] ? 1 : 0;
                low = fmin(low, value);
                high = fmax(high, value);
            }
            covered += below >= 5 && above >= 5 ? 1 : 0; /* 2.5 % of 200 */
            cr_expect(fabs(found[c] - effects[c]) < 0.015, "column %u: %g", c, found[c]);
        }
        moe_arena_reset(&arena);
    }
    const double share = covered / (double) (SEEDS * COLUMNS);
    cr_expect(share >= 0.88 && share <= 0.995, "covered %g", share);
}

Test(fit_parts, drift_of_a_known_process)
{
    enum { VISITS = 400 };
    static struct moe_drift_visit visits[VISITS];
    const uint64_t key = moe_random_key(5, MOE_RANDOM_TEST);
    struct moe_drift_fit fit;
    double x = 0.0;
    for (uint32_t i = 0; i < VISITS; i++) {
        const double keep = exp(-10.0 / 60.0);
        const uint32_t day = i / 100;
        x = (i % 100 == 0 ? 0.0 : keep * x) +
            (i % 100 == 0 ? 0.01 : 0.01 * sqrt(1.0 - keep * keep)) * normal(key, 2 * (uint64_t) i);
        visits[i] =
            (struct moe_drift_visit){ day, (i % 100) * 10.0,
                                      3.0 + day + x + 0.005 * normal(key, 2 * (uint64_t) i + 1) };
    }
    cr_assert_eq(moe_drift_fit(&fit, visits, VISITS, NULL), MOE_OK);
    cr_expect(fit.found);
    cr_expect(fit.tau_s > 30.0 && fit.tau_s < 120.0, "tau %g", fit.tau_s);
    cr_expect(fit.sigma > 0.007 && fit.sigma < 0.014, "sigma %g", fit.sigma);
    cr_expect(fit.noise > 0.003 && fit.noise < 0.007, "noise %g", fit.noise);
    /* White noise is no drift. */
    for (uint32_t i = 0; i < VISITS; i++) {
        visits[i].log_ns = 0.004 * normal(key, 5000 + i);
    }
    cr_assert_eq(moe_drift_fit(&fit, visits, VISITS, NULL), MOE_OK);
    cr_expect_not(fit.found);
}

Test(fit_parts, rounding_keeps_so_many_digits)
{
    cr_expect_eq(moe_round_digits(1234567.89, 3), 1230000.0);
    cr_expect_eq(moe_round_digits(-0.00123456789, 4), -0.001235);
    cr_expect_eq(moe_round_digits(0.0, 7), 0.0);
}

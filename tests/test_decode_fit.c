/* Fit of decode attention: planted numbers are found on a grid with holes, and what was measured
 * on an H200 is foretold where it was held out. */
#include <criterion/criterion.h>
#include <gsl/gsl_errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/random.h"
#include "sim/calibration/decode_fit.h"
#include "sim/calibration/fit_samples.h"
#include "tests/sample_fixture.h"

static const char measured_path[] = MOE_SOURCE_ROOT "/tests/data/decode-h200.csv";
static const char mla_name[] = "kv_mla-128x1x576-bf16-own";
static const char gqa_name[] = "kv_gqa-64x8x64-bf16-own";

static char folder[] = "/tmp/moesim-decode-XXXXXX";
static char path[64];
static struct moe_arena arena;
static struct moe_evidence evidence;
static struct moe_sample_fit fit;

static void setup(void)
{
    (void) gsl_set_error_handler_off();
    cr_assert_not_null(mkdtemp(folder));
    (void) snprintf(path, sizeof path, "%s/s.cal.db", folder);
}

static void teardown(void)
{
    moe_evidence_finish(&evidence);
    moe_arena_finish(&arena);
    (void) unlink(path);
    (void) rmdir(folder);
}

TestSuite(decode_fit, .init = setup, .fini = teardown, .timeout = 600);

static const struct moe_calibration_decode truth = {
    .series = "planted",
    .gpu_kind = "H200",
    .kind = MOE_DECODE_GQA,
    .q_heads = 32,
    .kv_heads = 4,
    .head_size = 128,
    .value_size = 128,
    .tile_tokens = 64,
    .blocks = 4,
    .slots = 3 * 132,
    .t0_ns = 5e3,
    .round_ns = 2e3,
    .tile_ns = 900,
    .bandwidth_bytes_s = 4.2e12,
    .p = 3,
    .join_ns = 1500,
    .split_ns = 90,
    .row_ns = 1.2,
};

static double true_ns(double sequences, double context)
{
    struct moe_decode_fit numbers;
    struct moe_decode_plan plan;
    moe_decode_from_row(&numbers, &truth);
    moe_decode_plan_make(&plan, &numbers, sequences, context);
    return moe_decode_fitted_ns(&numbers, &plan, 1.0, 1.0);
}

/* Sizes as moecal visits them, a third of them missing at random, with noise of 0.5 %. */
static uint32_t plant(struct moe_calibration_decode_point *points)
{
    static const uint32_t sequences[] = { 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384 };
    static const uint32_t contexts[] = { 256, 1024, 4096, 16384 };
    const uint64_t key = moe_random_key(9, MOE_RANDOM_TEST);
    uint32_t count = 0;
    for (uint64_t i = 0; i < 56; i++) {
        const uint32_t s = sequences[i / 4];
        const uint32_t c = contexts[i % 4];
        const double noise = 0.01 * (moe_random_uniform(key, 2 * i) - 0.5);
        if (moe_random_below(key, 2 * i + 1, 3) > 0) {
            points[count++] = (struct moe_calibration_decode_point){
                .series = "planted",
                .sequences = s,
                .context = c,
                .median_ns = true_ns(s, c) * exp(noise),
            };
        }
    }
    return count;
}

Test(decode_fit, finds_what_was_planted_on_a_grid_with_holes)
{
    struct moe_calibration_decode_point points[56];
    struct moe_calibration_decode row = truth;
    struct moe_calibration_decode wrong = truth;
    struct moe_decode decode = { 0 };
    double error = 0.0;
    double other = 0.0;
    const struct moe_decode_problem problem = { .points = points,
                                                .count = plant(points),
                                                .read_bytes_s = 4.5e12,
                                                .flop_s = 800e12,
                                                .sm_count = 132 };
    cr_assert_eq(moe_arena_init(&arena, 64 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_decode_choose(&row, &error, &problem, &arena, NULL), MOE_OK);
    cr_expect_eq(row.slots, truth.slots, "%u slots", row.slots);
    cr_expect_lt(error, 0.01, "left out: %g", error);
    cr_expect_lt(fabs(row.bandwidth_bytes_s / truth.bandwidth_bytes_s - 1.0), 0.02);
    wrong.slots = 132;
    cr_assert_eq(moe_decode_fit(&wrong, &problem, &arena, NULL), MOE_OK);
    cr_assert_eq(moe_decode_foretell(&other, &wrong, &problem, &arena, NULL), MOE_OK);
    cr_expect_gt(other, 2.0 * error, "with too few slots %g, with the right ones %g", other, error);
    moe_decode_from_row(&decode.fit, &row);
    cr_assert_eq(moe_decode_correct(&decode, points, problem.count, &arena, NULL), MOE_OK);
    for (int i = 0; i < 20; i++) {
        for (int k = 0; k < 7; k++) {
            enum moe_provenance provenance;
            const double s = pow(1.37, i); /* to 396 */
            const double c = 300.0 * pow(1.9, k);
            const double ns = moe_decode_ns(&decode, s, c, 1.0, 1.0, &provenance);
            cr_expect_lt(fabs(ns / true_ns(s, c) - 1.0), 0.03, "%g x %g", s, c);
        }
    }
    for (uint32_t i = 0; i < problem.count; i++) {
        enum moe_provenance provenance;
        const double ns =
            moe_decode_ns(&decode, points[i].sequences, points[i].context, 1.0, 1.0, &provenance);
        cr_expect_lt(fabs(ns / points[i].median_ns - 1.0), 1e-12, "point %u", i);
    }
}

static void fit_measured(double heldout_scale)
{
    struct moe_error err = { 0 };
    const struct moe_sample_fit_options options = { 0 };
    const struct moe_calibration *base = NULL;
    struct sample_world world = sample_world_plain(3);
    world.experts_only = true;
    world.noise = 0.0;
    world.decode_csv = measured_path;
    world.heldout_scale = heldout_scale;
    sample_world_write(&world, path);
    cr_assert_eq(moe_evidence_load(&evidence, path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_arena_init(&arena, moe_sample_fit_bytes(&evidence), &err), MOE_OK);
    cr_assert_eq(moe_calibration_load(&base, "builtin", &arena, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_sample_fit_make(&fit, &evidence, base, &options, &arena, &err), MOE_OK, "%s",
                 err.text);
}

static const struct moe_calibration_fit_quality *quality_of(const char *name)
{
    const struct moe_calibration *made = &fit.builder.calibration;
    for (uint32_t i = 0; i < made->fit_quality_count; i++) {
        if (strcmp(made->fit_quality_rows[i].series, name) == 0) {
            return &made->fit_quality_rows[i];
        }
    }
    cr_assert_fail("no quality of %s", name);
    return NULL;
}

Test(decode_fit, foretells_what_was_measured)
{
    fit_measured(1.0);
    const struct moe_calibration *made = &fit.builder.calibration;
    const struct moe_calibration_decode *mla = moe_calibration_find_decode(made, mla_name);
    const struct moe_calibration_decode *gqa = moe_calibration_find_decode(made, gqa_name);
    cr_assert_not_null(mla);
    cr_assert_not_null(gqa);
    cr_expect_eq(made->decode_count, 2);
    /* As registers and shared memory of the kernels allow: one block an SM, four. */
    cr_expect_eq(mla->slots, 132);
    cr_expect_eq(gqa->slots, 4 * 132);
    cr_expect_eq(mla->blocks, 2);
    cr_expect_eq(mla->provenance, MOE_PROVENANCE_MEASURED);
    cr_expect_eq(quality_of(mla_name)->status, MOE_FIT_CALIBRATED);
    cr_expect_lt(quality_of(mla_name)->mape, 0.025);
    cr_expect_eq(quality_of(gqa_name)->status, MOE_FIT_CALIBRATED);
    /* The rates that prompts go by are no better than they were. */
    cr_expect_eq(quality_of("kv_mla")->status, MOE_FIT_MISSED);
    cr_expect_eq(quality_of("kv_gqa")->status, MOE_FIT_MISSED);
    for (uint32_t i = 0; i < made->parameter_count; i++) {
        if (strcmp(made->parameter_rows[i].name, "attention.mla_bytes_s") == 0) {
            cr_expect_eq(made->parameter_rows[i].provenance, MOE_PROVENANCE_EXTRAPOLATED);
        }
    }
}

Test(decode_fit, held_out_points_judge_and_do_not_fit)
{
    fit_measured(1.5);
    const struct moe_calibration *made = &fit.builder.calibration;
    const struct moe_calibration_decode *mla = moe_calibration_find_decode(made, mla_name);
    cr_assert_not_null(mla);
    cr_expect_eq(quality_of(mla_name)->status, MOE_FIT_MISSED);
    cr_expect_lt(fabs(quality_of(mla_name)->bias + 1.0 / 3.0), 0.02); /* 1 / 1.5 - 1 */
    cr_expect_eq(mla->provenance, MOE_PROVENANCE_EXTRAPOLATED);
    for (uint32_t i = 0; i < made->decode_point_count; i++) {
        for (uint32_t p = 0; p < evidence.point_count; p++) {
            const struct moe_evidence_point *point = &evidence.points[p];
            cr_expect(point->role != MOE_EVIDENCE_HELDOUT ||
                          strcmp(evidence.series[point->series].name,
                                 made->decode_point_rows[i].series) != 0 ||
                          point->tokens != made->decode_point_rows[i].sequences ||
                          point->context != made->decode_point_rows[i].context,
                      "row %u is held out", i);
        }
    }
}

/* Samples without decode attention, of a kind of GPU, over what was fitted from those with it. */
static uint32_t decodes_over(const char *gpu_kind)
{
    char other[80];
    struct moe_error err = { 0 };
    struct moe_evidence bare = { 0 };
    struct moe_arena own = { 0 };
    struct moe_sample_fit over;
    struct sample_world world = sample_world_plain(4);
    const struct moe_sample_fit_options options = { 0 };
    world.experts_only = true;
    world.gpu_kind = gpu_kind;
    (void) snprintf(other, sizeof other, "%s/%s.cal.db", folder, gpu_kind);
    sample_world_write(&world, other);
    cr_assert_eq(moe_evidence_load(&bare, other, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_arena_init(&own, moe_sample_fit_bytes(&bare), &err), MOE_OK);
    cr_assert_eq(moe_sample_fit_make(&over, &bare, &fit.builder.calibration, &options, &own, &err),
                 MOE_OK, "%s", err.text);
    const uint32_t count = over.builder.calibration.decode_count;
    cr_expect_eq(over.builder.calibration.decode_point_count,
                 count == 0 ? 0 : fit.builder.calibration.decode_point_count);
    moe_evidence_finish(&bare);
    moe_arena_finish(&own);
    (void) unlink(other);
    return count;
}

Test(decode_fit, a_base_fills_what_was_not_measured_of_its_own_kind)
{
    fit_measured(1.0);
    cr_expect_eq(decodes_over("H200"), 2);
    cr_expect_eq(decodes_over("B300"), 0);
}

/* moesim fit: what was planted in made-up samples is found again, and nothing held out is used. */
#include <criterion/criterion.h>
#include <gsl/gsl_errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/calibration/fit_samples.h"
#include "sim/cost/calibration_hash.h"
#include "tests/sample_fixture.h"

static char folder[] = "/tmp/moesim-fit-XXXXXX";
static char path[64];
static char other[64];
static struct moe_arena arena;
static struct moe_evidence evidence;
static struct moe_sample_fit fit;
static const struct moe_calibration *base;

static void setup(void)
{
    (void) gsl_set_error_handler_off();
    cr_assert_not_null(mkdtemp(folder));
    (void) snprintf(path, sizeof path, "%s/s.cal.db", folder);
    (void) snprintf(other, sizeof other, "%s/o.cal.db", folder);
}

static void forget(void)
{
    moe_evidence_finish(&evidence);
    moe_arena_finish(&arena);
    memset(&evidence, 0, sizeof evidence);
}

static void teardown(void)
{
    forget();
    (void) unlink(path);
    (void) unlink(other);
    (void) rmdir(folder);
}

TestSuite(fit_samples, .init = setup, .fini = teardown, .timeout = 600);

static void make_fit(void)
{
    struct moe_error err = { 0 };
    const struct moe_sample_fit_options options = { 0 };
    forget();
    cr_assert_eq(moe_evidence_load(&evidence, path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_arena_init(&arena, moe_sample_fit_bytes(&evidence), &err), MOE_OK);
    cr_assert_eq(moe_calibration_load(&base, "builtin", &arena, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_sample_fit_make(&fit, &evidence, base, &options, &arena, &err), MOE_OK, "%s",
                 err.text);
}

static void fit_world(const struct sample_world *world)
{
    (void) unlink(path);
    sample_world_write(world, path);
    make_fit();
}

static const struct moe_quality *quality_of(const char *series, enum moe_fit_points points)
{
    for (uint32_t i = 0; i < fit.quality_count; i++) {
        if (strcmp(evidence.series[fit.quality[i].series].name, series) == 0 &&
            fit.quality[i].points == points) {
            return &fit.quality[i];
        }
    }
    cr_assert_fail("no quality of %s", series);
    return NULL;
}

static void expect_near(double value, double truth, double tolerance, const char *what)
{
    cr_expect(fabs(value / truth - 1.0) <= tolerance, "%s is %g, planted %g", what, value, truth);
}

static const char expert_name[] = "expert-4096x1536x32-bf16-swiglu-own";

Test(fit_samples, finds_what_was_planted)
{
    struct sample_world world = sample_world_plain(1);
    world.gpu_count = 2;
    world.slow_gpu = 2;
    fit_world(&world);
    const struct moe_calibration *made = &fit.builder.calibration;
    const struct moe_calibration_fit *row =
        moe_calibration_find_fit(made, "expert-4096x1536-bf16-swiglu-own");
    cr_assert_not_null(row);
    expect_near(row->bandwidth_bytes_s, SAMPLE_BANDWIDTH, 0.01, "bandwidth");
    expect_near(row->peak_flop_s, SAMPLE_PEAK, 0.01, "peak");
    expect_near(row->p, SAMPLE_P, 0.1, "p");
    expect_near(row->t0_ns, SAMPLE_T0_NS, 0.1, "t0");
    cr_expect_eq(made->series_rows[0].tile_tokens, SAMPLE_TILE);
    cr_expect_eq(made->series_rows[0].provenance, MOE_PROVENANCE_MEASURED);
    const struct moe_quality *held = quality_of(expert_name, MOE_FIT_HELDOUT);
    cr_expect_eq(held->status, MOE_FIT_CALIBRATED, "%s", held->reason);
    cr_expect_lt(held->mape, 0.006);
    cr_expect_eq(held->checked, 16, "%u", held->checked); /* 8 points on 2 GPUs */
    cr_expect_lt(quality_of(expert_name, MOE_FIT_SKEW)->mape, 0.01);
    cr_expect_gt(held->repeats.count, 0);
    cr_expect_gt(held->repeats.agreeing,
                 0.95 * held->repeats.count); /* noise 0.3 % against 1.5 % */
    /* Lines: the last rank counts, not the one that left at 0.9. */
    cr_expect_eq(quality_of("all_to_all-2", MOE_FIT_HELDOUT)->status, MOE_FIT_CALIBRATED);
    cr_expect_lt(quality_of("all_to_all_v-2", MOE_FIT_SKEW)->mape, 0.06);
    cr_expect_lt(quality_of("permute-7168-bf16", MOE_FIT_HELDOUT)->mape, 0.01);
    const struct moe_calibration_segment *segment = &made->segment_rows[0];
    cr_expect_eq(segment->op, MOE_SEGMENT_ALL_TO_ALL);
    cr_expect_eq(segment->ranks, 2);
    expect_near(segment->alpha_ns, 9e3, 0.02, "alpha");
    expect_near(segment[1].bandwidth_bytes_s, 280e9, 0.02, "bandwidth of the second line");
}

static double parameter_of(const struct moe_calibration *made, const char *name)
{
    for (uint32_t i = 0; i < made->parameter_count; i++) {
        if (strcmp(made->parameter_rows[i].name, name) == 0) {
            return made->parameter_rows[i].value;
        }
    }
    return 0.0;
}

Test(fit_samples, finds_links_overlap_and_lasting_load)
{
    struct sample_world world = sample_world_plain(11);
    world.gpu_count = 2;
    world.slow_gpu = 2;
    fit_world(&world);
    const struct moe_calibration *made = &fit.builder.calibration;
    expect_near(parameter_of(made, "overlap.compute_factor"), 1.3, 0.01, "GEMM under exchange");
    expect_near(parameter_of(made, "overlap.comm_factor"), 1.6, 0.01, "exchange under GEMM");
    expect_near(parameter_of(made, "compute.sustained_factor"), 1.2, 0.01, "lasting load");
    expect_near(parameter_of(made, "exchange.one_way_saving"), SAMPLE_ONE_WAY_SAVING, 0.05,
                "one way against both");
    expect_near(parameter_of(made, "exchange.own_bytes_s"), SAMPLE_OWN_RATE, 0.02, "own pieces");
    expect_near(parameter_of(made, "launch.graph_ns"), 510.0, 1e-6, "graph node");
    cr_expect_eq(made->sustained_count, 1);
    cr_expect_eq(made->sustained_rows[0].tokens, 512.0);
    /* Of two GPUs the median lies between them: the slower sender 2 % above it. */
    expect_near(fit.fitter.gpus[1].factor[MOE_FACTOR_COMM] /
                    fit.fitter.gpus[0].factor[MOE_FACTOR_COMM],
                1.04, 0.004, "the second sender against the first");
    uint32_t pairs = 0;
    for (uint32_t i = 0; i < made->segment_count; i++) {
        pairs += made->segment_rows[i].op == MOE_SEGMENT_P2P;
    }
    cr_expect_gt(pairs, 0);
    /* Rows of 8 and 16 active experts end at 256 rows; they follow the full row beyond. */
    double beyond = 0.0;
    for (uint32_t i = 0; i < made->point_count; i++) {
        const struct moe_calibration_point *point = &made->point_rows[i];
        if (point->active == 8 && point->tokens == 1024.0) {
            cr_expect_eq(point->provenance, MOE_PROVENANCE_EXTRAPOLATED);
            beyond = point->median_ns;
        }
    }
    expect_near(beyond, sample_expert_ns(1024, 8, 1.0), 0.02, "8 active at 1024 rows");
}

Test(fit_samples, what_a_run_reads_is_complete)
{
    struct moe_error err = { 0 };
    const struct moe_calibration *read = NULL;
    struct sample_world world = sample_world_plain(2);
    fit_world(&world);
    cr_expect_eq(moe_calibration_load(&read, path, &arena, &err), MOE_RANGE);
    cr_expect(strstr(err.text, "holds samples that are not fitted") != NULL, "%s", err.text);
    cr_assert_eq(moe_sample_fit_write(&fit, path, NULL, false, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_calibration_load(&read, path, &arena, &err), MOE_OK, "%s", err.text);
    cr_expect_eq(moe_calibration_hash(read), moe_calibration_hash(&fit.builder.calibration));
    uint32_t needed = 0;
    double copy = 0.0;
    for (uint32_t i = 0; i < read->parameter_count; i++) {
        for (uint32_t p = 0; p < MOE_PARAMETER_NEEDED; p++) {
            needed += strcmp(read->parameter_rows[i].name, moe_parameter_name(p)) == 0;
        }
        if (strcmp(read->parameter_rows[i].name, "copy.bytes_s") == 0) {
            copy = read->parameter_rows[i].value;
            cr_expect_eq(read->parameter_rows[i].provenance, MOE_PROVENANCE_MEASURED);
        }
    }
    cr_expect_eq(needed, MOE_PARAMETER_NEEDED);
    expect_near(copy, SAMPLE_COPY_RATE, 0.01, "copy rate");
    /* Fitting again, and into another file, gives the same tables. */
    make_fit();
    cr_assert_eq(moe_sample_fit_write(&fit, path, other, false, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_calibration_load(&base, other, &arena, &err), MOE_OK, "%s", err.text);
    cr_expect_eq(moe_calibration_hash(base), moe_calibration_hash(&fit.builder.calibration));
    cr_expect_eq(moe_sample_fit_write(&fit, path, other, false, &err), MOE_RANGE);
    cr_expect(strstr(err.text, "exists already") != NULL, "%s", err.text);
}

static long file_bytes(const char *from, char *to, size_t limit)
{
    FILE *file = fopen(from, "rb");
    cr_assert_not_null(file);
    const size_t bytes = fread(to, 1, limit, file);
    (void) fclose(file);
    return (long) bytes;
}

Test(fit_samples, same_samples_same_bytes)
{
    enum { LIMIT = 8 << 20 };
    struct moe_error err = { 0 };
    struct sample_world world = sample_world_plain(3);
    world.gpu_count = 2;
    char *first = malloc(LIMIT);
    char *second = malloc(LIMIT);
    cr_assert(first != NULL && second != NULL);
    fit_world(&world);
    cr_assert_eq(moe_sample_fit_write(&fit, path, other, false, &err), MOE_OK, "%s", err.text);
    const long bytes = file_bytes(other, first, LIMIT);
    make_fit();
    cr_assert_eq(moe_sample_fit_write(&fit, path, other, true, &err), MOE_OK, "%s", err.text);
    cr_expect_eq(file_bytes(other, second, LIMIT), bytes);
    cr_expect_eq(memcmp(first, second, (size_t) bytes), 0);
    free(first);
    free(second);
}

Test(fit_samples, finds_the_slow_card)
{
    struct sample_world world = sample_world_plain(4);
    world.gpu_count = 4;
    world.slow_gpu = 2;
    world.slow_factor = 1.08;
    fit_world(&world);
    for (uint32_t g = 0; g < 4; g++) {
        const struct moe_fitter_gpu *gpu = &fit.fitter.gpus[g];
        const double truth = g == 2 ? 1.08 : 1.0;
        cr_expect(fabs(gpu->factor[MOE_FACTOR_COMPUTE] / truth - 1.0) < 0.004, "GPU %u: %g", g,
                  gpu->factor[MOE_FACTOR_COMPUTE]);
        cr_expect(fabs(gpu->factor[MOE_FACTOR_MEMORY] - 1.0) < 0.004, "GPU %u: %g", g,
                  gpu->factor[MOE_FACTOR_MEMORY]);
        cr_expect_leq(gpu->low[MOE_FACTOR_COMPUTE], gpu->factor[MOE_FACTOR_COMPUTE]);
        cr_expect_geq(gpu->high[MOE_FACTOR_COMPUTE], gpu->factor[MOE_FACTOR_COMPUTE]);
    }
    /* It stands out of the others' intervals, and each GPU is predicted with its own factor. */
    cr_expect_gt(fit.fitter.gpus[2].low[MOE_FACTOR_COMPUTE], 1.07);
    cr_expect_lt(quality_of(expert_name, MOE_FIT_HELDOUT)->mape, 0.01);
    cr_expect_eq(fit.builder.calibration.gpu_count, 4);
    /* What runs draw is the factor as far as it is sure: the slow card stays slow, no other is
     * further from 1 than it was found. */
    for (uint32_t g = 0; g < 4; g++) {
        const double stored = log(fit.builder.calibration.gpu_rows[g].compute);
        const double found = log(fit.fitter.gpus[g].factor[MOE_FACTOR_COMPUTE]);
        cr_expect(fabs(stored) <= fabs(found) + 1e-6 && stored * found >= 0.0, "GPU %u", g);
    }
    cr_expect_gt(fit.builder.calibration.gpu_rows[2].compute, 1.07);
    /* Four cards make a prior of their own. */
    const struct moe_calibration_factor *factor = &fit.builder.calibration.factor_rows[0];
    cr_expect_eq(factor->provenance, MOE_PROVENANCE_ASSUMED, "the tail is still the base's");
    cr_expect(fabs(factor->sd - log(1.08) / 2.0) < 0.003, "sd %g", factor->sd);
}

Test(fit_samples, a_run_that_is_slow_as_a_whole_slows_no_card)
{
    struct sample_world world = sample_world_plain(13);
    world.gpu_count = 3;
    world.slow_gpu = 1;
    world.slow_factor = 1.08;
    world.experts_only = true;
    sample_world_write(&world, path);
    world.seed = 14;
    world.started_at = "2026-03-03T00:00:00Z";
    world.run_factor = 1.10;
    sample_world_write(&world, path);
    make_fit();
    for (uint32_t g = 0; g < 3; g++) {
        const struct moe_fitter_gpu *gpu = &fit.fitter.gpus[g];
        const double truth = g == 1 ? 1.08 : 1.0;
        cr_expect(fabs(gpu->factor[MOE_FACTOR_COMPUTE] / truth - 1.0) < 0.006, "GPU %u: %g", g,
                  gpu->factor[MOE_FACTOR_COMPUTE]);
        cr_expect_eq(gpu->runs, 2);
        cr_expect_lt(gpu->run_sd[MOE_FACTOR_COMPUTE], 0.01, "GPU %u: %g", g,
                     gpu->run_sd[MOE_FACTOR_COMPUTE]);
    }
}

Test(fit_samples, a_kernel_that_anchors_do_not_show_misses_its_gate)
{
    struct sample_world world = sample_world_plain(5);
    world.kernel_switch = true;
    fit_world(&world);
    const struct moe_quality *held = quality_of(expert_name, MOE_FIT_HELDOUT);
    cr_expect_eq(held->status, MOE_FIT_MISSED);
    cr_expect(strstr(held->reason, "worst: point") != NULL, "%s", held->reason);
    cr_expect_gt(fit.missed, 0);
    const struct moe_calibration_series *series = &fit.builder.calibration.series_rows[0];
    cr_expect_str_eq(series->name, "expert-4096x1536-bf16-swiglu-own");
    cr_expect_eq(series->provenance, MOE_PROVENANCE_EXTRAPOLATED);
    /* The cost model says so between points, and still knows the points themselves. */
    enum moe_provenance provenance = MOE_PROVENANCE_MEASURED;
    struct moe_curve curve;
    const struct moe_curve_key key = { "H200", MOE_SERIES_EXPERT, SAMPLE_HIDDEN, SAMPLE_INTER,
                                       true,   MOE_DTYPE_BF16 };
    cr_assert_eq(moe_curve_init(&curve, &fit.builder.calibration, &key, &arena, NULL), MOE_OK);
    (void) moe_curve_ratio(&curve, 80.0, SAMPLE_UNITS, &provenance);
    cr_expect_eq(provenance, MOE_PROVENANCE_EXTRAPOLATED);
    (void) moe_curve_ratio(&curve, 96.0, SAMPLE_UNITS, &provenance);
    cr_expect_eq(provenance, MOE_PROVENANCE_MEASURED);
}

Test(fit_samples, nothing_held_out_is_used)
{
    struct sample_world world = sample_world_plain(6);
    world.gpu_count = 2;
    fit_world(&world);
    const struct moe_calibration *made = &fit.builder.calibration;
    struct moe_calibration honest = *made;
    honest.fit_quality_count = honest.fitting_count = 0;
    /* With missed gates only the label of provenance would change: those are left out too. */
    honest.series_count = honest.segment_count = honest.fit_count = 0;
    const uint64_t hash = moe_calibration_hash(&honest);
    const struct moe_calibration_fit *row =
        moe_calibration_find_fit(made, "expert-4096x1536-bf16-swiglu-own");
    const double before[] = { row->t0_ns, row->bandwidth_bytes_s, row->peak_flop_s, row->p,
                              made->segment_rows[1].bandwidth_bytes_s };
    world.heldout_scale = 1.5;
    fit_world(&world);
    row = moe_calibration_find_fit(made, "expert-4096x1536-bf16-swiglu-own");
    const double after[] = { row->t0_ns, row->bandwidth_bytes_s, row->peak_flop_s, row->p,
                             made->segment_rows[1].bandwidth_bytes_s };
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        cr_expect_eq(before[i], after[i], "%zu: %g, then %g", i, before[i], after[i]);
    }
    honest = *made;
    honest.fit_quality_count = honest.fitting_count = 0;
    honest.series_count = honest.segment_count = honest.fit_count = 0;
    cr_expect_eq(moe_calibration_hash(&honest), hash);
    cr_expect_gt(quality_of(expert_name, MOE_FIT_HELDOUT)->mape, 0.3);
    cr_expect_eq(quality_of("all_to_all-2", MOE_FIT_HELDOUT)->status, MOE_FIT_MISSED);
}

Test(fit_samples, drift_is_seen_and_taken_off)
{
    struct sample_world world = sample_world_plain(7);
    world.gpu_count = 2;
    world.drift = 0.02;
    world.noise = 0.001;
    fit_world(&world);
    cr_expect(fit.fitter.drift.found);
    cr_expect(fit.fitter.drift.sigma > 0.008 && fit.fitter.drift.sigma < 0.05, "sigma %g",
              fit.fitter.drift.sigma);
    const struct moe_calibration_fit *row =
        moe_calibration_find_fit(&fit.builder.calibration, "expert-4096x1536-bf16-swiglu-own");
    expect_near(row->peak_flop_s, SAMPLE_PEAK, 0.015, "peak");
    world.drift = 0.0;
    world.noise = 0.003;
    fit_world(&world);
    cr_expect_not(fit.fitter.drift.found);
}

Test(fit_samples, clocks_are_taken_off)
{
    struct sample_world world = sample_world_plain(12);
    world.gpu_count = 2;
    world.slow_gpu = 2;
    world.clock_spread = 0.12; /* 1330 to 1690 MHz */
    fit_world(&world);
    cr_expect(fabs(fit.fitter.reference_mhz / 1500.0 - 1.0) < 0.05, "%g MHz",
              fit.fitter.reference_mhz);
    const struct moe_calibration *made = &fit.builder.calibration;
    const struct moe_calibration_fit *row =
        moe_calibration_find_fit(made, "expert-4096x1536-bf16-swiglu-own");
    expect_near(made->clock_rows[0].reference_hz, fit.fitter.reference_mhz * 1e6, 1e-6, "clock");
    /* The peak was planted at 1500 MHz, and is stored at the reference. */
    expect_near(row->peak_flop_s / fit.fitter.reference_mhz * 1500.0, SAMPLE_PEAK, 0.02, "peak");
    expect_near(row->bandwidth_bytes_s, SAMPLE_BANDWIDTH, 0.02, "bandwidth");
    cr_expect_lt(quality_of(expert_name, MOE_FIT_HELDOUT)->mape, 0.01);
    uint32_t repeats = 0;
    uint32_t raw = 0;
    uint32_t even = 0;
    for (uint32_t i = 0; i < fit.fitter.seen.count; i++) {
        if (fit.fitter.seen.items[i].repeats > 0) {
            repeats++;
            raw += fit.fitter.seen.items[i].spread <= 0.015;
            even += fit.fitter.even.items[i].spread <= 0.015;
        }
    }
    cr_expect_lt(raw, 0.8 * repeats, "%u of %u", raw, repeats);
    cr_expect_gt(even, 0.95 * repeats, "%u of %u", even, repeats);
}

/* The largest distance of a row of table point from what was measured at it; but for 256 rows,
 * where the sentinel, at a clock of its own, is a second point of the same place. */
static double largest_distance(void)
{
    const struct moe_calibration *made = &fit.builder.calibration;
    double largest = 0.0;
    uint32_t compared = 0;
    for (uint32_t i = 0; i < made->point_count; i++) {
        const struct moe_calibration_point *row = &made->point_rows[i];
        for (uint32_t p = 0; p < evidence.point_count; p++) {
            const struct moe_evidence_point *point = &evidence.points[p];
            double log_ns = 0.0;
            double mhz = 0.0;
            if (strcmp(row->series, "expert-4096x1536-bf16-swiglu-own") == 0 &&
                strcmp(evidence.series[point->series].name, expert_name) == 0 &&
                point->tokens == row->tokens && point->active == row->active &&
                point->tokens != 256.0 && moe_fitter_may_fit(point) &&
                moe_fitter_as_measured(&fit.fitter, p, &log_ns, &mhz)) {
                largest = fmax(largest, fabs(log(row->median_ns) - log_ns));
                compared++;
            }
        }
    }
    cr_assert_gt(compared, 10);
    return largest;
}

Test(fit_samples, settled_points_are_stated_at_their_own_clock)
{
    struct sample_world world = sample_world_plain(12);
    world.experts_only = true;
    world.clock_spread = 0.12;
    fit_world(&world);
    cr_expect_gt(largest_distance(), 0.03, "%g", largest_distance());
    world.settled = true;
    fit_world(&world);
    cr_expect_lt(largest_distance(), 0.01, "%g", largest_distance());
}

static double skew_with_weight(double *weight, bool uneven)
{
    struct sample_world world = sample_world_plain(15);
    world.experts_only = true;
    world.fullest_weight = 12.0;
    world.uneven = uneven;
    fit_world(&world);
    *weight = fit.fitter.shapes[0].fit.roofline.weight;
    return quality_of(expert_name, MOE_FIT_SKEW)->mape;
}

Test(fit_samples, uneven_anchors_weigh_the_fullest_expert)
{
    double weight = 0.0;
    const double without = skew_with_weight(&weight, false);
    cr_expect_eq(weight, 0.0, "even rows of three counts, two of them short, tell none");
    cr_expect_eq(fit.fitter.shapes[0].fullest.loads, 0);
    const double with = skew_with_weight(&weight, true);
    const struct moe_fitter_fullest *fullest = &fit.fitter.shapes[0].fullest;
    cr_expect_eq(fullest->loads, 4, "%u: the fifth is the skewed point itself", fullest->loads);
    cr_expect(fullest->is_used);
    cr_expect_lt(fullest->rms_left_out, 0.5 * fullest->rms_before);
    /* Even rows took a part of it into the roofline's rate, so it is not the planted one to a
     * tenth; what it foretells is. */
    cr_expect(weight > 6.0 && weight < 24.0, "%g, planted 12", weight);
    cr_expect_lt(with, 0.5 * without, "%g after %g", with, without);
    const struct moe_calibration_fullest *row = &fit.builder.calibration.fullest_rows[0];
    cr_assert_eq(fit.builder.calibration.fullest_count, 1);
    cr_expect_eq(row->weight, weight);
    /* A world without such a weight is not given one. */
    struct sample_world plain = sample_world_plain(15);
    plain.experts_only = true;
    plain.uneven = true;
    fit_world(&plain);
    cr_expect_lt(fit.fitter.shapes[0].fit.roofline.weight, 1.0, "%g",
                 fit.fitter.shapes[0].fit.roofline.weight);
    cr_expect_eq(fit.builder.calibration.series_rows[0].tile_tokens, SAMPLE_TILE);
}

static void change(const char *sql)
{
    sqlite3 *db = NULL;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, "%s", sql);
    (void) sqlite3_close(db);
}

static void refuse(const char *sql, enum moe_status status, const char *message)
{
    struct moe_error err = { 0 };
    struct moe_evidence none = { 0 };
    (void) unlink(path);
    struct sample_world world = sample_world_plain(8);
    world.experts_only = true;
    sample_world_write(&world, path);
    change(sql);
    cr_expect_eq(moe_evidence_load(&none, path, &err), status, "%s", sql);
    cr_expect(strstr(err.text, message) != NULL, "'%s' instead of '%s'", err.text, message);
    moe_evidence_finish(&none);
}

Test(fit_samples, bad_cells_are_refused_with_their_row)
{
    refuse("UPDATE sample SET median_us = 0 WHERE id = 7", MOE_RANGE,
           "table sample, row id 7: median_us is 0");
    refuse("UPDATE sample SET median_us = -3 WHERE id = 8", MOE_RANGE, "row id 8: median_us is -3");
    refuse("UPDATE sample SET median_us = 9e999 WHERE id = 8", MOE_RANGE,
           "row id 8: median_us is Inf");
    refuse("UPDATE sample SET median_us = 'fast' WHERE id = 8", MOE_RANGE,
           "row id 8: median_us is fast");
    refuse("UPDATE sample SET p95_us = p75_us / 2 WHERE id = 9", MOE_RANGE, "row id 9: p95_us");
    refuse("UPDATE sample SET mhz = 'NaN' WHERE id = 9", MOE_RANGE, "row id 9: mhz is NaN");
    refuse("PRAGMA foreign_keys = OFF; UPDATE sample SET point = 999 WHERE id = 5", MOE_RANGE,
           "row id 5: point is 999");
    refuse("UPDATE sample_point SET tokens = 0 WHERE id = 2", MOE_RANGE,
           "table sample_point, row id 2: tokens is 0");
    refuse("UPDATE sample_point SET role = 'held' WHERE id = 2", MOE_RANGE,
           "role is held; allowed: anchor refine heldout skew sentinel sustained uneven burst");
    refuse("UPDATE sample_series SET kind = 'magic'", MOE_RANGE,
           "table sample_series, row id 1: kind is magic; allowed: expert gemm permute");
    refuse("UPDATE sample_gpu SET uuid = ''", MOE_RANGE, "table sample_gpu, row id 1: uuid is ");
    refuse("DELETE FROM sample", MOE_RANGE, "table sample has no rows");
    refuse("DROP TABLE sample", MOE_RANGE, "holds no samples");
    refuse("DROP TABLE sample_ceiling", MOE_PARSE, "no such table: sample_ceiling");
    refuse("PRAGMA user_version = 99", MOE_UNSUPPORTED, "schema version 99");
}

Test(fit_samples, what_cannot_be_fitted_is_said)
{
    struct moe_error err = { 0 };
    const struct moe_sample_fit_options options = { 0 };
    struct sample_world world = sample_world_plain(9);
    world.experts_only = true;
    sample_world_write(&world, path);
    change("INSERT INTO sample_gpu SELECT 77, 'GPU-b', name, 'B200', sm_count, l2_bytes, "
           "memory_bytes, boost_mhz, power_limit_w FROM sample_gpu");
    cr_assert_eq(moe_evidence_load(&evidence, path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_arena_init(&arena, moe_sample_fit_bytes(&evidence), &err), MOE_OK);
    cr_assert_eq(moe_calibration_load(&base, "builtin", &arena, &err), MOE_OK);
    cr_expect_eq(moe_sample_fit_make(&fit, &evidence, base, &options, &arena, &err), MOE_RANGE);
    cr_expect(strstr(err.text, "one kind of GPU a file is allowed") != NULL, "%s", err.text);
    /* Another kind than the base's: what was not measured becomes assumed. */
    world.gpu_kind = "H100";
    fit_world(&world);
    const struct moe_calibration *made = &fit.builder.calibration;
    cr_expect_eq(made->drift_rows[0].provenance, MOE_PROVENANCE_MEASURED); /* 34 sentinels */
    cr_expect_eq(made->factor_rows[0].provenance, MOE_PROVENANCE_ASSUMED);
    cr_expect(strncmp(made->factor_rows[0].source, "as H200: ", 9) == 0, "%s",
              made->factor_rows[0].source);
}

Test(fit_samples, impossible_points_are_left_out_and_named)
{
    struct sample_world world = sample_world_plain(10);
    world.experts_only = true;
    sample_world_write(&world, path);
    /* 32 experts of 37.7 MB in 100 us: 12 TB/s. */
    change("UPDATE sample SET median_us = 100, min_us = NULL WHERE point = (SELECT id FROM "
           "sample_point WHERE role = 'anchor' AND tokens = 2)");
    make_fit();
    cr_expect_eq(fit.fitter.impossible, 1);
    cr_expect_eq(quality_of(expert_name, MOE_FIT_HELDOUT)->status, MOE_FIT_CALIBRATED);
    /* The same flagged by moecal, and an output that was wrong. */
    change("UPDATE sample SET flags = 'bimodal unphysical' WHERE point = (SELECT id FROM "
           "sample_point WHERE role = 'anchor' AND tokens = 2)");
    change("UPDATE sample SET flags = 'wrong' WHERE point = (SELECT id FROM sample_point WHERE "
           "role = 'anchor' AND tokens = 8)");
    make_fit();
    cr_expect_eq(fit.fitter.impossible, 0);
    cr_expect_eq(fit.fitter.unphysical, 1);
    cr_expect_eq(fit.fitter.wrong, 2); /* 8 rows: a second pass */
}

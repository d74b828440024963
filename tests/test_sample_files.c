/* Files of samples: what verify finds, merge unites and refuses, compare tells, plot draws. */
#include <criterion/criterion.h>
#include <gsl/gsl_errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/calibration/fit_samples.h"
#include "sim/calibration/sample_compare.h"
#include "sim/calibration/sample_merge.h"
#include "sim/calibration/sample_plot.h"
#include "sim/calibration/sample_verify.h"
#include "tests/sample_fixture.h"

static char folder[] = "/tmp/moesim-samples-XXXXXX";
static char a_path[64];
static char b_path[64];
static char c_path[64];

static void setup(void)
{
    (void) gsl_set_error_handler_off();
    cr_assert_not_null(mkdtemp(folder));
    (void) snprintf(a_path, sizeof a_path, "%s/a.cal.db", folder);
    (void) snprintf(b_path, sizeof b_path, "%s/b.cal.db", folder);
    (void) snprintf(c_path, sizeof c_path, "%s/c.cal.db", folder);
}

static void teardown(void)
{
    (void) unlink(a_path);
    (void) unlink(b_path);
    (void) unlink(c_path);
    (void) rmdir(folder);
}

TestSuite(sample_files, .init = setup, .fini = teardown, .timeout = 600);

static struct sample_world world_b(void)
{
    struct sample_world world = sample_world_plain(2);
    world.started_at = "2026-02-02T00:00:00Z";
    return world;
}

static void write_pair(const struct sample_world *b)
{
    const struct sample_world a = sample_world_plain(1);
    (void) unlink(a_path);
    (void) unlink(b_path);
    sample_world_write(&a, a_path);
    sample_world_write(b, b_path);
}

static void change(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, "%s", sql);
    (void) sqlite3_close(db);
}

static void expect_verdict(enum moe_sample_check check, const char *message)
{
    struct moe_sample_verification found;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_sample_verify(&found, a_path, &err), MOE_OK, "%s", err.text);
    for (int i = 0; i < MOE_SAMPLE_CHECK_COUNT; i++) {
        if (i != (int) check) {
            cr_expect_eq(found.verdicts[i].count, 0, "%s: %s",
                         moe_sample_check_text((enum moe_sample_check) i),
                         found.verdicts[i].first.text);
        }
    }
    if (check < MOE_SAMPLE_CHECK_COUNT) {
        cr_expect_gt(found.verdicts[check].count, 0, "not seen: %s", message);
        cr_expect(strstr(found.verdicts[check].first.text, message) != NULL, "'%s'",
                  found.verdicts[check].first.text);
    }
}

static void fit_file(const char *path)
{
    struct moe_error err = { 0 };
    struct moe_evidence evidence;
    struct moe_arena arena;
    struct moe_sample_fit fit;
    const struct moe_calibration *base = NULL;
    const struct moe_sample_fit_options options = { 0 };
    cr_assert_eq(moe_evidence_load(&evidence, path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_arena_init(&arena, moe_sample_fit_bytes(&evidence), &err), MOE_OK);
    cr_assert_eq(moe_calibration_load(&base, "builtin", &arena, &err), MOE_OK);
    cr_assert_eq(moe_sample_fit_make(&fit, &evidence, base, &options, &arena, &err), MOE_OK, "%s",
                 err.text);
    cr_assert_eq(moe_sample_fit_write(&fit, path, NULL, false, &err), MOE_OK, "%s", err.text);
    moe_arena_finish(&arena);
    moe_evidence_finish(&evidence);
}

Test(sample_files, verify_sees_each_damage)
{
    struct sample_world world = sample_world_plain(1);
    world.experts_only = true;
    sample_world_write(&world, a_path);
    expect_verdict(MOE_SAMPLE_CHECK_COUNT, "");
    fit_file(a_path);
    expect_verdict(MOE_SAMPLE_CHECK_COUNT, "");
    change(a_path, "UPDATE sample SET median_us = median_us * 1.0001 WHERE id = 30");
    expect_verdict(MOE_SAMPLE_CHECK_FITTING, "`moesim fit` makes new ones");
    fit_file(a_path);
    expect_verdict(MOE_SAMPLE_CHECK_COUNT, "");
    change(a_path, "UPDATE fit SET p = 99");
    expect_verdict(MOE_SAMPLE_CHECK_TABLES, "table fit, row 1: p: '99");
    fit_file(a_path);
    change(a_path,
           "INSERT INTO sample SELECT 9999, point, run, gpu, gpu_rank, pass, seq, begin_s, "
           "n, min_us, p5_us, p25_us, median_us, p75_us, p95_us, p99_us, mad_us, low_us, "
           "high_us, mhz, watts, celsius, throttle, error, dropped, flags FROM sample WHERE "
           "id = 5; DROP TABLE fitting");
    fit_file(a_path);
    expect_verdict(MOE_SAMPLE_CHECK_VISITS, "samples 5 and 9999 are of one visit");
    change(a_path, "DELETE FROM sample WHERE id = 9999; UPDATE sample SET median_us = 100, min_us "
                   "= NULL WHERE id = 1");
    fit_file(a_path);
    expect_verdict(MOE_SAMPLE_CHECK_PHYSICS, "sample 1 of expert-4096x1536x32");
    change(a_path, "UPDATE sample SET flags = 'unphysical' WHERE id = 1; UPDATE sample_run SET "
                   "wall_s = NULL");
    fit_file(a_path);
    expect_verdict(MOE_SAMPLE_CHECK_RUNS, "2026-01-02T03:04:05Z was cut off");
    change(a_path, "UPDATE sample_run SET wall_s = 9; UPDATE sample_point SET role = 'skew' WHERE "
                   "role = 'heldout'");
    fit_file(a_path);
    expect_verdict(MOE_SAMPLE_CHECK_HELDOUT, "anchors and nothing held out");
    change(a_path,
           "UPDATE sample_point SET role = 'heldout' WHERE role = 'skew'; UPDATE sample SET "
           "median_us = 1.02 * median_us, min_us = NULL WHERE pass = 2");
    fit_file(a_path);
    expect_verdict(MOE_SAMPLE_CHECK_REPEATS, " are within it, 90 % are asked");
}

Test(sample_files, merge_unites_once)
{
    struct moe_error err = { 0 };
    struct moe_sample_merge result;
    struct moe_evidence evidence;
    const char *paths[] = { a_path, b_path, a_path };
    struct sample_world b = world_b();
    b.first_gpu = 7; /* another card */
    write_pair(&b);
    fit_file(a_path); /* fitted tables do not travel */
    cr_assert_eq(moe_sample_merge(&result, paths, 3, c_path, false, &err), MOE_OK, "%s", err.text);
    cr_expect_eq(result.runs, 2);
    cr_expect_eq(result.duplicate, 1);
    cr_expect_eq(result.gpus, 2);
    cr_expect_eq(result.untied, 0);
    cr_assert_eq(moe_evidence_load(&evidence, c_path, &err), MOE_OK, "%s", err.text);
    cr_expect_eq(evidence.series_count, 2);
    cr_expect_eq(evidence.sample_count, result.samples);
    struct moe_evidence alone;
    cr_assert_eq(moe_evidence_load(&alone, b_path, &err), MOE_OK);
    cr_expect_eq(evidence.point_count, alone.point_count); /* both have all of them */
    cr_expect_eq(evidence.sample_count, 2 * alone.sample_count);
    cr_expect_eq(evidence.ceiling_count, 2 * alone.ceiling_count);
    moe_evidence_finish(&alone);
    moe_evidence_finish(&evidence);
    fit_file(c_path);
    cr_expect_eq(moe_sample_merge(&result, paths, 2, c_path, false, &err), MOE_RANGE);
    cr_expect(strstr(err.text, "exists already") != NULL, "%s", err.text);
}

static void refuse_merge(const char *sql, const char *message)
{
    struct moe_error err = { 0 };
    struct moe_sample_merge result;
    const char *paths[] = { a_path, b_path };
    const struct sample_world b = world_b();
    write_pair(&b);
    change(b_path, sql);
    cr_expect_eq(moe_sample_merge(&result, paths, 2, c_path, false, &err), MOE_RANGE, "%s", sql);
    cr_expect(strstr(err.text, message) != NULL, "'%s' instead of '%s'", err.text, message);
    cr_expect_neq(access(c_path, F_OK), 0, "something was left behind");
}

Test(sample_files, merge_refuses_what_does_not_fit)
{
    refuse_merge("UPDATE sample_gpu SET kind = 'B200', uuid = 'GPU-x'",
                 "b.cal.db: another kind of GPU; one kind a file is allowed: H200 in the first "
                 "file, B200 here");
    refuse_merge("UPDATE sample_series SET inter = 1408 WHERE kind = 'expert'",
                 "a series of this name has another shape in the first file: expert-4096x1536x32");
    refuse_merge("UPDATE sample_point SET flops = flops * 2 WHERE role = 'sentinel'",
                 "a point means something else in the first file: expert-4096x1536x32");
    refuse_merge("UPDATE sample SET median_us = 0 WHERE id = 3", "row id 3: median_us is 0");
}

static const struct moe_sample_comparison_row *
find_row(const struct moe_sample_comparison *comparison, const char *name)
{
    for (uint32_t i = 0; i < comparison->count; i++) {
        if (strcmp(comparison->rows[i].name, name) == 0) {
            return &comparison->rows[i];
        }
    }
    cr_assert_fail("no row %s", name);
    return NULL;
}

Test(sample_files, compare_tells_what_changed)
{
    struct moe_error err = { 0 };
    struct moe_evidence a;
    struct moe_evidence b;
    struct moe_arena arena;
    struct moe_sample_comparison comparison;
    struct sample_world world = world_b();
    world.slow_gpu = 0;
    world.slow_factor = 1.08;
    write_pair(&world);
    change(b_path, "DELETE FROM sample WHERE id = (SELECT max(id) FROM sample)");
    cr_assert_eq(moe_evidence_load(&a, a_path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_evidence_load(&b, b_path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_arena_init(&arena, 2 * moe_sample_fit_bytes(&a), &err), MOE_OK);
    cr_assert_eq(moe_sample_compare(&comparison, &a, &b, &arena, &err), MOE_OK, "%s", err.text);
    const struct moe_sample_comparison_row *expert =
        find_row(&comparison, "expert-4096x1536x32-bf16-swiglu-own");
    cr_expect(expert->significant);
    cr_expect_gt(expert->ratio, 1.001);
    cr_expect_leq(expert->low, expert->ratio);
    cr_expect_geq(expert->high, expert->ratio);
    const struct moe_sample_comparison_row *permute = find_row(&comparison, "permute-7168-bf16");
    cr_expect_not(permute->significant, "p %g", permute->p);
    cr_expect(fabs(permute->ratio - 1.0) < 0.004);
    cr_expect_eq(comparison.only_first, 1);
    cr_expect_eq(comparison.only_second, 0);
    cr_expect(find_row(&comparison, "expert")->is_class);
    moe_evidence_finish(&b);
    /* With itself nothing is significant and every ratio 1. */
    cr_assert_eq(moe_sample_compare(&comparison, &a, &a, &arena, &err), MOE_OK);
    for (uint32_t i = 0; i < comparison.count; i++) {
        cr_expect_eq(comparison.rows[i].ratio, 1.0);
        cr_expect_not(comparison.rows[i].significant);
    }
    moe_evidence_finish(&a);
    moe_arena_finish(&arena);
}

Test(sample_files, plot_draws_points_and_line)
{
    struct moe_error err = { 0 };
    struct moe_evidence evidence;
    struct moe_arena arena;
    struct moe_sample_fit fit;
    const struct moe_calibration *base = NULL;
    const struct moe_sample_fit_options options = { 0 };
    const struct sample_world world = sample_world_plain(1);
    char text[8192];
    sample_world_write(&world, a_path);
    cr_assert_eq(moe_evidence_load(&evidence, a_path, &err), MOE_OK);
    cr_assert_eq(moe_arena_init(&arena, moe_sample_fit_bytes(&evidence), &err), MOE_OK);
    cr_assert_eq(moe_calibration_load(&base, "builtin", &arena, &err), MOE_OK);
    cr_assert_eq(moe_sample_fit_make(&fit, &evidence, base, &options, &arena, &err), MOE_OK);
    FILE *out = fmemopen(text, sizeof text, "w");
    cr_assert_not_null(out);
    cr_assert_eq(moe_sample_plot(&fit, "expert-4096x1536x32-bf16-swiglu-own", 0, 60, 20, out, &err),
                 MOE_OK, "%s", err.text);
    (void) fclose(out);
    cr_expect(strstr(text, "32 active") != NULL);
    /* Every line but the title and the scale is as wide as asked. */
    char *line = strchr(text, '\n') + 1;
    for (int i = 0; i < 20; i++) {
        char *end = strchr(line, '\n');
        cr_assert_not_null(end);
        cr_expect_eq(end - line, 14 + 60, "line %d", i);
        line = end + 1;
    }
    cr_expect(strchr(text, 'x') != NULL && strstr(text, "...") != NULL);
    cr_expect_eq(moe_sample_plot(&fit, "nonesuch", 0, 60, 20, stdout, &err), MOE_RANGE);
    cr_expect(strstr(err.text, "no series 'nonesuch'; there are: expert-4096") != NULL, "%s",
              err.text);
    cr_expect_eq(
        moe_sample_plot(&fit, "expert-4096x1536x32-bf16-swiglu-own", 5, 60, 20, stdout, &err),
        MOE_RANGE);
    moe_arena_finish(&arena);
    moe_evidence_finish(&evidence);
}

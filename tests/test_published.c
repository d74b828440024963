/* Published figures: what becomes of each format, and what is refused with its line. */
#include <criterion/criterion.h>
#include <gsl/gsl_errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/calibration/published.h"

static struct moe_arena arena;
static char folder[] = "/tmp/moesim-published-XXXXXX";
static char db_path[64];
static char text_path[64];

static void setup(void)
{
    (void) gsl_set_error_handler_off();
    cr_assert_eq(moe_arena_init(&arena, 64 << 20, NULL), MOE_OK);
    cr_assert_not_null(mkdtemp(folder));
    (void) snprintf(db_path, sizeof db_path, "%s/x.cal.db", folder);
    (void) snprintf(text_path, sizeof text_path, "%s/x.txt", folder);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
    (void) unlink(db_path);
    (void) unlink(text_path);
    (void) rmdir(folder);
}

TestSuite(published, .init = setup, .fini = teardown);

#define FORMATS MOE_SOURCE_ROOT "/tests/formats/"

static const struct moe_calibration *import(const char *path,
                                            const struct moe_published_options *options,
                                            struct moe_published_result *result)
{
    struct moe_error err = { 0 };
    const struct moe_calibration *base = NULL;
    const struct moe_calibration *made = NULL;
    (void) unlink(db_path);
    cr_assert_eq(moe_calibration_load(&base, "builtin", &arena, &err), MOE_OK);
    cr_assert_eq(moe_published_import(result, path, db_path, false, base, options, &arena, &err),
                 MOE_OK, "%s", err.text);
    cr_assert_eq(moe_calibration_load(&made, db_path, &arena, &err), MOE_OK, "%s", err.text);
    return made;
}

static double segment_ns(const struct moe_calibration *made, enum moe_segment_op op,
                         enum moe_link link, uint32_t ranks, double bytes)
{
    for (uint32_t i = 0; i < made->segment_count; i++) {
        const struct moe_calibration_segment *row = &made->segment_rows[i];
        if (row->op == op && row->link == link && row->ranks == ranks && bytes <= row->to_bytes) {
            cr_expect_eq(row->provenance, MOE_PROVENANCE_PUBLISHED);
            return row->alpha_ns + bytes / row->bandwidth_bytes_s * 1e9;
        }
    }
    cr_assert_fail("no curve of %s, %u ranks", moe_segment_op_name(op), ranks);
    return 0.0;
}

static void expect_near(double value, double truth, double tolerance)
{
    cr_expect(fabs(value / truth - 1.0) < tolerance, "%g instead of %g", value, truth);
}

Test(published, nccl_tests)
{
    const struct moe_published_options options = { .link = MOE_LINK_FAR };
    struct moe_published_result result;
    const struct moe_calibration *made =
        import(FORMATS "nccl_tests_alltoall.txt", &options, &result);
    cr_expect_eq(result.exchanges, 1);
    cr_expect_eq(result.points, 9);
    cr_expect_eq(result.skipped, 1); /* size 0 */
    /* 64 MiB in all: three quarters of it leave each of 4 ranks. */
    expect_near(segment_ns(made, MOE_SEGMENT_ALL_TO_ALL, MOE_LINK_FAR, 4, 0.75 * 67108864.0),
                513320.0, 0.01);
    expect_near(segment_ns(made, MOE_SEGMENT_ALL_TO_ALL, MOE_LINK_FAR, 4, 0.75 * 4096.0), 10030.0,
                0.01);
    /* The base's own curves stay. */
    cr_expect_gt(segment_ns(made, MOE_SEGMENT_ALL_TO_ALL, MOE_LINK_NEAR, 8, 1e6), 0.0);
}

Test(published, deepep)
{
    const struct moe_published_options options = { .link = MOE_LINK_NEAR };
    struct moe_published_result result;
    const struct moe_calibration *made =
        import(FORMATS "deepep_low_latency.txt", &options, &result);
    cr_expect_eq(result.exchanges, 2);
    cr_expect_eq(result.points, 4);
    /* The slower rank of each block: 198 GB/s for 37.5 us, and 100 GB/s for 20 us. */
    expect_near(segment_ns(made, MOE_SEGMENT_DISPATCH, MOE_LINK_NEAR, 2, 198e3 * 37.5), 37500.0,
                1e-4);
    expect_near(segment_ns(made, MOE_SEGMENT_DISPATCH, MOE_LINK_NEAR, 2, 100e3 * 20.0), 20000.0,
                1e-4);
    expect_near(segment_ns(made, MOE_SEGMENT_COMBINE, MOE_LINK_NEAR, 2, 210e3 * 67.0), 67000.0,
                1e-4);
}

Test(published, aiconfigurator)
{
    const struct moe_published_options options = { 0 };
    struct moe_published_result result;
    const struct moe_calibration *made =
        import(FORMATS "aiconfigurator_moe.csv", &options, &result);
    cr_expect_eq(result.series, 1);
    cr_expect_eq(result.points, 4);
    cr_expect_eq(result.skipped, 2);    /* a skewed row, a dtype without a table */
    cr_expect_eq(result.impossible, 1); /* 32 experts of 25 MB in 10 us */
    const struct moe_calibration_series *series = &made->series_rows[0];
    cr_expect_str_eq(series->name, "expert-4096x2048-fp8-toy_kernel-block");
    cr_expect_eq(series->permutation, 1);
    cr_expect_eq(series->provenance, MOE_PROVENANCE_PUBLISHED);
    cr_expect_eq(made->point_rows[0].active, 32);
    cr_expect_eq(made->point_rows[0].tokens, 1.0);
    cr_expect_eq(made->point_rows[3].tokens, 512.0);
    cr_expect_eq(made->point_rows[3].median_ns, 2.2e6);
    made = import(FORMATS "aiconfigurator_nccl.csv", &options, &result);
    /* message_size counts elements of two bytes; 7/8 of the result comes from others. */
    expect_near(
        segment_ns(made, MOE_SEGMENT_ALL_GATHER, MOE_LINK_NEAR, 8, 268435456.0 * 2.0 * 7.0 / 8.0),
        1395000.0, 0.01);
    made = import(FORMATS "aiconfigurator_gemm.csv", &options, &result);
    cr_expect_str_eq(made->series_rows[0].name, "gemm-7168x4096-bf16-published");
    uint32_t same_shape = 0;
    for (uint32_t i = 0; i < made->series_count; i++) {
        same_shape += made->series_rows[i].op == MOE_SERIES_GEMM &&
                      made->series_rows[i].hidden == 7168 &&
                      made->series_rows[i].expert_size == 4096 &&
                      made->series_rows[i].dtype == MOE_DTYPE_BF16;
    }
    cr_expect_eq(same_shape, 1); /* it takes the base's place */
}

static void refuse(const char *text, const struct moe_published_options *options,
                   const char *message)
{
    struct moe_error err = { 0 };
    struct moe_published_result result;
    const struct moe_calibration *base = NULL;
    FILE *file = fopen(text_path, "wb");
    cr_assert_not_null(file);
    (void) fputs(text, file);
    (void) fclose(file);
    cr_assert_eq(moe_calibration_load(&base, "builtin", &arena, &err), MOE_OK);
    cr_expect_neq(
        moe_published_import(&result, text_path, db_path, false, base, options, &arena, &err),
        MOE_OK, "not refused: %s", message);
    cr_expect(strstr(err.text, message) != NULL, "'%s' instead of '%s'", err.text, message);
    cr_expect_neq(access(db_path, F_OK), 0, "something was left behind");
}

#define NCCL_ROW   " 4096 256 float none -1 10.03 0.41 0.31 0 10.01 0.41 0.31 0\n"
#define NCCL_HEAD  "# size count type redop root time algbw busbw\n"
#define NCCL_RANKS "#  Rank  0 Group  0\n#  Rank  1 Group  0\n"

Test(published, what_is_refused)
{
    const struct moe_published_options none = { 0 };
    const struct moe_published_options nccl = { .format = "nccl-tests" };
    const struct moe_published_options wrong = { .format = "nonesuch" };
    const struct moe_published_options op = { .op = "scatter" };
    const struct moe_published_options kind = { .gpu_kind = "B200" };
    refuse("hello\n", &none, "looks like none of: csv nccl-tests deepep aiconfigurator");
    refuse("hello\n", &wrong, "--format: 'nonesuch'; allowed: auto csv nccl-tests");
    refuse("hello\n", &nccl, "no row of it can be used (0 skipped)");
    refuse("hello\n", &kind, "--gpu-kind: the base has no 'B200'; it has H200");
    refuse(NCCL_HEAD NCCL_RANKS NCCL_ROW, &none, "x.txt:4: which operation this is of is not said");
    refuse(NCCL_HEAD NCCL_RANKS NCCL_ROW, &op, "is not said: scatter; give --op");
    refuse("# Collective test starting: alltoall_perf\n" NCCL_HEAD NCCL_ROW, &none,
           "x.txt:3: no '# Rank' lines before the first row; give --ranks");
    refuse("# Collective test starting: alltoall_perf\n" NCCL_HEAD NCCL_RANKS
           " 4096 256 float none -1 fast 0.41 0.31 0\n",
           &none, "x.txt:5: time: 'fast' is not a number");
    refuse("[rank 0] Dispatch bandwidth: 1 GB/s, avg_t=3 us | Combine bandwidth: 1 GB/s, avg_t=3 "
           "us\n",
           &none, "times of 1 rank; give --ranks");
    refuse("[rank 0] Dispatch bandwidth: 1 GB/s, avg_t=3 us\n", &none,
           "x.txt:1: a line of dispatch without a combine");
    refuse("[rank 0] Dispatch bandwidth: nan GB/s, avg_t=3 us | Combine bandwidth: 1 GB/s, "
           "avg_t=3 us\n",
           &none, "x.txt:1: nan GB/s in 3 us");
    refuse("gemm_dtype,m,n,latency\nbfloat16,1,1,1\n", &none, "x.txt:1: no column k");
    refuse("gemm_dtype,m,n,k,latency\nbfloat16,1,0,1,1\n", &none,
           "x.txt:2: n: '0' is not a number from 1");
    refuse("gemm_dtype,m,n,k,latency\nbfloat16,1,4096\n", &none, "x.txt:2: k: ''");
    refuse("gemm_dtype,m,n,k,latency\nint4,1,4096,64,1\n", &none,
           "no row of it can be used (1 skipped)");
}

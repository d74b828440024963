/* The sample store: rows come back as they went in, keys are found again, nonsense is refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "calibrate/samples/sample_store.h"

static char folder[] = "/tmp/moesim-samples-XXXXXX";
static char path[64];
static struct moe_sample_store *store;
static struct moe_error err;

static void setup(void)
{
    cr_assert_not_null(mkdtemp(folder));
    (void) snprintf(path, sizeof path, "%s/s.cal.db", folder);
    cr_assert_eq(moe_sample_store_open(path, &store, &err), MOE_OK, "%s", err.text);
}

static void teardown(void)
{
    moe_sample_store_close(store);
    (void) unlink(path);
    (void) rmdir(folder);
}

TestSuite(sample_store, .init = setup, .fini = teardown);

static const struct moe_sample_gpu gpu = { .uuid = "GPU-1", .name = "NVIDIA H200", .kind = "H200" };

static const struct moe_sample_run run = { .started_at = "2026-01-01T00:00:00Z",
                                           .command = "measure",
                                           .moecal = "0.1.0",
                                           .driver = "",
                                           .cuda = "13.0",
                                           .cublas = "",
                                           .nccl = "",
                                           .seed = UINT64_MAX,
                                           .gpu_count = 1,
                                           .settings = "{}" };

static struct moe_sample_series a_series(void)
{
    return (struct moe_sample_series){ .name = "expert-64x32x4-bf16-own",
                                       .kind = "expert",
                                       .models = "",
                                       .hidden = 64,
                                       .inter = 32,
                                       .units = 4,
                                       .dtype = "bf16",
                                       .activation = "swiglu",
                                       .backend = "own",
                                       .ranks = 1,
                                       .src = -1,
                                       .dst = -1 };
}

static int64_t scalar(const char *sql)
{
    int64_t out = -1;
    cr_assert_eq(moe_database_scalar(moe_sample_store_database(store), sql, -2, &out, &err), MOE_OK,
                 "%s", err.text);
    return out;
}

static void add_row(double median_us, enum moe_status expected)
{
    int64_t ids[4] = { 0 };
    const int32_t rows[4] = { 1, 2, 3, 6 };
    const float us[3] = { 1.0F, 2.0F, 3.0F };
    const struct moe_sample_series series = a_series();
    cr_assert_eq(moe_sample_add_gpu(store, &gpu, &ids[0], &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_sample_begin_run(store, &run, &ids[1], &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_sample_add_series(store, &series, &ids[2], &err), MOE_OK, "%s", err.text);
    const struct moe_sample_point point = { .series = ids[2],
                                            .role = "skew",
                                            .tokens = 3.0,
                                            .active = 4,
                                            .row_max = 6,
                                            .histogram = "random-1",
                                            .rows = rows,
                                            .rows_bytes = sizeof rows };
    cr_assert_eq(moe_sample_add_point(store, &point, &ids[3], &err), MOE_OK, "%s", err.text);
    const struct moe_sample_row row = { .point = ids[3],
                                        .run = ids[1],
                                        .gpu = ids[0],
                                        .pass = 1,
                                        .seq = 7,
                                        .n = 3,
                                        .median_us = median_us,
                                        .p99_us = (double) NAN,
                                        .error = 0.001,
                                        .throttle = 4,
                                        .dropped = 2,
                                        .flags = "bimodal" };
    int64_t sample = 0;
    cr_assert_eq(moe_sample_add_row(store, &row, &sample, &err), expected);
    if (expected == MOE_OK) {
        cr_assert_eq(moe_sample_add_raw(store, sample, us, 3, &err), MOE_OK, "%s", err.text);
    }
}

Test(sample_store, keeps_what_it_is_given)
{
    add_row(2.0, MOE_OK);
    cr_assert_eq(scalar("SELECT count(*) FROM sample WHERE median_us = 2.0 AND p99_us IS NULL"
                        " AND seq = 7 AND throttle = 4 AND dropped = 2 AND flags = 'bimodal'"
                        " AND error = 0.001"),
                 1);
    cr_assert_eq(scalar("SELECT length(us) FROM sample_raw"), 12);
    cr_assert_eq(scalar("SELECT seed FROM sample_run"), -1);
    cr_assert_eq(scalar("SELECT wall_s IS NULL FROM sample_run"), 1);
    cr_assert_eq(scalar("SELECT hex(rows) = '01000000020000000300000006000000' FROM sample_point"),
                 1);
    cr_assert_eq(moe_sample_end_run(store, 1, 12.5, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(scalar("SELECT wall_s = 12.5 FROM sample_run"), 1);
}

Test(sample_store, finds_its_keys_again_also_after_reopening)
{
    add_row(2.0, MOE_OK);
    moe_sample_store_close(store);
    store = NULL;
    cr_assert_eq(moe_sample_store_open(path, &store, &err), MOE_OK, "%s", err.text);
    add_row(3.0, MOE_OK);
    cr_assert_eq(scalar("SELECT count(*) FROM sample_gpu"), 1);
    cr_assert_eq(scalar("SELECT count(*) FROM sample_series"), 1);
    cr_assert_eq(scalar("SELECT count(*) FROM sample_point"), 1);
    cr_assert_eq(scalar("SELECT count(*) FROM sample_run"), 2);
    cr_assert_eq(scalar("SELECT count(*) FROM sample"), 2);
}

Test(sample_store, refuses_a_time_that_is_none)
{
    add_row(0.0, MOE_RANGE);
    add_row((double) NAN, MOE_RANGE);
    add_row((double) INFINITY, MOE_RANGE);
    cr_assert_eq(scalar("SELECT count(*) FROM sample"), 0);
}

Test(sample_store, refuses_a_series_of_another_shape)
{
    int64_t id = 0;
    struct moe_sample_series series = a_series();
    cr_assert_eq(moe_sample_add_series(store, &series, &id, &err), MOE_OK, "%s", err.text);
    series.hidden = 65;
    cr_assert_eq(moe_sample_add_series(store, &series, &id, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "another shape"));
}

Test(sample_store, leaves_nothing_behind_when_nothing_ran)
{
    moe_sample_store_close(store);
    store = NULL;
    cr_assert_neq(access(path, F_OK), 0);
}

Test(sample_store, refuses_a_file_of_another_kind)
{
    char other[80];
    (void) snprintf(other, sizeof other, "%s/other", folder);
    FILE *file = fopen(other, "wb");
    cr_assert_not_null(file);
    (void) fputs("this is no database, and long enough that SQLite says so.............", file);
    (void) fclose(file);
    struct moe_sample_store *none = NULL;
    cr_assert_eq(moe_sample_store_open(other, &none, &err), MOE_PARSE);
    cr_assert_null(none);
    cr_assert_eq(access(other, F_OK), 0);
    (void) unlink(other);
}

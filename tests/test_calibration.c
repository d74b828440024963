/* Calibration files: what is refused, with its place, and what comes back as it went in. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/cost/calibration.h"
#include "sim/cost/calibration_hash.h"

static const char tiny_path[] = MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv";

static struct moe_arena arena;
static char folder[] = "/tmp/moesim-calibration-XXXXXX";
static char db_path[64];
static char csv_path[64];
static char tiny[1 << 16]; /* the text of tiny_path */

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, 4 << 20, NULL), MOE_OK);
    cr_assert_not_null(mkdtemp(folder));
    (void) snprintf(db_path, sizeof db_path, "%s/x.cal.db", folder);
    (void) snprintf(csv_path, sizeof csv_path, "%s/x.csv", folder);
    FILE *file = fopen(tiny_path, "rb");
    cr_assert_not_null(file);
    tiny[fread(tiny, 1, sizeof tiny - 1, file)] = '\0';
    (void) fclose(file);
}

static void teardown(void)
{
    (void) unlink(db_path);
    (void) unlink(csv_path);
    (void) rmdir(folder);
    moe_arena_finish(&arena);
}

TestSuite(calibration, .init = setup, .fini = teardown);

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fputs(text, file) < 0, 0);
    (void) fclose(file);
}

/* tiny with the first `from` replaced by `to`. */
static const char *edited(const char *from, const char *to)
{
    static char text[sizeof tiny + 4096];
    const char *at = strstr(tiny, from);
    cr_assert_not_null(at, "'%s' is not in the table", from);
    (void) snprintf(text, sizeof text, "%.*s%s%s", (int) (at - tiny), tiny, to, at + strlen(from));
    return text;
}

static void refuse(const char *text, enum moe_status status, const char *message)
{
    struct moe_error err = { 0 };
    const struct moe_calibration *calibration = NULL;
    moe_arena_reset(&arena);
    cr_expect_eq(moe_calibration_parse(&calibration, text, strlen(text), "t.csv",
                                       MOE_CALIBRATION_FITTED, &arena, &err),
                 status, "not refused: %s", message);
    cr_expect_null(calibration);
    cr_expect(strstr(err.text, message) != NULL, "'%s' instead of '%s'", err.text, message);
}

Test(calibration, refuses_bad_lines_at_line_and_column)
{
    refuse("series,a\n", MOE_PARSE, "t.csv:1:1: 'series' stands where a line that begins with");
    refuse("# c\n\ntable\n", MOE_PARSE, "t.csv:3:1: `table` needs");
    refuse("table,nonesuch,a\n", MOE_RANGE,
           "t.csv:1:7: no table 'nonesuch'; there are: gpu_kind gpu series point fit segment "
           "parameter factor jitter drift");
    refuse("table,drift,gpu_kind,phi,sigma,foo,provenance,source\n", MOE_RANGE,
           "t.csv:1:32: table drift has no column 'foo'");
    refuse("table,drift,gpu_kind,phi,phi,provenance,source\n", MOE_RANGE,
           "t.csv:1:26: table drift is given twice its 'phi'");
    refuse("table,drift,gpu_kind,phi,provenance,source\n", MOE_RANGE,
           "t.csv:1:7: table drift needs a column 'sigma'");
    refuse("table,drift,gpu_kind,phi,sigma,provenance,source\ndrift,toy,1\n", MOE_PARSE,
           "t.csv:2:1: 3 fields; the table's line names 6");
    refuse("table,drift,gpu_kind,phi,sigma,provenance,source\nfit,a,1,1,assumed,x\n", MOE_PARSE,
           "t.csv:2:1: 'fit' stands where `drift` or `table` was expected");
    refuse("table,drift,gpu_kind,\"phi\n", MOE_PARSE, "t.csv:1:22: a quote that does not end");
    refuse("table,drift,gpu_kind,\"phi\"x\n", MOE_PARSE, "t.csv:1:27: a comma or the end");
    refuse("table,drift,gpu_kind,ph\"i\n", MOE_PARSE, "t.csv:1:24: a comma or the end");
    refuse("table,a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v\n", MOE_PARSE,
           "t.csv:1:49: more fields than any table has");
}

Test(calibration, refuses_bad_values_at_line_and_column)
{
    refuse(edited("drift,toy,0.9,", "drift, toy ,  1.5,"), MOE_RANGE,
           ":15: phi: '1.5' is not a number from 0 to 1");
    refuse(edited("drift,toy,0.9,", "drift,toy,nan,"), MOE_RANGE,
           ":11: phi: 'nan' is not a number from 0 to 1");
    refuse(edited("drift,toy,0.9,", "drift,toy,,"), MOE_RANGE, ":11: phi: '' is not a number");
    refuse(edited("yes,fp8,toy,4", "yes,int3,toy,4"), MOE_RANGE,
           ": dtype is 'int3'; allowed: bf16 fp8 fp4");
    refuse(edited("yes,fp8,toy,4", "yes,fp,toy,4"), MOE_RANGE, ": dtype is 'fp'; allowed");
    refuse(edited("yes,fp8,toy,4", "yes,fp8,toy,0"), MOE_RANGE,
           ": tile_tokens: '0' is not a whole number from 1 to 1024");
    refuse(edited("drift,toy,0.9,0.01,assumed", "drift,toy,0.9,0.01,guessed"), MOE_RANGE,
           ": provenance is 'guessed'; allowed: measured interpolated extrapolated published "
           "assumed");
    refuse(edited("0.01,assumed,round numbers\n", "0.01,assumed,\n"), MOE_RANGE,
           ": source has 0 bytes; 1 to 400 are allowed");
    refuse(edited("fit,any-bf16,", "fit,toy-fp8,"), MOE_RANGE,
           ":1: a second row of table fit for the same thing");
}

Test(calibration, refuses_what_no_single_value_shows)
{
    refuse("", MOE_RANGE, "t.csv: table gpu_kind has no rows");
    refuse(edited("fit,any-fp4,500,2e9,1e10,1,assumed,round numbers\n", ""), MOE_RANGE,
           "table series, row 4: 'any-fp4' has no row in table fit; `moesim cal fit`");
    refuse(edited("point,toy-fp8,1,2", "point,toy-fp7,1,2"), MOE_RANGE,
           "table point, row 1: series is 'toy-fp7'");
    refuse(edited("point,toy-fp8,1,2", "point,any-bf16,1,2"), MOE_RANGE,
           "'any-bf16' is a generic series and can have no points");
    refuse(edited("drift,toy", "drift,boy"), MOE_RANGE, "table drift, row 1: gpu_kind is 'boy'");
    refuse(edited("near,2,10000,", "near,2,10001,"), MOE_RANGE,
           "table segment, row 2: from_bytes is 10001; 10000 continues its curve");
    refuse(edited("far,8,0,1000000,", "far,8,0,0,"), MOE_RANGE, "to_bytes: '0' is not a number");
    refuse(edited("host.step_ns", "host.step"), MOE_RANGE,
           "table parameter, row 2: name is 'host.step'");
    refuse(edited("attention.p,1,", "attention.p,17,"), MOE_RANGE,
           "value of attention.p is 17; 1 to 16 are allowed");
    refuse(edited("1,1.04,1.1,1.2,", "1,1.04,1.3,1.2,"), MOE_RANGE,
           "table jitter, row 2: the quantiles from min to p99 must not fall");
    refuse(edited("0.01,1.1,1.5", "0.01,1.1,1.05"), MOE_RANGE, "tail_max is 1.05; tail_min (1.1)");
    refuse(edited("100,50,yes,fp8", "100,0,yes,fp8"), MOE_RANGE, "hidden is 100 and expert_size 0");
}

Test(calibration, refuses_what_no_hardware_can)
{
    /* toy reads 2000 B/ns and computes 200 FLOP/ns (1e14/s is 100,000 a ns, fp8 twice that):
     * two experts of 15000 bytes take 14.7 ns at 2 % over the ceiling. */
    refuse(edited("point,toy-fp8,1,2,40000,", "point,toy-fp8,1,2,14,"), MOE_RANGE,
           "table point, row 1: median_ns is 14; a toy needs 14.7");
    refuse(edited("fit,toy-fp8,1000,1e9,", "fit,toy-fp8,1000,2.1e12,"), MOE_RANGE,
           "table fit, row 1: bandwidth_bytes_s is 2.1e+12; at most 2.04e+12 on a toy");
    refuse(edited("fit,any-bf16,500,2e9,1e10,", "fit,any-bf16,500,2e9,1.06e14,"), MOE_RANGE,
           "table fit, row 2: peak_flop_s is 1.06e+14; at most 1.05e+14");
}

static void expect_same(const struct moe_calibration *a, const struct moe_calibration *b)
{
    cr_assert_eq(a->point_count, b->point_count);
    for (uint32_t i = 0; i < a->point_count; i++) {
        cr_expect_eq(a->point_rows[i].median_ns, b->point_rows[i].median_ns);
        cr_expect_eq(a->point_rows[i].provenance, b->point_rows[i].provenance);
        cr_expect_eq(a->point_rows[i].p99_ns, b->point_rows[i].p99_ns);
    }
    cr_assert_eq(a->series_count, b->series_count);
    for (uint32_t i = 0; i < a->series_count; i++) {
        cr_expect_str_eq(a->series_rows[i].name, b->series_rows[i].name);
        cr_expect_eq(a->series_rows[i].dtype, b->series_rows[i].dtype);
    }
    cr_assert_eq(a->segment_count, b->segment_count);
    cr_assert_eq(a->parameter_count, b->parameter_count);
    for (uint32_t i = 0; i < a->parameter_count; i++) {
        cr_expect_eq(a->parameter_rows[i].value, b->parameter_rows[i].value);
    }
}

Test(calibration, a_file_gives_back_what_the_table_said)
{
    const struct moe_calibration *from_text = NULL;
    const struct moe_calibration *from_file = NULL;
    struct moe_error err = { 0 };
    /* Quotes, blanks, CRLF, an optional column and 17 digits survive. */
    write_file(csv_path,
               edited("point,toy-fp8,1,2,40000,measured,round numbers\n",
                      "table,point,source,median_ns,p99_ns,series,active,tokens,provenance\r\n"
                      "point , \"a, \"\"b\"\"\" ,40000.123456789012,41000,toy-fp8,2,1,measured\r\n"
                      "table,point,series,tokens,active,median_ns,provenance,source\n"));
    cr_assert_eq(
        moe_calibration_parse_file(&from_text, csv_path, MOE_CALIBRATION_FITTED, &arena, &err),
        MOE_OK, "%s", err.text);
    cr_expect_str_eq(from_text->point_rows[0].source, "a, \"b\"");
    cr_expect_eq(from_text->point_rows[0].median_ns, 40000.123456789012);
    cr_expect_eq(from_text->point_rows[0].p99_ns, 41000);
    cr_expect_eq(from_text->point_rows[1].p99_ns, 0);
    cr_assert_eq(moe_calibration_import(csv_path, db_path, false, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_calibration_load(&from_file, db_path, &arena, &err), MOE_OK, "%s", err.text);
    expect_same(from_text, from_file);
}

Test(calibration, import_leaves_all_or_nothing)
{
    struct moe_error err = { 0 };
    const struct moe_calibration *calibration = NULL;
    char partial[80];
    (void) snprintf(partial, sizeof partial, "%s.partial", db_path);
    write_file(csv_path, edited("drift,toy,0.9,", "drift,toy,2,"));
    cr_expect_eq(moe_calibration_import(csv_path, db_path, false, &err), MOE_RANGE);
    cr_expect_neq(access(db_path, F_OK), 0);
    cr_expect_neq(access(partial, F_OK), 0);
    write_file(partial, "left over from a killed import");
    cr_expect_eq(moe_calibration_import(tiny_path, db_path, false, &err), MOE_OK, "%s", err.text);
    cr_expect_eq(moe_calibration_import(tiny_path, db_path, false, &err), MOE_RANGE);
    cr_expect(strstr(err.text, "exists already; give --overwrite") != NULL, "%s", err.text);
    cr_expect_eq(moe_calibration_import(csv_path, db_path, true, &err), MOE_RANGE);
    cr_expect_eq(moe_calibration_load(&calibration, db_path, &arena, &err), MOE_OK, "still there");
    cr_expect_eq(moe_calibration_import(tiny_path, db_path, true, &err), MOE_OK, "%s", err.text);
    cr_expect_eq(moe_calibration_import("/nonesuch.csv", db_path, true, &err), MOE_IO);
    cr_expect_eq(moe_calibration_import(tiny_path, "/nonesuch/x.db", false, &err), MOE_IO);
    cr_expect_neq(access(partial, F_OK), 0);
}

static void refuse_file(const char *sql, enum moe_status status, const char *message)
{
    struct moe_error err = { 0 };
    const struct moe_calibration *calibration = NULL;
    sqlite3 *handle = NULL;
    cr_assert_eq(moe_calibration_import(tiny_path, db_path, true, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(sqlite3_open(db_path, &handle), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK, "%s", sql);
    cr_assert_eq(sqlite3_close(handle), SQLITE_OK);
    cr_expect_eq(moe_calibration_load(&calibration, db_path, &arena, &err), status, "%s", sql);
    cr_expect(strstr(err.text, message) != NULL, "'%s' instead of '%s'", err.text, message);
    cr_expect(strstr(err.text, db_path) != NULL, "'%s' does not name the file", err.text);
}

Test(calibration, a_file_of_version_1_reads_as_before)
{
    struct moe_error err = { 0 };
    const struct moe_calibration *now = NULL;
    const struct moe_calibration *then = NULL;
    sqlite3 *handle = NULL;
    cr_assert_eq(moe_calibration_import(tiny_path, db_path, true, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_calibration_load(&now, db_path, &arena, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(sqlite3_open(db_path, &handle), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(handle,
                              "DROP TABLE clock; DROP TABLE sustained; DROP TABLE gpu_interval; "
                              "DROP TABLE fit_quality; DROP TABLE fitting; PRAGMA user_version = 1",
                              NULL, NULL, NULL),
                 SQLITE_OK);
    cr_assert_eq(sqlite3_close(handle), SQLITE_OK);
    cr_assert_eq(moe_calibration_load(&then, db_path, &arena, &err), MOE_OK, "%s", err.text);
    cr_expect_eq(moe_calibration_hash(then), moe_calibration_hash(now));
    cr_expect_eq(then->fit_quality_count, 0);
}

Test(calibration, a_damaged_file_is_refused_with_table_row_and_column)
{
    refuse_file("UPDATE point SET median_ns = -3 WHERE rowid = 3", MOE_RANGE,
                "table point, row 3: median_ns: '-3.0' is not a number from 1 to 1e+12");
    refuse_file("UPDATE point SET median_ns = 'fast' WHERE rowid = 1", MOE_RANGE,
                "table point, row 1: median_ns: 'fast' is not a number");
    refuse_file("UPDATE series SET tile_tokens = 4.5 WHERE rowid = 2", MOE_RANGE,
                "table series, row 2: tile_tokens: '4.5' is not a whole number");
    refuse_file("UPDATE fit SET provenance = 'no' WHERE rowid = 1", MOE_RANGE,
                "table fit, row 1: provenance is 'no'; allowed: measured");
    refuse_file("DELETE FROM fit", MOE_RANGE, "table series, row 1: 'toy-fp8' has no row");
    refuse_file("ALTER TABLE drift DROP COLUMN phi", MOE_PARSE, "no such column: phi");
    refuse_file("PRAGMA user_version = 99", MOE_UNSUPPORTED,
                "schema version 99; this program reads 1 to 2");
    refuse_file("PRAGMA application_id = 1", MOE_PARSE, "not a calibration");
}

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sim/report/report.h"
#include "sim/report/run_store.h"
#include "tests/study_fixture.h"

static struct study_fixture fixture;
static char folder[64];

static void begin(void)
{
    (void) snprintf(folder, sizeof folder, "/tmp/moesim_run_XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
    fixture_make(&fixture, 3);
    fixture_judge(&fixture);
}

static void end(void)
{
    fixture_finish(&fixture);
    (void) remove("run.db");
    (void) remove("again.db");
    cr_assert_eq(rmdir(folder), 0, "%s holds more than the stores", folder);
}

TestSuite(run_store, .init = begin, .fini = end);

static int64_t ask(const char *sql)
{
    struct moe_database db;
    int64_t value = -1;
    cr_assert_eq(moe_database_open(&db, &moe_run_store_database, "run.db", MOE_DATABASE_READ, NULL),
                 MOE_OK);
    cr_assert_eq(moe_database_scalar(&db, sql, -1, &value, NULL), MOE_OK, "%s", sql);
    moe_database_close(&db);
    return value;
}

static void write_store(void)
{
    struct moe_error err = { .text = "" };
    cr_assert_eq(moe_run_store_write(&fixture.study, "run.db", false, &err), MOE_OK, "%s",
                 err.text);
}

Test(run_store, keeps_what_a_repeat_needs)
{
    struct moe_run_record record;
    char scenario[65536];
    char *report = NULL;
    write_store();
    cr_assert_eq(moe_run_store_read(&record, "run.db", NULL), MOE_OK);
    moe_scenario_write(&fixture.scenario, scenario, sizeof scenario);
    cr_assert_eq(moe_report_json_text(&fixture.study, &report, NULL), MOE_OK);
    cr_assert_str_eq(record.scenario, scenario);
    cr_assert_str_eq(record.report, report);
    cr_assert_eq(record.trace_hash, 0x0123456789abcdef);
    cr_assert_eq(record.calibration_hash, 0xfedcba9876543210);
    cr_assert_neq(record.program_version[0], '\0');
    moe_run_record_finish(&record);
    moe_run_record_finish(&record);
    free(report);
}

Test(run_store, answers_questions_in_sql)
{
    write_store();
    cr_assert_eq(ask("SELECT count(*) FROM policy"), FIXTURE_POLICIES);
    cr_assert_eq(ask("SELECT count(*) FROM policy WHERE name = 'eplb' AND mark = 'best'"), 1);
    cr_assert_eq(ask("SELECT sum(tokens) FROM account WHERE policy = 1"), 3 * 2600LL);
    cr_assert_eq(ask("SELECT sum(idle_ns) FROM cause WHERE policy = 1"),
                 3LL * 15 * FIXTURE_CAUSE_NS + 5LL * (7 + 8 + 9));
    cr_assert_eq(ask("SELECT sum(time_ns) FROM part_provenance WHERE policy = 0"), 3000000000LL);
    cr_assert_eq(ask("SELECT count(*) FROM metric_seed WHERE metric = 'itl_p50_ms'"), 9,
                 "three policies that fit, three seeds");
    cr_assert_eq(ask("SELECT sum(tokens) FROM expert WHERE policy = 0"), 3 * 4900LL);
    cr_assert_eq(ask("SELECT count(*) FROM placement WHERE policy = 0"),
                 (int64_t) FIXTURE_LAYERS * FIXTURE_SLOTS,
                 "the plan is the same in all seeds: once");
    cr_assert_eq(ask("SELECT count(*) FROM gpu WHERE in_tail = 1"), 3, "in every policy that fits");
    cr_assert_eq(ask("SELECT count(*) FROM placement WHERE gpu <> slot / 2"), 0);
    cr_assert_eq(ask("SELECT count(*) FROM metric WHERE mean IS NULL"), 0);
}

Test(run_store, another_plan_of_a_seed_is_kept_and_empty_slots_are_not)
{
    fixture.runs[1][2].expert_of_slot[0] = 3;
    fixture.runs[1][2].expert_of_slot[5] = MOE_SLOT_EMPTY;
    write_store();
    cr_assert_eq(ask("SELECT count(*) FROM placement WHERE policy = 1 AND seed = 7"), 16);
    cr_assert_eq(ask("SELECT count(*) FROM placement WHERE policy = 1 AND seed = 8"), 0);
    cr_assert_eq(ask("SELECT count(*) FROM placement WHERE policy = 1 AND seed = 9"), 15);
}

static size_t read_bytes(const char *path, char *bytes, size_t limit)
{
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file);
    const size_t count = fread(bytes, 1, limit, file);
    (void) fclose(file);
    cr_assert_lt(count, limit);
    return count;
}

Test(run_store, same_study_same_file)
{
    enum { LIMIT = 4 << 20 };
    char *one = malloc(LIMIT);
    char *two = malloc(LIMIT);
    cr_assert(one != NULL && two != NULL);
    write_store();
    fixture.study.wall_seconds = 1.0;
    cr_assert_eq(moe_run_store_write(&fixture.study, "again.db", false, NULL), MOE_OK);
    const size_t bytes = read_bytes("run.db", one, LIMIT);
    cr_assert_eq(read_bytes("again.db", two, LIMIT), bytes);
    cr_assert_eq(memcmp(one, two, bytes), 0);
    free(one);
    free(two);
}

Test(run_store, an_existing_file_is_refused_and_left_alone)
{
    struct moe_error err;
    write_store();
    fixture.study.trace_hash = 1;
    cr_assert_eq(moe_run_store_write(&fixture.study, "run.db", false, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "--overwrite"), "%s", err.text);
    cr_assert_eq(ask("SELECT value = '0123456789abcdef' FROM run WHERE name = 'trace_hash'"), 1);
    cr_assert_eq(moe_run_store_write(&fixture.study, "run.db", true, &err), MOE_OK);
    cr_assert_eq(ask("SELECT value = '0000000000000001' FROM run WHERE name = 'trace_hash'"), 1);
}

Test(run_store, a_folder_that_is_not_there_is_the_world_failing)
{
    cr_assert_eq(moe_run_store_write(&fixture.study, "nowhere/run.db", false, NULL), MOE_IO);
}

/* A limit on the size of files stands in for a full disk. end() sees what is left behind. */
Test(run_store, a_full_disk_leaves_nothing)
{
    struct rlimit limit;
    struct moe_error err = { .text = "" };
    (void) signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = 100000;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(moe_run_store_write(&fixture.study, "run.db", false, &err), MOE_IO, "%s",
                 err.text);
    limit.rlim_cur = limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_neq(access("run.db", F_OK), 0);
}

Test(run_store, damaged_entries_are_refused)
{
    struct moe_run_record record;
    struct moe_error err;
    sqlite3 *db = NULL;
    write_store();
    cr_assert_eq(sqlite3_open("run.db", &db), SQLITE_OK);
    cr_assert_eq(
        sqlite3_exec(db, "UPDATE run SET value = 'x' WHERE name = 'trace_hash'", NULL, NULL, NULL),
        SQLITE_OK);
    cr_assert_eq(moe_run_store_read(&record, "run.db", &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "trace_hash"), "%s", err.text);
    cr_assert_eq(sqlite3_exec(db, "DELETE FROM run WHERE name = 'trace_hash'", NULL, NULL, NULL),
                 SQLITE_OK);
    cr_assert_eq(moe_run_store_read(&record, "run.db", &err), MOE_PARSE);
    cr_assert_eq(sqlite3_exec(db, "PRAGMA user_version = 2", NULL, NULL, NULL), SQLITE_OK);
    cr_assert_eq(moe_run_store_read(&record, "run.db", &err), MOE_UNSUPPORTED);
    cr_assert_eq(sqlite3_exec(db, "PRAGMA application_id = 1", NULL, NULL, NULL), SQLITE_OK);
    cr_assert_eq(moe_run_store_read(&record, "run.db", &err), MOE_PARSE, "another kind of file");
    (void) sqlite3_close(db);
}

#include "sim/base/hash.h"
#include "tests/trace_fixture.h"
#include "traces/trace_schema.h"
#include "traces/trace_store.h"
#include "traces/trace_verify.h"

TestSuite(trace_store, .init = fixture_setup, .fini = fixture_teardown, .timeout = 120);

/* Reads made-up ranges, many over blob borders, and compares every id with the function
 * that it was made by. */
static void check_reads(struct moe_trace *trace, uint32_t unknown_every, int reads)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    const struct moe_trace_layout layout = moe_trace_layout_of(model);
    const uint64_t rows = moe_trace_row_count(trace);
    const uint64_t full = UINT64_C(1) << layout.row_shift;
    const uint64_t key = moe_random_key(4, MOE_RANDOM_TEST);
    const size_t per_row = layout.ids_per_row;
    uint16_t *out = malloc(200 * per_row * sizeof *out);
    for (uint64_t i = 0; i < (uint64_t) reads; i++) {
        uint64_t first = moe_random_below(key, 3 * i, rows);
        if (i % 2 == 1) { /* around the border of a made-up blob */
            first = (first / full + 1) * full;
            const uint64_t back = moe_random_below(key, 3 * i + 1, 100);
            first = first > rows ? rows - 1 : first;
            first = first > back ? first - back : 0;
        }
        uint64_t count = moe_random_below(key, 3 * i + 2, 200);
        count = count < rows - first ? count : rows - first;
        struct moe_error err = { 0 };
        cr_assert_eq(moe_trace_read(trace, first, count, out, &err), MOE_OK, "%s", err.text);
        for (uint64_t j = 0; j < count * per_row; j++) {
            cr_assert_eq(out[j], fixture_choice(model, first * per_row + j, unknown_every),
                         "row %llu", (unsigned long long) (first + j / per_row));
        }
    }
    free(out);
}

static void round_trip(uint32_t layers, uint32_t experts, uint32_t top_k, uint32_t unknown_every,
                       uint64_t request_count)
{
    const struct moe_trace_model model = fixture_model(layers, experts, top_k);
    const char *path = fixture_path("t.db");
    struct moe_error err = { 0 };
    struct moe_trace *trace = NULL;
    const uint64_t hash = fixture_store(path, &model, request_count, unknown_every);
    cr_assert_eq(moe_trace_open(&trace, path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_hash(trace), hash);
    cr_assert_eq(memcmp(moe_trace_model(trace), &model, sizeof model), 0);
    cr_assert_eq(moe_trace_request_count(trace), request_count);
    uint64_t rows = 0;
    for (uint64_t i = 0; i < request_count; i++) {
        const struct moe_trace_request *got = &moe_trace_requests(trace)[i];
        const struct moe_trace_request sent = fixture_request(i);
        cr_assert_eq(got->first_row, rows);
        cr_assert_eq(got->arrival_ns, sent.arrival_ns);
        cr_assert_eq(got->prompt_tokens, sent.prompt_tokens);
        cr_assert_eq(got->output_tokens, sent.output_tokens);
        cr_assert_eq(got->domain, sent.domain);
        rows += sent.prompt_tokens + sent.output_tokens - 1;
    }
    cr_assert_eq(moe_trace_row_count(trace), rows);
    moe_trace_limit_cache(trace, 2 << 20); /* two blobs: most reads push one out */
    check_reads(trace, unknown_every, 200);
    moe_trace_close(trace);
}

Test(trace_store, gives_back_one_byte_ids_over_many_blobs)
{
    round_trip(40, 256, 8, 0, 80);
}

Test(trace_store, gives_back_two_byte_ids_over_many_blobs)
{
    round_trip(40, 257, 8, 0, 50);
}

Test(trace_store, keeps_unknown_choices_of_both_widths)
{
    round_trip(30, 128, 6, 50, 80);
    cr_assert_eq(unlink(fixture_path("t.db")), 0);
    round_trip(7, 896, 3, 2, 200);
}

Test(trace_store, gives_back_the_smallest_trace)
{
    round_trip(1, 1, 1, 0, 1);
}

/* An import that fails midway, is run again, and fails and is run again, by a producer
 * that seeks and by one that does not, ends as one that never failed. */
static void resume(bool seeks)
{
    const struct moe_trace_model model = fixture_model(60, 256, 8);
    const struct moe_trace_history history = { 0 };
    const char *path = fixture_path("resumed.db");
    const uint64_t whole = fixture_store(fixture_path("whole.db"), &model, 400, 1000);
    const uint64_t stops[] = { 100, 40000, 65000, UINT64_MAX };
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    uint64_t stored = 0;
    uint64_t hash = 0;
    for (int i = 0; i < 4; i++) {
        struct moe_trace_writer *writer = NULL;
        uint64_t request = 0;
        uint64_t row = 0;
        cr_assert_eq(moe_trace_writer_open(&writer, path, false, &model, &history, &err), MOE_OK,
                     "%s", err.text);
        if (seeks) {
            moe_trace_writer_resume(writer, &request, &row);
            cr_assert_geq(row, stored);
            stored = row;
        }
        cr_assert_eq(fixture_send(writer, &model, 400, 1000, request, row, stops[i]), MOE_OK);
        if (i == 3) {
            cr_assert_eq(moe_trace_writer_finish(writer, &hash, &err), MOE_OK, "%s", err.text);
        }
        const bool goes_on = moe_trace_writer_close(writer, i == 3 ? MOE_OK : MOE_IO);
        cr_assert_eq(goes_on, i == 1 || i == 2, "stop %d", i);
        cr_assert_eq(access(path, F_OK) == 0, i > 0, "stop %d", i);
        cr_assert_eq(moe_trace_open(&trace, path, &err) == MOE_OK, i == 3, "stop %d", i);
    }
    cr_assert(!seeks || stored >= 32768, "nothing was resumed");
    cr_assert_eq(hash, whole);
    check_reads(trace, 1000, 50);
    moe_trace_close(trace);
}

Test(trace_store, resumes_a_producer_that_seeks)
{
    resume(true);
}

Test(trace_store, resumes_a_producer_that_sends_everything_again)
{
    resume(false);
}

Test(trace_store, tells_its_own_finished_import_from_another)
{
    const struct moe_trace_model model = fixture_model(2, 8, 2);
    const struct moe_trace_model other = fixture_model(2, 16, 2);
    const struct moe_trace_history history = { 0 };
    const char *path = fixture_path("t.db");
    struct moe_trace_writer *writer = NULL;
    struct moe_error err = { 0 };
    const uint64_t hash = fixture_store(path, &model, 5, 0);
    uint64_t other_hash = 0;
    cr_assert_eq(moe_trace_writer_open(&writer, path, false, &model, &history, &err), MOE_OK);
    cr_assert(moe_trace_writer_is_finished(writer));
    cr_assert_not(moe_trace_writer_close(writer, MOE_OK));
    cr_assert_eq(moe_trace_writer_open(&writer, path, false, &other, &history, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "--overwrite"), "%s", err.text);

    /* A replacement that is refused midway leaves the old store as it was. */
    cr_assert_eq(moe_trace_writer_open(&writer, path, true, &other, &history, &err), MOE_OK);
    cr_assert_eq(fixture_send(writer, &other, 5, 0, 0, 0, 3), MOE_OK);
    cr_assert_eq(moe_trace_writer_finish(writer, &other_hash, &err), MOE_RANGE);
    cr_assert_not(moe_trace_writer_close(writer, MOE_RANGE));
    cr_assert_eq(fixture_count_files(), 1);
    struct moe_trace *trace = NULL;
    cr_assert_eq(moe_trace_open(&trace, path, &err), MOE_OK);
    cr_assert_eq(moe_trace_hash(trace), hash);
    moe_trace_close(trace);

    /* One that is finished takes its place. */
    cr_assert_eq(moe_trace_writer_open(&writer, path, true, &other, &history, &err), MOE_OK);
    cr_assert_eq(fixture_send(writer, &other, 5, 0, 0, 0, UINT64_MAX), MOE_OK);
    cr_assert_eq(moe_trace_writer_finish(writer, &other_hash, &err), MOE_OK);
    cr_assert_not(moe_trace_writer_close(writer, MOE_OK));
    cr_assert_eq(fixture_count_files(), 1);
    cr_assert_eq(moe_trace_open(&trace, path, &err), MOE_OK);
    cr_assert_eq(moe_trace_hash(trace), other_hash);
    moe_trace_close(trace);
}

Test(trace_store, replaces_nothing_but_trace_stores)
{
    const struct moe_trace_model model = fixture_model(2, 8, 2);
    const struct moe_trace_history history = { 0 };
    const char *path = fixture_path("letter.txt");
    struct moe_trace_writer *writer = NULL;
    struct moe_error err = { 0 };
    FILE *file = fopen(path, "w");
    cr_assert_geq(fputs("Dear reader, this is not a database, but it is longer than the header "
                        "of one, so that nobody takes it for an empty file and writes over it.\n",
                        file),
                  0);
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(moe_trace_writer_open(&writer, path, true, &model, &history, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "not a trace store"), "%s", err.text);
    cr_assert_eq(fixture_count_files(), 1);
}

Test(trace_store, refuses_what_the_model_does_not_have)
{
    const struct moe_trace_model model = fixture_model(3, 256, 2);
    const struct moe_trace_history history = { 0 };
    struct moe_trace_request request = { .prompt_tokens = 4, .output_tokens = 1, .domain = 3 };
    uint16_t rows[4 * 3 * 2] = { 0 };
    struct moe_trace_writer *writer = NULL;
    struct moe_error err = { 0 };
    cr_assert_eq(
        moe_trace_writer_open(&writer, fixture_path("t.db"), false, &model, &history, &err),
        MOE_OK);
    cr_assert_eq(moe_trace_writer_requests(writer, &request, 1, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "request 0 has domain 3"), "%s", err.text);
    rows[2 * 6 + 1 * 2 + 1] = 256;
    cr_assert_eq(moe_trace_writer_rows(writer, rows, 4, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "row 2, layer 1, k 1: expert 256"), "%s", err.text);
    cr_assert_not(moe_trace_writer_close(writer, MOE_RANGE));
    cr_assert_eq(fixture_count_files(), 0);
}

/* Opens, reads all rows at once. */
static enum moe_status read_all(const char *path, struct moe_error *err)
{
    struct moe_trace *trace = NULL;
    MOE_TRY(moe_trace_open(&trace, path, err));
    const struct moe_trace_layout layout = moe_trace_layout_of(moe_trace_model(trace));
    const uint64_t rows = moe_trace_row_count(trace);
    uint16_t *out = malloc(rows * layout.ids_per_row * sizeof *out);
    const enum moe_status status = moe_trace_read(trace, 0, rows, out, err);
    free(out);
    moe_trace_close(trace);
    return status;
}

Test(trace_store, refuses_damaged_and_foreign_stores)
{
    static const struct {
        const char *sql;
        enum moe_status status;
        const char *text;
    } cases[] = {
        { "PRAGMA user_version = 3", MOE_UNSUPPORTED, "schema version 3" },
        { "PRAGMA application_id = 7", MOE_PARSE, "not a trace store" },
        { "UPDATE import SET finished = 0", MOE_PARSE, "unfinished import" },
        { "DELETE FROM import", MOE_PARSE, "unfinished import" },
        { "DELETE FROM request WHERE id = 3", MOE_PARSE, "id is 4" },
        { "DELETE FROM request WHERE id = 79", MOE_PARSE, "fewer than the 80 requests" },
        { "UPDATE request SET prompt_tokens = 0 WHERE id = 2", MOE_PARSE, "prompt_tokens is 0" },
        { "UPDATE request SET prompt_tokens = prompt_tokens + 1 WHERE id = 2", MOE_PARSE, "rows" },
        { "UPDATE model SET expert_count = 'x'", MOE_PARSE, "expert_count is x" },
        { "UPDATE model SET top_k = 0", MOE_RANGE, "top_k is 0" },
        { "UPDATE import SET rows_per_blob = 3", MOE_PARSE, "rows_per_blob is 3" },
        { "DELETE FROM routes WHERE id = 1", MOE_PARSE, "blob 1 (from row 2048) is missing" },
        { "UPDATE routes SET hash = hash + 1 WHERE id = 1", MOE_PARSE, "blob 1 (rows 2048 to" },
        { "UPDATE routes SET experts = x'00' WHERE id = 0", MOE_PARSE, "has 1 bytes" },
        { "UPDATE routes SET unknown = x'01' WHERE id = 0", MOE_PARSE, "blob 0" },
    };
    const struct moe_trace_model model = fixture_model(40, 256, 8);
    (void) fixture_store(fixture_path("good.db"), &model, 80, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char command[400];
        struct moe_error err = { 0 };
        (void) snprintf(command, sizeof command, "cp %s/good.db %s/bad.db", fixture_folder,
                        fixture_folder);
        cr_assert_eq(system(command), 0); /* NOLINT(cert-env33-c): our own folder */
        fixture_sql(fixture_path("bad.db"), cases[i].sql);
        cr_expect_eq(read_all(fixture_path("bad.db"), &err), cases[i].status, "%s: %s",
                     cases[i].sql, err.text);
        cr_expect_not_null(strstr(err.text, cases[i].text), "%s: %s", cases[i].sql, err.text);
    }
}

Test(trace_store, refuses_ids_that_only_a_bad_writer_could_have_stored)
{
    const struct moe_trace_model model = fixture_model(1, 8, 1);
    const char *path = fixture_path("t.db");
    unsigned char experts[4000] = { 0 };
    char sql[200];
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    (void) fixture_store(path, &model, 1, 0);
    cr_assert_eq(moe_trace_open(&trace, path, &err), MOE_OK);
    const size_t rows = (size_t) moe_trace_row_count(trace);
    moe_trace_close(trace);
    experts[rows - 1] = 8; /* the first id that there is not */
    (void) snprintf(sql, sizeof sql,
                    "UPDATE routes SET experts = CAST(zeroblob(%zu) || x'08' AS BLOB), hash = %lld",
                    rows - 1, (long long) moe_hash_bytes(experts, rows, 0));
    fixture_sql(path, sql);
    cr_assert_eq(read_all(path, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "expert 8; the model has experts 0 to 7"), "%s", err.text);
}

Test(trace_store, verify_finds_what_was_planted_and_nothing_else)
{
    struct moe_trace_model model = fixture_model(2, 16, 2);
    const struct moe_trace_history history = { 0 };
    const struct moe_trace_request request = { .prompt_tokens = 3, .output_tokens = 1 };
    /* Groups of 4 experts, one per token: row 1 uses two in layer 1; row 2 has a twin. */
    const uint16_t rows[3][2][2] = { { { 0, 1 }, { 15, 12 } },
                                     { { 4, 5 }, { 3, 4 } },
                                     { { 9, 9 }, { MOE_EXPERT_UNKNOWN, 2 } } };
    const char *path = fixture_path("t.db");
    struct moe_trace_writer *writer = NULL;
    struct moe_trace_verification verification;
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    uint64_t hash = 0;
    model.group_count = 4;
    model.group_limit = 1;
    cr_assert_eq(moe_trace_writer_open(&writer, path, false, &model, &history, &err), MOE_OK);
    cr_assert_eq(moe_trace_writer_requests(writer, &request, 1, &err), MOE_OK);
    cr_assert_eq(moe_trace_writer_rows(writer, &rows[0][0][0], 3, &err), MOE_OK);
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, &err), MOE_OK);
    cr_assert_not(moe_trace_writer_close(writer, MOE_OK));

    cr_assert_eq(moe_trace_open(&trace, path, &err), MOE_OK);
    cr_assert_eq(moe_trace_verify(&verification, trace, NULL, &err), MOE_OK);
    moe_trace_close(trace);
    cr_assert_eq(moe_trace_verification_status(&verification, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(verification.row_count, 3);
    cr_assert_eq(verification.unknown_count, 1);
    cr_assert_eq(verification.results[MOE_TRACE_CHECK_GROUP_LIMIT].count, 1);
    cr_assert_str_eq(verification.results[MOE_TRACE_CHECK_GROUP_LIMIT].first.text,
                     "row 1, layer 1: experts of 2 groups; the model allows 1");
    cr_assert_eq(verification.results[MOE_TRACE_CHECK_DUPLICATES].count, 1);
    cr_assert_str_eq(verification.results[MOE_TRACE_CHECK_DUPLICATES].first.text,
                     "row 2, layer 0: expert 9 stands twice, again at k 1");

    fixture_sql(path, "UPDATE request SET domain = 1; INSERT INTO routes VALUES (5, 0, NULL, x'')");
    cr_assert_eq(moe_trace_open(&trace, path, &err), MOE_OK);
    cr_assert_eq(moe_trace_verify(&verification, trace, NULL, &err), MOE_OK);
    moe_trace_close(trace);
    cr_assert_eq(moe_trace_verification_status(&verification, &err), MOE_PARSE);
    cr_assert_eq(verification.results[MOE_TRACE_CHECK_BLOBS].count, 0);
    cr_assert_eq(verification.results[MOE_TRACE_CHECK_EXTRA_BLOBS].count, 1);
    cr_assert_eq(verification.results[MOE_TRACE_CHECK_CONTENT_HASH].count, 1);
}

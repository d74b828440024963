/* Loads, placements and arrivals in a store: what was sent comes back, after a kill too. */
#include <math.h>

#include "tests/trace_fixture.h"
#include "traces/trace_loads.h"
#include "traces/trace_verify.h"

TestSuite(trace_loads, .init = fixture_setup, .fini = fixture_teardown);

enum { LAYERS = 40, EXPERTS = 256, CELLS = LAYERS * EXPERTS, RANKS = 2, SLOTS = 260 };

static struct moe_trace_model loads_model(void)
{
    struct moe_trace_model model = fixture_model(LAYERS, EXPERTS, 0);
    model.content = MOE_TRACE_LOADS;
    return model;
}

/* Count of a cell: whole in even loads, fractional in odd ones. */
static double cell(uint64_t load, size_t index)
{
    const uint64_t key = moe_random_key(7, MOE_RANDOM_TEST);
    const double whole = (double) moe_random_below(key, load * CELLS + index, 5000);
    return load % 2 == 0 ? whole : whole + 0.25;
}

static struct moe_trace_load load_of(uint64_t number)
{
    const uint64_t step = number / RANKS;
    return (struct moe_trace_load){ step, 100 + (int64_t) step, (int32_t) (number % RANKS),
                                    (uint32_t) (step % 3) };
}

static enum moe_status send(struct moe_trace_writer *writer, uint64_t count)
{
    static double counts[CELLS];
    for (uint64_t i = 0; i < count; i++) {
        const struct moe_trace_load load = load_of(i);
        for (size_t j = 0; j < CELLS; j++) {
            counts[j] = cell(i, j);
        }
        MOE_TRY(moe_trace_writer_load(writer, &load, counts, NULL));
    }
    return MOE_OK;
}

static uint64_t store(const char *path, uint64_t first, uint64_t count)
{
    static uint16_t placement[LAYERS * SLOTS];
    const struct moe_trace_model model = loads_model();
    const struct moe_trace_history history = { 0 };
    struct moe_trace_writer *writer = NULL;
    uint64_t hash = 0;
    for (size_t i = 0; i < (size_t) LAYERS * SLOTS; i++) {
        placement[i] =
            i % SLOTS == SLOTS - 1 ? MOE_EXPERT_UNKNOWN : (uint16_t) (i % SLOTS % EXPERTS);
    }
    if (first > 0) { /* a run that is interrupted */
        cr_assert_eq(moe_trace_writer_open(&writer, path, false, &model, &history, NULL), MOE_OK);
        cr_assert_eq(moe_trace_writer_placement(writer, placement, SLOTS, NULL), MOE_OK);
        cr_assert_eq(send(writer, first), MOE_OK);
        cr_assert(moe_trace_writer_close(writer, MOE_IO), "nothing was committed");
    }
    cr_assert_eq(moe_trace_writer_open(&writer, path, false, &model, &history, NULL), MOE_OK);
    cr_assert_eq(moe_trace_writer_stored_rows(writer) > 0, first > 0);
    cr_assert_eq(moe_trace_writer_placement(writer, placement, SLOTS, NULL), MOE_OK);
    cr_assert_eq(send(writer, count), MOE_OK);
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, NULL), MOE_OK);
    cr_assert_not(moe_trace_writer_close(writer, MOE_OK));
    return hash;
}

Test(trace_loads, come_back_also_after_an_interruption)
{
    enum { LOADS = 400 };
    static double counts[CELLS];
    const uint64_t hash = store(fixture_path("whole.db"), 0, LOADS);
    cr_assert_eq(store(fixture_path("cut.db"), LOADS - 20, LOADS), hash);
    struct moe_trace *trace = NULL;
    struct moe_trace_load_cursor cursor;
    struct moe_trace_load load;
    struct moe_error err = { 0 };
    uint64_t steps = 0;
    uint64_t seen = 0;
    bool got = true;
    cr_assert_eq(moe_trace_open_any(&trace, fixture_path("cut.db"), &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_hash(trace), hash);
    cr_assert_eq(moe_trace_load_count(trace), LOADS);
    cr_assert_eq(moe_trace_step_count(trace, &steps, NULL), MOE_OK);
    cr_assert_eq(steps, LOADS / RANKS);
    cr_assert_eq(moe_trace_loads_begin(&cursor, trace, NULL), MOE_OK);
    for (;; seen++) {
        cr_assert_eq(moe_trace_loads_next(&cursor, &load, counts, &got, &err), MOE_OK, "%s",
                     err.text);
        if (!got) {
            break;
        }
        const struct moe_trace_load expected = load_of(seen);
        cr_assert_eq(load.step, expected.step);
        cr_assert_eq(load.label, expected.label);
        cr_assert_eq(load.rank, expected.rank);
        cr_assert_eq(load.domain, expected.domain);
        for (size_t i = 0; i < CELLS; i++) {
            cr_assert_eq(counts[i], cell(seen, i));
        }
    }
    cr_assert_eq(seen, LOADS);
    moe_trace_loads_end(&cursor);
    moe_trace_close(trace);
}

static void check_damage(const char *sql, const char *text)
{
    struct moe_trace_verification verification;
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    (void) store(fixture_path("t.db"), 0, 4);
    if (sql != NULL) {
        fixture_sql(fixture_path("t.db"), sql);
    }
    cr_assert_eq(moe_trace_open_any(&trace, fixture_path("t.db"), &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_verify(&verification, trace, NULL, &err), MOE_OK, "%s", err.text);
    const enum moe_status status = moe_trace_verification_status(&verification, &err);
    cr_assert_eq(status == MOE_OK, sql == NULL, "%s: %s", sql, err.text);
    cr_assert(sql == NULL || strstr(err.text, text) != NULL, "%s: %s", sql, err.text);
    moe_trace_close(trace);
    (void) unlink(fixture_path("t.db"));
}

Test(trace_loads, damage_is_found)
{
    check_damage(NULL, "");
    check_damage("UPDATE loads SET counts = zeroblob(length(counts)) WHERE id = 2",
                 "load 2 is damaged");
    check_damage("UPDATE loads SET counts = x'00' WHERE id = 1", "load 1 has 1 bytes");
    check_damage("DELETE FROM loads WHERE id = 3", "fewer than the 4 loads");
    check_damage("UPDATE loads SET rank = 1 WHERE id = 2", "content hash");
    check_damage("DELETE FROM placement WHERE layer = 7", "layer is 8; 7 to 7 are expected");
    check_damage("UPDATE placement SET experts = zeroblob(length(experts)) WHERE layer = 1",
                 "the placement of layer 1 is damaged");
}

Test(trace_loads, what_makes_no_sense_is_refused)
{
    const struct moe_trace_model model = loads_model();
    const struct moe_trace_history history = { 0 };
    static double counts[CELLS];
    struct moe_trace_writer *writer = NULL;
    struct moe_error err = { 0 };
    const struct moe_trace_load first = { 0, -1, MOE_TRACE_ALL_RANKS, 0 };
    const struct moe_trace_load gap = { 2, -1, MOE_TRACE_ALL_RANKS, 0 };
    const double bad[] = { -1.0, 0x1.8p32, (double) NAN, (double) INFINITY };
    cr_assert_eq(
        moe_trace_writer_open(&writer, fixture_path("t.db"), false, &model, &history, &err),
        MOE_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        counts[EXPERTS + 3] = bad[i];
        cr_assert_eq(moe_trace_writer_load(writer, &first, counts, &err), MOE_RANGE);
        cr_assert_not_null(strstr(err.text, "step 0, layer 1, expert 3"), "%s", err.text);
    }
    counts[EXPERTS + 3] = 0x1p32;
    cr_assert_eq(moe_trace_writer_load(writer, &first, counts, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_writer_load(writer, &gap, counts, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "step 2 after step 0"), "%s", err.text);
    (void) moe_trace_writer_close(writer, MOE_RANGE);
    cr_assert_eq(fixture_count_files(), 0);
}

/* A store as schema version 1 made it: without the tables that came later. */
Test(trace_loads, routes_of_version_1_are_read_and_finished)
{
    const struct moe_trace_model model = fixture_model(3, 16, 2);
    const uint64_t hash = fixture_store(fixture_path("t.db"), &model, 5, 0);
    struct moe_trace *trace = NULL;
    struct moe_trace_verification verification;
    struct moe_error err = { 0 };
    uint16_t *placement = NULL;
    uint32_t slots = 1;
    fixture_sql(fixture_path("t.db"), "DROP TABLE content; DROP TABLE loads; DROP TABLE placement;"
                                      "DROP TABLE prefix; PRAGMA user_version = 1");
    cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_hash(trace), hash);
    cr_assert_eq(moe_trace_placement_read(trace, &slots, &placement, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(slots, 0);
    cr_assert_eq(moe_trace_verify(&verification, trace, NULL, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_verification_status(&verification, &err), MOE_OK, "%s", err.text);
    moe_trace_close(trace);
}

Test(trace_loads, arrivals_keep_their_prefixes)
{
    struct moe_trace_model model = fixture_model(0, 0, 0);
    const struct moe_trace_history history = { 0 };
    const int64_t blocks[] = { 5, -7, INT64_MAX };
    struct moe_trace_writer *writer = NULL;
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    uint64_t hash = 0;
    uint32_t tokens = 0;
    model.content = MOE_TRACE_ARRIVALS;
    cr_assert_eq(
        moe_trace_writer_open(&writer, fixture_path("t.db"), false, &model, &history, &err),
        MOE_OK);
    for (uint64_t i = 1; i < 10; i++) {
        const struct moe_trace_request request = fixture_request(i);
        cr_assert_eq(moe_trace_writer_arrival(writer, &request, blocks, i % 4, 512, &err), MOE_OK,
                     "%s", err.text);
    }
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, &err), MOE_OK, "%s", err.text);
    (void) moe_trace_writer_close(writer, MOE_OK);
    cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "arrivals of requests without routes"), "%s", err.text);
    cr_assert_eq(moe_trace_open_any(&trace, fixture_path("t.db"), &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_request_count(trace), 9);
    cr_assert_eq(moe_trace_row_count(trace), 0);
    cr_assert_eq(moe_trace_block_tokens(trace, &tokens, &err), MOE_OK);
    cr_assert_eq(tokens, 512);
    const struct moe_trace_request expected = fixture_request(3);
    cr_assert_eq(moe_trace_requests(trace)[2].prompt_tokens, expected.prompt_tokens);
    cr_assert_eq(moe_trace_requests(trace)[2].arrival_ns, expected.arrival_ns);
    moe_trace_close(trace);
}

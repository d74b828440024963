/* The order of requests against its twin, and what must hold of it whatever the order. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#include "sim/arrival/workload.h"
#include "sim/engine/replay_map.h"
#include "tests/engine_case.h"
#include "tests/engine_drive.h"

static struct engine_drive drive;
static struct twin_case c;
static char table[32 << 10];
static char text[32 << 10];

static void setup(void)
{
    FILE *file = fopen(MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv", "r");
    cr_assert_not_null(file);
    table[fread(table, 1, sizeof table - 1, file)] = '\0';
    cr_assert_eq(fclose(file), 0);
    engine_drive_open(&drive);
}

static void teardown(void)
{
    engine_drive_close(&drive);
}

TestSuite(workload, .init = setup, .fini = teardown);

static struct moe_trace *open_case(uint64_t seed)
{
    struct moe_trace *trace = NULL;
    engine_case_make(seed, table, &c, text, sizeof text);
    cr_assert_eq(engine_drive_store(&drive, &c, NULL), MOE_OK);
    cr_assert_eq(moe_trace_open(&trace, drive.path, NULL), MOE_OK);
    moe_arena_reset(&drive.work);
    return trace;
}

/* The whole order, with windows of window_rows from the second pass on (0: as they are). */
static uint32_t take_all(struct moe_trace *trace, uint64_t window_rows, uint32_t *order)
{
    struct moe_workload w;
    uint32_t request = 0;
    uint32_t count = 0;
    cr_assert_eq(moe_workload_init(&w, trace, c.plan_share, c.passes, c.seed, &drive.work, NULL),
                 MOE_OK);
    w.window_rows = window_rows > 0 ? window_rows : w.window_rows;
    const uint32_t scored = (w.request_count - w.planned_count) * c.passes;
    while (moe_workload_peek(&w, &request)) {
        cr_assert_eq(moe_workload_scores_next(&w), count < scored);
        moe_workload_take(&w);
        order[count++] = request;
    }
    cr_assert_not(moe_workload_scores_next(&w));
    return count;
}

static void check_order(const uint32_t *order, uint32_t count, uint64_t window_rows)
{
    const uint32_t planned = workload_twin_planned(c.requests, c.plan_share);
    uint32_t rows[TWIN_REQUESTS];
    uint32_t want[TWIN_REQUESTS];
    uint32_t at = 0;
    for (uint32_t i = 0; i < c.requests; i++) {
        rows[i] = c.prompt[i] + c.output[i] - 1;
    }
    for (uint32_t turn = 1; turn <= c.passes + 1; turn++) {
        const uint32_t pass = turn <= c.passes ? turn : 0;
        const uint32_t first = pass == 0 ? 0 : planned;
        const uint32_t end = pass == 0 ? planned : c.requests;
        bool seen[TWIN_REQUESTS] = { false };
        workload_twin_order(c.seed, pass, rows, first, end,
                            turn == 1 || window_rows == 0 ? UINT64_MAX : window_rows, want);
        for (uint32_t i = 0; i < end - first; i++, at++) {
            cr_assert_lt(at, count);
            cr_assert_eq(order[at], want[i], "pass %u, place %u", pass, i);
            cr_assert(order[at] >= first && order[at] < end && !seen[order[at]]);
            seen[order[at]] = true;
        }
    }
    cr_assert_eq(at, count);
}

Test(workload, every_request_once_per_pass_and_the_planning_set_last)
{
    static uint32_t order[TWIN_REQUESTS * (TWIN_PASSES + 1)];
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct moe_trace *trace = open_case(seed);
        check_order(order, take_all(trace, 0, order), 0);
        moe_arena_reset(&drive.work);
        /* A window of one row holds one request each; 30 rows hold a few. */
        const uint64_t window_rows = seed % 2 == 0 ? 1 : 30;
        check_order(order, take_all(trace, window_rows, order), window_rows);
        moe_trace_close(trace);
    }
}

Test(workload, order_depends_on_the_seed_and_on_nothing_else)
{
    static uint32_t order[3][TWIN_REQUESTS * (TWIN_PASSES + 1)];
    struct moe_trace *trace = open_case(1);
    const uint32_t count = take_all(trace, 0, order[0]);
    cr_assert_gt(count, 10);
    (void) take_all(trace, 0, order[1]);
    cr_assert_arr_eq(order[0], order[1], count * sizeof **order);
    c.seed++;
    (void) take_all(trace, 0, order[2]);
    cr_assert_arr_neq(order[0], order[2], count * sizeof **order);
    moe_trace_close(trace);
}

/* Which experts a repeated layer's choices mean, and the counts that policies plan on. */
Test(workload, replayed_layers_are_relabelled_as_the_twin_says)
{
    static uint16_t rows[MOE_REPLAY_BLOCK_ROWS * TWIN_TRACE_LAYERS * TWIN_TOP_K];
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct moe_trace *trace = open_case(seed);
        struct moe_replay_map map;
        const struct twin_model *m = &c.cost.model;
        uint64_t counts[TWIN_TRACE_LAYERS * TWIN_EXPERTS] = { 0 };
        double load[TWIN_LAYERS * TWIN_EXPERTS] = { 0 };
        double want[TWIN_LAYERS * TWIN_EXPERTS] = { 0 };
        uint64_t unknown = 0;
        const uint32_t first = c.rows / 3;
        cr_assert_eq(
            moe_replay_map_init(&map, moe_trace_model(trace), m->moe_layers, &drive.work, NULL),
            MOE_OK);
        cr_assert_eq(moe_replay_count(trace, first, c.rows - first, rows, counts, &unknown, NULL),
                     MOE_OK);
        moe_replay_expand(&map, counts, load);
        for (uint32_t l = 0; l < m->moe_layers; l++) {
            const uint32_t size = m->experts / m->groups;
            for (uint32_t e = 0; e < m->experts; e++) {
                const uint32_t to =
                    workload_twin_relabel(l, c.trace_layers, m->experts, m->groups, e);
                const uint32_t group = workload_twin_relabel(l, c.trace_layers, m->experts,
                                                             m->groups, e / size * size);
                cr_assert_eq(map.expert[l * m->experts + e], to, "seed %" PRIu64, seed);
                cr_assert_eq(to / size, group / size, "a group was torn apart");
            }
            for (uint32_t row = first; row < c.rows; row++) {
                for (uint32_t k = 0; k < m->top_k; k++) {
                    const uint16_t id = c.route[row][l % c.trace_layers][k];
                    if (id != TWIN_UNKNOWN) {
                        want[l * m->experts + map.expert[l * m->experts + id]]++;
                    }
                }
            }
        }
        for (uint32_t i = 0; i < m->moe_layers * m->experts; i++) {
            cr_assert_eq(load[i], want[i], "seed %" PRIu64, seed);
        }
        moe_trace_close(trace);
    }
}

Test(workload, planning_set_leaves_at_least_one)
{
    cr_assert_eq(moe_workload_planned_count(10, 0.25), 2);
    cr_assert_eq(moe_workload_planned_count(10, 0.0), 1);
    cr_assert_eq(moe_workload_planned_count(10, 1.0), 9);
    cr_assert_eq(moe_workload_planned_count(2, 0.99), 1);
    cr_assert_eq(moe_workload_planned_count(100000, 0.2), 20000);
}

Test(workload, a_single_request_is_refused)
{
    struct moe_error err = { 0 };
    struct moe_workload w;
    engine_case_make(1, table, &c, text, sizeof text);
    c.requests = 1;
    c.rows = c.prompt[0] + c.output[0] - 1;
    struct moe_trace *trace = NULL;
    cr_assert_eq(engine_drive_store(&drive, &c, NULL), MOE_OK);
    cr_assert_eq(moe_trace_open(&trace, drive.path, NULL), MOE_OK);
    cr_assert_eq(moe_workload_init(&w, trace, 0.2, 1, 1, &drive.work, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "1 request"), "%s", err.text);
    moe_trace_close(trace);
}

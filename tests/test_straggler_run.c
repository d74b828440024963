/* Each cause of waiting planted alone in a whole run: its part is the excess. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/engine_drive.h"

enum { GPUS = 4, EXPERTS = 8, TEXT_BYTES = 32 << 10, REQUESTS = 40 };

/* What differs between ranks besides the cause under test: nothing. */
struct planted {
    bool skewed_routes;
    bool uneven_batches;
    bool unlike_gpus;
    bool jitter;
    bool uneven_copies;
};

static struct engine_drive drive;
static char table[TEXT_BYTES];
static char text[TEXT_BYTES];
static struct twin_case c;

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

TestSuite(straggler_run, .init = setup, .fini = teardown);

/* The table with rows put in the place of those that begin alike. */
static void make_calibration(const struct planted *p)
{
    const struct {
        bool wanted;
        const char *begin;
        const char *row;
    } rows[] = {
        { !p->uneven_copies, "segment,toy,all_to_all,near,4,0,",
          "segment,toy,all_to_all,near,4,0,1000000,0,1e15,assumed,x" },
        { !p->uneven_copies, "segment,toy,all_to_all,near,4,10000,", "# none" },
        { !p->jitter, "jitter,toy,compute,", "jitter,toy,compute,1,1,1,1,1,1,1,assumed,x" },
        { !p->jitter, "jitter,toy,expert,", "jitter,toy,expert,1,1,1,1,1,1,1,assumed,x" },
        { !p->jitter, "jitter,toy,comm,", "jitter,toy,comm,1,1,1,1,1,1,1,assumed,x" },
        { !p->jitter, "drift,toy,", "drift,toy,0.9,0,assumed,x" },
        { !p->unlike_gpus, "factor,toy,compute,", "factor,toy,compute,0,0,1,1,assumed,x" },
        { !p->unlike_gpus, "factor,toy,memory,", "factor,toy,memory,0,0,1,1,assumed,x" },
        { !p->unlike_gpus, "factor,toy,comm,", "factor,toy,comm,0,0,1,1,assumed,x" },
    };
    size_t used = 0;
    for (const char *line = table; *line != '\0';) {
        const char *end = strchr(line, '\n');
        const char *from = line;
        size_t bytes = (size_t) (end - line);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            if (rows[i].wanted && strncmp(line, rows[i].begin, strlen(rows[i].begin)) == 0) {
                from = rows[i].row;
                bytes = strlen(from);
            }
        }
        cr_assert_lt(used + bytes + 2, sizeof text);
        memcpy(text + used, from, bytes);
        used += bytes;
        text[used++] = '\n';
        line = end + 1;
    }
    text[used] = '\0';
}

/* Rows in fours: every GPU has two choices of a four, spread over its two experts. With
 * uneven copies, the two of GPU 0 belong to one token, which travels there once, and so do
 * those of GPU 1. */
static void make_route(const struct planted *p, uint32_t row)
{
    static const uint16_t even[4][2] = { { 0, 2 }, { 1, 4 }, { 6, 3 }, { 5, 7 } };
    static const uint16_t doubled[4][2] = { { 0, 1 }, { 2, 3 }, { 4, 6 }, { 5, 7 } };
    for (uint32_t k = 0; k < 2; k++) {
        c.route[row][0][k] = p->uneven_copies ? doubled[row % 4][k] : even[row % 4][k];
        if (p->skewed_routes) {
            c.route[row][0][k] = (uint16_t) (row * (row + 3) % 7 / 2 + k);
        }
    }
}

static void make_case(const struct planted *p)
{
    memset(&c, 0, sizeof c);
    c.cost.model = (struct twin_model){ .layers = 3,
                                        .moe_layers = 3,
                                        .hidden = 100,
                                        .vocabulary = 500,
                                        .experts = EXPERTS,
                                        .groups = 1,
                                        .top_k = 2,
                                        .expert_size = 50,
                                        .gated = true,
                                        .heads = 4,
                                        .kv_heads = 4,
                                        .head_size = 16,
                                        .kv_layers = 3,
                                        .expert_bytes = 1,
                                        .dense_bytes = 1,
                                        .kv_bytes = 1 };
    c.cost.nodes = 1;
    c.cost.gpus_per_node = GPUS;
    c.slots = EXPERTS;
    c.running_per_gpu = 1;
    c.step_tokens = 8192;
    c.plan_share = 0.1;
    c.passes = 2;
    c.noise = p->unlike_gpus || p->jitter;
    c.seed = 3;
    c.trace_layers = 1;
    c.requests = REQUESTS;
    for (uint32_t i = 0; i < REQUESTS; i++) {
        /* Prompts only, so that every step of a rank is whole fours. */
        c.prompt[i] = p->uneven_batches ? 4 * (1 + i % 7) : 16;
        c.output[i] = 1;
        c.first_row[i] = c.rows;
        for (uint32_t row = 0; row < c.prompt[i]; row++) {
            make_route(p, c.rows++);
        }
    }
    for (uint32_t l = 0; l < 3; l++) {
        for (uint32_t s = 0; s < EXPERTS; s++) {
            c.plan[l][s] = (uint16_t) s;
        }
    }
}

/* Repeated layers permute the experts of the one group, which would unbalance the fours: the
 * plan follows them. */
static void follow_relabelling(void)
{
    for (uint32_t l = 1; l < 3; l++) {
        for (uint32_t s = 0; s < EXPERTS; s++) {
            c.plan[l][s] = (uint16_t) workload_twin_relabel(l, 1, EXPERTS, 1, s);
        }
    }
}

static void check(const struct planted *p, enum moe_cause cause)
{
    struct moe_run_result result;
    struct moe_error err = { 0 };
    make_calibration(p);
    make_case(p);
    follow_relabelling();
    cr_assert_eq(engine_drive_run(&drive, &c, text, false, &result, &err), MOE_OK, "%s", err.text);
    cr_assert_gt(result.account[MOE_PHASE_SCORED].steps, 5);
    cr_assert_gt(result.idle_ns, 10000);
    moe_time_ns sum = 0;
    for (uint32_t i = 0; i < MOE_CAUSE_COUNT; i++) {
        const moe_time_ns part = result.cause_idle_ns[i];
        const moe_time_ns off = i == (uint32_t) cause ? result.idle_ns - part : part;
        cr_assert_leq(llabs(off) * 100, result.idle_ns,
                      "%s planted: %s has %" PRId64 " of %" PRId64, moe_cause_name(cause),
                      moe_cause_name((enum moe_cause) i), part, result.idle_ns);
        sum += part;
    }
    cr_assert_eq(sum, result.idle_ns);
    /* What removing it would win is the whole run without it. */
    const uint32_t without = MOE_CAUSE_ALL & ~(1u << cause);
    cr_assert_lt(result.subset_time_ns[without], result.subset_time_ns[MOE_CAUSE_ALL]);
}

Test(straggler_run, routing)
{
    check(&(struct planted){ .skewed_routes = true }, MOE_CAUSE_ROUTING);
}

Test(straggler_run, batch)
{
    check(&(struct planted){ .uneven_batches = true }, MOE_CAUSE_BATCH);
}

Test(straggler_run, hardware)
{
    check(&(struct planted){ .unlike_gpus = true }, MOE_CAUSE_HARDWARE);
}

Test(straggler_run, jitter)
{
    check(&(struct planted){ .jitter = true }, MOE_CAUSE_JITTER);
}

Test(straggler_run, communication)
{
    check(&(struct planted){ .uneven_copies = true }, MOE_CAUSE_COMM);
}

Test(straggler_run, nothing_planted_nobody_waits)
{
    struct moe_run_result result;
    struct moe_error err = { 0 };
    const struct planted nothing = { 0 };
    make_calibration(&nothing);
    make_case(&nothing);
    follow_relabelling();
    cr_assert_eq(engine_drive_run(&drive, &c, text, false, &result, &err), MOE_OK, "%s", err.text);
    cr_assert_gt(result.account[MOE_PHASE_SCORED].steps, 5);
    cr_assert_eq(result.idle_ns, 0);
}

/* What drafting costs, told from the event logs of runs with and without it: a further pass is the
 * last layer of the step that would run the drafted row. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine/study.h"

enum {
    LAYERS = 8,
    GPUS = 2,
    STEPS = 64,
    DRAFTS = 3,
    OVERRIDES = 24,
    PROMPT = 60,
    OUTPUT = 30,
    CELLS = 6
};

enum stretch { BEFORE, SHARED, DISPATCH, EXPERT, COMBINE, AFTER, STRETCHES };

/* Durations by step, layer (after: the first of its own) and GPU. */
struct log {
    moe_time_ns ns[STEPS][LAYERS + DRAFTS + 1][GPUS][STRETCHES];
    uint32_t steps;
};

static struct moe_scenario scenario;
static struct log plain;
static struct log drafted;

static void load(const char *const *extra)
{
    static const char trace[] =
        "trace=" MOE_SOURCE_ROOT "/results/quickstart/group256-sample.trace.db";
    static const char *const usual[] = {
        trace,
        "model=group256",
        "cluster.nodes=1",
        "cluster.gpus_per_node=2",
        "slots=256",
        "policies=contiguous",
        "seeds=1",
        "noise=false",
        "attribution=false",
        "serving.shared_expert=serial",
        "arrivals.kind=poisson",
        "arrivals.rate=0.1",
        "arrivals.requests=3",
        "arrivals.lengths=lognormal",
        "arrivals.prompt_tokens=60",
        "arrivals.output_tokens=30",
        "arrivals.prompt_cv=0",
        "arrivals.output_cv=0",
    };
    const char *all[OVERRIDES];
    uint32_t count = sizeof usual / sizeof usual[0];
    struct moe_error err = { 0 };
    memcpy(all, usual, sizeof usual);
    for (; *extra != NULL; extra++) {
        cr_assert_lt(count, OVERRIDES);
        all[count++] = *extra;
    }
    cr_assert_eq(moe_scenario_load(&scenario, NULL, all, count, &err), MOE_OK, "%s", err.text);
}

/* The first cells of a line of numbers; false of any other line. */
static bool cut(char *line, char *cell[CELLS])
{
    char *rest = line;
    for (uint32_t i = 0; i < CELLS; i++) {
        cell[i] = rest;
        rest += strcspn(rest, ",\n");
        if (*rest == '\0') {
            return false;
        }
        *rest++ = '\0';
    }
    return line[0] >= '0' && line[0] <= '9';
}

static void read_log(FILE *file, struct log *log)
{
    static const char *const names[] = { "before", "shared",  "dispatch",
                                         "expert", "combine", "after" };
    char line[160];
    memset(log, 0, sizeof *log);
    rewind(file);
    while (fgets(line, sizeof line, file) != NULL) {
        char *cell[CELLS];
        if (!cut(line, cell) || strtoul(cell[0], NULL, 10) >= STEPS) {
            continue;
        }
        const uint32_t step = (uint32_t) strtoul(cell[0], NULL, 10);
        const uint32_t gpu = (uint32_t) strtoul(cell[2], NULL, 10);
        const uint32_t layer = (uint32_t) strtoul(cell[3], NULL, 10);
        cr_assert_lt(gpu, GPUS);
        cr_assert_leq(layer, LAYERS + DRAFTS);
        for (uint32_t i = 0; i < STRETCHES; i++) {
            if (strcmp(cell[4], names[i]) == 0) {
                log->ns[step][layer][gpu][i] = strtoll(cell[5], NULL, 10);
            }
        }
        log->steps = step + 1 > log->steps ? step + 1 : log->steps;
    }
}

/* Runs the scenario, all steps of the first policy into log, and gives its first run's result. */
static struct moe_study *run(const char *const *extra, struct log *log)
{
    struct moe_error err = { 0 };
    struct moe_study *study = NULL;
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    load(extra);
    const struct moe_study_options options = {
        .threads = 1, .detail = log != NULL ? file : NULL, .detail_steps = UINT64_MAX, .audit = true
    };
    cr_assert_eq(moe_study_create(&study, &scenario, &options, &err), MOE_OK, "%s", err.text);
    if (log != NULL) {
        read_log(file, log);
    }
    cr_assert_eq(fclose(file), 0);
    return study;
}

static void near(moe_time_ns got, moe_time_ns want, moe_time_ns by, const char *what, uint32_t step)
{
    cr_assert(llabs(got - want) <= by, "step %u, %s: %" PRId64 " ns, not %" PRId64, step, what, got,
              want);
}

/* The layer of pass 1 is that of the step's own rows; that of pass p > 1, in the step that verifies
 * rows d .. d+3, is the last layer of the plain step that runs row d+4 alone. */
Test(drafts, passes_cost_what_their_rows_cost_elsewhere)
{
    static const char *const none[] = { NULL };
    static const char *const three[] = { "serving.drafts=3", "serving.acceptance=0", NULL };
    moe_study_destroy(run(none, &plain));
    moe_study_destroy(run(three, &drafted));
    cr_assert_geq(plain.steps, OUTPUT);
    cr_assert_geq(drafted.steps, OUTPUT);
    const moe_time_ns host = plain.ns[OUTPUT / 2][LAYERS][1][AFTER]; /* nothing is sampled there */
    for (uint32_t step = 0; step < OUTPUT - DRAFTS - 2; step++) {    /* 0: the prompt */
        /* Step s runs row PROMPT - 1 + s, and with drafts those after it. */
        const uint32_t ahead = step + 1 + (step == 0 ? 0 : DRAFTS);
        for (uint32_t gpu = 0; gpu < GPUS; gpu++) {
            const moe_time_ns *own = drafted.ns[step][LAYERS - 1][gpu];
            const moe_time_ns *first = drafted.ns[step][LAYERS][gpu];
            const moe_time_ns *alone = plain.ns[ahead][LAYERS - 1][gpu];
            const moe_time_ns one_head = plain.ns[ahead][LAYERS][gpu][AFTER] - host;
            for (uint32_t i = SHARED; i <= COMBINE; i++) {
                cr_assert_eq(first[i], own[i], "step %u, stretch %u", step, i);
                for (uint32_t pass = 1; pass < DRAFTS; pass++) {
                    near(drafted.ns[step][LAYERS + pass][gpu][i], alone[i], 0, "further", step);
                }
            }
            for (uint32_t pass = 1; pass < DRAFTS; pass++) {
                near(drafted.ns[step][LAYERS + pass][gpu][BEFORE], alone[BEFORE] + one_head, 3,
                     "head and before", step);
            }
            cr_assert(gpu == 0 ? first[BEFORE] > own[BEFORE] : first[BEFORE] == own[BEFORE]);
            near(drafted.ns[step][LAYERS + DRAFTS][gpu][AFTER], one_head + host, 2, "last head",
                 step);
        }
    }
}

/* Every first draft accepted and no second one: two tokens a step, two of four rows rejected. */
Test(drafts, acceptance_is_by_position)
{
    static const char *const two[] = { "serving.drafts=3", "serving.acceptances=1 0",
                                       "arrivals.output_tokens=41", NULL };
    static const char *const all[] = { "serving.drafts=3", "serving.acceptances=1",
                                       "arrivals.output_tokens=41", NULL };
    struct moe_study *study = run(two, NULL);
    const struct moe_run_result *result = &study->policies[0].runs[0];
    uint64_t steps = 0;
    for (uint32_t phase = 0; phase < MOE_PHASE_COUNT; phase++) {
        steps += result->account[phase].steps;
    }
    cr_assert_eq(steps, UINT64_C(3) * (1 + 20));
    cr_assert_eq(result->rejected_rows, UINT64_C(3) * 19 * 2); /* the last step has two rows left */
    moe_study_destroy(study);
    study = run(all, NULL);
    cr_assert_eq(study->policies[0].runs[0].rejected_rows, 0);
    moe_study_destroy(study);
}

/* Free drafts are as they were: no layer, no memory. Charged ones take both, and a step longer. */
Test(drafts, charged_drafts_take_time_and_memory)
{
    static const char *const none[] = { NULL };
    static const char *const free_of_charge[] = { "serving.drafts=2", "serving.draft_layers=0",
                                                  NULL };
    static const char *const charged[] = { "serving.drafts=2", NULL };
    struct moe_study *study = run(none, NULL);
    const struct moe_memory without = study->policies[0].runs[0].memory;
    moe_study_destroy(study);
    study = run(free_of_charge, &plain);
    const struct moe_memory spared = study->policies[0].runs[0].memory;
    const double quick = moe_metric_value(MOE_METRIC_STEP_MEAN, &study->policies[0].runs[0]);
    moe_study_destroy(study);
    study = run(charged, &drafted);
    const struct moe_memory held = study->policies[0].runs[0].memory;
    const double slow = moe_metric_value(MOE_METRIC_STEP_MEAN, &study->policies[0].runs[0]);
    moe_study_destroy(study);
    cr_assert_eq(spared.kv_tokens, without.kv_tokens);
    cr_assert_float_eq(held.slot_bytes, without.slot_bytes * 9.0 / 8.0, 1.0);
    cr_assert_float_eq(held.kv_bytes_per_token, without.kv_bytes_per_token * 9.0 / 8.0, 1e-6);
    cr_assert_gt(held.nonexpert_bytes, without.nonexpert_bytes);
    cr_assert_gt(slow, quick * 1.15); /* two layers more than eight, and two heads */
    cr_assert_lt(slow, quick * 1.6);
}

Test(drafts, what_cannot_be_is_refused)
{
    static const struct {
        const char *extra;
        const char *says;
    } cases[] = {
        { "serving.acceptances=0.5 1.2", "serving.acceptances" },
        { "serving.acceptances=0.5 x", "serving.acceptances" },
        { "serving.acceptances=1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "at most 16 positions" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *overrides[] = { "trace=x", "model=group256", cases[i].extra };
        struct moe_error err = { 0 };
        cr_assert_eq(moe_scenario_load(&scenario, NULL, overrides, 3, &err), MOE_RANGE);
        cr_assert_not_null(strstr(err.text, cases[i].says), "%s", err.text);
    }
    static const char *const both[] = { "serving.drafts=2", "serving.overlap=two_batch", NULL };
    struct moe_study *study = NULL;
    struct moe_error err = { 0 };
    const struct moe_study_options options = { .threads = 1 };
    load(both);
    cr_assert_eq(moe_study_create(&study, &scenario, &options, &err), MOE_UNSUPPORTED);
    cr_assert_not_null(strstr(err.text, "set serving.draft_layers to 0"), "%s", err.text);
}

/* A study gives the same numbers with one thread and with two. A plain program, since
 * Criterion cannot start under the thread sanitizer. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/cost/calibration.h"
#include "sim/engine/study.h"
#include "tests/engine_case.h"
#include "tests/engine_drive.h"

enum { TEXT_BYTES = 32 << 10, DETAIL_STEPS = 20 };

static int failures;

static void fail(const char *what)
{
    printf("%s differs\n", what);
    failures++;
}

static void check(bool same, const char *what)
{
    if (!same) {
        fail(what);
    }
}

static void same_bytes(const void *a, const void *b, size_t bytes, const char *what)
{
    check(memcmp(a, b, bytes) == 0, what);
}

static void same_latency(const struct moe_latency *a, const struct moe_latency *b, const char *what)
{
    check(a->total == b->total && a->sum_ns == b->sum_ns && a->min_ns == b->min_ns &&
              a->max_ns == b->max_ns,
          what);
    same_bytes(a->count, b->count, MOE_LATENCY_BUCKETS * sizeof *a->count, what);
}

static void same_arrays(const struct moe_run_result *a, const struct moe_run_result *b)
{
    const size_t gpus = a->gpu_count;
    const size_t layers = a->layer_count;
    const size_t experts = layers * a->expert_count;
    same_bytes(a->gpu_last, b->gpu_last, gpus * sizeof *a->gpu_last, "gpu_last");
    same_bytes(a->gpu_lead_ns, b->gpu_lead_ns, gpus * sizeof *a->gpu_lead_ns, "gpu_lead_ns");
    same_bytes(a->gpu_factor, b->gpu_factor, gpus * sizeof *a->gpu_factor, "gpu_factor");
    same_bytes(a->gpu_in_tail, b->gpu_in_tail, gpus * sizeof *a->gpu_in_tail, "gpu_in_tail");
    same_bytes(a->gpu_layer_tokens, b->gpu_layer_tokens,
               layers * gpus * sizeof *a->gpu_layer_tokens, "gpu_layer_tokens");
    same_bytes(a->layer_idle_ns, b->layer_idle_ns, layers * sizeof *a->layer_idle_ns,
               "layer_idle_ns");
    same_bytes(a->layer_max_load, b->layer_max_load, layers * sizeof *a->layer_max_load,
               "layer_max_load");
    same_bytes(a->layer_mean_load, b->layer_mean_load, layers * sizeof *a->layer_mean_load,
               "layer_mean_load");
    same_bytes(a->expert_tokens, b->expert_tokens, experts * sizeof *a->expert_tokens,
               "expert_tokens");
    same_bytes(a->expert_lead_ns, b->expert_lead_ns, experts * sizeof *a->expert_lead_ns,
               "expert_lead_ns");
    same_bytes(a->expert_of_slot, b->expert_of_slot,
               layers * a->slot_count * sizeof *a->expert_of_slot, "expert_of_slot");
}

static void same_run(const struct moe_run_result *a, const struct moe_run_result *b)
{
    check(strcmp(a->policy, b->policy) == 0 && a->seed == b->seed, "policy and seed");
    check(a->fits && b->fits && a->moved_slots == b->moved_slots, "fits, moves");
    same_bytes(a->account, b->account, sizeof a->account, "account");
    same_bytes(&a->path, &b->path, sizeof a->path, "path");
    check(a->unknown_assignments == b->unknown_assignments && a->layer_steps == b->layer_steps &&
              a->barriers == b->barriers && a->idle_ns == b->idle_ns,
          "counts");
    check(a->balancedness_sum == b->balancedness_sum && a->imbalance_sum == b->imbalance_sum &&
              a->mean_load_sum == b->mean_load_sum && a->max_load_sum == b->max_load_sum &&
              a->no_copy_load_sum == b->no_copy_load_sum && a->near_copies == b->near_copies &&
              a->far_copies == b->far_copies && a->local_copies == b->local_copies,
          "sums");
    same_bytes(a->cause_idle_ns, b->cause_idle_ns, sizeof a->cause_idle_ns, "cause_idle_ns");
    same_bytes(a->subset_time_ns, b->subset_time_ns, sizeof a->subset_time_ns, "subset_time_ns");
    same_bytes(a->sensitivity_ns, b->sensitivity_ns, sizeof a->sensitivity_ns, "sensitivity_ns");
    same_latency(&a->step, &b->step, "step");
    same_latency(&a->ttft, &b->ttft, "ttft");
    same_latency(&a->itl, &b->itl, "itl");
    same_latency(&a->tpot, &b->tpot, "tpot");
    same_latency(&a->e2e, &b->e2e, "e2e");
    same_arrays(a, b);
}

static void same_study(const struct moe_study *a, const struct moe_study *b)
{
    check(a->best == b->best && a->tie_count == b->tie_count && a->flip_count == b->flip_count,
          "verdict");
    check(a->planned_tokens == b->planned_tokens && a->trace_hash == b->trace_hash, "trace");
    for (uint32_t i = 0; i < a->flip_count && i < b->flip_count; i++) {
        check(a->flips[i].part == b->flips[i].part && a->flips[i].scale == b->flips[i].scale &&
                  a->flips[i].winner == b->flips[i].winner,
              "flip");
    }
    for (uint32_t p = 0; p < a->policy_count; p++) {
        const struct moe_policy_summary *x = &a->policies[p];
        const struct moe_policy_summary *y = &b->policies[p];
        same_bytes(x->metric, y->metric, sizeof x->metric, "metric");
        same_bytes(&x->speedup, &y->speedup, sizeof x->speedup, "speedup");
        check(x->best == y->best && x->tie == y->tie && x->largest_batch == y->largest_batch,
              "summary");
        for (uint32_t seed = 0; seed < a->seed_count; seed++) {
            same_run(&x->runs[seed], &y->runs[seed]);
        }
    }
}

static void same_logs(FILE *a, FILE *b)
{
    char x[256];
    char y[256];
    uint32_t lines = 0;
    rewind(a);
    rewind(b);
    while (fgets(x, sizeof x, a) != NULL) {
        check(fgets(y, sizeof y, b) != NULL && strcmp(x, y) == 0, "event log");
        lines++;
    }
    check(fgets(y, sizeof y, b) == NULL, "length of the event log");
    check(lines > DETAIL_STEPS, "an event log of any length");
}

/* A case of the engine twin as a study of five policies. */
static void make_scenario(const struct engine_drive *drive, const struct twin_case *c,
                          const char *calibration_path, struct moe_scenario *scenario)
{
    static const char *const policies[] = { "contiguous", "random", "lpt", "eplb", "hindsight" };
    engine_drive_scenario(c, scenario);
    (void) snprintf(scenario->trace_path, sizeof scenario->trace_path, "%s", drive->path);
    (void) snprintf(scenario->calibration_path, sizeof scenario->calibration_path, "%s",
                    calibration_path);
    scenario->policy_count = sizeof policies / sizeof *policies;
    for (uint32_t i = 0; i < scenario->policy_count; i++) {
        (void) snprintf(scenario->policies[i], sizeof scenario->policies[i], "%s", policies[i]);
    }
    (void) snprintf(scenario->baseline, sizeof scenario->baseline, "contiguous");
    scenario->seed_count = 3;
    scenario->first_seed = 11;
}

static struct moe_study *run_study(const struct moe_scenario *scenario, uint32_t threads, FILE *log)
{
    const struct moe_study_options options = { .threads = threads,
                                               .detail = log,
                                               .detail_steps = DETAIL_STEPS };
    struct moe_study *study = NULL;
    struct moe_error err = { 0 };
    if (moe_study_create(&study, scenario, &options, &err) != MOE_OK) {
        printf("no study with %u threads: %s\n", threads, err.text);
        exit(1);
    }
    return study;
}

static void read_table(char *table)
{
    FILE *file = fopen(MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv", "r");
    if (file == NULL) {
        printf("no tests/data/tiny-calibration.csv\n");
        exit(1);
    }
    table[fread(table, 1, TEXT_BYTES - 1, file)] = '\0';
    (void) fclose(file);
}

/* Writes the case's calibration as a database. */
static void write_calibration(const char *text, const char *csv, const char *db)
{
    struct moe_error err = { 0 };
    FILE *file = fopen(csv, "w");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0 ||
        moe_calibration_import(csv, db, false, &err) != MOE_OK) {
        printf("no calibration: %s\n", err.text);
        exit(1);
    }
    (void) unlink(csv);
}

int main(void)
{
    static struct twin_case c;
    static char table[TEXT_BYTES];
    static char text[TEXT_BYTES];
    static struct engine_drive drive;
    static struct moe_scenario scenario;
    char csv[128];
    char db[128];
    struct moe_error err = { 0 };
    read_table(table);
    engine_drive_open(&drive);
    engine_case_make(12, table, &c, text, sizeof text);
    /* Every kind of work there is, and enough requests for a scored phase. */
    c.noise = true;
    c.memory_bytes = 0;
    c.running_per_gpu = 1;
    c.passes = 3;
    c.plan_share = 0.2;
    (void) snprintf(csv, sizeof csv, "%s/cal.csv", drive.folder);
    (void) snprintf(db, sizeof db, "%s/cal.db", drive.folder);
    write_calibration(text, csv, db);
    if (engine_drive_store(&drive, &c, &err) != MOE_OK) {
        printf("no trace: %s\n", err.text);
        return 1;
    }
    make_scenario(&drive, &c, db, &scenario);
    FILE *log_1 = tmpfile();
    FILE *log_2 = tmpfile();
    assert(log_1 != NULL && log_2 != NULL);
    struct moe_study *one = run_study(&scenario, 1, log_1);
    struct moe_study *two = run_study(&scenario, 2, log_2);
    check(one->policies[0].runs[0].account[MOE_PHASE_SCORED].steps > 5, "a scored phase");
    same_study(one, two);
    same_logs(log_1, log_2);
    moe_study_destroy(one);
    moe_study_destroy(two);
    (void) fclose(log_1);
    (void) fclose(log_2);
    (void) unlink(db);
    engine_drive_close(&drive);
    printf("%d differences\n", failures);
    return failures == 0 ? 0 : 1;
}

#include "sim/command/study_command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/output_file.h"
#include "sim/report/finding.h"
#include "sim/report/run_store.h"

void moe_study_command_init(struct moe_study_command *command)
{
    *command = (struct moe_study_command){ .format = "table", .detail_steps = 4 };
}

void moe_study_command_options(struct moe_study_command *c,
                               struct moe_option options[MOE_STUDY_OPTION_COUNT])
{
    const struct moe_option all[MOE_STUDY_OPTION_COUNT] = {
        { "set", MOE_OPTION_LIST, &c->sets, "KEY=VALUE",
          "change one key of the scenario, a list as a,b or [a, b]; may be given again", 0, 0 },
        { "seeds", MOE_OPTION_COUNT, &c->seeds, "N", "runs per policy; 0 = as the scenario says", 0,
          100 },
        { "threads", MOE_OPTION_COUNT, &c->threads, "N",
          "runs at a time; 0 = one per processor. Changes no result", 0, 1024 },
        { "format", MOE_OPTION_TEXT, &c->format, "FORM", "form of the report", 0, 0 },
        { "all", MOE_OPTION_FLAG, &c->report.all_policies, NULL,
          "stragglers of every policy, not of the baseline and the best only", 0, 0 },
        { "o", MOE_OPTION_TEXT, &c->output, "RUN.db", "keep the study, for SQL and `moesim repeat`",
          0, 0 },
        { "detail", MOE_OPTION_TEXT, &c->detail, "FILE.csv",
          "every event of the first policy's first seed", 0, 0 },
        { "overlay", MOE_OPTION_TEXT, &c->times, "TIMES.csv",
          "measured steps to set beside the simulated ones: tokens,decode_only,step_ms (tokens of "
          "a "
          "step on all GPUs, 1 when all of them decode, its time)",
          0, 0 },
        { "detail-steps", MOE_OPTION_COUNT, &c->detail_steps, "N", "steps of it", 1, 1000000 },
        { "slow", MOE_OPTION_LIST, &c->slow, "gpu=N:FACTOR",
          "what if that GPU took FACTOR times as long; more in hardware.events", 0, 0 },
        { "audit", MOE_OPTION_FLAG, &c->audit, NULL,
          "check after every step that tokens, bytes, pages and time are conserved", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &c->overwrite, NULL, "replace output files that exist", 0,
          0 },
    };
    memcpy(options, all, sizeof all);
}

static enum moe_status add_set(struct moe_study_command *c, const char *set, struct moe_error *err)
{
    if (c->sets.count == MOE_OPTION_LIST_LIMIT) {
        return moe_fail(err, MOE_RANGE, "--set: given more than %d times",
                        MOE_OPTION_LIST_LIMIT - 2);
    }
    c->sets.items[c->sets.count++] = set;
    return MOE_OK;
}

enum { SLOW_GPU_MAX = 4095 }; /* as hardware.events; the cluster's own limit follows there */

/* "gpu=3:1.15" as the event "slow gpu=3 by=1.15". */
static enum moe_status settle_slow(struct moe_study_command *c, struct moe_error *err)
{
    size_t used = (size_t) snprintf(c->slow_set, sizeof c->slow_set, "hardware.events=");
    for (size_t i = 0; i < c->slow.count; i++) {
        const char *colon = strchr(c->slow.items[i], ':');
        if (strncmp(c->slow.items[i], "gpu=", 4) != 0 || colon == NULL) {
            return moe_fail(err, MOE_RANGE, "--slow: '%s' is not gpu=NUMBER:FACTOR, as gpu=3:1.15",
                            c->slow.items[i]);
        }
        char gpu[24];
        uint64_t number = 0;
        double factor = 0.0;
        (void) snprintf(gpu, sizeof gpu, "%.*s", (int) (colon - c->slow.items[i] - 4),
                        c->slow.items[i] + 4);
        MOE_TRY(moe_parse_count(gpu, "--slow gpu", 0, SLOW_GPU_MAX, &number, err));
        MOE_TRY(moe_parse_real(colon + 1, "--slow FACTOR", 1e-2, 1e3, &factor, err));
        const int length = snprintf(c->slow_set + used, sizeof c->slow_set - used,
                                    "%sslow %.*s by=%s", i == 0 ? "" : ",",
                                    (int) (colon - c->slow.items[i]), c->slow.items[i], colon + 1);
        used += (size_t) length;
        if (used >= sizeof c->slow_set) {
            return moe_fail(err, MOE_RANGE, "--slow: too many; put them into hardware.events");
        }
    }
    return c->slow.count == 0 ? MOE_OK : add_set(c, c->slow_set, err);
}

enum moe_status moe_study_command_settle(struct moe_study_command *c, struct moe_error *err)
{
    const struct moe_report *report = NULL;
    MOE_TRY(moe_report_find(c->format, &report, err));
    if (c->output != NULL && c->detail != NULL && strcmp(c->output, c->detail) == 0) {
        return moe_fail(err, MOE_RANGE, "-o and --detail both name '%s'", c->output);
    }
    MOE_TRY(settle_slow(c, err));
    if (c->seeds == 0) {
        return MOE_OK;
    }
    (void) snprintf(c->seeds_set, sizeof c->seeds_set, "seeds=%u", c->seeds);
    return add_set(c, c->seeds_set, err);
}

void moe_study_command_print_forms(void)
{
    size_t count = 0;
    const struct moe_report *const *reports = moe_report_list(&count);
    (void) puts("forms of the report:");
    for (size_t i = 0; i < count; i++) {
        (void) printf("  %-10s %s\n", reports[i]->name, reports[i]->summary);
    }
}

/* A study takes minutes: an output that cannot be written is found before it. */
static enum moe_status try_output(const struct moe_study_command *c, struct moe_error *err)
{
    struct moe_output_file probe = { 0 };
    if (c->output == NULL) {
        return MOE_OK;
    }
    MOE_TRY(moe_output_file_open(&probe, c->output, c->overwrite, err));
    moe_output_file_discard(&probe);
    return MOE_OK;
}

void moe_study_command_print_speed(const struct moe_study *study)
{
    uint64_t activations = 0;
    uint32_t runs = 0;
    for (uint32_t policy = 0; policy < study->policy_count; policy++) {
        for (uint32_t i = 0; i < study->seed_count; i++) {
            const struct moe_run_result *run = &study->policies[policy].runs[i];
            activations += moe_finding_replayed(run).assignments;
            runs += run->fits;
        }
    }
    (void) fprintf(stderr,
                   "%u run%s in %.1f s, %.1f million expert activations per second per policy\n",
                   runs, runs == 1 ? "" : "s", study->wall_seconds,
                   (double) activations * 1e-6 / study->wall_seconds);
}

/* The report first: it is not lost when a file then cannot be written. */
static enum moe_status write_outputs(const struct moe_study_command *c,
                                     const struct moe_study *study, struct moe_output_file *detail,
                                     struct moe_error *err)
{
    const struct moe_report *report = NULL;
    MOE_TRY(moe_report_find(c->format, &report, err));
    MOE_TRY(report->write(study, &c->report, stdout, err));
    if (fflush(stdout) != 0) { /* before the speed line, wherever both go */
        return moe_fail(err, MOE_IO, "cannot write to standard output: %s", strerror(errno));
    }
    moe_study_command_print_speed(study);
    if (c->output != NULL) {
        MOE_TRY(moe_run_store_write(study, c->output, c->overwrite, err));
    }
    return c->detail != NULL ? moe_output_file_commit(detail, err) : MOE_OK;
}

static enum moe_status make_study(struct moe_study_command *c, struct moe_error *err)
{
    struct moe_study *study = NULL;
    struct moe_output_file detail = { 0 };
    if (c->detail != NULL) {
        MOE_TRY(moe_output_file_open(&detail, c->detail, c->overwrite, err));
        (void) fputs("step,time_ns,gpu,layer,event,duration_ns\n", detail.stream);
    }
    const struct moe_study_options options = {
        .threads = c->threads,
        .detail = detail.stream,
        .detail_steps = c->detail_steps,
        .audit = c->audit,
        .progress = isatty(STDERR_FILENO) == 1,
    };
    enum moe_status status = moe_study_create(&study, &c->scenario, &options, err);
    if (status == MOE_OK) {
        status = write_outputs(c, study, &detail, err);
    }
    moe_output_file_discard(&detail);
    moe_study_destroy(study);
    return status;
}

enum moe_status moe_study_command_run(struct moe_study_command *c, struct moe_error *err)
{
    MOE_TRY(try_output(c, err));
    if (c->times != NULL) {
        MOE_TRY(moe_overlay_read(&c->overlay, c->times, err));
        c->report.overlay = &c->overlay;
    }
    const enum moe_status status = make_study(c, err);
    moe_overlay_finish(&c->overlay);
    return status;
}

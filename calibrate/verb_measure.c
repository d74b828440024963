/* A node's GPUs measured into a sample store. */
#include <assert.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/expert/expert_backend.h"
#include "calibrate/measure/measure_backend.h"
#include "calibrate/measure/measure_link.h"
#include "calibrate/measure/measure_options.h"
#include "calibrate/measure/measure_planner.h"
#include "calibrate/measure/measure_threads.h"
#include "calibrate/verb.h"
#include "sim/base/wall_clock.h"

static struct moe_measure_run run; /* too large for the stack, and what a signal reaches */
static struct moe_measure_plan plan;
static volatile sig_atomic_t stop_signal;

static void ask_to_stop(int signal_number)
{
    stop_signal = signal_number;
    atomic_store(&run.stop, true);
}

static void write_command(int argc, char **argv, char *out, size_t size)
{
    size_t used = (size_t) snprintf(out, size, "measure");
    for (int i = 0; i < argc && used < size; i++) {
        used += (size_t) snprintf(out + used, size - used, " %s", argv[i]);
    }
}

static void summarise(const struct moe_measure_options *options)
{
    const unsigned samples = atomic_load(&run.sample_count);
    const unsigned skipped = atomic_load(&run.skipped_count);
    const unsigned wrong = atomic_load(&run.wrong_count);
    (void) printf("%u samples of %u series on %u GPU%s in %.1f s, in %s\n", samples,
                  plan.series_count, run.gpu_count, run.gpu_count == 1 ? "" : "s",
                  moe_wall_clock_s() - run.begin_s, options->output);
    if (skipped > 0) {
        (void) printf("%u visits were left out for the time limit of %.0f s\n", skipped,
                      run.limit_s);
    }
    if (wrong > 0) {
        (void) printf("%u samples have a wrong result and are flagged so\n", wrong);
    }
    if (run.note[0] != '\0') {
        (void) printf("%u visits not as planned, the first: %s\n", run.note_count, run.note);
    }
    if (atomic_load(&run.stop)) {
        (void) printf("not ended: the same command goes on\n");
    }
}

/* A failure is told with what is kept all the same. */
static enum moe_status tell_kept(const struct moe_measure_options *options, enum moe_status status,
                                 struct moe_error *err)
{
    if (status != MOE_OK && err != NULL) {
        struct moe_error first = *err;
        return moe_fail(err, status, "%.380s; %u samples are kept in %.60s", first.text,
                        atomic_load(&run.sample_count), options->output);
    }
    return status;
}

static enum moe_status measure(const struct moe_measure_options *options, struct moe_error *err)
{
    const struct sigaction action = { .sa_handler = ask_to_stop, .sa_flags = (int) SA_RESETHAND };
    struct moe_error late = { 0 };
    (void) sigaction(SIGTERM, &action, NULL);
    (void) sigaction(SIGINT, &action, NULL);
    enum moe_status status = moe_measure_run_open(&run, err);
    if (status != MOE_OK) {
        return status;
    }
    if (run.resumed) {
        (void) fprintf(stderr, "moecal: going on with run %lld of %s\n", (long long) run.id,
                       options->output);
    }
    status = moe_measure_threads_run(&run, err);
    if (status == MOE_OK && options->collectives && !atomic_load(&run.stop)) {
        status = moe_measure_link(&run, &stop_signal, err);
    }
    const enum moe_status ended = status == MOE_OK ? moe_measure_run_end(&run, err)
                                                   : moe_sample_store_commit(run.store, &late);
    if (status == MOE_OK) {
        status = ended;
    }
    moe_measure_run_close(&run);
    return tell_kept(options, status, err);
}

/* Plans; where the whole does not fit into the limit, with fewer points in the second pass rather
 * than with none of the series that would come last in it. Same arguments, same plan. */
static enum moe_status make_plan(struct moe_error *err)
{
    enum { LEAST_PERCENT = 5 };
    const uint32_t asked = run.request.repeat_percent;
    MOE_TRY(moe_measure_plan_make(&run.request, &plan, err));
    while (moe_measure_plan_total_s(&plan) > run.limit_s - run.reserve_s &&
           run.request.repeat_percent > LEAST_PERCENT) {
        const uint32_t fewer = run.request.repeat_percent * 2 / 3;
        run.request.repeat_percent = fewer < LEAST_PERCENT ? LEAST_PERCENT : fewer;
        moe_measure_plan_finish(&plan);
        MOE_TRY(moe_measure_plan_make(&run.request, &plan, err));
    }
    if (run.request.repeat_percent < asked) {
        (void) fprintf(
            stderr, "moecal: a second pass of %u %% of the points instead of %u %%, for --limit\n",
            run.request.repeat_percent, asked);
    }
    return MOE_OK;
}

enum moe_status moe_verb_measure(int argc, char **argv, struct moe_error *err)
{
    static char command[1024];
    struct moe_measure_options options = { 0 };
    run.begin_s = moe_wall_clock_s();
    run.plan = &plan;
    run.limit_s = 480.0;
    run.soak_s = 8.0;
    run.settle_s = 0.2;
    run.raw_share = 0.02;
    run.product_size = 8192;
    run.version = MOE_VERSION;
    run.command = command;
    moe_measure_request_default(&run.request);
    MOE_TRY(moe_measure_options_parse(argc, argv, false, &run, &options, err));
    if (options.help) {
        return MOE_OK;
    }
    for (size_t i = 0; i < moe_measure_backend_count; i++) {
        assert(moe_expert_backend_find(moe_measure_backends[i].name) != NULL);
    }
    write_command(argc, argv, command, sizeof command);
    if (options.collectives) {
        MOE_TRY(moe_measure_link_prepare(&run, err));
    }
    run.reserve_s = options.collectives ? moe_measure_link_reserve_s(&run) : 0.0;
    MOE_TRY(make_plan(err));
    if (options.plan_only) {
        moe_measure_plan_print(stdout, &plan, &run.request, run.limit_s - run.reserve_s);
        moe_measure_plan_finish(&plan);
        return MOE_OK;
    }
    if (plan.left_out[0] != '\0') {
        (void) fprintf(stderr, "moecal: left out, too large for the GPU's memory: %s\n",
                       plan.left_out);
    }
    (void) fprintf(stderr, "moecal: %u series, %u points, about %.0f s; limit %.0f s\n",
                   plan.series_count, plan.point_count, moe_measure_plan_total_s(&plan),
                   run.limit_s);
    enum moe_status status = moe_sample_store_open(options.output, &run.store, err);
    if (status == MOE_OK) {
        status = measure(&options, err);
        moe_sample_store_close(run.store);
    }
    if (status == MOE_OK) {
        summarise(&options);
    }
    moe_measure_plan_finish(&plan);
    if (status == MOE_OK && stop_signal != 0) {
        (void) fflush(stdout);
        (void) raise((int) stop_signal); /* as the shell expects it: 130 for an interrupt */
    }
    return status;
}

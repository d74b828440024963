/*
 * A GPU placed among others of its kind, in under 40 seconds: its memory, its arithmetic in a burst
 * and at sustained power, and its launches.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "calibrate/measure/measure_options.h"
#include "calibrate/measure/measure_planner.h"
#include "calibrate/measure/measure_threads.h"
#include "calibrate/verb.h"
#include "sim/base/wall_clock.h"

enum { PASSES = 3, PASSES_BEFORE_SOAK = 2 };

/* The mean over passes of a point's medians; 0 when there is none. Of the burst only those before
 * the soak, which leaves the GPU warm. */
static enum moe_status median_of(struct moe_measure_run *run, uint32_t rank, uint32_t point,
                                 double *us, struct moe_error *err)
{
    double sum = 0.0;
    double count = 0.0;
    const int32_t passes = point == run->plan->burst_point ? PASSES_BEFORE_SOAK : PASSES;
    for (int32_t pass = 1; pass <= passes; pass++) {
        double found = 0.0;
        MOE_TRY(moe_sample_find_median(run->store, run->id, run->gpu_ids[rank],
                                       run->point_ids[point], pass, &found, err));
        sum += found;
        count += found > 0.0;
    }
    *us = count > 0.0 ? sum / count : 0.0;
    return MOE_OK;
}

static double rate(double amount, double us)
{
    return us > 0.0 ? amount / us * 1e6 : 0.0;
}

static enum moe_status print_gpu(struct moe_measure_run *run, uint32_t rank, struct moe_error *err)
{
    const struct moe_measure_plan *plan = run->plan;
    double us[MOE_MEASURE_SERIES_LIMIT] = { 0.0 };
    double sustained_us = 0.0;
    for (uint32_t i = 0; i < plan->point_count; i++) {
        double found = 0.0;
        MOE_TRY(median_of(run, rank, i, &found, err));
        const struct moe_measure_point *point = &plan->points[i];
        if (point->role == MOE_ROLE_SUSTAINED) {
            sustained_us = found;
        } else {
            us[i] = found;
        }
    }
    (void) printf("%s %s:", run->gpus[rank].name, run->gpus[rank].uuid);
    for (uint32_t i = 0; i < plan->point_count; i++) {
        const struct moe_measure_point *point = &plan->points[i];
        const struct moe_measure_series *series = &plan->series[point->series];
        if (point->role == MOE_ROLE_SUSTAINED) {
            continue;
        }
        if (series->kind == MOE_MEASURE_LAUNCH) {
            (void) printf(" launch %.0f ns;", us[i] / point->tokens * 1e3);
        } else if (series->kind == MOE_MEASURE_STREAM) {
            (void) printf(" %s %.3f TB/s;", series->name + strlen("stream-"),
                          rate(point->bytes, us[i]) / 1e12);
        } else if (i == plan->burst_point) {
            (void) printf(" compute %.1f TFLOP/s in a burst, %.1f sustained;",
                          rate(point->flops, us[i]) / 1e12,
                          rate(point->flops, sustained_us) / 1e12);
        } else {
            (void) printf(" weights %.3f TB/s;", rate(point->bytes, us[i]) / 1e12);
        }
    }
    (void) printf(" %.1f s\n", moe_wall_clock_s() - run->begin_s);
    return MOE_OK;
}

static enum moe_status measure(struct moe_measure_run *run, struct moe_error *err)
{
    MOE_TRY(moe_measure_run_open(run, err));
    enum moe_status status = moe_measure_threads_run(run, err);
    if (status == MOE_OK) {
        status = moe_measure_run_end(run, err);
    }
    for (uint32_t i = 0; status == MOE_OK && i < run->gpu_count; i++) {
        status = print_gpu(run, i, err);
    }
    if (status == MOE_OK && run->note[0] != '\0') {
        (void) printf("%u visits not as planned, the first: %s\n", run->note_count, run->note);
    }
    moe_measure_run_close(run);
    return status;
}

enum moe_status moe_verb_card(int argc, char **argv, struct moe_error *err)
{
    static struct moe_measure_run run;
    static struct moe_measure_plan plan;
    struct moe_measure_options options = { 0 };
    run.begin_s = moe_wall_clock_s();
    run.plan = &plan;
    run.limit_s = 38.0;
    run.soak_s = 10.0;
    run.rest_s = 0.3; /* from rest, and not settled: a burst */
    run.settle_s = 0.0;
    run.raw_share = 0.0;
    run.product_size = 8192;
    run.version = MOE_VERSION;
    run.command = "card";
    run.is_card = true;
    moe_measure_request_default(&run.request);
    MOE_TRY(moe_measure_options_parse(argc, argv, true, &run, &options, err));
    if (options.help) {
        return MOE_OK;
    }
    MOE_TRY(moe_measure_plan_card(&run.request, &plan, err));
    enum moe_status status = moe_sample_store_open(options.output, &run.store, err);
    if (status == MOE_OK) {
        status = measure(&run, err);
        moe_sample_store_close(run.store);
    }
    moe_measure_plan_finish(&plan);
    return status;
}

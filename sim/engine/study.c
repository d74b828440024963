#include "sim/engine/study.h"

#include <assert.h>
#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "sim/arrival/workload.h"
#include "sim/base/wall_clock.h"
#include "sim/cost/calibration_hash.h"
#include "sim/engine/pools/pools_input.h"
#include "sim/engine/verdict.h"
#include "sim/scenario/deployment.h"

/* The study with what it owns: the shared tables, and one arena of results per run. */
struct owned_study {
    struct moe_study study; /* first, so that a pointer to it is a pointer to this */
    struct moe_arena shared;
    struct moe_arena *results; /* [policy_count * seed_count] */
    struct moe_run_result *runs;
    struct moe_replay_map map;
    struct moe_planning planning;
    struct moe_arrival_source arrivals;
    struct moe_cost *cost;
    struct moe_run_input input;
    struct moe_pools_input *pools; /* owned; NULL without pools */
    struct moe_error *errors;      /* [policy_count * seed_count] */
    uint32_t run_count;
};

static enum moe_status prepare_pools(struct owned_study *owned,
                                     const struct moe_calibration *calibration,
                                     struct moe_trace *trace, uint32_t needs, struct moe_error *err)
{
    const struct moe_pools_source source = {
        .whole = &owned->input,
        .calibration = calibration,
        .trace = trace,
        .planned_requests = (uint32_t) owned->study.planned_requests,
        .needs = needs,
    };
    if (!moe_deployment_has_pools(owned->study.scenario)) {
        return MOE_OK;
    }
    owned->pools = calloc(1, sizeof *owned->pools);
    if (owned->pools == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for two pools");
    }
    owned->input.pools = &owned->pools->run;
    return moe_pools_input_init(owned->pools, &source, &owned->shared, err);
}

/* What the policies plan on, by one pass over the trace; two more with pools. */
static enum moe_status plan(struct owned_study *owned, const struct moe_calibration *calibration,
                            struct moe_trace *trace, struct moe_error *err)
{
    struct moe_study *study = &owned->study;
    const struct moe_trace_model *model = moe_trace_model(trace);
    struct moe_planning_source source = {
        .scenario = study->scenario,
        .map = &owned->map,
        .trace = trace,
        .planned_requests = (uint32_t) study->planned_requests,
    };
    for (uint32_t i = 0; i < study->policy_count; i++) {
        MOE_TRY(moe_planning_check(&study->policies[i].composition, trace, err));
        source.needs |= moe_composition_needs(&study->policies[i].composition);
    }
    study->planned_tokens = moe_trace_requests(trace)[study->planned_requests].first_row;
    MOE_TRY(moe_planning_init(&owned->planning, &source, err));
    if (owned->planning.unknown == study->trace_tokens * model->layer_count * model->top_k) {
        return moe_fail(err, MOE_RANGE,
                        "%s: every expert choice is unknown; there is nothing to replay",
                        moe_trace_path(trace));
    }
    owned->input.planning = &owned->planning;
    return prepare_pools(owned, calibration, trace, source.needs, err);
}

static void describe_trace(struct owned_study *owned, const struct moe_trace *trace)
{
    struct moe_study *study = &owned->study;
    const struct moe_trace_request *requests = moe_trace_requests(trace);
    double tokens = 0.0;
    study->trace_model = *moe_trace_model(trace);
    study->trace_hash = moe_trace_hash(trace);
    study->trace_requests = moe_trace_request_count(trace);
    study->trace_tokens = moe_trace_row_count(trace);
    for (uint64_t i = 0; i < study->trace_requests; i++) {
        const uint64_t length = (uint64_t) requests[i].prompt_tokens + requests[i].output_tokens;
        tokens += (double) length;
        if (length > owned->input.longest_request) {
            owned->input.longest_request = length;
        }
    }
    study->mean_request_tokens = tokens / (double) study->trace_requests;
    study->planned_requests = moe_workload_planned_count((uint32_t) study->trace_requests,
                                                         study->scenario->serving.plan_share);
}

/* The source of all runs' arrivals, and how long the longest of any seed is. */
static enum moe_status prepare_arrivals(struct owned_study *owned, struct moe_trace *trace,
                                        struct moe_error *err)
{
    const struct moe_scenario *scenario = owned->study.scenario;
    const struct moe_arrival_setup setup = {
        .options = &scenario->arrivals,
        .trace = trace,
        .plan_share = scenario->serving.plan_share,
        .passes = scenario->serving.passes,
    };
    struct moe_arena scratch = { 0 };
    MOE_TRY(moe_arrival_source_init(&owned->arrivals, &setup, err));
    owned->input.arrivals = &owned->arrivals;
    if (scenario->arrivals.kind == MOE_ARRIVAL_CLOSED) {
        return MOE_OK; /* as long as the trace's */
    }
    owned->study.arrivals = &owned->arrivals;
    enum moe_status status =
        moe_arena_init(&scratch, ((size_t) 1 << 20) + 16 * owned->study.trace_requests, err);
    owned->input.longest_request = 0;
    for (uint32_t i = 0; i < scenario->seed_count && status == MOE_OK; i++) {
        struct moe_arrival_survey survey = { 0 };
        moe_arena_reset(&scratch);
        status = moe_arrival_survey(&owned->arrivals, trace, scenario->first_seed + i, &scratch,
                                    &survey, err);
        owned->study.survey = i == 0 ? survey : owned->study.survey;
        if (status == MOE_OK && survey.longest_tokens > owned->input.longest_request) {
            owned->input.longest_request = survey.longest_tokens;
        }
        if (status == MOE_OK && survey.longest_prompt > owned->input.longest_prompt) {
            owned->input.longest_prompt = survey.longest_prompt;
        }
    }
    moe_arena_finish(&scratch);
    return status;
}

/* Trace, calibration and tables that all runs share. */
static enum moe_status prepare(struct owned_study *owned, struct moe_trace *trace,
                               struct moe_error *err)
{
    const struct moe_scenario *scenario = owned->study.scenario;
    const struct moe_trace_model *model = moe_trace_model(trace);
    const struct moe_calibration *calibration = NULL;
    const size_t cells = (size_t) scenario->model.moe_layer_count * model->expert_count;
    MOE_TRY(moe_arena_init(&owned->shared, ((size_t) 64 << 20) + cells * 8, err));
    MOE_TRY(moe_calibration_load(&calibration, scenario->calibration_path, &owned->shared, err));
    owned->study.calibration_hash = moe_calibration_hash(calibration);
    MOE_TRY(moe_cost_init_serving(&owned->cost, calibration, &scenario->model, &scenario->cluster,
                                  &scenario->serving, &owned->shared, err));
    owned->study.is_fitted = calibration->fitting_count > 0;
    MOE_TRY(moe_cost_sources(&owned->study.sources, &owned->study.source_count, owned->cost,
                             calibration, &owned->shared, err));
    MOE_TRY(moe_replay_map_init(&owned->map, model, scenario->model.moe_layer_count, &owned->shared,
                                err));
    owned->input = (struct moe_run_input){
        .scenario = scenario,
        .cost = owned->cost,
        .map = &owned->map,
    };
    for (uint32_t i = 0; i < owned->run_count; i++) { /* known before any run, and said first */
        owned->runs[i].memory.gpu_bytes = scenario->cluster.memory_bytes > 0.0
                                              ? scenario->cluster.memory_bytes
                                              : moe_cost_memory_bytes(owned->cost);
    }
    describe_trace(owned, trace);
    MOE_TRY(prepare_arrivals(owned, trace, err));
    return plan(owned, calibration, trace, err);
}

/* One run, with its own trace handle and working memory; results is made for it. */
static enum moe_status run_in(const struct moe_study *study, const struct moe_run_input *input,
                              uint32_t policy, uint32_t seed, struct moe_arena *results,
                              struct moe_run_result *result, struct moe_error *err)
{
    struct moe_arena work = { 0 };
    struct moe_trace *trace = NULL;
    enum moe_status status = moe_trace_open(&trace, study->scenario->trace_path, err);
    if (status == MOE_OK) {
        status = moe_arena_init(&work, moe_run_work_bytes(input, trace), err);
    }
    if (status == MOE_OK) {
        status = moe_arena_init(results, moe_run_result_bytes(input), err);
    }
    if (status == MOE_OK) {
        status = moe_run(input, &study->policies[policy].composition,
                         study->scenario->first_seed + seed, trace, results, &work, result, err);
    }
    moe_arena_finish(&work);
    moe_trace_close(trace);
    return status;
}

static enum moe_status run_one(const struct owned_study *owned, const struct moe_run_input *input,
                               uint32_t index, struct moe_error *err)
{
    const uint32_t seeds = owned->study.seed_count;
    return run_in(&owned->study, input, index / seeds, index % seeds, &owned->results[index],
                  &owned->runs[index], err);
}

/* All runs, shared out over threads. The error of the first run in order is reported,
 * whichever failed first. */
static enum moe_status run_all(struct owned_study *owned, const struct moe_study_options *options,
                               struct moe_error *err)
{
    uint32_t done = 0;
    if (options->threads > 0) {
        omp_set_num_threads((int) options->threads);
    }
#pragma omp parallel for schedule(dynamic, 1)
    for (uint32_t i = 0; i < owned->run_count; i++) {
        struct moe_run_input input = owned->input;
        input.audit = options->audit;
        input.detail = i == 0 ? options->detail : NULL;
        input.detail_steps = options->detail_steps;
        (void) run_one(owned, &input, i, &owned->errors[i]);
#pragma omp critical(moe_study_progress)
        {
            done++;
            if (options->progress) {
                (void) fprintf(stderr, "\r%u of %u runs", done, owned->run_count);
                (void) fflush(stderr);
            }
        }
    }
    if (options->progress) {
        (void) fputs("\r                              \r", stderr);
    }
    for (uint32_t i = 0; i < owned->run_count; i++) {
        if (owned->errors[i].status != MOE_OK) {
            *err = owned->errors[i];
            return err->status;
        }
    }
    owned->study.audited = options->audit;
    return MOE_OK;
}

static enum moe_status name_policies(struct owned_study *owned, struct moe_error *err)
{
    struct moe_study *study = &owned->study;
    for (uint32_t i = 0; i < study->policy_count; i++) {
        MOE_TRY(moe_composition_parse(&study->policies[i].composition, study->scenario->policies[i],
                                      err));
        study->policies[i].runs = owned->runs + (size_t) i * study->seed_count;
        if (strcmp(study->scenario->policies[i], study->scenario->baseline) == 0) {
            study->baseline = i;
        }
    }
    return MOE_OK;
}

static struct owned_study *new_study(const struct moe_scenario *scenario)
{
    struct owned_study *owned = calloc(1, sizeof *owned);
    if (owned == NULL) {
        return NULL;
    }
    owned->study.scenario = scenario;
    owned->study.policy_count = scenario->policy_count;
    owned->study.seed_count = scenario->seed_count;
    owned->run_count = scenario->policy_count * scenario->seed_count;
    owned->results = calloc(owned->run_count, sizeof *owned->results);
    owned->runs = calloc(owned->run_count, sizeof *owned->runs);
    owned->errors = calloc(owned->run_count, sizeof *owned->errors);
    owned->study.policies = calloc(scenario->policy_count, sizeof *owned->study.policies);
    owned->study.flips = calloc(MOE_SENSITIVITY_LANES, sizeof *owned->study.flips);
    if (owned->results == NULL || owned->runs == NULL || owned->errors == NULL ||
        owned->study.policies == NULL || owned->study.flips == NULL) {
        moe_study_destroy(&owned->study);
        return NULL;
    }
    return owned;
}

enum moe_status moe_study_open(struct moe_study **out, const struct moe_scenario *scenario,
                               struct moe_error *err)
{
    struct moe_trace *trace = NULL;
    struct owned_study *owned = new_study(scenario);
    if (owned == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a study");
    }
    enum moe_status status = name_policies(owned, err);
    if (status == MOE_OK) {
        status = moe_trace_open(&trace, scenario->trace_path, err);
    }
    if (status == MOE_OK) {
        status = moe_scenario_check_trace(scenario, moe_trace_model(trace)->expert_count,
                                          moe_trace_model(trace)->top_k, err);
    }
    if (status == MOE_OK) {
        status = prepare(owned, trace, err);
    }
    moe_trace_close(trace);
    if (status != MOE_OK) {
        moe_study_destroy(&owned->study);
        return status;
    }
    *out = &owned->study;
    return MOE_OK;
}

enum moe_status moe_study_create(struct moe_study **out, const struct moe_scenario *scenario,
                                 const struct moe_study_options *options, struct moe_error *err)
{
    const double begin = moe_wall_clock_s();
    struct moe_study *study = NULL;
    double *scratch = NULL;
    MOE_TRY(moe_study_open(&study, scenario, err));
    enum moe_status status = run_all((struct owned_study *) study, options, err);
    if (status == MOE_OK) {
        scratch = calloc(scenario->seed_count, sizeof *scratch);
        status = scratch != NULL ? MOE_OK : moe_fail(err, MOE_LIMIT, "no memory for a verdict");
    }
    if (status != MOE_OK) {
        moe_study_destroy(study);
        return status;
    }
    moe_verdict_reach(study, scratch);
    free(scratch);
    study->wall_seconds = moe_wall_clock_s() - begin;
    *out = study;
    return MOE_OK;
}

enum moe_status moe_study_serve(const struct moe_study *study, uint32_t policy, uint32_t seed,
                                double rate, struct moe_service *service, bool *fits,
                                char why[MOE_RUN_WHY_BYTES], struct moe_error *err)
{
    const struct owned_study *owned = (const struct owned_study *) study;
    struct moe_arrival_options options;
    const struct moe_arrival_source arrivals =
        moe_arrival_source_at_rate(&owned->arrivals, rate, &options);
    struct moe_run_input input = owned->input;
    struct moe_run_result *result = calloc(1, sizeof *result);
    struct moe_arena memory = { 0 };
    if (result == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a run");
    }
    input.arrivals = &arrivals;
    input.latencies_only = true;
    const enum moe_status status = run_in(study, &input, policy, seed, &memory, result, err);
    if (status == MOE_OK) {
        *service = result->service;
        *fits = result->fits;
        memcpy(why, result->why, sizeof result->why);
    }
    moe_arena_finish(&memory);
    free(result);
    return status;
}

void moe_study_destroy(struct moe_study *study)
{
    if (study == NULL) {
        return;
    }
    struct owned_study *owned = (struct owned_study *) study;
    for (uint32_t i = 0; owned->results != NULL && i < owned->run_count; i++) {
        moe_arena_finish(&owned->results[i]);
    }
    if (owned->pools != NULL) {
        moe_pools_input_finish(owned->pools);
    }
    free(owned->pools);
    moe_planning_finish(&owned->planning);
    moe_arrival_source_finish(&owned->arrivals);
    moe_arena_finish(&owned->shared);
    free(owned->results);
    free(owned->runs);
    free(owned->errors);
    free(study->policies);
    free(study->flips);
    free(owned);
}

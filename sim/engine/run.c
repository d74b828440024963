#include "sim/engine/run.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/engine/pools/pools.h"
#include "sim/engine/run_result.h"
#include "sim/engine/run_state.h"

#include "sim/base/no_malloc.h"

static enum moe_phase phase_now(const struct moe_run_state *run)
{
    if (run->finished < run->warmup_requests) {
        return MOE_PHASE_WARMUP;
    }
    const bool scores =
        run->pools != NULL ? moe_pools_scores_next(run) : moe_serving_scores_next(&run->serving);
    return scores ? MOE_PHASE_SCORED : MOE_PHASE_DRAIN;
}

static void on_first_token(void *context, moe_time_ns ttft_ns)
{
    struct moe_run_state *run = context;
    if (run->phase == MOE_PHASE_SCORED) {
        moe_latency_add(&run->result->ttft, ttft_ns, 1);
    }
}

static void on_next_token(void *context, moe_time_ns gap_ns)
{
    struct moe_run_state *run = context;
    if (run->phase == MOE_PHASE_SCORED) {
        moe_latency_add(&run->result->itl, gap_ns, 1);
    }
}

static void on_finish(void *context, const struct moe_finished *finished)
{
    struct moe_run_state *run = context;
    run->finished++;
    moe_audit_finish_request(&run->audit, finished);
    if (run->pools != NULL) {
        moe_pools_finish(run, finished);
    } else if (run->log.capacity > 0) {
        moe_request_log_add(&run->log, &(struct moe_request_record){
                                           .number = finished->arrival->number,
                                           .arrival_ns = finished->arrival->arrival_ns,
                                           .admitted_ns = finished->admitted_ns,
                                           .first_token_ns = finished->first_token_ns,
                                           .finished_ns = finished->finished_ns,
                                           .prompt_tokens = finished->arrival->prompt_tokens,
                                           .output_tokens = finished->arrival->output_tokens,
                                           .preemptions = finished->preemptions,
                                           .priority = finished->arrival->priority,
                                       });
    }
    run->result->account[run->phase].requests++;
    if (run->phase == MOE_PHASE_SCORED) {
        moe_run_result_add_request(run->result, finished);
    }
}

/* Plays the step through the event queue too, writes its events and holds it to the fast
 * path. */
static enum moe_status play_events(struct moe_run_state *run, moe_time_ns step_ns,
                                   struct moe_error *err)
{
    moe_time_ns event_ns = 0;
    run->player.start_ns = run->now_ns;
    run->player.step = run->step_number;
    MOE_TRY(
        moe_timeline_events(&run->step.times, &run->player, run->event_barriers, &event_ns, err));
    if (event_ns != step_ns) {
        return moe_fail(err, MOE_LIMIT,
                        "step %" PRIu64 " takes %" PRId64 " ns event by event and %" PRId64
                        " ns by barriers: please report this",
                        run->step_number, event_ns, step_ns);
    }
    return MOE_OK;
}

/* What weights on the links have cost the step: the exchanges along its path took comm_load times
 * as long. What would have been waited for without them may be less, so this is the most. */
static void count_slowing(struct moe_run_state *run)
{
    const double load = run->step.hardware.comm_load;
    struct moe_critical_path path = { 0 };
    const struct moe_price_sources sources = moe_step_sources(&run->step);
    moe_time_ns exchange_ns = 0;
    if (load <= 1.0) {
        return;
    }
    moe_timeline_critical(&run->step.times, run->step.barriers, &sources, &path);
    for (uint32_t source = 0; source < MOE_PROVENANCE_COUNT; source++) {
        exchange_ns += path.ns[MOE_COST_DISPATCH][source] + path.ns[MOE_COST_COMBINE][source];
    }
    run->online.account.slowed_ns += (moe_time_ns) ((double) exchange_ns * (1.0 - 1.0 / load));
}

/* Placements made anew: layers that changed, the time it stood still, links that are shared. */
static enum moe_status go_online(struct moe_run_state *run, moe_time_ns step_ns, bool scored,
                                 struct moe_error *err)
{
    struct moe_online *online = &run->online;
    const size_t slots = run->result->slot_count;
    moe_time_ns stall_ns = 0;
    if (!online->active) {
        return MOE_OK;
    }
    count_slowing(run);
    MOE_TRY(moe_online_step(online, &run->counter, step_ns, scored, &stall_ns,
                            &run->step.hardware.comm_load, err));
    for (uint32_t layer = 0; layer < run->result->layer_count; layer++) {
        if (online->changed[layer]) {
            moe_route_counter_replan(&run->counter, run->input->map, &online->current, layer);
            moe_bound_meter_replan(&run->meter, &online->current, layer);
            memcpy(run->result->expert_of_slot + layer * slots,
                   moe_placement_layer(&online->current, layer), slots * sizeof(uint16_t));
        }
    }
    if (online->changed[run->result->layer_count - 1]) {
        moe_drafts_replan(&run->drafts, &online->current);
    }
    run->now_ns += stall_ns;
    moe_audit_pass(&run->audit, &run->serving, run->now_ns);
    return MOE_OK;
}

/* Everything but the account of tokens and time, which steps of other phases have too. */
static void score_step(struct moe_run_state *run, moe_time_ns step_ns)
{
    struct moe_run_result *result = run->result;
    const bool metered = result->account[MOE_PHASE_SCORED].steps % MOE_BOUND_STRIDE == 0;
    const bool fetches = run->fetcher.limit > 0;
    const uint16_t *experts = fetches ? run->fetcher.wide.expert_of_slot : result->expert_of_slot;
    moe_run_result_add_loads(result, &run->step, &run->counter, experts,
                             metered ? &run->meter : NULL, run->expert_scratch);
    if (run->halves.now) {
        moe_run_result_add_halves(result, &run->step, &run->halves, step_ns);
    } else {
        moe_run_result_add_step(result, &run->step, &run->counter, experts, step_ns);
    }
    if (fetches) {
        moe_fetcher_account(&run->fetcher, moe_step_fetch_exposed(&run->step, step_ns));
    }
}

enum moe_status moe_run_step(struct moe_run_state *run, uint64_t tokens, struct moe_error *err)
{
    struct moe_run_result *result = run->result;
    const uint64_t counted = run->counter.assignments;
    uint64_t output_tokens = 0;
    moe_time_ns step_ns = 0;
    const struct moe_serving_observer observer = { run, on_first_token, on_next_token, on_finish };
    run->phase = phase_now(run);
    const bool scored = run->phase == MOE_PHASE_SCORED;
    const bool attribute = scored && run->input->scenario->attribution;
    if (run->input->audit) {
        MOE_TRY(moe_audit_plan(&run->audit, &run->serving, run->rank, tokens, err));
    }
    moe_halves_cut(&run->halves, &run->serving, run->rank);
    if (run->counter.sample != NULL) {
        moe_layer_sample_begin_step(&run->sample, run->step_number);
    }
    moe_route_counter_begin_step(&run->counter);
    if (run->foresight.part != NULL) {
        moe_foresight_begin_step(&run->foresight, run->step_number, scored);
    }
    MOE_TRY(run->counter.split == NULL ? moe_run_route(run, err)
                                       : moe_serving_route_step(&run->serving, &run->counter, err));
    if (run->counter.split == NULL && run->foresight.part != NULL) {
        MOE_TRY(moe_foresight_watch(&run->foresight, run->counter.slot_tokens,
                                    result->expert_of_slot, run->foresight_total, err));
    }
    if (run->counter.split != NULL) { /* those were the demands */
        MOE_TRY(moe_route_split_solve(&run->split, run->step_number, err));
        MOE_TRY(moe_run_route(run, err));
    }
    MOE_TRY(moe_drafts_count(&run->drafts, &run->serving, err));
    if (run->input->audit) {
        MOE_TRY(moe_audit_counts(&run->audit, &run->counter, tokens, run->split.dropped, err));
    }
    MOE_TRY(moe_run_time_step(run, attribute, &step_ns, err));
    if (run->input->detail != NULL && run->step_number < run->input->detail_steps) {
        MOE_TRY(play_events(run, step_ns, err));
    }
    if (run->input->audit) {
        MOE_TRY(moe_audit_step(&run->audit, &run->step, moe_step_length(&run->step), err));
    }
    moe_audit_pass(&run->audit, &run->serving, run->now_ns + step_ns);
    moe_serving_end_step(&run->serving, run->now_ns + step_ns, &output_tokens, &observer);
    moe_step_profile_add(&result->profile,
                         tokens == output_tokens ? MOE_STEP_DECODE : MOE_STEP_MIXED, tokens,
                         step_ns);
    if (scored) {
        score_step(run, step_ns);
    }
    struct moe_token_account *account = &result->account[run->phase];
    account->steps++;
    account->tokens += tokens;
    account->output_tokens += output_tokens;
    account->assignments += run->counter.assignments - counted;
    account->time_ns += step_ns;
    run->now_ns += step_ns;
    run->step_number++;
    return go_online(run, step_ns, scored, err);
}

/* The warm-up takes as many requests as run at once, and as many more are then under way. */
static enum moe_status refuse_unscored(const struct moe_run_state *run, struct moe_error *err)
{
    const struct moe_serving *serving = &run->input->scenario->serving;
    const struct moe_arrival_source *arrivals = run->input->arrivals;
    const uint64_t running = run->warmup_requests;
    const struct moe_workload *w = &run->arrivals.workload;
    const uint64_t scored = w->request_count - w->planned_count;
    if (!run->arrivals.is_closed_loop) {
        return moe_fail(err, MOE_RANGE,
                        "no step is left to score: the last of %" PRIu64
                        " requests had come before %" PRIu64
                        " had finished (the warm-up); use more arrivals.requests, a longer "
                        "arrivals.duration_s or a lower arrivals.rate",
                        arrivals->total, running);
    }
    return moe_fail(
        err, MOE_RANGE,
        "no step is left to score: %" PRIu64 " requests run at once, and serving.passes "
        "%u over %" PRIu64 " requests all begin in the warm-up; use serving.passes %" PRIu64
        " or more, or a lower serving.running_per_gpu",
        running, serving->passes, scored, 2 * running / scored + 1);
}

/* Where the KV pool never binds, all slots are filled at once and refilled as requests end:
 * then it is known before the run whether a request is left to score after the warm-up. */
static enum moe_status refuse_hopeless(const struct moe_run_state *run, struct moe_error *err)
{
    const struct moe_workload *w = &run->arrivals.workload;
    const uint64_t requests = (uint64_t) w->passes * (w->request_count - w->planned_count);
    const bool roomy =
        run->input->scenario->serving.kv == MOE_KV_RESERVE &&
        run->result->memory.kv_tokens / run->input->longest_request >= run->serving.running_per_gpu;
    return run->arrivals.is_closed_loop && roomy && requests < 2 * run->warmup_requests
               ? refuse_unscored(run, err)
               : MOE_OK;
}

void moe_run_collect(struct moe_run_state *run)
{
    struct moe_run_result *result = run->result;
    result->unknown_assignments = run->counter.unknown;
    result->dropped_assignments = run->split.dropped;
    result->preemptions = run->serving.preemptions;
    result->recomputed_rows = run->serving.recomputed_rows;
    result->lost_rows = run->serving.lost_rows;
    result->hit_rows = run->serving.hit_rows;
    result->rejected_rows = run->serving.rejected_rows;
    result->repeated_rows = run->serving.repeated_rows;
    result->foreseen_steps = moe_foresight_result(&run->foresight.score);
    result->dispatch_bytes = moe_cost_exchange_bytes(run->input->cost, MOE_COST_DISPATCH);
    result->combine_bytes = moe_cost_exchange_bytes(run->input->cost, MOE_COST_COMBINE);
    result->online = run->online.account;
    result->fetch = run->fetcher.account;
    result->served_rows = run->audit.finished_rows - run->serving.moved_rows;
    result->served_requests = run->audit.finished;
    if (run->input->scenario->attribution) {
        assert(run->straggler.idle_ns[MOE_CAUSE_ALL] == result->idle_ns);
        result->attributed = true;
        moe_straggler_split(run->straggler.idle_ns, result->cause_idle_ns);
        memcpy(result->subset_time_ns, run->straggler.time_ns, sizeof result->subset_time_ns);
        memcpy(result->sensitivity_ns, run->sensitivity.time_ns, sizeof result->sensitivity_ns);
    }
}

static enum moe_status close_result(struct moe_run_state *run, struct moe_error *err)
{
    struct moe_run_result *result = run->result;
    moe_run_collect(run);
    if (run->input->audit) {
        MOE_TRY(moe_audit_end(&run->audit, &run->serving, run->input->arrivals, result->seed,
                              run->spare, err));
    }
    if (run->log.count > 0) {
        moe_request_log_measure(&run->log, &run->input->scenario->slo, &result->service);
    }
    return result->account[MOE_PHASE_SCORED].steps == 0 && !run->input->latencies_only
               ? refuse_unscored(run, err)
               : MOE_OK;
}

void moe_run_wait(struct moe_run_state *run, moe_time_ns at_ns)
{
    if (at_ns > run->now_ns) {
        run->phase = phase_now(run);
        run->result->account[run->phase].quiet_ns += at_ns - run->now_ns;
        run->now_ns = at_ns;
        moe_audit_pass(&run->audit, &run->serving, at_ns);
    }
}

/* Nothing runs: on to the next arrival. False when nobody comes any more. */
static bool wait_for_arrival(struct moe_run_state *run)
{
    moe_time_ns arrival_ns = 0;
    if (!moe_serving_next_arrival(&run->serving, &arrival_ns)) {
        return false;
    }
    assert(arrival_ns > run->now_ns); /* who has arrived can be admitted to an idle cluster */
    moe_run_wait(run, arrival_ns);
    return true;
}

static enum moe_status serve(struct moe_run_state *run, struct moe_error *err)
{
    for (;;) {
        uint64_t tokens = 0;
        MOE_TRY(moe_run_meet_death(run, err));
        MOE_TRY(moe_serving_plan_step(&run->serving, run->now_ns, run->rank, &tokens, err));
        if (tokens > 0) {
            MOE_TRY(moe_run_step(run, tokens, err));
        } else if (!wait_for_arrival(run)) {
            return close_result(run, err);
        }
    }
}

void moe_run_finish(struct moe_run_state *run)
{
    moe_route_split_finish(&run->split);
    moe_online_finish(&run->online);
    moe_arena_finish(&run->state);
}

enum moe_status moe_run(const struct moe_run_input *input,
                        const struct moe_composition *composition, uint64_t seed,
                        struct moe_trace *trace, struct moe_arena *results, struct moe_arena *work,
                        struct moe_run_result *result, struct moe_error *err)
{
    const struct moe_placement_shape shape = moe_scenario_shape(input->scenario);
    struct moe_run_state run = { .input = input, .result = result };
    struct moe_placement placement;
    if (input->pools != NULL) {
        return moe_pools_run(input, composition, seed, trace, results, work, result, err);
    }
    MOE_TRY(moe_run_result_init(result, &shape, results, err));
    (void) snprintf(result->policy, sizeof result->policy, "%s", composition->label);
    result->seed = seed;
    MOE_TRY(moe_run_plan(&run, composition, seed, work, &placement, err));
    if (!result->fits) {
        return MOE_OK;
    }
    enum moe_status status = moe_run_init(&run, composition, &placement, trace, seed, work, err);
    if (status == MOE_OK) {
        status = refuse_hopeless(&run, err);
    }
    if (status == MOE_OK) {
        status = serve(&run, err);
    }
    moe_run_finish(&run);
    return status;
}

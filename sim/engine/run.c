#include "sim/engine/run.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/engine/route_counter.h"
#include "sim/engine/route_split.h"
#include "sim/engine/run_result.h"
#include "sim/engine/serving/graph_pad.h"
#include "sim/engine/serving/serving.h"
#include "sim/engine/serving/waiting_room.h"
#include "sim/engine/step.h"
#include "sim/engine/timeline.h"

#include "sim/base/no_malloc.h"

/* One run's moving parts. */
struct run {
    const struct moe_run_input *input;
    struct moe_run_result *result;
    struct moe_arrival_stream arrivals;
    struct moe_intake intake;
    struct moe_request_log log; /* open loops only */
    struct moe_serving_state serving;
    struct moe_route_counter counter;
    struct moe_step step;
    struct moe_bound_meter meter;
    struct moe_straggler straggler;
    struct moe_sensitivity sensitivity;
    struct moe_event_player player; /* with --detail only */
    struct moe_barrier *event_barriers;
    struct moe_planning_run shown;
    struct moe_placement start;     /* what was in force before the plan */
    struct moe_arena state;         /* memory of dispatch and group policies */
    struct moe_route_split split;   /* where a dispatch policy decides */
    struct moe_foresight foresight; /* part NULL: nobody predicts step by step */
    uint64_t *foresight_total;      /* [expert] scratch of it */
    struct moe_waiting_room room;   /* where a group policy decides */
    struct moe_token_work *rank;    /* [rank] work as serving plans it */
    struct moe_token_work *own;     /* [gpu] the same for each GPU of its rank */
    uint32_t *expert_scratch;       /* [expert] */
    moe_time_ns now_ns;
    uint64_t step_number;
    uint64_t finished;        /* requests */
    uint64_t warmup_requests; /* that must finish first: as many as run at once */
    enum moe_phase phase;
};

size_t moe_run_result_bytes(const struct moe_run_input *input)
{
    const struct moe_placement_shape s = moe_scenario_shape(input->scenario);
    const size_t per_layer =
        16 * (size_t) s.gpu_count + 16 * (size_t) s.expert_count + 2 * (size_t) s.slot_count + 64;
    return ((size_t) 1 << 20) + s.layer_count * per_layer + 64 * (size_t) s.gpu_count +
           5 * sizeof(uint64_t) * (size_t) MOE_LATENCY_BUCKETS;
}

size_t moe_run_work_bytes(const struct moe_run_input *input, const struct moe_trace *trace)
{
    const struct moe_placement_shape s = moe_scenario_shape(input->scenario);
    const struct moe_trace_model *model = moe_trace_model(trace);
    const size_t gpus = s.gpu_count;
    const bool closed = input->scenario->arrivals.kind == MOE_ARRIVAL_CLOSED;
    const size_t log_bytes = closed ? 0 : moe_request_log_bytes(input->arrivals->total);
    const size_t layer = gpus * gpus * 4 + gpus * (400 + 4 * (size_t) s.node_count) +
                         (size_t) s.slot_count * 8 + (size_t) s.expert_count * 16 + 64;
    return ((size_t) 32 << 20) + moe_bound_meter_bytes(&s) +
           moe_serving_bytes(&input->scenario->serving, s.gpu_count,
                             model->layer_count * model->top_k) +
           s.layer_count * layer + gpus * 8192 + gpus * MOE_PLANNING_SPEED_POINTS * sizeof(double) +
           (size_t) moe_trace_request_count(trace) * 16 + moe_trace_request_count(trace) / 4 +
           log_bytes;
}

/* What the composition decides before the run: its plan into placement. scratch is of this call
 * only. */
static enum moe_status decide(struct run *run, const struct moe_composition *c,
                              struct moe_arena *scratch, struct moe_placement *placement,
                              struct moe_error *err)
{
    struct moe_place_view view = run->shown.view;
    const struct moe_composition_part *predict = &c->part[MOE_POLICY_PREDICT];
    const struct moe_composition_part *place = &c->part[MOE_POLICY_PLACE];
    if (predict->policy != NULL && predict->policy->predict->window != NULL) {
        double *load =
            MOE_NEW(scratch, double, (size_t) view.shape.layer_count *view.shape.expert_count);
        if (load == NULL) {
            return moe_fail(err, MOE_LIMIT, "no room for predicted loads");
        }
        view.parameters = predict->values;
        MOE_TRY(moe_policy_predict_window(predict->policy, &view, scratch, load, err));
        MOE_TRY(moe_foresight_score_window(&view.shape, load, run->input->planning->future_load,
                                           scratch, &run->result->foreseen_window, err));
        view.load = load;
    }
    view.parameters = place->values;
    return moe_policy_place(place->policy, &view, scratch, placement, err);
}

/* The composition's plan, checked and priced in memory. */
static enum moe_status plan(struct run *run, const struct moe_composition *composition,
                            uint64_t seed, struct moe_arena *work, struct moe_placement *placement,
                            struct moe_error *err)
{
    const struct moe_run_input *input = run->input;
    struct moe_run_result *result = run->result;
    struct moe_arena scratch = { 0 };
    const struct moe_policy *contiguous = NULL;
    MOE_TRY(moe_planning_view(&run->shown, input->planning, input->scenario, input->cost, seed,
                              work, err));
    struct moe_place_view view = run->shown.view;
    view.replica_budget_total = 0; /* what is in force was not planned */
    MOE_TRY(moe_placement_init(placement, work, &view.shape, err));
    MOE_TRY(moe_placement_init(&run->start, work, &view.shape, err));
    MOE_TRY(moe_policy_find(MOE_POLICY_PLACE, "contiguous", &contiguous, err));
    MOE_TRY(moe_policy_place(contiguous, &view, work, &run->start, err));
    run->shown.view.previous = &run->start;
    MOE_TRY(
        moe_arena_init(&scratch, moe_planning_scratch_bytes(input->planning, &view.shape), err));
    const enum moe_status status = decide(run, composition, &scratch, placement, err);
    moe_arena_finish(&scratch);
    MOE_TRY(status);
    result->moved_slots = moe_placement_count_moves(&run->start, placement);
    memcpy(result->expert_of_slot, placement->expert_of_slot,
           (size_t) view.shape.layer_count * view.shape.slot_count * sizeof(uint16_t));
    moe_memory_of(&input->scenario->model, &input->scenario->cluster,
                  moe_cost_memory_bytes(input->cost), placement, &result->memory);
    result->fits = result->memory.weights_fit && result->memory.kv_tokens >= input->longest_request;
    if (!result->memory.weights_fit) {
        (void) snprintf(result->why, sizeof result->why,
                        "weights need %.1f GB beside %.1f GB of reserve; a GPU has %.1f GB",
                        (result->memory.nonexpert_bytes + result->memory.slot_bytes) / 1e9,
                        result->memory.reserve_bytes / 1e9, result->memory.gpu_bytes / 1e9);
    } else if (!result->fits) {
        (void) snprintf(result->why, sizeof result->why,
                        "the longest request has %" PRIu64
                        " tokens; a GPU's KV cache holds %" PRIu64,
                        input->longest_request, result->memory.kv_tokens);
    }
    return MOE_OK;
}

/* The policies that decide while serving, where the engine does not by itself. */
static enum moe_status init_policies(struct run *run, const struct moe_composition *c,
                                     const struct moe_placement *placement, struct moe_trace *trace,
                                     struct moe_error *err)
{
    const struct moe_route_split_setup split = {
        .part = &c->part[MOE_POLICY_DISPATCH],
        .planning = &run->shown.view,
        .placement = placement,
        .map = run->input->map,
        .top_k = run->input->scenario->model.top_k,
        .state_arena = &run->state,
    };
    const struct moe_waiting_room_setup room = {
        .part = &c->part[MOE_POLICY_GROUP],
        .planning = &run->shown.view,
        .placement = placement,
        .map = run->input->map,
        .trace = trace,
        .intake = &run->intake,
        .options = &run->input->scenario->serving,
        .state_arena = &run->state,
    };
    const bool splits = !split.part->policy->dispatch->in_turn;
    const bool groups = !room.part->policy->group->in_turn;
    const struct moe_composition_part *predict = &c->part[MOE_POLICY_PREDICT];
    const bool foresees = predict->policy != NULL && predict->policy->predict->step != NULL;
    if (!splits && !groups && !foresees) {
        return MOE_OK;
    }
    MOE_TRY(moe_arena_init(
        &run->state, moe_planning_scratch_bytes(run->input->planning, &placement->shape), err));
    if (foresees) {
        run->foresight_total = MOE_NEW(&run->state, uint64_t, placement->shape.expert_count);
        if (run->foresight_total == NULL) {
            return moe_fail(err, MOE_LIMIT, "no room for the loads of a layer");
        }
        MOE_TRY(moe_foresight_init(&run->foresight, predict, &run->shown.view, &run->state, err));
    }
    if (splits) {
        MOE_TRY(moe_route_split_init(&run->split, &split, err));
        run->split.foresight = foresees ? &run->foresight : NULL;
        moe_route_counter_split_by(&run->counter, &run->split);
    }
    if (groups) {
        MOE_TRY(moe_waiting_room_init(&run->room, &room, err));
        run->serving.setup.room = &run->room;
    }
    return MOE_OK;
}

/* Who comes, and where it is written down what became of them. */
static enum moe_status init_arrivals(struct run *run, struct moe_trace *trace, uint64_t seed,
                                     struct moe_arena *work, struct moe_error *err)
{
    const struct moe_arrival_source *source = run->input->arrivals;
    MOE_TRY(moe_arrival_stream_init(&run->arrivals, source, trace, seed, work, err));
    run->intake = (struct moe_intake){ .stream = &run->arrivals };
    return run->arrivals.is_closed_loop ? MOE_OK
                                        : moe_request_log_init(&run->log, source->total, work, err);
}

static enum moe_status init_parts(struct run *run, const struct moe_placement *placement,
                                  struct moe_trace *trace, uint64_t seed, struct moe_arena *work,
                                  struct moe_error *err)
{
    const struct moe_scenario *scenario = run->input->scenario;
    const struct moe_model *model = &scenario->model;
    const struct moe_serving *serving = &scenario->serving;
    const uint32_t gpus = placement->shape.gpu_count;
    const uint32_t layers = placement->shape.layer_count;
    const struct moe_step_options options = {
        .cost = run->input->cost,
        .serving = serving,
        .layer_count = layers,
        .gpu_count = gpus,
        .dense_layer_count = model->layer_count - model->moe_layer_count,
        .seed = seed,
        .noise = scenario->noise,
    };
    const struct moe_serving_setup serving_setup = {
        .options = serving,
        .trace = trace,
        .intake = &run->intake,
        .rank_count = gpus / serving->attention_ranks,
        .kv_tokens = run->result->memory.kv_tokens,
        .seed = seed,
        .window_size = model->window_layer_count > 0 ? model->window_size : 0,
    };
    MOE_TRY(init_arrivals(run, trace, seed, work, err));
    MOE_TRY(moe_serving_init(&run->serving, &serving_setup, work, err));
    MOE_TRY(
        moe_route_counter_init(&run->counter, run->input->map, placement, model->top_k, work, err));
    if (serving->exchange == MOE_EXCHANGE_HIERARCHICAL) {
        MOE_TRY(moe_route_counter_count_nodes(&run->counter, work, err));
    }
    MOE_TRY(moe_step_init(&run->step, &options, work, err));
    MOE_TRY(
        moe_bound_meter_init(&run->meter, placement, run->input->planning->future_load, work, err));
    if (scenario->attribution) {
        MOE_TRY(moe_straggler_init(&run->straggler, gpus, serving, work, err));
        MOE_TRY(moe_sensitivity_init(&run->sensitivity, layers, gpus, serving, work, err));
    }
    if (run->input->detail != NULL) {
        MOE_TRY(moe_event_player_init(&run->player, gpus, run->input->detail, work, err));
        run->event_barriers = MOE_NEW(work, struct moe_barrier, moe_barrier_count(layers));
    }
    run->rank = MOE_NEW(work, struct moe_token_work, gpus);
    run->own = MOE_NEW(work, struct moe_token_work, gpus);
    run->expert_scratch = MOE_NEW(work, uint32_t, model->expert_count);
    if (run->rank == NULL || run->own == NULL || run->expert_scratch == NULL ||
        (run->input->detail != NULL && run->event_barriers == NULL)) {
        return moe_fail(err, MOE_LIMIT, "no room for a run on %u GPUs", gpus);
    }
    run->warmup_requests = moe_arrival_warmup(
        run->input->arrivals, (uint64_t) serving_setup.rank_count * serving->running_per_gpu);
    memcpy(run->result->gpu_factor, run->step.hardware.factor,
           gpus * sizeof *run->result->gpu_factor);
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        run->result->gpu_in_tail[gpu] =
            scenario->noise && moe_cost_gpu_in_tail(run->input->cost, seed, gpu);
    }
    return MOE_OK;
}

static enum moe_phase phase_now(const struct run *run)
{
    if (run->finished < run->warmup_requests) {
        return MOE_PHASE_WARMUP;
    }
    return moe_serving_scores_next(&run->serving) ? MOE_PHASE_SCORED : MOE_PHASE_DRAIN;
}

static void on_first_token(void *context, moe_time_ns ttft_ns)
{
    struct run *run = context;
    if (run->phase == MOE_PHASE_SCORED) {
        moe_latency_add(&run->result->ttft, ttft_ns, 1);
    }
}

static void on_next_token(void *context, moe_time_ns gap_ns)
{
    struct run *run = context;
    if (run->phase == MOE_PHASE_SCORED) {
        moe_latency_add(&run->result->itl, gap_ns, 1);
    }
}

static void log_request(struct run *run, const struct moe_finished *finished)
{
    const struct moe_request_record record = {
        .number = finished->arrival->number,
        .arrival_ns = finished->arrival->arrival_ns,
        .admitted_ns = finished->admitted_ns,
        .first_token_ns = finished->first_token_ns,
        .finished_ns = finished->finished_ns,
        .prompt_tokens = finished->arrival->prompt_tokens,
        .output_tokens = finished->arrival->output_tokens,
        .preemptions = finished->preemptions,
        .priority = finished->arrival->priority,
    };
    moe_request_log_add(&run->log, &record);
}

static void on_finish(void *context, const struct moe_finished *finished)
{
    struct run *run = context;
    run->finished++;
    if (!run->arrivals.is_closed_loop) {
        log_request(run, finished);
    }
    run->result->account[run->phase].requests++;
    if (run->phase == MOE_PHASE_SCORED) {
        moe_run_result_add_request(run->result, finished);
    }
}

/* The work of a rank on each of its GPUs; padded where graphs say so. */
static void spread_work(struct run *run)
{
    const struct moe_serving *options = &run->input->scenario->serving;
    const uint32_t ranks = run->serving.setup.rank_count;
    run->result->padded_rows += moe_graph_pad(options, ranks, run->rank);
    for (uint32_t gpu = 0; gpu < run->result->gpu_count; gpu++) {
        run->own[gpu] = run->rank[gpu / options->attention_ranks];
    }
}

/* Plays the step through the event queue too, writes its events and holds it to the fast
 * path. */
static enum moe_status play_events(struct run *run, moe_time_ns step_ns, struct moe_error *err)
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

static enum moe_status one_step(struct run *run, uint64_t tokens, struct moe_error *err)
{
    struct moe_run_result *result = run->result;
    const uint64_t counted = run->counter.assignments;
    uint64_t output_tokens = 0;
    const struct moe_serving_observer observer = { run, on_first_token, on_next_token, on_finish };
    run->phase = phase_now(run);
    spread_work(run);
    const bool scored = run->phase == MOE_PHASE_SCORED;
    const bool attribute = scored && run->input->scenario->attribution;
    moe_route_counter_begin_step(&run->counter);
    if (run->foresight.part != NULL) {
        moe_foresight_begin_step(&run->foresight, run->step_number, scored);
    }
    MOE_TRY(moe_serving_route_step(&run->serving, &run->counter, err));
    if (run->counter.split == NULL && run->foresight.part != NULL) {
        MOE_TRY(moe_foresight_watch(&run->foresight, run->counter.slot_tokens,
                                    result->expert_of_slot, run->foresight_total, err));
    }
    if (run->counter.split != NULL) { /* those were the demands */
        MOE_TRY(moe_route_split_solve(&run->split, run->step_number, err));
        MOE_TRY(moe_serving_route_step(&run->serving, &run->counter, err));
    }
    if (attribute) {
        moe_straggler_begin_step(&run->straggler);
    }
    moe_step_price(&run->step, run->step_number, run->own, &run->counter,
                   attribute ? &run->straggler : NULL);
    const moe_time_ns step_ns = moe_step_play(&run->step);
    if (attribute) {
        const struct moe_step_prices prices = moe_step_prices(&run->step);
        moe_step_end_straggler(&run->step, &run->straggler);
        moe_sensitivity_step(&run->sensitivity, &run->step.times, &prices);
    }
    if (run->input->detail != NULL && run->step_number < run->input->detail_steps) {
        MOE_TRY(play_events(run, step_ns, err));
    }
    moe_serving_end_step(&run->serving, run->now_ns + step_ns, &output_tokens, &observer);
    if (scored) {
        moe_step_profile_add(&result->profile,
                             tokens == output_tokens ? MOE_STEP_DECODE : MOE_STEP_MIXED, tokens,
                             step_ns);
        const bool metered = result->account[MOE_PHASE_SCORED].steps % MOE_BOUND_STRIDE == 0;
        moe_run_result_add_step(result, &run->step, &run->counter, step_ns,
                                metered ? &run->meter : NULL, run->expert_scratch);
    }
    struct moe_token_account *account = &result->account[run->phase];
    account->steps++;
    account->tokens += tokens;
    account->output_tokens += output_tokens;
    account->assignments += run->counter.assignments - counted;
    account->time_ns += step_ns;
    run->now_ns += step_ns;
    run->step_number++;
    return MOE_OK;
}

/* The warm-up takes as many requests as run at once, and as many more are then under way. */
static enum moe_status refuse_unscored(const struct run *run, struct moe_error *err)
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
static enum moe_status refuse_hopeless(const struct run *run, struct moe_error *err)
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

static enum moe_status close_result(struct run *run, struct moe_error *err)
{
    struct moe_run_result *result = run->result;
    result->unknown_assignments = run->counter.unknown;
    result->dropped_assignments = run->split.dropped;
    result->preemptions = run->serving.preemptions;
    result->recomputed_rows = run->serving.recomputed_rows;
    result->hit_rows = run->serving.hit_rows;
    result->rejected_rows = run->serving.rejected_rows;
    result->repeated_rows = run->serving.repeated_rows;
    result->foreseen_steps = moe_foresight_result(&run->foresight.score);
    result->dispatch_bytes = moe_cost_exchange_bytes(run->input->cost, MOE_COST_DISPATCH);
    result->combine_bytes = moe_cost_exchange_bytes(run->input->cost, MOE_COST_COMBINE);
    if (run->log.count > 0) {
        moe_request_log_measure(&run->log, &run->input->scenario->slo, &result->service);
    }
    if (result->account[MOE_PHASE_SCORED].steps == 0) {
        return refuse_unscored(run, err);
    }
    if (run->input->scenario->attribution) {
        assert(run->straggler.idle_ns[MOE_CAUSE_ALL] == result->idle_ns);
        result->attributed = true;
        moe_straggler_split(run->straggler.idle_ns, result->cause_idle_ns);
        memcpy(result->subset_time_ns, run->straggler.time_ns, sizeof result->subset_time_ns);
        memcpy(result->sensitivity_ns, run->sensitivity.time_ns, sizeof result->sensitivity_ns);
    }
    return MOE_OK;
}

/* Nothing runs: on to the next arrival. False when nobody comes any more. */
static bool wait_for_arrival(struct run *run)
{
    moe_time_ns arrival_ns = 0;
    if (!moe_serving_next_arrival(&run->serving, &arrival_ns)) {
        return false;
    }
    assert(arrival_ns > run->now_ns); /* who has arrived can be admitted to an idle cluster */
    run->phase = phase_now(run);
    run->result->account[run->phase].quiet_ns += arrival_ns - run->now_ns;
    run->now_ns = arrival_ns;
    return true;
}

static enum moe_status serve(struct run *run, struct moe_error *err)
{
    for (;;) {
        uint64_t tokens = 0;
        MOE_TRY(moe_serving_plan_step(&run->serving, run->now_ns, run->rank, &tokens, err));
        if (tokens > 0) {
            MOE_TRY(one_step(run, tokens, err));
        } else if (!wait_for_arrival(run)) {
            return close_result(run, err);
        }
    }
}

enum moe_status moe_run(const struct moe_run_input *input,
                        const struct moe_composition *composition, uint64_t seed,
                        struct moe_trace *trace, struct moe_arena *results, struct moe_arena *work,
                        struct moe_run_result *result, struct moe_error *err)
{
    const struct moe_placement_shape shape = moe_scenario_shape(input->scenario);
    struct run run = { .input = input, .result = result };
    struct moe_placement placement;
    MOE_TRY(moe_run_result_init(result, &shape, results, err));
    (void) snprintf(result->policy, sizeof result->policy, "%s", composition->label);
    result->seed = seed;
    MOE_TRY(plan(&run, composition, seed, work, &placement, err));
    if (!result->fits) {
        return MOE_OK;
    }
    enum moe_status status = init_parts(&run, &placement, trace, seed, work, err);
    if (status == MOE_OK) {
        status = init_policies(&run, composition, &placement, trace, err);
    }
    if (status == MOE_OK) {
        status = refuse_hopeless(&run, err);
    }
    if (status == MOE_OK) {
        status = serve(&run, err);
    }
    moe_route_split_finish(&run.split);
    moe_arena_finish(&run.state);
    return status;
}

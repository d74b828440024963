/* A run before its first step: the plan, its memory, and all that serves. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/engine/pools/pools.h"
#include "sim/engine/run_result.h"
#include "sim/engine/run_state.h"

#include "sim/base/no_malloc.h"

static size_t result_bytes_of_pools(const struct moe_run_input *input)
{
    size_t bytes = sizeof(struct moe_run_result) + 64;
    for (uint32_t pool = 0; pool < MOE_POOL_COUNT; pool++) {
        const struct moe_run_input part = moe_pools_part(input, (enum moe_pool) pool);
        bytes += moe_run_result_bytes(&part);
    }
    return bytes;
}

static size_t work_bytes_of_pools(const struct moe_run_input *input, const struct moe_trace *trace)
{
    size_t bytes = moe_pools_bytes(input);
    for (uint32_t pool = 0; pool < MOE_POOL_COUNT; pool++) {
        const struct moe_run_input part = moe_pools_part(input, (enum moe_pool) pool);
        bytes += moe_run_work_bytes(&part, trace);
    }
    return bytes;
}

size_t moe_run_result_bytes(const struct moe_run_input *input)
{
    if (input->pools != NULL) {
        return result_bytes_of_pools(input);
    }
    const struct moe_placement_shape s = moe_scenario_shape(input->scenario);
    const size_t per_layer =
        16 * (size_t) s.gpu_count + 16 * (size_t) s.expert_count + 2 * (size_t) s.slot_count + 64;
    return ((size_t) 1 << 20) + s.layer_count * per_layer + 64 * (size_t) s.gpu_count +
           5 * sizeof(uint64_t) * (size_t) MOE_LATENCY_BUCKETS;
}

size_t moe_run_work_bytes(const struct moe_run_input *input, const struct moe_trace *trace)
{
    if (input->pools != NULL) {
        return work_bytes_of_pools(input, trace);
    }
    const struct moe_placement_shape s = moe_scenario_shape(input->scenario);
    const struct moe_trace_model *model = moe_trace_model(trace);
    const size_t gpus = s.gpu_count;
    const size_t layer = gpus * gpus * 4 + gpus * (400 + 4 * (size_t) s.node_count) +
                         (size_t) s.slot_count * 8 + (size_t) s.expert_count * 16 + 64;
    const bool open = input->arrivals->options->kind != MOE_ARRIVAL_CLOSED;
    return ((size_t) 32 << 20) + moe_online_bytes(&s) +
           (open ? moe_request_log_bytes(input->arrivals->total) + 64 * input->arrivals->total
                 : 0) +
           (input->scenario->serving.overlap == MOE_OVERLAP_NONE ? 0 : moe_halves_bytes(&s)) +
           moe_bound_meter_bytes(&s) + moe_fetcher_bytes(input->scenario) +
           s.layer_count * gpus * (16 * (size_t) input->scenario->fetch.slots + 64) +
           moe_serving_bytes(&input->scenario->serving, s.gpu_count,
                             model->layer_count * model->top_k) +
           (s.layer_count + moe_drafts_layer_count(&input->scenario->serving)) * layer +
           gpus * 8192 + gpus * MOE_PLANNING_SPEED_POINTS * sizeof(double) +
           (size_t) moe_trace_request_count(trace) * 32 + moe_trace_request_count(trace) / 2;
}

/* What the composition decides before the run: its plan into placement. scratch is of this call
 * only. */
static enum moe_status decide(struct moe_run_state *run, const struct moe_composition *c,
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

/* What would make it fit, at the end of why. */
static void advise(const struct moe_memory_setup *setup, const struct moe_placement_shape *shape,
                   uint64_t longest, char *why, size_t why_bytes)
{
    struct moe_memory_remedy remedy;
    const size_t used = strlen(why);
    moe_memory_find_remedy(setup, shape, longest, &remedy);
    if (remedy.slots > 0) {
        (void) snprintf(why + used, why_bytes - used, "; up to %u slots per layer would fit",
                        remedy.slots);
    } else if (remedy.gpus > 0) {
        (void) snprintf(why + used, why_bytes - used, "; %u GPUs would hold it, one copy each",
                        remedy.gpus);
    } else {
        (void) snprintf(
            why + used, why_bytes - used,
            "; no number of such GPUs holds it: more memory or a smaller reserve would");
    }
}

/* What the plan leaves for KV cache; why says what there is and would have to be. */
static void price_memory(struct moe_run_state *run, const struct moe_composition *composition,
                         const struct moe_placement *placement)
{
    const struct moe_run_input *input = run->input;
    const struct moe_serving *serving = &input->scenario->serving;
    struct moe_run_result *result = run->result;
    struct moe_memory *memory = &result->memory;
    const struct moe_memory_setup setup = {
        .model = &input->scenario->model,
        .cluster = &input->scenario->cluster,
        .attention_ranks = serving->attention_ranks,
        .gpu_bytes = moe_cost_memory_bytes(input->cost),
        .draft_layers = serving->drafts > 0 ? serving->draft_layers : 0,
        .buffer_bytes = moe_online_buffer_bytes(input->scenario) +
                        moe_fetcher_buffer_bytes(input->scenario, composition),
        .running_requests = serving->running_per_gpu,
    };
    const uint64_t page = serving->kv == MOE_KV_PAGES ? serving->page_tokens : 1;
    const uint64_t longest = (input->longest_request + page - 1) / page;
    moe_memory_of(&setup, placement, memory);
    if (input->kv_limit > 0 && input->kv_limit < memory->kv_tokens) {
        memory->kv_tokens = input->kv_limit;
    }
    result->fits = memory->weights_fit && memory->kv_tokens / page >= longest;
    if (result->fits) {
        return;
    }
    if (!memory->weights_fit) {
        (void) snprintf(result->why, sizeof result->why,
                        "weights need %.1f GB beside %.1f GB of reserve; a GPU has %.1f GB",
                        (memory->nonexpert_bytes + memory->slot_bytes) / 1e9,
                        memory->reserve_bytes / 1e9, memory->gpu_bytes / 1e9);
    } else {
        (void) snprintf(result->why, sizeof result->why,
                        "the longest request has %" PRIu64
                        " tokens; a GPU's KV cache holds %" PRIu64,
                        input->longest_request, memory->kv_tokens);
    }
    advise(&setup, &placement->shape, input->longest_request, result->why, sizeof result->why);
}

/* The composition's plan, checked and priced in memory. */
enum moe_status moe_run_plan(struct moe_run_state *run, const struct moe_composition *composition,
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
    price_memory(run, composition, placement);
    return MOE_OK;
}

/* With the temporary slots, where there are any. */
static const struct moe_placement *served(const struct moe_run_state *run,
                                          const struct moe_placement *placement)
{
    return run->fetcher.limit > 0 ? &run->fetcher.wide : placement;
}

/* The policies that decide while serving, where the engine does not by itself. */
static enum moe_status init_policies(struct moe_run_state *run, const struct moe_composition *c,
                                     const struct moe_placement *placement, struct moe_trace *trace,
                                     struct moe_error *err)
{
    const struct moe_route_split_setup split = {
        .part = &c->part[MOE_POLICY_DISPATCH],
        .planning = &run->shown.view,
        .placement = served(run, placement),
        .map = run->input->map,
        .fetcher = run->fetcher.limit > 0 ? &run->fetcher : NULL,
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
    if (moe_scenario_samples_layers(run->input->scenario) && (splits || foresees)) {
        return moe_fail(err, MOE_POLICY,
                        "policy %.100s decides on the counts of every layer, of which "
                        "counted_layers: %u leaves some out; set it to 0",
                        c->label, run->input->scenario->counted_layers);
    }
    MOE_TRY(moe_arena_init(
        &run->state, moe_planning_scratch_bytes(run->input->planning, &split.placement->shape),
        err));
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

/* What counts a step's routes, prices it and plays it. */
static enum moe_status init_steps(struct moe_run_state *run, const struct moe_placement *placement,
                                  uint64_t seed, struct moe_arena *work, struct moe_error *err)
{
    const struct moe_scenario *scenario = run->input->scenario;
    const struct moe_model *model = &scenario->model;
    const struct moe_serving *serving = &scenario->serving;
    const bool drafting = moe_drafts_layer_count(serving) > 0;
    const struct moe_drafts_setup drafts = {
        .options = serving,
        .map = run->input->map,
        .placement = placement,
        .top_k = model->top_k,
    };
    const struct moe_step_options options = {
        .drafts = drafting ? &run->drafts : NULL,
        .cost = run->input->cost,
        .serving = serving,
        .layer_count = placement->shape.layer_count,
        .gpu_count = placement->shape.gpu_count,
        .dense_layer_count = model->layer_count - model->moe_layer_count,
        .seed = seed,
        .noise = scenario->noise,
        .hardware = &scenario->hardware,
        .first_gpu = scenario->cluster.first_gpu,
        .fetcher = run->fetcher.limit > 0 ? &run->fetcher : NULL,
    };
    MOE_TRY(moe_route_counter_init(&run->counter, run->input->map, served(run, placement),
                                   model->top_k, work, err));
    if (serving->exchange == MOE_EXCHANGE_HIERARCHICAL) {
        MOE_TRY(moe_route_counter_count_nodes(&run->counter, work, err));
    } else if (serving->exchange == MOE_EXCHANGE_LOW_LATENCY) {
        moe_route_counter_count_choices(&run->counter);
    }
    if (moe_scenario_samples_layers(scenario)) {
        MOE_TRY(moe_layer_sample_init(&run->sample, run->input->map->layer_count,
                                      run->input->map->trace_layer_count, scenario->counted_layers,
                                      seed, work, err));
        run->counter.sample = &run->sample;
    }
    if (drafting) {
        MOE_TRY(moe_drafts_init(&run->drafts, &drafts, work, err));
    }
    MOE_TRY(moe_step_init(&run->step, &options, work, err));
    return moe_run_init_halves(run, &options, work, err);
}

static enum moe_status init_parts(struct moe_run_state *run, const struct moe_placement *placement,
                                  struct moe_trace *trace, uint64_t seed, struct moe_arena *work,
                                  struct moe_error *err)
{
    const struct moe_scenario *scenario = run->input->scenario;
    const struct moe_model *model = &scenario->model;
    const struct moe_serving *serving = &scenario->serving;
    const uint32_t gpus = placement->shape.gpu_count;
    const uint32_t all_layers = placement->shape.layer_count + moe_drafts_layer_count(serving);
    const struct moe_serving_setup serving_setup = {
        .options = serving,
        .trace = trace,
        .intake = &run->intake,
        .rank_count = gpus / serving->attention_ranks,
        .kv_tokens = run->result->memory.kv_tokens,
        .seed = seed,
        .window_size = model->window_size,
        .sparse_size = moe_model_sparse_tokens(model),
    };
    MOE_TRY(moe_arrival_stream_init(&run->arrivals, run->input->arrivals, trace, seed, work, err));
    if (!run->arrivals.is_closed_loop) {
        MOE_TRY(moe_request_log_init(&run->log, run->input->arrivals->total, work, err));
    }
    run->intake = (struct moe_intake){ .stream = &run->arrivals };
    if (scenario->arrivals.priority_count > 1 && !run->arrivals.is_closed_loop) {
        MOE_TRY(moe_intake_tell_apart(&run->intake, scenario->arrivals.priority_count,
                                      run->input->arrivals->total, work, err));
    }
    MOE_TRY(moe_serving_init(&run->serving, &serving_setup, work, err));
    MOE_TRY(init_steps(run, placement, seed, work, err));
    MOE_TRY(
        moe_bound_meter_init(&run->meter, placement, run->input->planning->future_load, work, err));
    if (scenario->attribution) {
        MOE_TRY(moe_straggler_init(&run->straggler, gpus, serving, work, err));
        MOE_TRY(moe_sensitivity_init(&run->sensitivity, all_layers, gpus, serving, work, err));
    }
    if (run->input->detail != NULL) {
        MOE_TRY(moe_event_player_init(&run->player, gpus, run->input->detail, work, err));
        run->event_barriers = MOE_NEW(work, struct moe_barrier, moe_barrier_count(all_layers));
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
            scenario->noise &&
            moe_cost_gpu_in_tail(run->input->cost, seed, scenario->cluster.first_gpu + gpu);
    }
    return MOE_OK;
}

enum moe_status moe_run_init(struct moe_run_state *run, const struct moe_composition *composition,
                             const struct moe_placement *placement, struct moe_trace *trace,
                             uint64_t seed, struct moe_arena *work, struct moe_error *err)
{
    const struct moe_online_setup online = {
        .scenario = run->input->scenario,
        .cost = run->input->cost,
        .composition = composition,
        .view = &run->shown.view,
        .placement = placement,
        .scratch_bytes = moe_planning_scratch_bytes(run->input->planning, &placement->shape),
    };
    MOE_TRY(moe_fetcher_init(&run->fetcher, run->input->scenario, composition, placement,
                             run->input->cost, work, err));
    run->spare = work;
    MOE_TRY(init_parts(run, placement, trace, seed, work, err));
    MOE_TRY(moe_online_init(&run->online, &online, work, err));
    MOE_TRY(init_policies(run, composition, placement, trace, err));
    return moe_run_init_death(run, placement, work, err);
}

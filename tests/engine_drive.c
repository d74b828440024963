#include "tests/engine_drive.h"

#include "sim/engine/pools/pools_input.h"
#include "sim/scenario/deployment.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/cost/calibration.h"
#include "traces/trace_writer.h"

/* The plan that the policy below answers with. */
static const struct twin_case *planned;

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    (void) scratch;
    (void) err;
    for (uint32_t l = 0; l < view->shape.layer_count; l++) {
        memcpy(moe_placement_layer(plan, l), planned->plan[l],
               view->shape.slot_count * sizeof(uint16_t));
    }
    return MOE_OK;
}

static const struct moe_policy policy = {
    MOE_POLICY_HEADER, .name = "given",    .summary = "the case's plan",
    .source = "own",   .tie_rule = "none", .place = place,
};

/* TWIN_UNEVEN and TWIN_CAPPED of tests/engine_twin.h. */
static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    const bool capped = state != NULL;
    (void) err;
    for (uint32_t source = 0; source < view->shape.gpu_count; source++) {
        const uint32_t *demand = view->demand + (size_t) source * view->shape.expert_count;
        uint32_t *row = quota + (size_t) source * view->copy_count;
        for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
            const uint32_t first = view->first_copy[expert];
            const uint32_t copies = view->first_copy[expert + 1] - first;
            const uint32_t all = copies * (copies + 1) / 2;
            uint32_t sum = 0;
            for (uint32_t j = 0; j < copies; j++) {
                const uint32_t more =
                    1 + (uint32_t) ((j + source + view->step + view->layer) % copies);
                row[first + j] = demand[expert] * (sum + more) / all - demand[expert] * sum / all;
                sum += more;
                if (capped && expert % 2 == 1 && row[first + j] > 2) {
                    row[first + j] = 2;
                }
            }
        }
    }
    return MOE_OK;
}

static enum moe_status init_capped(const struct moe_place_view *planning,
                                   const struct moe_placement *placement, struct moe_arena *arena,
                                   void **state, struct moe_error *err)
{
    (void) planning;
    (void) placement;
    *state = MOE_NEW(arena, char, 1);
    return *state != NULL ? MOE_OK : moe_fail(err, MOE_LIMIT, "no room");
}

/* As tests/fetch_twin.h says. */
static enum moe_status fetch(void *state, const struct moe_dispatch_view *view,
                             struct moe_dispatch_fetch *answer, uint32_t *count,
                             struct moe_error *err)
{
    (void) state;
    (void) err;
    for (uint32_t gpu = 0; gpu < view->shape.gpu_count; gpu++) {
        for (uint32_t slot = 0; slot < view->fetch_limit; slot++) {
            const uint32_t expert = (uint32_t) ((3 * gpu + 5 * slot + view->step + view->layer) %
                                                view->shape.expert_count);
            bool wanted = view->expert_total[expert] % 3 != 0;
            for (uint32_t i = view->first_copy[expert]; i < view->first_copy[expert + 1]; i++) {
                wanted = wanted && view->gpu_of_copy[i] != gpu;
            }
            for (uint32_t i = 0; i < *count; i++) {
                wanted = wanted && (answer[i].gpu != gpu || answer[i].expert != expert);
            }
            if (wanted) {
                answer[(*count)++] =
                    (struct moe_dispatch_fetch){ (uint16_t) expert, (uint16_t) gpu };
            }
        }
    }
    return MOE_OK;
}

static const struct moe_dispatch_methods uneven_methods = { .split = split };
static const struct moe_dispatch_methods capped_methods = { .may_drop = true,
                                                            .init = init_capped,
                                                            .split = split };
static const struct moe_dispatch_methods uneven_fetching = { .fetch = fetch, .split = split };
static const struct moe_dispatch_methods capped_fetching = {
    .may_drop = true, .init = init_capped, .fetch = fetch, .split = split
};
static const struct moe_policy dispatchers[][2] = {
    { { MOE_POLICY_HEADER, .name = "uneven", .dispatch = &uneven_methods },
      { MOE_POLICY_HEADER, .name = "uneven", .dispatch = &uneven_fetching } },
    { { MOE_POLICY_HEADER, .name = "capped", .dispatch = &capped_methods },
      { MOE_POLICY_HEADER, .name = "capped", .dispatch = &capped_fetching } },
};

/* TWIN_SHORTEST. */
static enum moe_status choose(void *state, const struct moe_group_view *view,
                              struct moe_group_choice *choice, struct moe_error *err)
{
    const struct moe_waiting_request *shortest = NULL;
    (void) state;
    (void) err;
    for (uint32_t i = 0; i < view->waiting_count; i++) {
        const struct moe_waiting_request *w = &view->waiting[i];
        uint32_t roomiest = view->shape.gpu_count;
        for (uint32_t gpu = 0; gpu < view->shape.gpu_count; gpu++) {
            if (view->free_seats[gpu] > 0 && view->kv_free_tokens[gpu] >= w->kv_tokens &&
                (roomiest == view->shape.gpu_count ||
                 view->free_seats[gpu] > view->free_seats[roomiest])) {
                roomiest = gpu;
            }
        }
        if (roomiest < view->shape.gpu_count &&
            (shortest == NULL || w->prompt_tokens < shortest->prompt_tokens)) {
            shortest = w;
            *choice = (struct moe_group_choice){ i, roomiest };
        }
    }
    return MOE_OK;
}

static enum moe_status init_shortest(const struct moe_place_view *planning,
                                     const struct moe_placement *placement, struct moe_arena *arena,
                                     void **state, uint32_t *lookahead, struct moe_error *err)
{
    (void) planning;
    (void) placement;
    (void) arena;
    (void) state;
    (void) err;
    *lookahead = 3;
    return MOE_OK;
}

static const struct moe_group_methods shortest_methods = { .init = init_shortest,
                                                           .choose = choose };
static const struct moe_policy shortest = { MOE_POLICY_HEADER, .name = "shortest",
                                            .group = &shortest_methods };

/* The case's plan with its dispatch and group. */
static void compose(const struct twin_case *c, struct moe_composition *composition)
{
    moe_composition_of(composition, &policy);
    if (c->dispatch != TWIN_IN_TURN) {
        composition->part[MOE_POLICY_DISPATCH].policy =
            &dispatchers[c->dispatch - TWIN_UNEVEN][c->fetch_slots > 0];
    }
    if (c->group == TWIN_SHORTEST) {
        composition->part[MOE_POLICY_GROUP].policy = &shortest;
    }
}

void engine_drive_open(struct engine_drive *drive)
{
    memset(drive, 0, sizeof *drive);
    (void) strcpy(drive->folder, "/tmp/engine_drive_XXXXXX");
    const char *made = mkdtemp(drive->folder);
    assert(made != NULL);
    (void) made;
    (void) snprintf(drive->path, sizeof drive->path, "%s/trace.db", drive->folder);
    if (moe_arena_init(&drive->setup, (size_t) 4 << 20, NULL) != MOE_OK ||
        moe_arena_init(&drive->results, (size_t) 8 << 20, NULL) != MOE_OK ||
        moe_arena_init(&drive->work, (size_t) 128 << 20, NULL) != MOE_OK) {
        abort();
    }
    drive->log = fopen("/dev/null", "w");
    assert(drive->log != NULL);
}

void engine_drive_close(struct engine_drive *drive)
{
    (void) unlink(drive->path);
    (void) rmdir(drive->folder);
    (void) fclose(drive->log);
    moe_arena_finish(&drive->setup);
    moe_arena_finish(&drive->results);
    moe_arena_finish(&drive->work);
}

static void copy_model(const struct twin_model *from, struct moe_model *to)
{
    *to = (struct moe_model){
        .name = "made up",
        .layer_count = from->layers,
        .moe_layer_count = from->moe_layers,
        .hidden_size = from->hidden,
        .vocabulary_size = from->vocabulary,
        .tied_embeddings = from->tied,
        .expert_count = from->experts,
        .top_k = from->top_k,
        .group_count = from->groups,
        .group_limit = from->groups,
        .expert_size = from->expert_size,
        .expert_hidden_size = from->expert_hidden,
        .shared_size = from->shared_size,
        .dense_size = from->dense_size,
        .gated = from->gated,
        .attention = from->mla                       ? MOE_ATTENTION_MLA
                     : from->shared                  ? MOE_ATTENTION_SHARED
                     : from->kv_heads == from->heads ? MOE_ATTENTION_MHA
                                                     : MOE_ATTENTION_GQA,
        .head_count = from->heads,
        .kv_head_count = from->kv_heads,
        .head_size = from->head_size,
        .q_lora_rank = from->q_lora,
        .kv_lora_rank = from->kv_lora,
        .rope_head_size = from->rope,
        .value_head_size = from->value_size,
        .gated_attention = from->gated_attention,
        .kv_layer_count = from->kv_layers,
        .window_layer_count = from->window_layers,
        .window_size = from->window,
        .linear_weights = from->linear_weights,
        .output_rank = from->output_rank,
        .output_groups = from->output_groups,
        .residual_streams = from->streams,
        .sparse_layer_count = from->sparse_layers,
        .sparse_entries = from->sparse_entries,
        .sparse_ratio = from->sparse_ratio,
        .pooled_layer_count = from->pooled_layers,
        .pooled_ratio = from->pooled_ratio,
        .index_layer_count = from->index_layers,
        .index_head_count = from->index_heads,
        .index_head_size = from->index_size,
        .index_block = from->index_block,
        .index_bytes_per_value = from->index_bytes,
        .expert_bytes_per_weight = from->expert_bytes,
        .dense_bytes_per_weight = from->dense_bytes,
        .kv_bytes_per_value = from->kv_bytes,
    };
}

void engine_drive_scenario(const struct twin_case *c, struct moe_scenario *scenario)
{
    moe_scenario_defaults(scenario);
    copy_model(&c->cost.model, &scenario->model);
    scenario->cluster = (struct moe_cluster){
        .node_count = c->cost.nodes,
        .gpus_per_node = c->cost.gpus_per_node,
        .gpu = "toy",
        .memory_bytes = c->memory_bytes,
        .reserve_bytes = c->reserve_bytes,
    };
    scenario->slot_count = c->slots;
    scenario->serving = (struct moe_serving){
        .running_per_gpu = c->running_per_gpu,
        .step_tokens = c->step_tokens,
        .plan_share = c->plan_share,
        .passes = c->passes,
        .exchange = (enum moe_exchange_mode) c->exchange,
        .common_exit = c->common_exit,
        .shared = c->serial ? MOE_SHARED_SERIAL : MOE_SHARED_OVERLAPPED,
        .page_tokens = 1,
        .attention_ranks = 1,
    };
    scenario->fetch = (struct moe_fetch_options){
        .slots = c->fetch_slots,
        .overlap = c->fetch_overlap,
        .relay = c->fetch_relay,
    };
    scenario->attribution = true;
    scenario->noise = c->noise;
}

static enum moe_status write_store(struct moe_trace_writer *writer, const struct twin_case *c,
                                   struct moe_error *err)
{
    const struct twin_model *m = &c->cost.model;
    uint64_t hash = 0;
    for (uint32_t i = 0; i < c->requests; i++) {
        const struct moe_trace_request request = { .arrival_ns = -1,
                                                   .prompt_tokens = c->prompt[i],
                                                   .output_tokens = c->output[i] };
        MOE_TRY(moe_trace_writer_requests(writer, &request, 1, err));
    }
    for (uint32_t row = 0; row < c->rows; row++) {
        uint16_t packed[TWIN_TRACE_LAYERS * TWIN_TOP_K];
        for (uint32_t l = 0; l < c->trace_layers; l++) {
            memcpy(&packed[(size_t) l * m->top_k], c->route[row][l], m->top_k * sizeof *packed);
        }
        MOE_TRY(moe_trace_writer_rows(writer, packed, 1, err));
    }
    return moe_trace_writer_finish(writer, &hash, err);
}

enum moe_status engine_drive_store(struct engine_drive *drive, const struct twin_case *c,
                                   struct moe_error *err)
{
    const struct twin_model *m = &c->cost.model;
    const struct moe_trace_model model = {
        .name = "made up",
        .layer_count = c->trace_layers,
        .expert_count = m->experts,
        .top_k = m->top_k,
        .group_count = m->groups,
        .group_limit = m->groups,
        .domain_count = 1,
        .domains = { "all" },
    };
    const struct moe_trace_history history = { 0 };
    struct moe_trace_writer *writer = NULL;
    (void) unlink(drive->path);
    MOE_TRY(moe_trace_writer_open(&writer, drive->path, false, &model, &history, err));
    const enum moe_status status = write_store(writer, c, err);
    (void) moe_trace_writer_close(writer, status);
    return status;
}

static uint64_t longest_request(const struct twin_case *c)
{
    uint64_t longest = 0;
    for (uint32_t i = 0; i < c->requests; i++) {
        const uint64_t tokens = (uint64_t) c->prompt[i] + c->output[i];
        longest = tokens > longest ? tokens : longest;
    }
    return longest;
}

/* Of what really comes. */
static enum moe_status longest_arrival(struct engine_drive *drive, const struct twin_case *c,
                                       const struct moe_arrival_source *arrivals,
                                       const struct moe_trace *trace, uint64_t *longest,
                                       struct moe_error *err)
{
    struct moe_arrival_survey survey;
    *longest = longest_request(c);
    if (arrivals->is_stretched) {
        MOE_TRY(moe_arrival_survey(arrivals, trace, c->seed, &drive->setup, &survey, err));
        *longest = survey.longest_tokens;
    }
    return MOE_OK;
}

static enum moe_status run_stored(struct engine_drive *drive, const struct twin_case *c,
                                  const char *calibration, bool events, struct moe_trace *trace,
                                  struct moe_run_result *result, struct moe_error *err)
{
    const struct moe_calibration *table = NULL;
    struct moe_cost *cost = NULL;
    struct moe_replay_map map;
    MOE_TRY(moe_calibration_parse(&table, calibration, strlen(calibration), "case",
                                  MOE_CALIBRATION_FITTED, &drive->setup, err));
    MOE_TRY(moe_cost_init_serving(&cost, table, &drive->scenario.model, &drive->scenario.cluster,
                                  &drive->scenario.serving, &drive->setup, err));
    MOE_TRY(moe_replay_map_init(&map, moe_trace_model(trace), c->cost.model.moe_layers,
                                &drive->setup, err));
    static const double even[TWIN_LAYERS * TWIN_EXPERTS]; /* nothing is known */
    const struct moe_planning planning = { .load = drive->place == NULL ? NULL : even };
    const struct moe_arrival_setup setup = { &drive->scenario.arrivals, trace, c->plan_share,
                                             c->passes };
    struct moe_arrival_source arrivals;
    struct moe_composition composition;
    uint64_t longest = 0;
    MOE_TRY(moe_arrival_source_init(&arrivals, &setup, err));
    MOE_TRY(longest_arrival(drive, c, &arrivals, trace, &longest, err));
    compose(c, &composition);
    if (drive->place != NULL) {
        MOE_TRY(moe_policy_find(MOE_POLICY_PLACE, drive->place,
                                &composition.part[MOE_POLICY_PLACE].policy, err));
    }
    struct moe_run_input input = {
        .scenario = &drive->scenario,
        .cost = cost,
        .map = &map,
        .planning = &planning,
        .arrivals = &arrivals,
        .longest_request = longest,
        .longest_prompt = longest,
        .audit = true,
        .kv_limit = drive->kv_limit,
        .detail = events ? drive->log : NULL,
        .detail_steps = UINT64_MAX,
    };
    static struct moe_pools_input pools;
    if (moe_deployment_has_pools(&drive->scenario)) {
        /* More than one request to plan on: some have a single token of output, and so no rows of
         * decoding. */
        const struct moe_pools_source source = {
            .whole = &input,
            .calibration = table,
            .trace = trace,
            .planned_requests = c->requests < 4 ? c->requests : 4,
        };
        MOE_TRY(moe_pools_input_init(&pools, &source, &drive->setup, err));
        input.pools = &pools.run;
    }
    planned = c;
    assert(moe_run_result_bytes(&input) <= drive->results.size_bytes);
    assert(moe_run_work_bytes(&input, trace) <= drive->work.size_bytes);
    const enum moe_status status =
        moe_run(&input, &composition, c->seed, trace, &drive->results, &drive->work, result, err);
    moe_pools_input_finish(&pools);
    moe_arrival_source_finish(&arrivals);
    return status;
}

enum moe_status engine_drive_scene(struct engine_drive *drive, const struct twin_case *c,
                                   const char *calibration, bool events,
                                   struct moe_run_result *result, struct moe_error *err)
{
    struct moe_trace *trace = NULL;
    moe_arena_reset(&drive->setup);
    moe_arena_reset(&drive->results);
    moe_arena_reset(&drive->work);
    MOE_TRY(moe_model_check(&drive->scenario.model, err));
    MOE_TRY(engine_drive_store(drive, c, err));
    MOE_TRY(moe_trace_open(&trace, drive->path, err));
    const enum moe_status status = run_stored(drive, c, calibration, events, trace, result, err);
    moe_trace_close(trace);
    return status;
}

enum moe_status engine_drive_run(struct engine_drive *drive, const struct twin_case *c,
                                 const char *calibration, bool events,
                                 struct moe_run_result *result, struct moe_error *err)
{
    engine_drive_scenario(c, &drive->scenario);
    return engine_drive_scene(drive, c, calibration, events, result, err);
}

#include "sim/engine/planning.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW_COUNT = 2 };

/* One pass over the trace; counts are of the trace's own layers until they are expanded. */
struct pass {
    const struct moe_planning_source *source;
    const struct moe_trace_model *model;
    const struct moe_trace_request *requests;
    size_t cells;                   /* trace layers x experts */
    uint64_t *counts[WINDOW_COUNT]; /* planning, scored */
    uint32_t *batch_counts;         /* [batch][trace layer][expert], or NULL */
    uint64_t *start;                /* [planned request] its first step */
    uint64_t step_count;
    uint32_t batch_count;
    uint16_t *rows;  /* [MOE_REPLAY_BLOCK_ROWS][trace layer][k] */
    uint16_t *route; /* [token][layer][k], or NULL */
    uint64_t route_tokens;
    uint64_t unknown;
};

static size_t model_cells(const struct pass *p)
{
    return (size_t) p->source->map->layer_count * p->model->expert_count;
}

/* When each planned request begins, and so how many steps there are. */
static void schedule(struct pass *p)
{
    const struct moe_scenario *scenario = p->source->scenario;
    const uint32_t planned = p->source->planned_requests;
    const uint64_t seats_wanted =
        (uint64_t) moe_cluster_gpu_count(&scenario->cluster) * scenario->serving.running_per_gpu;
    const uint64_t seats_most = (planned + 7) / 8;
    const uint64_t seats = seats_wanted < seats_most ? seats_wanted : seats_most;
    for (uint32_t r = 0; r < planned; r++) {
        p->start[r] = r < seats ? 0 : p->start[r - seats] + p->requests[r - seats].output_tokens;
        const uint64_t end = p->start[r] + p->requests[r].output_tokens;
        p->step_count = end > p->step_count ? end : p->step_count;
    }
    const uint64_t fitting = (uint64_t) MOE_PLANNING_BATCH_BYTES / (model_cells(p) * sizeof(float));
    const uint64_t most = fitting < 1                          ? 1
                          : fitting < MOE_PLANNING_BATCH_LIMIT ? fitting
                                                               : MOE_PLANNING_BATCH_LIMIT;
    p->batch_count = (uint32_t) (p->step_count < most ? p->step_count : most);
}

static void count_row(struct pass *p, const uint16_t *row, uint64_t *counts, uint32_t *batch)
{
    size_t layer_first = 0;
    for (uint32_t layer = 0; layer < p->model->layer_count; layer++) {
        for (uint32_t k = 0; k < p->model->top_k; k++, row++) {
            if (*row == MOE_EXPERT_UNKNOWN) {
                p->unknown++;
                continue;
            }
            counts[layer_first + *row]++;
            if (batch != NULL) {
                batch[layer_first + *row]++;
            }
        }
        layer_first += p->model->expert_count;
    }
}

/* A trace row as the model's layers see it. */
static void expand_row(const struct pass *p, const uint16_t *row, uint16_t *out)
{
    const struct moe_replay_map *map = p->source->map;
    const uint32_t k_count = p->model->top_k;
    for (uint32_t layer = 0; layer < map->layer_count; layer++) {
        const uint16_t *from = row + (size_t) moe_replay_map_trace_layer(map, layer) * k_count;
        const uint16_t *expert = map->expert + (size_t) layer * map->expert_count;
        for (uint32_t k = 0; k < k_count; k++) {
            *out++ = from[k] == MOE_EXPERT_UNKNOWN ? MOE_EXPERT_UNKNOWN : expert[from[k]];
        }
    }
}

/* Whether the row of a request is one of those that loads are made of. */
static bool counts(const struct pass *p, uint32_t request, uint64_t row)
{
    const struct moe_trace_request *r = &p->requests[request];
    const bool of_prompt = row - r->first_row < r->prompt_tokens;
    return p->source->rows == MOE_PLANNING_ALL_ROWS ||
           of_prompt == (p->source->rows == MOE_PLANNING_PROMPT_ROWS);
}

/* Row `row` of request `request`, which is of the planning window. */
static void plan_row(struct pass *p, uint32_t request, uint64_t row, const uint16_t *ids)
{
    const struct moe_trace_request *r = &p->requests[request];
    uint32_t *batch = NULL;
    if (p->batch_counts != NULL) {
        const uint64_t in_request = row - r->first_row;
        const uint64_t later =
            in_request < r->prompt_tokens ? 0 : in_request - r->prompt_tokens + 1;
        const uint64_t step = p->start[request] + later;
        batch = p->batch_counts + (size_t) (step * p->batch_count / p->step_count) * p->cells;
    }
    if (counts(p, request, row)) {
        count_row(p, ids, p->counts[0], batch);
    }
    if (row < p->route_tokens) {
        const size_t items = (size_t) p->source->map->layer_count * p->model->top_k;
        expand_row(p, ids, p->route + row * items);
    }
}

static enum moe_status read_trace(struct pass *p, struct moe_error *err)
{
    const size_t items = (size_t) p->model->layer_count * p->model->top_k;
    const uint64_t row_count = moe_trace_row_count(p->source->trace);
    const bool all = p->source->rows == MOE_PLANNING_ALL_ROWS;
    const uint32_t followed =
        all ? p->source->planned_requests : (uint32_t) moe_trace_request_count(p->source->trace);
    uint32_t request = 0;
    for (uint64_t row = 0; row < row_count;) {
        const uint64_t left = row_count - row;
        const uint64_t n = left < MOE_REPLAY_BLOCK_ROWS ? left : MOE_REPLAY_BLOCK_ROWS;
        MOE_TRY(moe_trace_read(p->source->trace, row, n, p->rows, err));
        for (uint64_t i = 0; i < n; i++, row++) {
            const uint16_t *ids = p->rows + i * items;
            while (request < followed && row >= p->requests[request].first_row +
                                                    moe_trace_request_rows(&p->requests[request])) {
                request++;
            }
            if (request < p->source->planned_requests) {
                plan_row(p, request, row, ids);
            } else if (all || counts(p, request, row)) {
                count_row(p, ids, p->counts[1], NULL);
            }
        }
    }
    return MOE_OK;
}

/* counts of one batch as the model's layers have them. */
static void expand_batch(const struct pass *p, const uint32_t *counts, float *out)
{
    const struct moe_replay_map *map = p->source->map;
    for (uint32_t layer = 0; layer < map->layer_count; layer++) {
        const uint32_t *from =
            counts + (size_t) moe_replay_map_trace_layer(map, layer) * map->expert_count;
        const uint16_t *to = map->expert + (size_t) layer * map->expert_count;
        for (uint32_t i = 0; i < map->expert_count; i++) {
            out[(size_t) layer * map->expert_count + to[i]] = (float) from[i];
        }
    }
}

/* Requests whose routes fit: whole ones, at least one. */
static uint32_t routed_requests(const struct pass *p)
{
    const size_t token_bytes =
        (size_t) p->source->map->layer_count * p->model->top_k * sizeof(uint16_t);
    const uint64_t most = MOE_PLANNING_ROUTE_BYTES / token_bytes;
    uint32_t count = 1;
    while (count < p->source->planned_requests &&
           p->requests[count].first_row + moe_trace_request_rows(&p->requests[count]) <= most) {
        count++;
    }
    return count;
}

static enum moe_status describe_routes(struct moe_planning *planning, struct pass *p,
                                       uint32_t request_count, struct moe_error *err)
{
    struct moe_arena *arena = &planning->arena;
    const uint64_t tokens = p->route_tokens;
    uint32_t *request = MOE_NEW(arena, uint32_t, tokens);
    uint8_t *phase = MOE_NEW(arena, uint8_t, tokens);
    uint32_t *first = MOE_NEW(arena, uint32_t, (size_t) request_count + 1);
    uint16_t *domain = MOE_NEW(arena, uint16_t, request_count);
    if (request == NULL || phase == NULL || first == NULL || domain == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the routes of %u requests", request_count);
    }
    for (uint32_t r = 0; r < request_count; r++) {
        const uint64_t begin = p->requests[r].first_row;
        const uint64_t rows = moe_trace_request_rows(&p->requests[r]);
        first[r] = (uint32_t) begin;
        first[r + 1] = (uint32_t) (begin + rows);
        domain[r] = (uint16_t) p->requests[r].domain;
        for (uint64_t i = 0; i < rows; i++) {
            request[begin + i] = r;
            phase[begin + i] =
                i < p->requests[r].prompt_tokens ? MOE_ROUTE_PREFILL : MOE_ROUTE_DECODE;
        }
    }
    planning->has_routes = true;
    planning->routes = (struct moe_policy_routes){
        .token_count = tokens,
        .request_count = request_count,
        .planned_requests = p->source->planned_requests,
        .top_k = p->model->top_k,
        .domain_count = p->model->domain_count,
        .expert = p->route,
        .request = request,
        .phase = phase,
        .first_token = first,
        .request_domain = domain,
    };
    return MOE_OK;
}

/* Everything but the routes' descriptions, in one arena made to measure. */
static enum moe_status make_room(struct moe_planning *planning, struct pass *p, uint32_t routed,
                                 struct moe_error *err)
{
    const size_t cells = model_cells(p);
    const size_t row_items = (size_t) p->source->map->layer_count * p->model->top_k;
    const size_t batch_cells =
        (p->source->needs & MOE_POLICY_NEEDS_BATCHES) != 0 ? (size_t) p->batch_count * cells : 0;
    const size_t bytes = 2 * cells * sizeof(double) + batch_cells * sizeof(float) +
                         p->route_tokens * (row_items * sizeof(uint16_t) + 5) +
                         (size_t) routed * 6 + 4096;
    MOE_TRY(moe_arena_init(&planning->arena, bytes, err));
    if (routed > 0) {
        p->route = MOE_NEW(&planning->arena, uint16_t, p->route_tokens * row_items);
        if (p->route == NULL) {
            return moe_fail(err, MOE_LIMIT, "no room for the routes of %u requests", routed);
        }
    }
    return MOE_OK;
}

static enum moe_status make_scratch(struct pass *p, struct moe_error *err)
{
    assert(p->cells > 0 && p->source->planned_requests > 0);
    const size_t row_items = (size_t) p->model->layer_count * p->model->top_k;
    p->counts[0] = calloc(p->cells, sizeof(uint64_t));
    p->counts[1] = calloc(p->cells, sizeof(uint64_t));
    p->rows = calloc(MOE_REPLAY_BLOCK_ROWS * row_items, sizeof *p->rows);
    p->start = calloc(p->source->planned_requests, sizeof *p->start);
    if (p->counts[0] == NULL || p->counts[1] == NULL || p->rows == NULL || p->start == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the loads of %u layers",
                        p->model->layer_count);
    }
    schedule(p);
    assert(p->batch_count > 0);
    if ((p->source->needs & MOE_POLICY_NEEDS_BATCHES) != 0) {
        p->batch_counts = calloc((size_t) p->batch_count * p->cells, sizeof *p->batch_counts);
        if (p->batch_counts == NULL) {
            return moe_fail(err, MOE_LIMIT, "no room for %u batches of loads", p->batch_count);
        }
    }
    return MOE_OK;
}

static enum moe_status expand(struct moe_planning *planning, struct pass *p, struct moe_error *err)
{
    const size_t cells = model_cells(p);
    double *load = MOE_NEW(&planning->arena, double, cells);
    double *future = MOE_NEW(&planning->arena, double, cells);
    if (load == NULL || future == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the loads of %u layers",
                        p->source->map->layer_count);
    }
    moe_replay_expand(p->source->map, p->counts[0], load);
    moe_replay_expand(p->source->map, p->counts[1], future);
    planning->load = load;
    planning->future_load = future;
    planning->unknown = p->unknown;
    planning->domain_count = p->model->domain_count;
    if (p->batch_counts == NULL) {
        return MOE_OK;
    }
    float *batches = MOE_NEW(&planning->arena, float, p->batch_count *cells);
    if (batches == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %u batches of loads", p->batch_count);
    }
    for (uint32_t i = 0; i < p->batch_count; i++) {
        expand_batch(p, p->batch_counts + (size_t) i * p->cells, batches + i * cells);
    }
    planning->batch_count = p->batch_count;
    planning->batches = batches;
    return MOE_OK;
}

enum moe_status moe_planning_init(struct moe_planning *planning,
                                  const struct moe_planning_source *source, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(source->trace);
    struct pass p = {
        .source = source,
        .model = model,
        .requests = moe_trace_requests(source->trace),
        .cells = (size_t) model->layer_count * model->expert_count,
    };
    uint32_t routed = 0;
    if ((source->needs & MOE_POLICY_NEEDS_ROUTES) != 0) {
        routed = routed_requests(&p);
        p.route_tokens =
            p.requests[routed - 1].first_row + moe_trace_request_rows(&p.requests[routed - 1]);
    }
    *planning = (struct moe_planning){ 0 };
    enum moe_status status = make_scratch(&p, err);
    if (status == MOE_OK) {
        status = make_room(planning, &p, routed, err);
    }
    if (status == MOE_OK) {
        status = read_trace(&p, err);
    }
    if (status == MOE_OK) {
        status = expand(planning, &p, err);
    }
    if (status == MOE_OK && routed > 0) {
        status = describe_routes(planning, &p, routed, err);
    }
    free(p.counts[0]);
    free(p.counts[1]);
    free(p.rows);
    free(p.start);
    free(p.batch_counts);
    if (status != MOE_OK) {
        moe_planning_finish(planning);
    }
    return status;
}

void moe_planning_finish(struct moe_planning *planning)
{
    moe_arena_finish(&planning->arena);
    *planning = (struct moe_planning){ 0 };
}

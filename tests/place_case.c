#include "tests/place_case.h"

#include <assert.h>
#include <string.h>

#include "sim/base/random.h"

static void draw_shape(struct place_case *c, struct draws *draws, bool no_groups)
{
    struct moe_placement_shape *shape = &c->view.shape;
    shape->layer_count = 1 + draw_below(draws, CASE_LAYERS);
    shape->node_count = 1 + draw_below(draws, 4);
    shape->gpu_count = shape->node_count * (1 + draw_below(draws, 4));
    shape->group_count = no_groups ? 1 : 1 + draw_below(draws, 6);
    shape->expert_count =
        shape->group_count * (1 + draw_below(draws, CASE_EXPERTS / shape->group_count));
    const uint32_t least = (shape->expert_count + shape->gpu_count - 1) / shape->gpu_count;
    const uint32_t most = CASE_SLOTS / shape->gpu_count;
    const uint32_t wanted = least + draw_below(draws, 4);
    shape->slot_count = shape->gpu_count * (wanted < most ? wanted : most);
}

static void draw_loads(struct place_case *c, struct draws *draws, bool no_ties)
{
    const uint32_t cells = c->view.shape.layer_count * c->view.shape.expert_count;
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    const uint32_t kind = draw_below(draws, 4);
    static const uint32_t bounds[] = { 10, 1000, 3, 100000 };
    c->view.batch_count = 1 + draw_below(draws, CASE_BATCHES);
    memset(c->load, 0, sizeof c->load);
    for (uint32_t i = 0; i < c->view.batch_count * cells; i++) {
        uint32_t tokens = draw_below(draws, bounds[kind]);
        if (kind == 3) {
            tokens = tokens % 16 == 0 ? tokens : tokens % 8; /* few hot ones */
        }
        const double part = moe_random_uniform(key, i);
        c->batches[i] = no_ties ? (float) (tokens + 1 + part) : (float) tokens;
        c->load[i % cells] += (double) c->batches[i];
    }
    for (uint32_t i = 0; i < cells; i++) {
        c->future[i] =
            draw_below(draws, 100) + (no_ties ? moe_random_uniform(key ^ 2, i) + 1 : 0.0);
    }
}

static void draw_routes(struct place_case *c, struct draws *draws)
{
    const struct moe_placement_shape *shape = &c->view.shape;
    const uint32_t top_k =
        1 + draw_below(draws, shape->expert_count < CASE_TOP_K ? shape->expert_count : CASE_TOP_K);
    uint32_t token = 0;
    c->routes = (struct moe_policy_routes){
        .request_count = 1 + draw_below(draws, CASE_REQUESTS),
        .top_k = top_k,
        .domain_count = 2,
        .expert = c->expert,
        .request = c->request,
        .phase = c->phase,
        .first_token = c->first_token,
        .request_domain = c->domain,
    };
    for (uint32_t request = 0; request < c->routes.request_count; request++) {
        const uint32_t tokens = 1 + draw_below(draws, CASE_TOKENS / CASE_REQUESTS);
        c->first_token[request] = token;
        c->domain[request] = (uint16_t) draw_below(draws, 2);
        for (uint32_t i = 0; i < tokens; i++, token++) {
            c->request[token] = request;
            c->phase[token] = i < (tokens + 1) / 2 ? MOE_ROUTE_PREFILL : MOE_ROUTE_DECODE;
            for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
                uint16_t *row = c->expert + ((size_t) token * shape->layer_count + layer) * top_k;
                const uint32_t first = draw_below(draws, shape->expert_count);
                for (uint32_t k = 0; k < top_k; k++) { /* distinct, as a gate's choices are */
                    row[k] = (uint16_t) ((first + k) % shape->expert_count);
                }
            }
        }
    }
    c->first_token[c->routes.request_count] = token;
    c->routes.planned_requests = c->routes.request_count;
    c->routes.token_count = token;
}

static void draw_machines(struct place_case *c, struct draws *draws)
{
    const struct moe_placement_shape *shape = &c->view.shape;
    c->speed = (struct moe_policy_speed){ CASE_POINTS, c->points, c->time_ns };
    for (uint32_t point = 0; point < CASE_POINTS; point++) {
        c->points[point] = 100.0 * point;
    }
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        double time_ns = 50.0;
        for (uint32_t point = 0; point < CASE_POINTS; point++) {
            c->time_ns[gpu * CASE_POINTS + point] = time_ns;
            time_ns += 100.0 + draw_below(draws, 30) + gpu / 64.0;
        }
    }
    c->topology = (struct moe_policy_topology){ 1.0, 1.0 + draw_below(draws, 10) };
    c->memory = (struct moe_policy_memory){ 1e6, 1e9 + draw_below(draws, 100) * 1e6, 100.0 };
}

/* Every expert once, from an offset on; what is left repeats the round or stays empty. */
static void draw_previous(struct place_case *c, struct draws *draws)
{
    const struct moe_placement_shape *shape = &c->view.shape;
    c->previous = (struct moe_placement){ *shape, c->previous_slots };
    assert(shape->expert_count > 0);
    const bool fill = draw_below(draws, 2) == 0;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const uint32_t offset = draw_below(draws, shape->expert_count);
        for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
            moe_placement_layer(&c->previous, layer)[slot] =
                slot < shape->expert_count || fill
                    ? (uint16_t) ((slot + offset) % shape->expert_count)
                    : MOE_SLOT_EMPTY;
        }
    }
}

static void point_view(struct place_case *c)
{
    c->view.load = c->load;
    c->view.future_load = c->future;
    c->view.batches = c->batches;
    c->view.routes = &c->routes;
    c->view.speed = &c->speed;
    c->view.previous = &c->previous;
    c->view.topology = &c->topology;
    c->view.memory = &c->memory;
}

void place_case_draw(struct place_case *c, struct draws *draws, bool no_ties, bool no_groups)
{
    c->view = (struct moe_place_view){ .seed = 7 };
    draw_shape(c, draws, no_groups);
    draw_loads(c, draws, no_ties);
    draw_routes(c, draws);
    draw_machines(c, draws);
    draw_previous(c, draws);
    point_view(c);
}

enum moe_status place_case_solve(struct place_case *c, const struct moe_policy *policy,
                                 struct moe_arena *scratch, struct moe_error *err)
{
    moe_arena_reset(scratch);
    c->plan = (struct moe_placement){ c->view.shape, c->slots };
    memset(c->slots, 0xff, sizeof c->slots);
    return moe_policy_place(policy, &c->view, scratch, &c->plan, err);
}

void place_case_rename_experts(const struct place_case *from, const uint16_t *to,
                               struct place_case *c)
{
    const struct moe_placement_shape *shape = &from->view.shape;
    const size_t experts = shape->expert_count;
    *c = *from;
    for (size_t i = 0; i < shape->layer_count * experts; i++) {
        c->load[i / experts * experts + to[i % experts]] = from->load[i];
        c->future[i / experts * experts + to[i % experts]] = from->future[i];
    }
    const size_t cells = shape->layer_count * experts;
    for (size_t i = 0; i < from->view.batch_count * cells; i++) {
        c->batches[i / experts * experts + to[i % experts]] = from->batches[i];
    }
    const size_t choices = (size_t) shape->layer_count * from->routes.top_k;
    for (size_t i = 0; i < from->routes.token_count * choices; i++) {
        c->expert[i] = to[from->expert[i]];
    }
    for (size_t i = 0; i < (size_t) shape->layer_count * shape->slot_count; i++) {
        const uint16_t expert = from->previous_slots[i];
        c->previous_slots[i] = expert == MOE_SLOT_EMPTY ? expert : to[expert];
    }
    c->routes.expert = c->expert;
    c->routes.request = c->request;
    c->routes.phase = c->phase;
    c->routes.first_token = c->first_token;
    c->routes.request_domain = c->domain;
    c->speed.tokens = c->points;
    c->speed.time_ns = c->time_ns;
    c->previous.expert_of_slot = c->previous_slots;
    point_view(c);
}

void place_case_rename_gpus(struct place_case *from, const uint16_t *to, struct place_case *c)
{
    from->view.shape.node_count = 1;
    from->previous.shape.node_count = 1;
    const struct moe_placement_shape *shape = &from->view.shape;
    const size_t capacity = moe_placement_slots_per_gpu(shape);
    *c = *from;
    for (size_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        memcpy(c->time_ns + to[gpu] * (size_t) CASE_POINTS, from->time_ns + gpu * CASE_POINTS,
               CASE_POINTS * sizeof *c->time_ns);
        for (size_t layer = 0; layer < shape->layer_count; layer++) {
            const size_t first = layer * shape->slot_count;
            memcpy(c->previous_slots + first + to[gpu] * capacity,
                   from->previous_slots + first + gpu * capacity,
                   capacity * sizeof *c->previous_slots);
        }
    }
    c->speed = (struct moe_policy_speed){ CASE_POINTS, c->points, c->time_ns };
    c->previous.expert_of_slot = c->previous_slots;
    point_view(c);
}

double place_case_imbalance(const struct place_case *c, uint32_t layer)
{
    double gpu_load[CASE_GPUS];
    double sum = 0.0;
    double max = 0.0;
    moe_placement_gpu_load(&c->plan, layer, c->load + (size_t) layer * c->view.shape.expert_count,
                           gpu_load);
    for (uint32_t gpu = 0; gpu < c->view.shape.gpu_count; gpu++) {
        sum += gpu_load[gpu];
        max = gpu_load[gpu] > max ? gpu_load[gpu] : max;
    }
    return sum > 0.0 ? max * c->view.shape.gpu_count / sum : 1.0;
}

#include "policies/check/policy_case.h"

#include <stdio.h>

#include "sim/base/random.h"

enum { POINTS = 4, DOMAINS = 3, TOP_K_LIMIT = 4, GROWING = 100 };

/* A stream of draws. */
struct draw {
    uint64_t key;
    uint64_t counter;
};

static uint32_t below(struct draw *draw, uint32_t bound)
{
    return (uint32_t) moe_random_below(draw->key, draw->counter++, bound);
}

/* What the number-th case has of a bound: all of it from GROWING on. */
static uint32_t grown(uint64_t number, uint32_t bound)
{
    const uint64_t size = number < GROWING ? number + 1 : GROWING;
    return (uint32_t) ((bound * size + GROWING - 1) / GROWING);
}

struct moe_policy_case_spec moe_policy_case_draw(uint64_t number)
{
    struct draw draw = { .key = moe_random_key(number, MOE_RANDOM_TEST) };
    return (struct moe_policy_case_spec){
        .layers = 1 + below(&draw, grown(number, 4)),
        .nodes = 1 + below(&draw, grown(number, 4)),
        .gpus_per_node = 1 + below(&draw, grown(number, 8)),
        .groups = below(&draw, 2) == 0 ? 1 : 1 + below(&draw, grown(number, 8)),
        .group_experts = 1 + below(&draw, grown(number, 24)),
        .spare_slots = below(&draw, 4) * below(&draw, 4),
        .batches = 1 + below(&draw, 6),
        .requests = 1 + below(&draw, 8),
        .loads = below(&draw, MOE_CASE_LOADS_COUNT),
        .seed = number,
    };
}

static uint32_t *field_of(struct moe_policy_case_spec *spec, uint32_t which)
{
    uint32_t *const fields[MOE_CASE_FIELD_COUNT] = {
        &spec->layers,        &spec->nodes,       &spec->gpus_per_node, &spec->groups,
        &spec->group_experts, &spec->spare_slots, &spec->batches,       &spec->requests,
    };
    return fields[which];
}

bool moe_policy_case_shrink(struct moe_policy_case_spec *spec, uint32_t which, uint32_t try)
{
    uint32_t *field = field_of(spec, which);
    const uint32_t value = (field == &spec->spare_slots ? 0 : 1) + try;
    if (value >= *field) {
        return false;
    }
    *field = value;
    return true;
}

static const char *const loads_name[MOE_CASE_LOADS_COUNT] = { "no", "tied", "skewed", "one-hot" };

void moe_policy_case_print(const struct moe_policy_case_spec *s, char *text, size_t text_bytes)
{
    (void) snprintf(text, text_bytes,
                    "%u layers, %u experts in %u groups, %u GPUs on %u nodes, %u spare slots a "
                    "GPU, %u batches, %u requests, %s loads, seed %llu",
                    s->layers, s->groups * s->group_experts, s->groups, s->nodes * s->gpus_per_node,
                    s->nodes, s->spare_slots, s->batches, s->requests, loads_name[s->loads],
                    (unsigned long long) s->seed);
}

static struct moe_placement_shape shape_of(const struct moe_policy_case_spec *spec)
{
    const uint32_t gpus = spec->nodes * spec->gpus_per_node;
    const uint32_t experts = spec->groups * spec->group_experts;
    return (struct moe_placement_shape){
        .layer_count = spec->layers,
        .expert_count = experts,
        .slot_count = gpus * ((experts + gpus - 1) / gpus + spec->spare_slots),
        .gpu_count = gpus,
        .node_count = spec->nodes,
        .group_count = spec->groups,
    };
}

/* Of the stream (layer, expert): a case with fewer layers or experts keeps the loads of those
 * that remain. */
static double base_load(const struct moe_policy_case_spec *spec, uint32_t window, uint32_t layer,
                        uint32_t expert)
{
    const uint64_t key =
        moe_random_key(spec->seed + ((uint64_t) (window + 1) << 40), MOE_RANDOM_TEST);
    const double u = moe_random_uniform(key, (uint64_t) layer << 32 | expert);
    switch (spec->loads) {
    case MOE_CASE_TIED:
        return (double) (uint32_t) (u * 3.0);
    case MOE_CASE_SKEWED:
        return 1000.0 * u * u * u * u + 1.0;
    case MOE_CASE_ONE_HOT:
        return expert == (layer * 7 + 3) % (spec->groups * spec->group_experts) ? 1e5 * (1.0 + u)
                                                                                : 1.0 + u;
    default:
        return 0.0;
    }
}

static uint16_t name_of(const uint16_t *relabel, uint32_t expert)
{
    return relabel == NULL ? (uint16_t) expert : relabel[expert];
}

static enum moe_status make_loads(struct moe_policy_case *c,
                                  const struct moe_policy_case_spec *spec, const uint16_t *relabel,
                                  struct moe_arena *arena, struct moe_error *err)
{
    const uint32_t experts = c->view.shape.expert_count;
    const size_t cells = (size_t) spec->layers * experts;
    double *load = MOE_NEW(arena, double, cells);
    double *future = MOE_NEW(arena, double, cells);
    float *batches = MOE_NEW(arena, float, spec->batches *cells);
    if (load == NULL || future == NULL || batches == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the loads of a case");
    }
    for (uint32_t layer = 0; layer < spec->layers; layer++) {
        for (uint32_t expert = 0; expert < experts; expert++) {
            const size_t cell = (size_t) layer * experts + name_of(relabel, expert);
            for (uint32_t batch = 0; batch < spec->batches; batch++) {
                const float share = (float) base_load(spec, 2 + batch, layer, expert);
                batches[batch * cells + cell] = share;
                load[cell] += (double) share;
            }
            future[cell] = base_load(spec, 0, layer, expert);
        }
    }
    c->view.load = load;
    c->view.future_load = future;
    c->view.batches = batches;
    c->view.batch_count = spec->batches;
    return MOE_OK;
}

/* k different experts for one token and layer; now and then an unknown one. */
static void choose(struct draw *draw, uint32_t experts, uint32_t k_count, const uint16_t *relabel,
                   uint16_t *out)
{
    const uint32_t first = below(draw, experts);
    const uint32_t stride = experts > k_count ? 1 + below(draw, (experts - 1) / k_count) : 1;
    for (uint32_t k = 0; k < k_count; k++) {
        out[k] = below(draw, 50) == 0 ? 0xffff : name_of(relabel, (first + k * stride) % experts);
    }
}

static enum moe_status make_routes(struct moe_policy_case *c,
                                   const struct moe_policy_case_spec *spec, const uint16_t *relabel,
                                   struct moe_arena *arena, struct moe_error *err)
{
    enum { ROWS = 12 }; /* most of a request */
    struct draw draw = { .key = moe_random_key(spec->seed, MOE_RANDOM_TEST), .counter = 1000 };
    const uint32_t experts = c->view.shape.expert_count;
    const uint32_t k_count = experts < TOP_K_LIMIT ? experts : TOP_K_LIMIT;
    const size_t most = (size_t) spec->requests * ROWS;
    uint16_t *expert = MOE_NEW(arena, uint16_t, most * spec->layers * k_count);
    uint32_t *request = MOE_NEW(arena, uint32_t, most);
    uint8_t *phase = MOE_NEW(arena, uint8_t, most);
    uint32_t *first = MOE_NEW(arena, uint32_t, (size_t) spec->requests + 1);
    uint16_t *domain = MOE_NEW(arena, uint16_t, spec->requests);
    if (expert == NULL || request == NULL || phase == NULL || first == NULL || domain == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the routes of a case");
    }
    uint32_t tokens = 0;
    for (uint32_t r = 0; r < spec->requests; r++) {
        const uint32_t prompt = 1 + below(&draw, ROWS / 2);
        const uint32_t decode = below(&draw, ROWS / 2);
        first[r] = tokens;
        domain[r] = (uint16_t) below(&draw, DOMAINS);
        for (uint32_t i = 0; i < prompt + decode; i++, tokens++) {
            request[tokens] = r;
            phase[tokens] = i < prompt ? MOE_ROUTE_PREFILL : MOE_ROUTE_DECODE;
            for (uint32_t layer = 0; layer < spec->layers; layer++) {
                choose(&draw, experts, k_count, relabel,
                       expert + ((size_t) tokens * spec->layers + layer) * k_count);
            }
        }
    }
    first[spec->requests] = tokens;
    c->routes = (struct moe_policy_routes){
        .token_count = tokens,
        .request_count = spec->requests,
        .planned_requests = spec->requests,
        .top_k = k_count,
        .domain_count = DOMAINS,
        .expert = expert,
        .request = request,
        .phase = phase,
        .first_token = first,
        .request_domain = domain,
    };
    return MOE_OK;
}

static enum moe_status make_cluster(struct moe_policy_case *c,
                                    const struct moe_policy_case_spec *spec,
                                    const uint16_t *relabel, struct moe_arena *arena,
                                    struct moe_error *err)
{
    const struct moe_placement_shape *shape = &c->view.shape;
    struct draw draw = { .key = moe_random_key(spec->seed, MOE_RANDOM_TEST), .counter = 100 };
    double *tokens = MOE_NEW(arena, double, POINTS);
    double *time_ns = MOE_NEW(arena, double, (size_t) shape->gpu_count *POINTS);
    if (tokens == NULL || time_ns == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the GPUs of a case");
    }
    for (uint32_t i = 1; i < POINTS; i++) {
        tokens[i] = (double) (UINT64_C(1) << (6 * i));
    }
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        const double factor = 1.0 + 0.001 * below(&draw, 100);
        for (uint32_t i = 0; i < POINTS; i++) {
            time_ns[(size_t) gpu * POINTS + i] = factor * (tokens[i] > 64 ? tokens[i] * 2.0 : 90.0);
        }
    }
    c->speed =
        (struct moe_policy_speed){ .point_count = POINTS, .tokens = tokens, .time_ns = time_ns };
    c->topology = (struct moe_policy_topology){ .near_ns = shape->gpu_count > 1 ? 20.0 : 0.0,
                                                .far_ns = shape->node_count > 1 ? 180.0 : 0.0 };
    c->memory = (struct moe_policy_memory){
        .expert_bytes = 1e6,
        .free_bytes = 1e6 * spec->layers * ((double) moe_placement_slots_per_gpu(shape) + 4.0),
        .kv_bytes_per_token = 1e3,
    };
    MOE_TRY(moe_placement_init(&c->previous, arena, shape, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
            moe_placement_layer(&c->previous, layer)[slot] =
                name_of(relabel, slot % shape->expert_count);
        }
    }
    return MOE_OK;
}

enum moe_status moe_policy_case_make(struct moe_policy_case *c,
                                     const struct moe_policy_case_spec *spec,
                                     const uint16_t *relabel, struct moe_arena *arena,
                                     struct moe_error *err)
{
    c->view = (struct moe_place_view){ .shape = shape_of(spec),
                                       .domain_count = DOMAINS,
                                       .seed = spec->seed };
    MOE_TRY(make_loads(c, spec, relabel, arena, err));
    MOE_TRY(make_routes(c, spec, relabel, arena, err));
    MOE_TRY(make_cluster(c, spec, relabel, arena, err));
    c->view.routes = &c->routes;
    c->view.speed = &c->speed;
    c->view.topology = &c->topology;
    c->view.memory = &c->memory;
    c->view.previous = &c->previous;
    return MOE_OK;
}

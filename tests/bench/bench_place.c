/* Every placement policy at DeepSeek-V3's size: 58 layers, 256 experts of 8 groups, 288 slots on
 * 32 GPUs of 4 nodes, 64 batches, 20,000 tokens of routes; EPLB's relatives also at 384 -> 512
 * slots on 256 GPUs and 896 -> 2,048 on 1,024. Loads and routes are drawn from counters. Prints
 * the best of a few processor times (one thread), balancedness on the planning window, scratch and
 * a hash of the plan, which tells whether a faster version still answers the same.
 *
 * bench_place [NAME...]   only these policies */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "policies/policy.h"
#include "sim/base/random.h"

enum { LAYERS = 58, BATCHES = 64, TOKENS = 20000, TOP_K = 8, POINTS = 3, REPEATS = 3 };

static double seconds(void)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
}

struct world {
    struct moe_arena arena;
    struct moe_arena scratch;
    struct moe_place_view view;
    struct moe_policy_routes routes;
    struct moe_policy_speed speed;
    struct moe_policy_topology topology;
    struct moe_policy_memory memory;
    struct moe_placement previous;
    struct moe_placement plan;
};

static bool draw_loads(struct world *w, uint64_t key)
{
    const struct moe_placement_shape *shape = &w->view.shape;
    const size_t cells = (size_t) LAYERS * shape->expert_count;
    double *load = MOE_NEW(&w->arena, double, cells);
    float *batches = MOE_NEW(&w->arena, float, cells *BATCHES);
    if (load == NULL || batches == NULL) {
        return false;
    }
    for (size_t i = 0; i < cells; i++) {
        const double rank = floor(moe_random_uniform(key, i) * shape->expert_count);
        for (size_t batch = 0; batch < BATCHES; batch++) {
            const double factor = 0.5 + moe_random_uniform(key, (batch + 1) << 32 | i);
            batches[batch * cells + i] = (float) floor(6e3 * factor / pow(rank + 2.0, 0.8));
            load[i] += (double) batches[batch * cells + i];
        }
    }
    w->view.load = load;
    w->view.future_load = load;
    w->view.batch_count = BATCHES;
    w->view.batches = batches;
    return true;
}

static bool draw_routes(struct world *w, uint64_t key)
{
    const uint32_t experts = w->view.shape.expert_count;
    uint16_t *expert = MOE_NEW(&w->arena, uint16_t, (size_t) TOKENS * LAYERS * TOP_K);
    uint32_t *request = MOE_NEW(&w->arena, uint32_t, TOKENS);
    uint32_t *first = MOE_NEW(&w->arena, uint32_t, TOKENS / 100 + 1);
    uint8_t *phase = MOE_NEW(&w->arena, uint8_t, TOKENS);
    uint16_t *domain = MOE_NEW(&w->arena, uint16_t, TOKENS / 100);
    if (expert == NULL || request == NULL || first == NULL || phase == NULL || domain == NULL) {
        return false;
    }
    for (size_t row = 0; row < (size_t) TOKENS * LAYERS; row++) {
        const double u = moe_random_uniform(key, row);
        const uint32_t start = (uint32_t) (u * u * experts);
        for (uint32_t k = 0; k < TOP_K; k++) {
            expert[row * TOP_K + k] = (uint16_t) ((start + k * 31) % experts);
        }
    }
    for (uint32_t token = 0; token < TOKENS; token++) {
        request[token] = token / 100;
        first[token / 100 + 1] = token + 1;
    }
    w->routes = (struct moe_policy_routes){ .token_count = TOKENS,
                                            .request_count = TOKENS / 100,
                                            .planned_requests = TOKENS / 100,
                                            .top_k = TOP_K,
                                            .expert = expert,
                                            .request = request,
                                            .phase = phase,
                                            .first_token = first,
                                            .request_domain = domain };
    w->view.routes = &w->routes;
    return true;
}

static bool draw_machines(struct world *w, uint64_t key)
{
    const struct moe_placement_shape *shape = &w->view.shape;
    double *tokens = MOE_NEW(&w->arena, double, POINTS);
    double *time_ns = MOE_NEW(&w->arena, double, (size_t) shape->gpu_count *POINTS);
    if (tokens == NULL || time_ns == NULL ||
        moe_placement_init(&w->previous, &w->arena, shape, NULL) != MOE_OK ||
        moe_placement_init(&w->plan, &w->arena, shape, NULL) != MOE_OK) {
        return false;
    }
    for (uint32_t i = 0; i < POINTS; i++) {
        tokens[i] = 1e4 * i;
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            const double factor = 1.0 + 0.07 * moe_random_uniform(key, gpu);
            time_ns[gpu * POINTS + i] = factor * (1e4 + 2e4 * i);
        }
    }
    for (size_t i = 0; i < (size_t) LAYERS * shape->slot_count; i++) {
        w->previous.expert_of_slot[i] = (uint16_t) (i % shape->slot_count % shape->expert_count);
    }
    w->speed = (struct moe_policy_speed){ POINTS, tokens, time_ns };
    w->topology = (struct moe_policy_topology){ 20.0, 180.0 };
    w->memory = (struct moe_policy_memory){ 44e6, 60e9, 70e3 };
    w->view.speed = &w->speed;
    w->view.topology = &w->topology;
    w->view.memory = &w->memory;
    w->view.previous = &w->previous;
    return true;
}

/* FNV-1a over the slots. */
static uint64_t hash_of(const struct moe_placement *plan)
{
    const size_t slots = (size_t) plan->shape.layer_count * plan->shape.slot_count;
    uint64_t hash = 14695981039346656037U;
    for (size_t i = 0; i < slots; i++) {
        hash = (hash ^ plan->expert_of_slot[i]) * 1099511628211U;
    }
    return hash;
}

static int measure(struct world *w, const struct moe_policy *policy)
{
    const struct moe_placement_shape *shape = &w->view.shape;
    const size_t slots = (size_t) LAYERS * shape->slot_count;
    struct moe_error err = { 0 };
    double best = INFINITY;
    for (int repeat = 0; repeat < REPEATS && best > 1e-9 && (repeat == 0 || best < 2.0); repeat++) {
        memset(w->plan.expert_of_slot, 0xff, slots * sizeof(uint16_t));
        moe_arena_reset(&w->scratch);
        w->scratch.peak_bytes = 0;
        const double begin = seconds();
        if (moe_policy_place(policy, &w->view, &w->scratch, &w->plan, &err) != MOE_OK) {
            (void) printf("%-16s %s\n", policy->name, err.text);
            return 1;
        }
        best = fmin(best, seconds() - begin);
    }
    const size_t peak = w->scratch.peak_bytes;
    moe_arena_reset(&w->scratch);
    (void) printf("%-16s %3u -> %4u slots, %4u GPUs: %9.3f ms  balancedness %.4f  scratch %6.1f "
                  "MB  plan %016llx\n",
                  policy->name, shape->expert_count, shape->slot_count, shape->gpu_count,
                  best * 1e3, moe_placement_balancedness(&w->plan, w->view.load, &w->scratch),
                  (double) peak / 1e6, (unsigned long long) hash_of(&w->plan));
    return 0;
}

static bool is_asked(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], name) == 0) {
            return true;
        }
    }
    return argc == 1;
}

int main(int argc, char **argv)
{
    static const struct moe_placement_shape shapes[] = {
        { LAYERS, 256, 288, 32, 4, 8 },
        { LAYERS, 384, 512, 256, 32, 1 },
        { LAYERS, 896, 2048, 1024, 128, 1 },
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct world w = { .view = { .shape = shapes[i], .seed = 1 } };
        const uint64_t key = moe_random_key(i, MOE_RANDOM_TEST);
        size_t count = 0;
        const struct moe_policy *const *policies = moe_policy_list(&count);
        if (moe_arena_init(&w.arena, (size_t) 256 << 20, NULL) != MOE_OK ||
            moe_arena_init(&w.scratch, (size_t) 256 << 20, NULL) != MOE_OK ||
            !draw_loads(&w, key) || !draw_routes(&w, key) || !draw_machines(&w, key)) {
            return EXIT_FAILURE;
        }
        for (size_t j = 0; j < count; j++) {
            /* The larger sizes for those whose time grows little, or who are asked for. */
            const bool small = strncmp(policies[j]->name, "eplb", 4) == 0;
            if (policies[j]->place != NULL && is_asked(policies[j]->name, argc, argv) &&
                (i == 0 || small || argc > 1)) {
                failed += measure(&w, policies[j]);
            }
        }
        moe_arena_finish(&w.arena);
        moe_arena_finish(&w.scratch);
    }
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

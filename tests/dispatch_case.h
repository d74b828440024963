/* Runs a dispatch policy on one layer of tests/split_case.h, the way the engine does. */
#ifndef MOE_TESTS_DISPATCH_CASE_H
#define MOE_TESTS_DISPATCH_CASE_H

#include <criterion/criterion.h>
#include <string.h>

#include "policies/policy.h"
#include "tests/split_case.h"

enum { DISPATCH_GUARD = 64, DISPATCH_POINTS = 3, DISPATCH_ARENA_BYTES = 1 << 15 };

struct dispatch_case {
    struct split_case layer;
    double speed_tokens[DISPATCH_POINTS];
    double speed_ns[CASE_GPUS * DISPATCH_POINTS];
    struct moe_policy_speed speed;
    struct moe_policy_topology topology;
    uint64_t step;
    uint64_t seed;
    uint32_t quota[CASE_GPUS * CASE_SLOTS + DISPATCH_GUARD]; /* [source][copy] */
};

/* Finish times: a fixed part, one slope up to 500 tokens, a smaller one from there on. */
static inline void dispatch_case_draw(struct dispatch_case *c, uint64_t index, uint32_t gpu_limit)
{
    const uint64_t key = moe_random_key(index, MOE_RANDOM_TEST);
    split_case_draw(&c->layer, index, gpu_limit);
    c->speed_tokens[0] = 0.0;
    c->speed_tokens[1] = 500.0;
    c->speed_tokens[2] = 2000.0;
    for (uint32_t gpu = 0; gpu < c->layer.shape.gpu_count; gpu++) {
        double *time = c->speed_ns + (size_t) gpu * DISPATCH_POINTS;
        const uint64_t counter = (UINT64_C(1) << 40) + 4 * (uint64_t) gpu;
        time[0] = 1000.0 * moe_random_uniform(key, counter);
        time[1] = time[0] + 500.0 * (5.0 + 10.0 * moe_random_uniform(key, counter + 1));
        time[2] = time[1] + 1500.0 * (1.0 + 4.0 * moe_random_uniform(key, counter + 2));
    }
    c->speed = (struct moe_policy_speed){ .point_count = DISPATCH_POINTS,
                                          .tokens = c->speed_tokens,
                                          .time_ns = c->speed_ns };
    c->topology = (struct moe_policy_topology){ .near_ns = 20.0, .far_ns = 180.0 };
    c->step = 3;
    c->seed = index;
}

static inline const struct moe_policy *dispatch_case_find(const char *name)
{
    const struct moe_policy *policy = NULL;
    cr_assert_eq(moe_policy_find(MOE_POLICY_DISPATCH, name, &policy, NULL), MOE_OK, "%s", name);
    return policy;
}

/* values: the parameters, or NULL for the defaults. state_garbage fills the arena beforehand. */
static inline void dispatch_case_run(struct dispatch_case *c, const struct moe_policy *policy,
                                     const double *values, int state_garbage)
{
    struct moe_arena arena;
    struct split_case *layer = &c->layer;
    struct moe_place_view planning = { .shape = layer->shape, .seed = c->seed };
    struct moe_placement placement = { .shape = layer->shape,
                                       .expert_of_slot = layer->expert_of_slot };
    double standard[MOE_POLICY_PARAMETER_LIMIT];
    void *state = NULL;
    struct moe_error err = { 0 };
    moe_policy_defaults(policy, standard);
    planning.parameters = values != NULL ? values : standard;
    planning.speed = (policy->needs & MOE_POLICY_NEEDS_GPU_SPEED) != 0 ? &c->speed : NULL;
    cr_assert_eq(moe_arena_init(&arena, DISPATCH_ARENA_BYTES, NULL), MOE_OK);
    /* Half of it: the sanitizer wants room around an allocation. */
    memset(MOE_NEW(&arena, unsigned char, DISPATCH_ARENA_BYTES / 2), state_garbage,
           DISPATCH_ARENA_BYTES / 2);
    moe_arena_reset(&arena);
    if (policy->dispatch->init != NULL) {
        cr_assert_eq(policy->dispatch->init(&planning, &placement, &arena, &state, &err), MOE_OK,
                     "%s", err.text);
    }
    const struct moe_dispatch_view view = {
        .shape = layer->shape,
        .step = c->step,
        .copy_count = layer->copy_count,
        .first_copy = layer->first_copy,
        .slot_of_copy = layer->slot_of_copy,
        .gpu_of_copy = layer->gpu_of_copy,
        .demand = layer->demand,
        .expert_total = layer->total,
        .speed = planning.speed,
        .topology = &c->topology,
        .parameters = planning.parameters,
        .seed = c->seed,
    };
    memset(c->quota, 0, sizeof c->quota);
    cr_assert_eq(policy->dispatch->split(state, &view, c->quota, &err), MOE_OK, "%s", err.text);
    moe_arena_finish(&arena);
}

/* Tokens of every GPU; returns the fullest. load may be NULL. */
static inline uint64_t dispatch_case_loads(const struct dispatch_case *c, uint64_t *load)
{
    uint64_t sums[CASE_GPUS] = { 0 };
    uint64_t fullest = 0;
    for (uint32_t source = 0; source < c->layer.shape.gpu_count; source++) {
        for (uint32_t copy = 0; copy < c->layer.copy_count; copy++) {
            sums[c->layer.gpu_of_copy[copy]] += c->quota[source * c->layer.copy_count + copy];
        }
    }
    for (uint32_t gpu = 0; gpu < c->layer.shape.gpu_count; gpu++) {
        fullest = sums[gpu] > fullest ? sums[gpu] : fullest;
        if (load != NULL) {
            load[gpu] = sums[gpu];
        }
    }
    return fullest;
}

#endif

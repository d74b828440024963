/* Predictive replication: the rule by hand and its promises over random loads. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/predictive_solver.h"
#include "sim/base/random.h"

enum { ARENA_BYTES = 1 << 20 };

static struct moe_arena arena;
static uint64_t counter;

static void open_arena(void)
{
    cr_assert_eq(moe_arena_init(&arena, ARENA_BYTES, NULL), MOE_OK);
}

static void close_arena(void)
{
    moe_arena_finish(&arena);
}

TestSuite(predictive, .init = open_arena, .fini = close_arena);

static uint32_t below(uint32_t bound)
{
    return (uint32_t) moe_random_below(moe_random_key(17, MOE_RANDOM_TEST), counter++, bound);
}

/* One GPU with host memory: 100 tokens a copy, at most 4. What has no tokens is not loaded; what
 * does not fit goes where a copy has least to do. */
Test(predictive, copies_by_hand)
{
    const double tokens[6] = { 950.0, 250.0, 100.0, 101.0, 1.0, 0.0 };
    struct moe_predictive_limits limits = { 100.0, 0, 4 };
    uint64_t tree[16];
    uint32_t copies[6];
    cr_assert_eq(moe_predictive_want(tokens, 6, &limits, copies), 4 + 3 + 1 + 2 + 1 + 0);
    const uint32_t wanted[6] = { 4, 3, 1, 2, 1, 0 };
    cr_assert_arr_eq(copies, wanted, sizeof wanted);
    /* Tokens per copy: 237, 83, 100, 50, 1. First the one token is given up, then 3's second
     * copy, then one of 1's three. */
    const uint32_t fitted[6] = { 4, 2, 1, 1, 0, 0 };
    moe_predictive_shrink(tokens, 6, 0, 11, 8, tree, copies);
    cr_assert_arr_eq(copies, fitted, sizeof fitted);
    const uint32_t resident[6] = { 1, 3, 1, 1, 5, 0 };
    cr_assert_eq(moe_predictive_count_loads(resident, copies, 6), 3);
    limits.least = 1;
    cr_assert_eq(moe_predictive_want(tokens, 6, &limits, copies), 12);
    moe_predictive_shrink(tokens, 6, 1, 12, 6, tree, copies);
    for (uint32_t expert = 0; expert < 6; expert++) {
        cr_assert_eq(copies[expert], 1);
    }
}

/* Copies never exceed what is wanted; the fullest copy, tokens / copies, is never made smaller
 * by less room; nothing that was given up had more to do than what stayed, had it stayed. */
Test(predictive, shrinking_takes_the_idlest)
{
    for (int i = 0; i < 1000; i++) {
        double tokens[40];
        uint32_t wanted[40];
        uint32_t copies[40];
        uint64_t tree[128];
        const uint32_t count = 1 + below(40);
        const struct moe_predictive_limits limits = { 1.0 + below(50), below(2), 1 + below(9) };
        for (uint32_t e = 0; e < count; e++) {
            tokens[e] = below(4) == 0 ? 0.0 : below(1000) / 3.0;
        }
        const uint64_t sum = moe_predictive_want(tokens, count, &limits, wanted);
        const uint64_t least = (uint64_t) limits.least * count;
        const uint64_t room = least + below((uint32_t) (sum - least) + 3);
        memcpy(copies, wanted, sizeof copies);
        moe_predictive_shrink(tokens, count, limits.least, sum, room, tree, copies);
        uint64_t left = 0;
        double idlest = INFINITY; /* of the copies that stayed above least */
        double busiest_given = 0.0;
        for (uint32_t e = 0; e < count; e++) {
            left += copies[e];
            cr_assert(copies[e] >= limits.least && copies[e] <= wanted[e]);
            if (copies[e] > limits.least) {
                idlest = fmin(idlest, tokens[e] / copies[e]);
            }
            if (copies[e] < wanted[e]) {
                busiest_given = fmax(busiest_given, tokens[e] / (copies[e] + 1));
            }
        }
        cr_assert_eq(left, sum < room ? sum : room);
        cr_assert_leq(busiest_given, idlest * (1.0 + 1e-6), "case %d", i);
    }
}

static struct moe_placement plan_of(const struct moe_place_view *view)
{
    const struct moe_policy *policy = NULL;
    struct moe_placement plan = { 0 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, "predictive", &policy, NULL), MOE_OK);
    cr_assert_eq(moe_placement_init(&plan, &arena, &view->shape, NULL), MOE_OK);
    cr_assert_eq(moe_policy_place(policy, view, &arena, &plan, &err), MOE_OK, "%s", err.text);
    return plan;
}

/* The newest batch decides; alpha mixes; the budget of copies binds over all layers; copies of
 * an expert lie on different GPUs. */
Test(predictive, plans_follow_the_newest_batch_within_memory)
{
    enum { EXPERTS = 8, GPUS = 4, SLOTS = 16 };
    float batches[2][2][EXPERTS];
    double load[2 * EXPERTS];
    for (uint32_t i = 0; i < 2 * EXPERTS; i++) {
        const uint32_t e = i % EXPERTS;
        batches[0][i / EXPERTS][e] = e == 0 ? 1000.0f : 10.0f;
        batches[1][i / EXPERTS][e] = e == 5 ? 1000.0f : 10.0f;
        load[i] = (double) (batches[0][i / EXPERTS][e] + batches[1][i / EXPERTS][e]);
    }
    struct moe_place_view view = { .shape = { 2, EXPERTS, SLOTS, GPUS, 1, 1 },
                                   .load = load,
                                   .batch_count = 2,
                                   .batches = &batches[0][0][0] };
    uint32_t copies[EXPERTS];
    struct moe_placement plan = plan_of(&view);
    moe_placement_count_copies(&plan, 0, copies);
    cr_assert_eq(copies[5], GPUS);
    cr_assert_eq(copies[0], 1);
    for (uint32_t gpu = 0; gpu < GPUS; gpu++) {
        uint32_t here = 0;
        for (uint32_t slot = 0; slot < SLOTS / GPUS; slot++) {
            here += plan.expert_of_slot[gpu * (SLOTS / GPUS) + slot] == 5;
        }
        cr_assert_eq(here, 1);
    }
    view.parameters = (const double[]){ 0.5, 0.0, 0.0 };
    plan = plan_of(&view);
    moe_placement_count_copies(&plan, 1, copies);
    cr_assert_eq(copies[5], GPUS);
    cr_assert_eq(copies[0], GPUS);
    view.parameters = (const double[]){ 1.0, 0.0, 3.0 };
    plan = plan_of(&view);
    moe_placement_count_copies(&plan, 1, copies);
    cr_assert_eq(copies[5], 3);
    view.parameters = NULL;
    view.replica_budget_total = 3;
    plan = plan_of(&view);
    uint32_t used = 0;
    for (uint32_t slot = 0; slot < 2 * SLOTS; slot++) {
        used += plan.expert_of_slot[slot] != MOE_SLOT_EMPTY;
    }
    cr_assert_eq(used, 2 * EXPERTS + 3);
}

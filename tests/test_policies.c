/* What single policies promise beyond the contract. */
#include <criterion/criterion.h>
#include <string.h>

#include "policies/policy.h"
#include "sim/base/random.h"

enum { SCRATCH_BYTES = 1 << 20 };

static struct moe_arena arena;

static void open_arena(void)
{
    cr_assert_eq(moe_arena_init(&arena, SCRATCH_BYTES, NULL), MOE_OK);
}

static void close_arena(void)
{
    moe_arena_finish(&arena);
}

TestSuite(policies, .init = open_arena, .fini = close_arena);

static struct moe_placement plan_of(const char *name, const struct moe_place_view *view)
{
    const struct moe_policy *policy = NULL;
    struct moe_placement plan = { 0 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, name, &policy, NULL), MOE_OK);
    cr_assert_eq(moe_placement_init(&plan, &arena, &view->shape, NULL), MOE_OK);
    cr_assert_eq(moe_policy_place(policy, view, &arena, &plan, &err), MOE_OK, "%s", err.text);
    return plan;
}

static void expect_slots(const struct moe_placement *plan, const uint16_t *expected)
{
    for (uint32_t slot = 0; slot < plan->shape.slot_count; slot++) {
        cr_assert_eq(plan->expert_of_slot[slot], expected[slot], "slot %u holds %u", slot,
                     plan->expert_of_slot[slot]);
    }
}

Test(policies, contiguous_and_round_robin_by_hand)
{
    const struct moe_place_view view = { .shape = { 1, 6, 8, 4, 2, 1 } };
    const struct moe_placement contiguous = plan_of("contiguous", &view);
    const struct moe_placement round_robin = plan_of("round_robin", &view);
    expect_slots(&contiguous, (const uint16_t[]){ 0, 1, 2, 3, 4, 5, 0, 1 });
    expect_slots(&round_robin, (const uint16_t[]){ 0, 4, 1, 5, 2, 0, 3, 1 });
}

/* Graham's worst case for two machines: LPT gives 7 where 6 is possible. Then a slot
 * limit that sends the last expert to the fuller GPU. Ties: expert 0 before 1, GPU 0
 * before 1. */
Test(policies, lpt_by_hand)
{
    const double graham[5] = { 3, 3, 2, 2, 2 };
    const double limited[4] = { 8, 1, 1, 1 };
    const struct moe_place_view view = { .shape = { 1, 5, 6, 2, 1, 1 }, .load = graham };
    const struct moe_place_view tight = { .shape = { 1, 4, 4, 2, 1, 1 }, .load = limited };
    const uint16_t none = MOE_SLOT_EMPTY;
    const struct moe_placement plan = plan_of("lpt", &view);
    const struct moe_placement limited_plan = plan_of("lpt", &tight);
    expect_slots(&plan, (const uint16_t[]){ 0, 2, 4, 1, 3, none });
    expect_slots(&limited_plan, (const uint16_t[]){ 0, 3, 1, 2 });
}

Test(policies, hindsight_is_eplb_on_the_future)
{
    double now[24];
    double later[24];
    for (int i = 0; i < 24; i++) {
        now[i] = i;
        later[i] = (i * 7) % 24;
    }
    const struct moe_place_view told = { .shape = { 2, 12, 16, 8, 2, 4 }, .load = later };
    const struct moe_place_view view = { .shape = told.shape, .load = now, .future_load = later };
    const struct moe_placement hindsight = plan_of("hindsight", &view);
    const struct moe_placement informed = plan_of("eplb", &told);
    const struct moe_placement stale = plan_of("eplb", &view);
    cr_assert_eq(moe_placement_count_moves(&hindsight, &informed), 0);
    cr_assert_gt(moe_placement_count_moves(&hindsight, &stale), 0);
}

/* Copies differ by at most one, seeds and layers differ, a layer does not depend on how
 * many there are, and over many draws every expert is as often in slot 0. */
Test(policies, random_is_seeded_per_layer_and_even)
{
    enum { EXPERTS = 12, SLOTS = 32, LAYERS = 6000 };
    struct moe_place_view view = { .shape = { 2, EXPERTS, SLOTS, 8, 2, 4 }, .seed = 1 };
    const struct moe_placement two = plan_of("random", &view);
    view.seed = 2;
    const struct moe_placement other = plan_of("random", &view);
    cr_assert_gt(moe_placement_count_moves(&two, &other), 2 * SLOTS / 2);
    view.seed = 1;
    view.shape.layer_count = LAYERS;
    const struct moe_placement many = plan_of("random", &view);
    const size_t layer_bytes = SLOTS * sizeof(uint16_t);
    cr_assert_eq(memcmp(many.expert_of_slot, two.expert_of_slot, 2 * layer_bytes), 0);
    cr_assert_neq(memcmp(many.expert_of_slot, many.expert_of_slot + SLOTS, layer_bytes), 0);
    uint32_t first[EXPERTS] = { 0 };
    uint32_t redundant[EXPERTS] = { 0 };
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        uint32_t copies[EXPERTS];
        moe_placement_count_copies(&many, layer, copies);
        first[moe_placement_layer(&many, layer)[0]]++;
        for (uint32_t expert = 0; expert < EXPERTS; expert++) {
            cr_assert(copies[expert] == 2 || copies[expert] == 3);
            redundant[expert] += copies[expert] - 2;
        }
    }
    for (uint32_t expert = 0; expert < EXPERTS; expert++) {
        /* Binomial(6000, 1/12): mean 500, deviation 21; Binomial(6000, 8/12): 4000, 37. */
        cr_assert_lt(abs((int) first[expert] - 500), 5 * 22, "expert %u: %u", expert,
                     first[expert]);
        cr_assert_lt(abs((int) redundant[expert] - 4000), 5 * 37, "expert %u: %u", expert,
                     redundant[expert]);
    }
}

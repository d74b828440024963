#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "policies/bounds.h"
#include "policies/placement.h"
#include "sim/base/random.h"

static struct moe_arena arena;

static void open_arena(void)
{
    cr_assert_eq(moe_arena_init(&arena, 1 << 20, NULL), MOE_OK);
}

static void close_arena(void)
{
    moe_arena_finish(&arena);
}

TestSuite(placement, .init = open_arena, .fini = close_arena);

static void expect_refused(struct moe_placement_shape shape, const char *reason)
{
    struct moe_error err = { 0 };
    cr_assert_eq(moe_placement_shape_check(&shape, &err), MOE_RANGE, "%s", reason);
    cr_assert_not_null(strstr(err.text, reason), "'%s' lacks '%s'", err.text, reason);
}

Test(placement, impossible_shapes_name_both_numbers)
{
    expect_refused((struct moe_placement_shape){ 58, 256, 288, 7, 1, 8 },
                   "288 slots do not divide over 7 GPUs; 287 or 294 would");
    expect_refused((struct moe_placement_shape){ 58, 256, 288, 32, 5, 8 },
                   "32 GPUs do not divide over 5 nodes");
    expect_refused((struct moe_placement_shape){ 58, 256, 224, 32, 4, 8 },
                   "224 slots cannot hold 256 experts");
    expect_refused((struct moe_placement_shape){ 58, 256, 288, 32, 4, 7 },
                   "256 experts do not divide into 7 groups");
    expect_refused((struct moe_placement_shape){ 58, 65534, 65535, 1, 1, 1 }, "at most 65534");
    expect_refused((struct moe_placement_shape){ 58, 65535, 65535, 1, 1, 1 }, "at most 65534");
    for (int i = 0; i < 5; i++) {
        uint32_t v[5] = { 1, 8, 1, 1, 1 };
        v[i] = 0;
        expect_refused((struct moe_placement_shape){ v[0], v[1], 8, v[2], v[3], v[4] },
                       "each must be at least 1");
    }
    const struct moe_placement_shape largest = { 1, 65534, 65534, 1, 1, 1 };
    cr_assert_eq(moe_placement_shape_check(&largest, NULL), MOE_OK);
}

Test(placement, a_new_one_is_empty_and_incomplete)
{
    const struct moe_placement_shape shape = { 2, 3, 4, 2, 1, 1 };
    struct moe_placement plan;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_placement_init(&plan, &arena, &shape, NULL), MOE_OK);
    for (int i = 0; i < 8; i++) {
        cr_assert_eq(plan.expert_of_slot[i], MOE_SLOT_EMPTY);
    }
    cr_assert_eq(moe_placement_check(&plan, &err), MOE_POLICY);
    cr_assert_str_eq(err.text, "layer 0: expert 0 has no slot");
    memcpy(plan.expert_of_slot, (const uint16_t[]){ 0, 1, 2, 0, 2, 0, MOE_SLOT_EMPTY, 1 }, 16);
    cr_assert_eq(moe_placement_check(&plan, &err), MOE_OK);
    plan.expert_of_slot[5] = 3;
    cr_assert_eq(moe_placement_check(&plan, &err), MOE_POLICY);
    cr_assert_str_eq(err.text, "layer 1, slot 1 holds expert 3 of only 3");
    plan.expert_of_slot[5] = 2;
    cr_assert_eq(moe_placement_check(&plan, &err), MOE_POLICY);
    cr_assert_str_eq(err.text, "layer 1: expert 0 has no slot");
    const struct moe_placement_shape huge = { 1024, 65534, 65534, 1, 1, 1 };
    cr_assert_eq(moe_placement_init(&plan, &arena, &huge, &err), MOE_LIMIT);
}

/* By the definition: an expert's load goes to every GPU as often as that GPU has it. */
static double naive_balancedness(const struct moe_placement *plan, const double *load)
{
    const struct moe_placement_shape *shape = &plan->shape;
    double total = 0.0;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        double gpu_load[16] = { 0.0 };
        double sum = 0.0;
        double max = 0.0;
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            uint32_t copies = 0;
            for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
                copies += plan->expert_of_slot[layer * shape->slot_count + slot] == expert;
            }
            cr_assert_gt(copies, 0);
            for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
                if (plan->expert_of_slot[layer * shape->slot_count + slot] == expert) {
                    gpu_load[slot / (shape->slot_count / shape->gpu_count)] +=
                        load[layer * shape->expert_count + expert] / copies;
                }
            }
        }
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            sum += gpu_load[gpu];
            max = fmax(max, gpu_load[gpu]);
        }
        total += max > 0.0 ? sum / shape->gpu_count / max : 1.0;
    }
    return total / shape->layer_count;
}

Test(placement, balancedness_equals_the_definition)
{
    const struct moe_placement_shape shape = { 3, 20, 32, 16, 2, 1 };
    const uint64_t key = moe_random_key(3, MOE_RANDOM_TEST);
    struct moe_placement plan;
    double load[60];
    uint64_t counter = 0;
    cr_assert_eq(moe_placement_init(&plan, &arena, &shape, NULL), MOE_OK);
    for (int number = 0; number < 500; number++) {
        for (int i = 0; i < 60; i++) {
            /* Layer 1 of every third case has no load at all: it counts as 1. */
            load[i] = number % 3 == 0 && i / 20 == 1
                          ? 0.0
                          : (double) moe_random_below(key, counter++, 1000);
        }
        for (uint32_t slot = 0; slot < 3 * 32; slot++) {
            const uint64_t other = moe_random_below(key, counter++, 21);
            plan.expert_of_slot[slot] = slot % 32 < 20 ? (uint16_t) (slot % 32)
                                        : other == 20  ? (uint16_t) MOE_SLOT_EMPTY
                                                       : (uint16_t) other;
        }
        cr_assert_eq(moe_placement_check(&plan, NULL), MOE_OK);
        struct moe_arena scratch;
        cr_assert_eq(moe_arena_init(&scratch, 1024, NULL), MOE_OK);
        cr_assert_float_eq(moe_placement_balancedness(&plan, load, &scratch),
                           naive_balancedness(&plan, load), 1e-12);
        moe_arena_finish(&scratch);
    }
}

Test(placement, moves_are_slots_that_differ)
{
    const struct moe_placement_shape shape = { 2, 3, 4, 2, 1, 1 };
    uint16_t a[8] = { 0, 1, 2, 0, 2, 0, MOE_SLOT_EMPTY, 1 };
    uint16_t b[8] = { 0, 2, 1, 0, 2, 0, 1, MOE_SLOT_EMPTY };
    const struct moe_placement from = { .shape = shape, .expert_of_slot = a };
    const struct moe_placement to = { .shape = shape, .expert_of_slot = b };
    cr_assert_eq(moe_placement_count_moves(&from, &to), 4);
    cr_assert_eq(moe_placement_count_moves(&from, &from), 0);
}

Test(placement, bounds_by_hand)
{
    const struct moe_placement_shape shape = { 3, 4, 4, 2, 1, 1 };
    const double load[12] = { 5, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0 };
    cr_assert_eq(moe_bound_perfect(load, 4, 2), 4.0);
    cr_assert_eq(moe_bound_no_copy(load, 4, 2), 5.0);
    cr_assert_eq(moe_bound_no_copy(load + 4, 4, 2), 4.0);
    cr_assert_float_eq(moe_bound_no_copy_balancedness(&shape, load), (0.8 + 1.0 + 1.0) / 3, 1e-15);
}

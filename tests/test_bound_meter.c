/* The bounds of a run's balance: by hand, and in the order that they must have over random plans,
 * loads and dispatches. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/engine/bound_meter.h"

enum { LAYERS = 2, EXPERT_LIMIT = 24, SLOT_LIMIT = 64, CASES = 3000 };

static struct moe_arena arena;

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, 4 << 20, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(bound_meter, .init = setup, .fini = teardown);

/* Four GPUs of two slots; experts 0 and 1 have two copies, 5 is on GPU 3 alone:
 *   GPU 0: 0 1   GPU 1: 0 2   GPU 2: 1 3   GPU 3: 4 5
 * Tokens 40 20 6 4 2 8: mean 20. Expert 0 can use GPUs 0 and 1, expert 1 GPUs 0 and 2: the best
 * split sends (40 + 20 + 6 + 4) / 3 to each. The scored loads, which hindsight knows, are those
 * of expert 5: it gets both copies. */
Test(bound_meter, by_hand)
{
    uint16_t slots[8] = { 0, 1, 0, 2, 1, 3, 4, 5 };
    const struct moe_placement plan = { .shape = { 1, 6, 8, 4, 1, 1 }, .expert_of_slot = slots };
    const uint32_t tokens[6] = { 40, 20, 6, 4, 2, 8 };
    const double scored[6] = { 1, 2, 3, 4, 5, 30 };
    struct moe_bound_meter meter;
    struct moe_bound_sums sums = { 0 };
    cr_assert_leq(moe_bound_meter_bytes(&plan.shape), arena.size_bytes);
    cr_assert_eq(moe_bound_meter_init(&meter, &plan, scored, &arena, NULL), MOE_OK);
    moe_bound_meter_add(&meter, 0, tokens, 36.0, &sums);
    cr_expect_eq(sums.layer_steps, 1);
    cr_expect_eq(sums.own, 36.0);
    cr_expect_eq(sums.perfect, 20.0);
    cr_expect_eq(sums.no_copy, 40.0);
    cr_expect_float_eq(sums.split, 70.0 / 3.0, 1e-9);
    /* Hindsight: three copies of 5 at 10, hottest first: 5 5 5 to GPUs 0 1 2, 4 to 3, 3 to 3,
     * then 2, 1, 0 to 0, 1, 2. Tokens: 8/3 + 6, 8/3 + 20, 8/3 + 40, 2 + 4. */
    cr_expect_float_eq(sums.hindsight, 8.0 / 3.0 + 40.0, 1e-9);
    moe_bound_meter_add(&meter, 0, tokens, 20.0, &sums);
    cr_expect_eq(sums.layer_steps, 2);
    cr_expect_eq(sums.own, 56.0);
}

Test(bound_meter, without_the_scored_loads_there_is_no_hindsight)
{
    uint16_t slots[2] = { 0, 1 };
    const struct moe_placement plan = { .shape = { 1, 2, 2, 2, 1, 1 }, .expert_of_slot = slots };
    struct moe_bound_meter meter;
    struct moe_bound_sums sums = { 0 };
    cr_assert_eq(moe_bound_meter_init(&meter, &plan, NULL, &arena, NULL), MOE_OK);
    moe_bound_meter_add(&meter, 0, (const uint32_t[]){ 3, 5 }, 5.0, &sums);
    cr_expect_eq(sums.hindsight, 0.0);
    cr_expect_eq(sums.split, 5.0);
}

struct draw {
    uint64_t key;
    uint64_t counter;
};

static uint32_t below(struct draw *draw, uint32_t bound)
{
    return (uint32_t) moe_random_below(draw->key, draw->counter++, bound);
}

static void random_plan(struct draw *draw, struct moe_placement *plan)
{
    const uint32_t gpus = 1 + below(draw, 8);
    const uint32_t experts = 1 + below(draw, EXPERT_LIMIT);
    const uint32_t slots = gpus * ((experts + gpus - 1) / gpus + below(draw, 3));
    plan->shape = (struct moe_placement_shape){ LAYERS, experts, slots, gpus, 1, 1 };
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        uint16_t *row = moe_placement_layer(plan, layer);
        for (uint32_t s = 0; s < slots; s++) {
            row[s] = (uint16_t) (s < experts      ? s
                                 : below(draw, 3) ? below(draw, experts)
                                                  : MOE_SLOT_EMPTY);
        }
        for (uint32_t s = slots; s-- > 1;) {
            const uint32_t other = below(draw, s + 1);
            const uint16_t kept = row[s];
            row[s] = row[other];
            row[other] = kept;
        }
    }
}

/* Tokens of every expert dealt over its copies at random; the fullest GPU's. */
static double random_dispatch(struct draw *draw, const struct moe_placement *plan, uint32_t layer,
                              const uint32_t *tokens)
{
    const uint16_t *row = moe_placement_layer(plan, layer);
    const uint32_t per_gpu = moe_placement_slots_per_gpu(&plan->shape);
    double gpu_load[8] = { 0.0 };
    double max = 0.0;
    for (uint32_t e = 0; e < plan->shape.expert_count; e++) {
        for (uint32_t i = 0; i < tokens[e]; i++) {
            uint32_t slot = below(draw, plan->shape.slot_count);
            while (row[slot] != e) {
                slot = (slot + 1) % plan->shape.slot_count;
            }
            gpu_load[slot / per_gpu] += 1.0;
        }
    }
    for (uint32_t gpu = 0; gpu < plan->shape.gpu_count; gpu++) {
        max = fmax(max, gpu_load[gpu]);
    }
    return max;
}

/* perfect <= split <= whatever a dispatch makes of the copies; perfect <= no copy; and with no
 * copies split is the plan's own load. Hindsight on the very tokens is at least perfect. */
Test(bound_meter, bounds_bound)
{
    static uint16_t slots[LAYERS * SLOT_LIMIT];
    struct moe_placement plan = { .expert_of_slot = slots };
    for (uint64_t number = 0; number < CASES; number++) {
        struct draw draw = { .key = moe_random_key(number, MOE_RANDOM_TEST) };
        struct moe_bound_meter meter;
        double scored[LAYERS * EXPERT_LIMIT];
        uint32_t tokens[LAYERS * EXPERT_LIMIT];
        random_plan(&draw, &plan);
        const uint32_t experts = plan.shape.expert_count;
        for (uint32_t i = 0; i < LAYERS * experts; i++) {
            tokens[i] = below(&draw, 4) == 0 ? below(&draw, 60) : below(&draw, 8);
            scored[i] = tokens[i];
        }
        moe_arena_reset(&arena);
        cr_assert_eq(moe_bound_meter_init(&meter, &plan, scored, &arena, NULL), MOE_OK);
        cr_assert_leq(arena.used_bytes, moe_bound_meter_bytes(&plan.shape));
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            struct moe_bound_sums sums = { 0 };
            const uint32_t *row = tokens + (size_t) layer * experts;
            const double own = random_dispatch(&draw, &plan, layer, row);
            uint32_t copies[EXPERT_LIMIT];
            uint32_t most = 0;
            moe_placement_count_copies(&plan, layer, copies);
            for (uint32_t e = 0; e < experts; e++) {
                most = copies[e] > most ? copies[e] : most;
            }
            moe_bound_meter_add(&meter, layer, row, own, &sums);
            cr_assert_leq(sums.perfect, sums.split * (1 + 1e-9), "case %lu",
                          (unsigned long) number);
            cr_assert_leq(sums.split, own * (1 + 1e-9), "case %lu", (unsigned long) number);
            cr_assert_leq(sums.perfect, sums.no_copy, "case %lu", (unsigned long) number);
            cr_assert_leq(sums.perfect, sums.hindsight * (1 + 1e-9), "case %lu",
                          (unsigned long) number);
            cr_assert(most > 1 || fabs(sums.split - own) <= 1e-9 * own, "case %lu",
                      (unsigned long) number);
        }
    }
}

/* The fast EPLB solver against its slow twin, published examples and what must not
 * change its answer. */
#include <criterion/criterion.h>
#include <math.h>

#include "policies/policy.h"
#include "policies/solve/eplb_solver.h"
#include "sim/base/random.h"
#include "tests/eplb_twin.h"

enum { ARENA_BYTES = 1 << 20, LOAD_KIND_COUNT = 7 };

struct draw {
    uint64_t key;
    uint64_t counter;
};

static uint32_t below(struct draw *draw, uint32_t bound)
{
    return (uint32_t) moe_random_below(draw->key, draw->counter++, bound);
}

static double uniform(struct draw *draw)
{
    return moe_random_uniform(draw->key, draw->counter++);
}

/* A valid shape of at most max_slots slots, hierarchical or global. */
static struct moe_placement_shape random_shape(struct draw *draw, uint32_t max_slots)
{
    for (;;) {
        struct moe_placement_shape shape = { .layer_count = 1 };
        shape.node_count = 1 + below(draw, 5);
        shape.gpu_count = shape.node_count * (1 + below(draw, 8));
        shape.group_count = 1 + below(draw, 12);
        shape.expert_count = shape.group_count * (1 + below(draw, 1 + max_slots / 12));
        shape.slot_count =
            shape.gpu_count *
            ((shape.expert_count + shape.gpu_count - 1) / shape.gpu_count + below(draw, 4));
        if (shape.slot_count <= max_slots && moe_placement_shape_check(&shape, NULL) == MOE_OK) {
            return shape;
        }
    }
}

static double random_load(struct draw *draw, uint32_t kind)
{
    switch (kind) {
    case 0:
        return 0.0; /* nothing asked for at all */
    case 1:
        return below(draw, 3); /* ties everywhere */
    case 2:
        return below(draw, 16) == 0 ? 1000.0 : 0.0; /* few hot, the rest cold */
    case 3:
        return (double) (UINT64_C(1) << 24) + below(draw, 64); /* float32 rounds these */
    case 4:
        return 1e9 * pow(uniform(draw), 8.0); /* skewed, far above 2^24 */
    case 5:
        return uniform(draw) < 0.1 ? -0.0 : uniform(draw) * 1e-38; /* subnormal quotients */
    default:
        return 0.1 * below(draw, 1000); /* fractions with ties */
    }
}

static void expect_twin(const struct moe_placement_shape *shape, const double *load,
                        struct moe_arena *arena, uint32_t number)
{
    uint16_t phy2log[TWIN_LIMIT];
    uint16_t phyrank[TWIN_LIMIT];
    uint16_t logcnt[TWIN_LIMIT];
    struct moe_eplb_solver solver;
    moe_arena_reset(arena);
    const struct moe_eplb_layer got = {
        .expert_of_slot = MOE_NEW(arena, uint16_t, shape->slot_count),
        .rank_of_slot = MOE_NEW(arena, uint16_t, shape->slot_count),
        .copies = MOE_NEW(arena, uint16_t, shape->expert_count),
    };
    cr_assert_eq(moe_eplb_solver_init(&solver, arena, shape, NULL), MOE_OK);
    moe_eplb_solver_run(&solver, load, &got);
    twin_eplb(shape, load, phy2log, phyrank, logcnt);
    const size_t slots = shape->slot_count;
    cr_assert(memcmp(got.expert_of_slot, phy2log, slots * sizeof *phy2log) == 0 &&
                  memcmp(got.rank_of_slot, phyrank, slots * sizeof *phyrank) == 0 &&
                  memcmp(got.copies, logcnt, shape->expert_count * sizeof *logcnt) == 0,
              "case %u: experts %u, slots %u, GPUs %u, nodes %u, groups %u", number,
              shape->expert_count, shape->slot_count, shape->gpu_count, shape->node_count,
              shape->group_count);
}

static void expect_twin_on_random_cases(uint32_t case_count, uint32_t max_slots)
{
    struct draw draw = { .key = moe_random_key(max_slots, MOE_RANDOM_TEST) };
    struct moe_arena arena;
    double load[TWIN_LIMIT];
    cr_assert_eq(moe_arena_init(&arena, ARENA_BYTES, NULL), MOE_OK);
    for (uint32_t number = 0; number < case_count; number++) {
        const struct moe_placement_shape shape = random_shape(&draw, max_slots);
        const uint32_t kind = below(&draw, LOAD_KIND_COUNT);
        for (uint32_t expert = 0; expert < shape.expert_count; expert++) {
            load[expert] = random_load(&draw, kind);
        }
        expect_twin(&shape, load, &arena, number);
    }
    moe_arena_finish(&arena);
}

Test(eplb, equals_twin_on_small_cases)
{
    expect_twin_on_random_cases(6000, 60);
}

Test(eplb, equals_twin_on_large_cases)
{
    expect_twin_on_random_cases(150, TWIN_LIMIT);
}

/* vllm-ascend pull request 3042: EPLB's fullest GPU carries 232. */
Test(eplb, flashlb_example)
{
    static const double load[8] = { 600, 560, 120, 120, 20, 10, 10, 10 };
    const struct moe_placement_shape shape = { .layer_count = 1,
                                               .expert_count = 8,
                                               .slot_count = 16,
                                               .gpu_count = 8,
                                               .node_count = 1,
                                               .group_count = 1 };
    struct moe_arena arena;
    struct moe_placement plan;
    double gpu_load[8];
    double max = 0.0;
    cr_assert_eq(moe_arena_init(&arena, ARENA_BYTES, NULL), MOE_OK);
    cr_assert_eq(moe_placement_init(&plan, &arena, &shape, NULL), MOE_OK);
    cr_assert_eq(moe_eplb_place(&shape, load, &arena, &plan, NULL), MOE_OK);
    moe_placement_gpu_load(&plan, 0, load, gpu_load);
    for (int gpu = 0; gpu < 8; gpu++) {
        max = fmax(max, gpu_load[gpu]);
    }
    cr_assert_float_eq(max, 232.0, 1e-9, "%.17g", max);
    moe_arena_finish(&arena);
}

/* Loads without ties: another unit (a power of two is exact) changes nothing, and other
 * names of the experts rename the plan. */
Test(eplb, follows_units_and_names)
{
    enum { EXPERTS = 64 };
    const struct moe_placement_shape shape = { .layer_count = 1,
                                               .expert_count = EXPERTS,
                                               .slot_count = 72,
                                               .gpu_count = 8,
                                               .node_count = 1,
                                               .group_count = 1 };
    struct draw draw = { .key = moe_random_key(5, MOE_RANDOM_TEST) };
    struct moe_arena arena;
    struct moe_placement plan[3];
    double load[3][EXPERTS];
    cr_assert_eq(moe_arena_init(&arena, ARENA_BYTES, NULL), MOE_OK);
    for (uint32_t expert = 0; expert < EXPERTS; expert++) {
        load[0][expert] = 1.0 + 1e6 * pow(uniform(&draw), 4.0);
        load[1][expert] = load[0][expert] * 4.0;
        load[2][(expert * 11 + 3) % EXPERTS] = load[0][expert];
    }
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(moe_placement_init(&plan[i], &arena, &shape, NULL), MOE_OK);
        cr_assert_eq(moe_eplb_place(&shape, load[i], &arena, &plan[i], NULL), MOE_OK);
    }
    for (uint32_t slot = 0; slot < shape.slot_count; slot++) {
        const uint32_t expert = plan[0].expert_of_slot[slot];
        cr_assert_eq(plan[1].expert_of_slot[slot], expert);
        cr_assert_eq(plan[2].expert_of_slot[slot], (expert * 11 + 3) % EXPERTS);
    }
    moe_arena_finish(&arena);
}

Test(eplb, refuses_an_arena_too_small)
{
    const struct moe_placement_shape shape = { .layer_count = 1,
                                               .expert_count = 256,
                                               .slot_count = 288,
                                               .gpu_count = 32,
                                               .node_count = 4,
                                               .group_count = 8 };
    for (size_t bytes = 64; bytes < 24000; bytes += 64) {
        struct moe_arena arena;
        struct moe_eplb_solver solver;
        cr_assert_eq(moe_arena_init(&arena, bytes, NULL), MOE_OK);
        const enum moe_status status = moe_eplb_solver_init(&solver, &arena, &shape, NULL);
        cr_assert(status == MOE_LIMIT || (status == MOE_OK && bytes > 12000), "%zu bytes", bytes);
        moe_arena_finish(&arena);
    }
}

/* ViBE's solver against brute force and its bound, and what its policies promise. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/vibe_solver.h"
#include "sim/base/random.h"

enum { ARENA_BYTES = 1 << 20, POINTS = 3 };

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

TestSuite(vibe, .init = open_arena, .fini = close_arena);

static double uniform(void)
{
    return moe_random_uniform(moe_random_key(11, MOE_RANDOM_TEST), counter++);
}

static uint32_t below(uint32_t bound)
{
    return (uint32_t) (uniform() * bound);
}

static const double grid[POINTS] = { 0.0, 100.0, 1000.0 };

/* Time 1 / speed per token from the origin. */
static struct moe_policy_speed straight(const double *speed, uint32_t gpus)
{
    double *time_ns = MOE_NEW(&arena, double, (size_t) gpus *POINTS);
    for (uint32_t i = 0; i < gpus * POINTS; i++) {
        time_ns[i] = grid[i % POINTS] / speed[i / POINTS];
    }
    return (struct moe_policy_speed){ POINTS, grid, time_ns };
}

/* A floor, a knee and a slope that differ between the GPUs. */
static struct moe_policy_speed bent(uint32_t gpus)
{
    double *time_ns = MOE_NEW(&arena, double, (size_t) gpus *POINTS);
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        double *mine = time_ns + (size_t) gpu * POINTS;
        mine[0] = 20.0 + 5.0 * uniform();
        mine[1] = mine[0] + 10.0 * uniform();
        mine[2] = mine[1] + 900.0 * (1.0 + 0.2 * uniform());
    }
    return (struct moe_policy_speed){ POINTS, grid, time_ns };
}

static struct moe_vibe opened(uint32_t experts, uint32_t gpus, const struct moe_policy_speed *speed)
{
    struct moe_vibe vibe;
    cr_assert_eq(moe_vibe_init(&vibe, &arena, experts, gpus, speed, NULL), MOE_OK);
    return vibe;
}

/* Smallest time over all placements of experts expert .. with at most room[gpu] more each. */
static double best_of_all(struct moe_vibe *vibe, const double *load, uint32_t expert,
                          uint32_t *room, uint32_t *gpu_of_expert)
{
    if (expert == vibe->expert_count) {
        return moe_vibe_time_ns(vibe, load, gpu_of_expert);
    }
    double best = INFINITY;
    for (uint32_t gpu = 0; gpu < 3 && gpu < vibe->gpu_count; gpu++) {
        if (room[gpu] > 0) {
            room[gpu]--;
            gpu_of_expert[expert] = gpu;
            const double time = best_of_all(vibe, load, expert + 1, room, gpu_of_expert);
            best = time < best ? time : best;
            room[gpu]++;
        }
    }
    return best;
}

Test(vibe, tiny_instances_are_solved_near_the_best)
{
    double worst = 1.0;
    uint32_t exact = 0;
    for (int i = 0; i < 300; i++) {
        const uint32_t gpus = 2 + below(2);
        const uint32_t experts = gpus * (2 + below(gpus == 2 ? 3 : 2));
        double load[9] = { 0 };
        uint32_t gpu_of_expert[9] = { 0 };
        uint32_t room[3] = { experts / gpus, experts / gpus, experts / gpus };
        moe_arena_reset(&arena);
        const struct moe_policy_speed speed = bent(gpus);
        struct moe_vibe vibe = opened(experts, gpus, &speed);
        for (uint32_t e = 0; e < experts; e++) {
            load[e] = 200.0 * uniform() * uniform();
        }
        const double best = best_of_all(&vibe, load, 0, room, gpu_of_expert);
        moe_vibe_solve(&vibe, load, gpu_of_expert);
        const double ratio = moe_vibe_time_ns(&vibe, load, gpu_of_expert) / best;
        cr_assert_geq(ratio, 1.0 - 1e-12);
        worst = ratio > worst ? ratio : worst;
        exact += ratio < 1.0 + 1e-9;
    }
    cr_assert_lt(worst, 1.15, "worst %g", worst);
    cr_assert_gt(exact, 180, "%u of 300 exact", exact);
}

/* Loads that tokens alone can balance perfectly, GPUs of different speed: finish-time balance
 * gains between nothing and mean(s) / min(s) - 1 over token balance. */
Test(vibe, gain_over_token_balance_keeps_its_bound)
{
    enum { GPUS = 8, EACH = 8, EXPERTS = GPUS * EACH };
    double largest = 0.0;
    for (int i = 0; i < 200; i++) {
        double speed[GPUS];
        double load[EXPERTS];
        uint32_t gpu_of_expert[EXPERTS];
        double sum = 0.0;
        double least = INFINITY;
        for (uint32_t g = 0; g < GPUS; g++) {
            speed[g] = 1.0 + 0.07 * uniform();
            sum += speed[g];
            least = speed[g] < least ? speed[g] : least;
            double all = 0.0;
            for (uint32_t e = g * EACH; e < (g + 1) * EACH; e++) {
                load[e] = 1.0 + 20.0 * uniform();
                all += load[e];
            }
            for (uint32_t e = g * EACH; e < (g + 1) * EACH; e++) {
                load[e] *= 100.0 / all;
            }
        }
        moe_arena_reset(&arena);
        const struct moe_policy_speed curve = straight(speed, GPUS);
        struct moe_vibe vibe = opened(EXPERTS, GPUS, &curve);
        moe_vibe_solve(&vibe, load, gpu_of_expert);
        const double by_time = moe_vibe_time_ns(&vibe, load, gpu_of_expert);
        const double gain = 100.0 / least / by_time - 1.0;
        const double bound = sum / GPUS / least - 1.0;
        cr_assert_geq(gain, 0.0, "case %d: %g", i, gain);
        cr_assert_leq(gain, bound + 1e-12, "case %d: %g of %g", i, gain, bound);
        cr_assert_gt(gain, 0.9 * bound, "case %d: %g of %g", i, gain, bound);
        largest = gain > largest ? gain : largest;
    }
    cr_assert_gt(largest, 0.03);
}

/* Equal speeds leave the order of the GPUs open, not the time; a permutation of experts and
 * GPUs changes the names only; experts per GPU differ by at most one. */
Test(vibe, names_do_not_matter_and_counts_are_even)
{
    enum { EXPERTS = 23, GPUS = 5 };
    for (int i = 0; i < 100; i++) {
        double load[EXPERTS];
        double turned[EXPERTS];
        uint32_t plan[EXPERTS];
        uint32_t turned_plan[EXPERTS];
        uint32_t fill[GPUS] = { 0 };
        const uint32_t shift = below(EXPERTS);
        const uint32_t gpu_shift = below(GPUS);
        moe_arena_reset(&arena);
        const struct moe_policy_speed speed = bent(GPUS);
        double time_ns[GPUS * POINTS];
        const struct moe_policy_speed turned_speed = { POINTS, grid, time_ns };
        for (uint32_t c = 0; c < GPUS * POINTS; c++) {
            time_ns[(c / POINTS + gpu_shift) % GPUS * POINTS + c % POINTS] = speed.time_ns[c];
        }
        for (uint32_t e = 0; e < EXPERTS; e++) {
            load[e] = 150.0 * uniform();
            turned[(e + shift) % EXPERTS] = load[e];
        }
        struct moe_vibe vibe = opened(EXPERTS, GPUS, &speed);
        struct moe_vibe turned_vibe = opened(EXPERTS, GPUS, &turned_speed);
        moe_vibe_solve(&vibe, load, plan);
        moe_vibe_solve(&turned_vibe, turned, turned_plan);
        for (uint32_t e = 0; e < EXPERTS; e++) {
            fill[plan[e]]++;
            cr_assert_eq(turned_plan[(e + shift) % EXPERTS], (plan[e] + gpu_shift) % GPUS,
                         "case %d, expert %u", i, e);
        }
        for (uint32_t g = 0; g < GPUS; g++) {
            cr_assert(fill[g] == EXPERTS / GPUS || fill[g] == EXPERTS / GPUS + 1);
        }
    }
}

Test(vibe, more_exchanges_never_hurt)
{
    enum { EXPERTS = 32, GPUS = 8 };
    for (int i = 0; i < 100; i++) {
        double load[EXPERTS];
        moe_arena_reset(&arena);
        const struct moe_policy_speed speed = bent(GPUS);
        struct moe_vibe vibe = opened(EXPERTS, GPUS, &speed);
        for (uint32_t e = 0; e < EXPERTS; e++) {
            load[e] = 300.0 * uniform() * uniform();
        }
        double before = INFINITY;
        for (uint32_t limit = 0; limit < 12; limit++) {
            uint32_t plan[EXPERTS];
            for (uint32_t e = 0; e < EXPERTS; e++) {
                plan[e] = e / (EXPERTS / GPUS);
            }
            cr_assert_leq(moe_vibe_exchange(&vibe, load, limit, plan), limit);
            const double time = moe_vibe_time_ns(&vibe, load, plan);
            cr_assert_leq(time, before);
            before = time;
        }
    }
}

Test(vibe, drift_by_hand)
{
    const double a[3] = { 1.0, 0.0, 0.0 };
    const double b[3] = { 1.0, 1.0, 0.0 };
    const double c[3] = { 0.0, 0.0, 5.0 };
    const double none[3] = { 0.0, 0.0, 0.0 };
    const double huge[3] = { 1e200, 0.0, 0.0 };
    cr_assert_float_eq(moe_vibe_drift(a, b, 3), 1.0 - 1.0 / sqrt(2.0), 1e-15);
    cr_assert_eq(moe_vibe_drift(a, c, 3), 1.0);
    cr_assert_eq(moe_vibe_drift(a, huge, 3), 0.0);
    cr_assert_eq(moe_vibe_drift(none, none, 3), 0.0);
    cr_assert_eq(moe_vibe_drift(none, a, 3), 1.0);
}

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

/* The faster GPU gets the hotter experts; the online policy leaves what has not drifted, mends
 * what has with few moves, and solves anew what is not its own. */
Test(vibe, policies_keep_what_need_not_move)
{
    enum { EXPERTS = 16, GPUS = 4 };
    const struct moe_placement_shape shape = { 2, EXPERTS, 24, GPUS, 1, 1 };
    float batches[2][2][EXPERTS];
    double load[2 * EXPERTS] = { 0 };
    for (uint32_t e = 0; e < EXPERTS; e++) {
        batches[0][0][e] = 1.0f + (float) (e * e); /* layer 0 stays, layer 1 turns round */
        batches[1][0][e] = batches[0][0][e];
        batches[0][1][e] = 1.0f + (float) (e * e);
        batches[1][1][e] = 1.0f + (float) ((EXPERTS - e) * (EXPERTS - e));
    }
    for (uint32_t i = 0; i < 2 * EXPERTS; i++) {
        load[i] = (double) batches[0][i / EXPERTS][i % EXPERTS];
    }
    const struct moe_policy_speed speed = straight((const double[]){ 1.0, 1.0, 1.0, 1.3 }, GPUS);
    struct moe_place_view view = { .shape = shape,
                                   .load = load,
                                   .batch_count = 1,
                                   .batches = &batches[0][0][0],
                                   .speed = &speed };
    const struct moe_placement first = plan_of("vibe", &view);
    double gpu_load[GPUS];
    moe_placement_gpu_load(&first, 0, load, gpu_load);
    cr_assert_gt(gpu_load[3], 1.15 * gpu_load[0]);
    view.previous = &first;
    view.batch_count = 2;
    const struct moe_placement mended = plan_of("vibe_online", &view);
    const size_t layer_bytes = 24 * sizeof(uint16_t);
    cr_assert_eq(memcmp(first.expert_of_slot, mended.expert_of_slot, layer_bytes), 0);
    uint32_t moved = 0;
    for (uint32_t s = 24; s < 48; s++) {
        moved += first.expert_of_slot[s] != mended.expert_of_slot[s];
    }
    cr_assert(moved > 0 && moved <= EXPERTS, "%u moved", moved);
    double turned[EXPERTS];
    double before[GPUS];
    double after[GPUS];
    for (uint32_t e = 0; e < EXPERTS; e++) {
        turned[e] = (double) batches[1][1][e];
    }
    moe_placement_gpu_load(&first, 1, turned, before);
    moe_placement_gpu_load(&mended, 1, turned, after);
    double slowest_before = 0.0;
    double slowest_after = 0.0;
    for (uint32_t g = 0; g < GPUS; g++) {
        slowest_before = fmax(slowest_before, moe_policy_speed_ns(&speed, g, before[g]));
        slowest_after = fmax(slowest_after, moe_policy_speed_ns(&speed, g, after[g]));
    }
    cr_assert_lt(slowest_after, slowest_before);
    const struct moe_placement foreign = plan_of("eplb", &view);
    view.previous = &foreign;
    const struct moe_placement anew = plan_of("vibe_online", &view);
    uint32_t copies[EXPERTS];
    moe_placement_count_copies(&anew, 0, copies);
    for (uint32_t e = 0; e < EXPERTS; e++) {
        cr_assert_eq(copies[e], 1);
    }
}

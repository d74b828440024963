/* Steps in two halves: the rounds against a list scheduler, and what can be said in closed form. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/engine/overlap/halves.h"
#include "tests/halves_twin.h"

enum { CASES = 4000, CELLS = HALVES_LAYERS * HALVES_RANKS };

struct times {
    moe_time_ns before[CELLS];
    moe_time_ns shared[CELLS];
    moe_time_ns dispatch[CELLS];
    moe_time_ns expert[CELLS];
    moe_time_ns combine[CELLS];
};

static struct moe_arena arena;
static struct times half[2];
static struct halves_case c;
static struct halves_outcome want;

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, (size_t) 4 << 20, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(halves, .init = setup, .fini = teardown);

static uint64_t draw(uint64_t *counter, uint64_t below)
{
    return moe_random_below(moe_random_key(4, MOE_RANDOM_DRAFTS), (*counter)++, below);
}

/* Durations of very different size, zeros among them, so that every order of events comes up. */
static int64_t duration(uint64_t *counter)
{
    static const uint64_t most[] = { 1, 3, 20, 1000, 1000000 };
    return (int64_t) draw(counter, most[draw(counter, 5)]);
}

static void make_case(uint64_t number)
{
    static const double factors[] = { 1.0, 1.07, 1.5, 3.25, 0.9 };
    uint64_t counter = number << 20;
    memset(&c, 0, sizeof c);
    c.ranks = 1 + (uint32_t) draw(&counter, HALVES_RANKS);
    c.layers = 1 + (uint32_t) draw(&counter, HALVES_LAYERS);
    c.common_exit = draw(&counter, 3) == 0;
    c.compute_factor = factors[draw(&counter, 5)];
    c.comm_factor = factors[draw(&counter, 5)];
    for (uint32_t layer = 0; layer < c.layers; layer++) {
        for (uint32_t rank = 0; rank < c.ranks; rank++) {
            const size_t at = (size_t) layer * c.ranks + rank;
            for (uint32_t i = 0; i < 2; i++) {
                half[i].before[at] = duration(&counter);
                half[i].shared[at] = duration(&counter);
                half[i].expert[at] = duration(&counter);
                half[i].dispatch[at] = duration(&counter);
                half[i].combine[at] = duration(&counter);
                c.compute[4 * layer + i][rank] = half[i].before[at];
                c.compute[4 * layer + 2 + i][rank] = half[i].shared[at] + half[i].expert[at];
                c.exchange[4 * layer + i][rank] = half[i].dispatch[at];
                c.exchange[4 * layer + 2 + i][rank] = half[i].combine[at];
            }
        }
    }
    for (uint32_t rank = 0; rank < c.ranks; rank++) {
        c.after[rank] = duration(&counter);
    }
}

static struct moe_step_times view_of(struct times *t)
{
    return (struct moe_step_times){
        .layer_count = c.layers,
        .gpu_count = c.ranks,
        .common_exit = c.common_exit,
        .shared_mode = MOE_SHARED_SERIAL,
        .before = t->before,
        .shared = t->shared,
        .dispatch = t->dispatch,
        .expert = t->expert,
        .combine = t->combine,
    };
}

static moe_time_ns run(struct moe_halves *halves)
{
    const struct moe_halves_pace pace = { c.ranks, c.common_exit, c.compute_factor, c.comm_factor };
    const struct moe_step_times first = view_of(&half[0]);
    const struct moe_step_times second = view_of(&half[1]);
    const struct moe_step_times *const both[] = { &first, &second };
    moe_arena_reset(&arena);
    cr_assert_eq(moe_halves_init(halves, &pace, c.layers, &arena, NULL), MOE_OK);
    return moe_halves_run(halves, both, c.after);
}

Test(halves, rounds_are_what_a_list_scheduler_does)
{
    uint64_t slowed = 0;
    for (uint64_t number = 0; number < CASES; number++) {
        struct moe_halves halves;
        make_case(number);
        halves_twin_run(&c, &want);
        const moe_time_ns length = run(&halves);
        cr_assert_eq(length, want.length, "case %" PRIu64 ": %" PRId64 " ns, the twin %" PRId64,
                     number, length, want.length);
        cr_assert_eq(halves.use.hidden_ns, want.hidden, "case %" PRIu64, number);
        for (uint32_t j = 0; j < 4 * c.layers; j++) {
            cr_assert_eq(halves.barriers[j].open_ns, want.open[j], "case %" PRIu64 ", %u", number,
                         j);
        }
        for (uint32_t j = 0; j <= 4 * c.layers; j++) {
            cr_assert_eq(halves.barriers[j].idle_ns, want.idle[j], "case %" PRIu64 ", %u", number,
                         j);
        }
        slowed += halves.use.hidden_ns > 0 && c.compute_factor > 1.0;
    }
    cr_assert_gt(slowed, CASES / 4);
}

/* All ranks and operations alike: the longer of arithmetic and exchange sets the pace, and the
 * other shows once, at one end. Nobody is idle. */
static void even(int64_t compute, int64_t exchange, uint32_t layers)
{
    memset(&c, 0, sizeof c);
    c.ranks = 3;
    c.layers = layers;
    c.compute_factor = 1.0;
    c.comm_factor = 1.0;
    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t at = 0; at < layers * c.ranks; at++) {
            half[i].before[at] = compute;
            half[i].shared[at] = compute / 4;
            half[i].expert[at] = compute - compute / 4;
            half[i].dispatch[at] = exchange;
            half[i].combine[at] = exchange;
        }
    }
}

Test(halves, even_halves_take_the_longer_resource_and_one_of_the_other)
{
    struct moe_halves halves;
    even(1000, 700, 5);
    cr_assert_eq(run(&halves), 20 * 1000 + 700);
    cr_assert_eq(halves.use.hidden_ns, INT64_C(3) * 19 * 700);
    even(700, 1000, 5);
    cr_assert_eq(run(&halves), 700 + 20 * 1000);
    cr_assert_eq(halves.use.hidden_ns, INT64_C(3) * 19 * 700);
    for (uint32_t j = 0; j <= 20; j++) {
        cr_assert_eq(halves.barriers[j].idle_ns, 0);
    }
}

/* Arithmetic of 1000 beside exchanges of 500 that slow it by half: 750 of it pass with 500 of
 * work done while the exchange, at 1.5 too, ends; the rest runs alone: 1250 a round. */
Test(halves, interference_is_paid_while_both_run)
{
    struct moe_halves halves;
    even(1000, 500, 2);
    c.compute_factor = 1.5;
    c.comm_factor = 1.5;
    cr_assert_eq(run(&halves), 1000 + 7 * 1250 + 500);
    cr_assert_eq(halves.use.hidden_ns, INT64_C(3) * 7 * 750);
    c.comm_factor = 1.0; /* 500 ns together in which 333.3 are done, 667 alone (rounded up) */
    cr_assert_eq(run(&halves), 1000 + 7 * (500 + 667) + 500);
}

/* One slow rank: the others wait for it, but only beyond what they have to compute. */
Test(halves, waiting_behind_arithmetic_is_not_idle)
{
    struct moe_halves halves;
    even(1000, 0, 1);
    half[0].before[1] = 1400;
    (void) run(&halves);
    cr_assert_eq(halves.barriers[0].open_ns, 1400);
    cr_assert_eq(halves.barriers[0].last_rank, 1);
    cr_assert_eq(halves.barriers[0].lead_ns, 400);
    cr_assert_eq(halves.barriers[0].idle_ns, 0);
    half[0].before[1] = 2500;
    (void) run(&halves);
    cr_assert_eq(halves.barriers[0].idle_ns, INT64_C(2) * 500);
}

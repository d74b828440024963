/* The timeline three ways: barrier arithmetic, event queue, and loops written down from
 * step_times.h's picture. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/engine/timeline.h"

enum { GPU_LIMIT = 9, LAYER_LIMIT = 6, CASE_COUNT = 4000 };

struct draw {
    uint64_t key;
    uint64_t counter;
};

static struct moe_arena arena;

static uint32_t below(struct draw *draw, uint32_t bound)
{
    return (uint32_t) moe_random_below(draw->key, draw->counter++, bound);
}

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, 1 << 20, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(timeline, .init = setup, .fini = teardown);

static void fill(struct draw *draw, moe_time_ns *ns, uint32_t count, uint32_t bound)
{
    for (uint32_t i = 0; i < count; i++) {
        ns[i] = below(draw, bound);
    }
}

/* Durations of 0 .. bound-1: a small bound makes ties and zeros the rule. */
static struct moe_step_times random_times(struct draw *draw)
{
    static const uint32_t bounds[] = { 1, 2, 4, 1000000 };
    const struct moe_serving serving = {
        .common_exit = below(draw, 2) == 1,
        .shared = below(draw, 2) == 1 ? MOE_SHARED_SERIAL : MOE_SHARED_OVERLAPPED,
    };
    const uint32_t layers = 1 + below(draw, LAYER_LIMIT);
    const uint32_t gpus = 1 + below(draw, GPU_LIMIT);
    struct moe_step_times times;
    cr_assert_eq(moe_step_times_init(&times, layers, gpus, &serving, &arena, NULL), MOE_OK);
    fill(draw, times.before, layers * gpus, bounds[below(draw, 4)]);
    fill(draw, times.shared, layers * gpus, bounds[below(draw, 4)]);
    fill(draw, times.dispatch, layers * gpus, bounds[below(draw, 4)]);
    fill(draw, times.expert, layers * gpus, bounds[below(draw, 4)]);
    fill(draw, times.combine, layers * gpus, bounds[below(draw, 4)]);
    fill(draw, times.after, gpus, bounds[below(draw, 4)]);
    return times;
}

/* The slow way: who came when, by sorting nothing and keeping everything. */
static struct moe_barrier plain_barrier(const moe_time_ns *arrive, uint32_t gpus)
{
    struct moe_barrier barrier = { .open_ns = arrive[0] };
    moe_time_ns other = -1;
    for (uint32_t g = 0; g < gpus; g++) {
        if (arrive[g] > barrier.open_ns) {
            barrier.open_ns = arrive[g];
            barrier.last_rank = g;
        }
    }
    for (uint32_t g = 0; g < gpus; g++) {
        barrier.idle_ns += barrier.open_ns - arrive[g];
        if (g != barrier.last_rank && arrive[g] > other) {
            other = arrive[g];
        }
    }
    barrier.lead_ns = gpus == 1 ? 0 : barrier.open_ns - other;
    return barrier;
}

static moe_time_ns exit_after(const struct moe_step_times *times, const moe_time_ns *duration,
                              uint32_t gpu)
{
    moe_time_ns longest = 0;
    for (uint32_t g = 0; g < times->gpu_count; g++) {
        longest = duration[g] > longest ? duration[g] : longest;
    }
    return times->common_exit ? longest : duration[gpu];
}

/* Begins of the stretches, in the order of the log's event names. */
struct plain {
    moe_time_ns begin[LAYER_LIMIT + 1][6][GPU_LIMIT];
    struct moe_barrier barriers[2 * LAYER_LIMIT + 1];
    moe_time_ns step_ns;
};

enum { BEFORE, SHARED, DISPATCH, EXPERT, COMBINE, AFTER };

static void plain_layer(const struct moe_step_times *times, uint32_t layer, struct plain *out,
                        moe_time_ns *clock)
{
    const uint32_t gpus = times->gpu_count;
    const size_t row = (size_t) layer * gpus;
    moe_time_ns arrive[GPU_LIMIT] = { 0 };
    for (uint32_t g = 0; g < gpus; g++) {
        out->begin[layer][BEFORE][g] = clock[g];
        arrive[g] = clock[g] + times->before[row + g];
    }
    out->barriers[(size_t) 2 * layer] = plain_barrier(arrive, gpus);
    const moe_time_ns open = out->barriers[(size_t) 2 * layer].open_ns;
    moe_time_ns finish[GPU_LIMIT] = { 0 };
    for (uint32_t g = 0; g < gpus; g++) {
        const moe_time_ns data = open + exit_after(times, times->dispatch + row, g);
        const moe_time_ns shared = times->shared[row + g];
        out->begin[layer][DISPATCH][g] = open;
        if (times->shared_mode == MOE_SHARED_SERIAL) {
            out->begin[layer][SHARED][g] = data;
            out->begin[layer][EXPERT][g] = data + shared;
        } else {
            out->begin[layer][SHARED][g] = arrive[g];
            out->begin[layer][EXPERT][g] = arrive[g] + shared > data ? arrive[g] + shared : data;
        }
        finish[g] = out->begin[layer][EXPERT][g] + times->expert[row + g];
    }
    out->barriers[(size_t) 2 * layer + 1] = plain_barrier(finish, gpus);
    for (uint32_t g = 0; g < gpus; g++) {
        out->begin[layer][COMBINE][g] = out->barriers[(size_t) 2 * layer + 1].open_ns;
        clock[g] = out->begin[layer][COMBINE][g] + exit_after(times, times->combine + row, g);
    }
}

static void plain_step(const struct moe_step_times *times, struct plain *out)
{
    moe_time_ns clock[GPU_LIMIT] = { 0 };
    for (uint32_t layer = 0; layer < times->layer_count; layer++) {
        plain_layer(times, layer, out, clock);
    }
    for (uint32_t g = 0; g < times->gpu_count; g++) {
        out->begin[times->layer_count][AFTER][g] = clock[g];
        clock[g] += times->after[g];
    }
    out->barriers[(size_t) 2 * times->layer_count] = plain_barrier(clock, times->gpu_count);
    out->step_ns = out->barriers[(size_t) 2 * times->layer_count].open_ns;
}

static void assert_barriers(const struct moe_barrier *got, const struct moe_barrier *want,
                            uint32_t count, uint64_t seed, const char *which)
{
    for (uint32_t b = 0; b < count; b++) {
        cr_assert(got[b].open_ns == want[b].open_ns && got[b].idle_ns == want[b].idle_ns &&
                      got[b].lead_ns == want[b].lead_ns && got[b].last_rank == want[b].last_rank,
                  "seed %" PRIu64 ", %s, barrier %u", seed, which, b);
    }
}

Test(timeline, arithmetic_events_and_plain_loops_agree)
{
    static struct plain plain;
    moe_time_ns clock[GPU_LIMIT];
    struct moe_barrier barriers[2 * LAYER_LIMIT + 1];
    for (uint64_t seed = 0; seed < CASE_COUNT; seed++) {
        struct draw draw = { moe_random_key(seed, MOE_RANDOM_TEST), 0 };
        moe_arena_reset(&arena);
        const struct moe_step_times times = random_times(&draw);
        const uint32_t count = moe_barrier_count(times.layer_count);
        plain_step(&times, &plain);

        cr_assert_eq(moe_timeline_run(&times, clock, barriers), plain.step_ns, "seed %" PRIu64,
                     seed);
        assert_barriers(barriers, plain.barriers, count, seed, "arithmetic");

        struct moe_event_player player;
        moe_time_ns step_ns = -1;
        cr_assert_eq(moe_event_player_init(&player, times.gpu_count, NULL, &arena, NULL), MOE_OK);
        memset(barriers, 0xff, sizeof barriers);
        /* Twice through one queue: the second step begins where the first one's clock stands. */
        for (int step = 0; step < 2; step++) {
            cr_assert_eq(moe_timeline_events(&times, &player, barriers, &step_ns, NULL), MOE_OK);
            cr_assert_eq(step_ns, plain.step_ns, "seed %" PRIu64, seed);
            assert_barriers(barriers, plain.barriers, count, seed, "events");
            cr_assert_eq(player.queue.count, 0);
        }
    }
}

static uint32_t event_named(const char *name)
{
    static const char *const names[] = { "before", "shared",  "dispatch",
                                         "expert", "combine", "after" };
    for (uint32_t e = 0; e < 6; e++) {
        if (strcmp(name, names[e]) == 0) {
            return e;
        }
    }
    cr_assert_fail("the log names an event '%s'", name);
    return 0;
}

static moe_time_ns duration_of(const struct moe_step_times *times, uint32_t event, uint32_t layer,
                               uint32_t gpu)
{
    const size_t row = (size_t) layer * times->gpu_count;
    switch (event) {
    case BEFORE:
        return times->before[row + gpu];
    case SHARED:
        return times->shared[row + gpu];
    case DISPATCH:
        return exit_after(times, times->dispatch + row, gpu);
    case EXPERT:
        return times->expert[row + gpu];
    case COMBINE:
        return exit_after(times, times->combine + row, gpu);
    default:
        return times->after[gpu];
    }
}

/* Every stretch once, at its begin, with its length, in order of time. */
static void check_log(FILE *log, const struct moe_step_times *times, const struct plain *plain,
                      moe_time_ns start_ns, uint64_t step)
{
    static bool seen[LAYER_LIMIT + 1][6][GPU_LIMIT];
    memset(seen, 0, sizeof seen);
    char line[256];
    moe_time_ns last_ns = start_ns;
    uint32_t lines = 0;
    rewind(log);
    while (fgets(line, sizeof line, log) != NULL) {
        uint64_t got_step = 0;
        moe_time_ns at_ns = 0;
        moe_time_ns duration_ns = 0;
        uint32_t gpu = 0;
        uint32_t layer = 0;
        char name[32];
        char end = 0;
        // NOLINTNEXTLINE(cert-err34-c): the format was just written by us, %n would say no more
        const int fields = sscanf(line, "%" SCNu64 ",%" SCNd64 ",%u,%u,%31[a-z],%" SCNd64 "%c",
                                  &got_step, &at_ns, &gpu, &layer, name, &duration_ns, &end);
        cr_assert_eq(fields, 7, "bad line '%s'", line);
        cr_assert_eq(end, '\n');
        cr_assert_eq(got_step, step);
        cr_assert_lt(gpu, times->gpu_count);
        cr_assert_leq(layer, times->layer_count);
        const uint32_t event = event_named(name);
        cr_assert_eq(event == AFTER, layer == times->layer_count, "'%s'", line);
        cr_assert_not(seen[layer][event][gpu], "twice: '%s'", line);
        seen[layer][event][gpu] = true;
        cr_assert_eq(at_ns - start_ns, plain->begin[layer][event][gpu], "'%s'", line);
        cr_assert_eq(duration_ns, duration_of(times, event, layer, gpu), "'%s'", line);
        cr_assert_geq(at_ns, last_ns, "out of order: '%s'", line);
        last_ns = at_ns;
        lines++;
    }
    cr_assert_eq(lines, times->gpu_count * (5 * times->layer_count + 1));
}

Test(timeline, the_event_log_holds_every_stretch_once)
{
    static struct plain plain;
    struct moe_barrier barriers[2 * LAYER_LIMIT + 1];
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct draw draw = { moe_random_key(seed, MOE_RANDOM_TEST), 0 };
        moe_arena_reset(&arena);
        const struct moe_step_times times = random_times(&draw);
        plain_step(&times, &plain);
        FILE *log = tmpfile();
        cr_assert_not_null(log);
        struct moe_event_player player;
        moe_time_ns step_ns = 0;
        cr_assert_eq(moe_event_player_init(&player, times.gpu_count, log, &arena, NULL), MOE_OK);
        player.start_ns = 1000;
        player.step = seed;
        cr_assert_eq(moe_timeline_events(&times, &player, barriers, &step_ns, NULL), MOE_OK);
        check_log(log, &times, &plain, 1000, seed);
        cr_assert_eq(fclose(log), 0);
    }
}

Test(timeline, the_critical_path_sums_to_the_length_of_the_step)
{
    moe_time_ns clock[GPU_LIMIT];
    struct moe_barrier barriers[2 * LAYER_LIMIT + 1];
    struct moe_token_prices tokens[GPU_LIMIT];
    uint8_t source[LAYER_LIMIT * GPU_LIMIT];
    for (uint64_t seed = 0; seed < CASE_COUNT; seed++) {
        struct draw draw = { moe_random_key(seed, MOE_RANDOM_TEST), 0 };
        moe_arena_reset(&arena);
        const struct moe_step_times times = random_times(&draw);
        for (uint32_t g = 0; g < times.gpu_count; g++) {
            for (uint32_t p = 0; p < MOE_COST_PART_COUNT; p++) {
                tokens[g].part[p].ns = below(&draw, 2) * (below(&draw, 1000) + 0.1);
                tokens[g].part[p].provenance = below(&draw, MOE_PROVENANCE_COUNT);
            }
        }
        for (uint32_t i = 0; i < times.layer_count * times.gpu_count; i++) {
            source[i] = (uint8_t) below(&draw, MOE_PROVENANCE_COUNT);
        }
        const struct moe_price_sources sources = { tokens, source,          source,
                                                   source, below(&draw, 4), { 0 } };
        const moe_time_ns step_ns = moe_timeline_run(&times, clock, barriers);
        struct moe_critical_path path = { 0 };
        moe_timeline_critical(&times, barriers, &sources, &path);
        moe_time_ns sum = 0;
        for (uint32_t p = 0; p < MOE_COST_PART_COUNT; p++) {
            for (uint32_t s = 0; s < MOE_PROVENANCE_COUNT; s++) {
                cr_assert_geq(path.ns[p][s], 0, "seed %" PRIu64, seed);
                sum += path.ns[p][s];
            }
        }
        cr_assert_eq(sum, step_ns, "seed %" PRIu64 ": %" PRId64 " of %" PRId64, seed, sum, step_ns);
    }
}

/* One layer, two ranks, each way in which a rank may be held up, by hand. */
Test(timeline, the_critical_path_follows_what_was_waited_for)
{
    moe_time_ns before[] = { 100, 70 };
    moe_time_ns shared[] = { 10, 90 };
    moe_time_ns dispatch[] = { 20, 30 };
    moe_time_ns expert[] = { 5, 40 };
    moe_time_ns combine[] = { 8, 3 };
    moe_time_ns after[] = { 50, 51 };
    struct moe_step_times times = { .layer_count = 1,
                                    .gpu_count = 2,
                                    .shared_mode = MOE_SHARED_OVERLAPPED,
                                    .before = before,
                                    .shared = shared,
                                    .dispatch = dispatch,
                                    .expert = expert,
                                    .combine = combine,
                                    .after = after };
    struct moe_token_prices tokens[2] = { 0 };
    for (uint32_t g = 0; g < 2; g++) {
        tokens[g].part[MOE_COST_ATTENTION].ns = 3;
        tokens[g].part[MOE_COST_GATE].ns = 1;
        tokens[g].part[MOE_COST_HOST].ns = 19.5;
    }
    const uint8_t source[2] = { MOE_PROVENANCE_MEASURED, MOE_PROVENANCE_ASSUMED };
    const struct moe_price_sources sources = { tokens, source, source, source, 0, { 0 } };
    struct moe_barrier barriers[3];
    moe_time_ns clock[2];

    /* Rank 1 ends its shared expert at 160, 30 after its data came: expert 160-200, combine
     * to 208 and 203, ends 258 and 254: rank 0, whose combine waited for rank 1. */
    cr_assert_eq(moe_timeline_run(&times, clock, barriers), 258);
    struct moe_critical_path path = { 0 };
    moe_timeline_critical(&times, barriers, &sources, &path);
    cr_assert_eq(path.ns[MOE_COST_HOST][0], 20);
    cr_assert_eq(path.ns[MOE_COST_HEAD][0], 30);
    cr_assert_eq(path.ns[MOE_COST_COMBINE][MOE_PROVENANCE_MEASURED], 8);
    cr_assert_eq(path.ns[MOE_COST_EXPERT][MOE_PROVENANCE_ASSUMED], 40);
    cr_assert_eq(path.ns[MOE_COST_SHARED][0], 90);
    cr_assert_eq(path.ns[MOE_COST_DISPATCH][MOE_PROVENANCE_ASSUMED], 0);
    cr_assert_eq(path.ns[MOE_COST_GATE][0], 17); /* 70 / 4, down */
    cr_assert_eq(path.ns[MOE_COST_ATTENTION][0], 53);

    /* With a shorter shared expert the path crosses to rank 0, the last at the dispatch. */
    shared[1] = 60;
    cr_assert_eq(moe_timeline_run(&times, clock, barriers), 228);
    path = (struct moe_critical_path){ 0 };
    moe_timeline_critical(&times, barriers, &sources, &path);
    cr_assert_eq(path.ns[MOE_COST_SHARED][0], 0);
    cr_assert_eq(path.ns[MOE_COST_DISPATCH][MOE_PROVENANCE_ASSUMED], 30);
    cr_assert_eq(path.ns[MOE_COST_GATE][0], 25);
    cr_assert_eq(path.ns[MOE_COST_ATTENTION][0], 75);
}

/* The straggler split: planted causes, exact sums, and the Shapley value by its definition. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>

#include "sim/base/random.h"
#include "sim/engine/straggler.h"
#include "sim/engine/timeline.h"

enum { GPUS = 6, LAYERS = 3, STEPS = 4, STRETCHES = 6, CASE_COUNT = 3000 };
enum { BEFORE, SHARED, DISPATCH, EXPERT, COMBINE, AFTER };

struct draw {
    uint64_t key;
    uint64_t counter;
};

static struct moe_arena arena;

static double uniform(struct draw *draw)
{
    return moe_random_uniform(draw->key, draw->counter++);
}

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, 1 << 20, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(straggler, .init = setup, .fini = teardown);

/* The value of the game by its definition: every order in which the causes can be switched
 * on, one after the other. 120 orders, so sums are 120ths. */
static void add_orders(const moe_time_ns *idle_ns, uint32_t on, moe_time_ns *sum)
{
    if (on == MOE_CAUSE_ALL) {
        return;
    }
    /* Each of the remaining causes next, in as many orders as the rest allows. */
    static const moe_time_ns factorial[] = { 1, 1, 2, 6, 24 };
    uint32_t rest = 0;
    for (uint32_t c = 0; c < MOE_CAUSE_COUNT; c++) {
        rest += (on >> c & 1) == 0;
    }
    for (uint32_t c = 0; c < MOE_CAUSE_COUNT; c++) {
        if ((on >> c & 1) == 0) {
            sum[c] += factorial[rest - 1] * (idle_ns[on | 1u << c] - idle_ns[on]);
            add_orders(idle_ns, on | 1u << c, sum);
        }
    }
}

/* Rounded down, then the largest remainders get what is left, the first of equal ones. */
static void split_plainly(const moe_time_ns *idle_ns, moe_time_ns *parts)
{
    moe_time_ns sum[MOE_CAUSE_COUNT] = { 0 };
    add_orders(idle_ns, 0, sum);
    moe_time_ns left = idle_ns[MOE_CAUSE_ALL] - idle_ns[0];
    moe_time_ns remainder[MOE_CAUSE_COUNT];
    for (uint32_t c = 0; c < MOE_CAUSE_COUNT; c++) {
        remainder[c] = (sum[c] % 120 + 120) % 120;
        parts[c] = (sum[c] - remainder[c]) / 120;
        left -= parts[c];
    }
    for (; left > 0; left--) {
        uint32_t best = 0;
        for (uint32_t c = 0; c < MOE_CAUSE_COUNT; c++) {
            best = remainder[c] > remainder[best] ? c : best;
        }
        parts[best]++;
        remainder[best] = -1;
    }
}

Test(straggler, split_is_the_mean_over_all_orders_to_the_nanosecond)
{
    static const moe_time_ns bounds[] = { 2, 121, 1000000, INT64_C(1) << 50 };
    uint32_t negative = 0;
    for (uint64_t seed = 0; seed < CASE_COUNT; seed++) {
        struct draw draw = { moe_random_key(seed, MOE_RANDOM_TEST), 0 };
        moe_time_ns idle_ns[MOE_CAUSE_SUBSETS];
        const moe_time_ns bound = bounds[seed % 4];
        for (uint32_t s = 0; s < MOE_CAUSE_SUBSETS; s++) {
            idle_ns[s] = (moe_time_ns) (uniform(&draw) * (double) bound);
        }
        moe_time_ns got[MOE_CAUSE_COUNT];
        moe_time_ns want[MOE_CAUSE_COUNT];
        moe_straggler_split(idle_ns, got);
        split_plainly(idle_ns, want);
        moe_time_ns sum = 0;
        for (uint32_t c = 0; c < MOE_CAUSE_COUNT; c++) {
            cr_assert_eq(got[c], want[c], "seed %" PRIu64 ", cause %u: %" PRId64 " for %" PRId64,
                         seed, c, got[c], want[c]);
            sum += got[c];
            negative += got[c] < 0;
        }
        cr_assert_eq(sum, idle_ns[MOE_CAUSE_ALL] - idle_ns[0]);
    }
    cr_assert_gt(negative, 100, "hardly a case had a cause that hides another");
}

Test(straggler, equal_remainders_go_to_the_first_causes)
{
    /* Whoever comes first wins 3 ns: each cause is worth 3/5 ns, so three get one each. */
    moe_time_ns idle_ns[MOE_CAUSE_SUBSETS];
    for (uint32_t s = 0; s < MOE_CAUSE_SUBSETS; s++) {
        idle_ns[s] = s == 0 ? 0 : 3;
    }
    moe_time_ns parts[MOE_CAUSE_COUNT];
    moe_straggler_split(idle_ns, parts);
    const moe_time_ns want[MOE_CAUSE_COUNT] = { 1, 1, 1, 0, 0 };
    for (uint32_t c = 0; c < MOE_CAUSE_COUNT; c++) {
        cr_assert_eq(parts[c], want[c]);
    }
}

/* Prices of one stretch: what is planted, on otherwise equal GPUs. */
struct stretch {
    double real[GPUS];
    double nominal[GPUS];
    double jitter[GPUS];
};

static const enum moe_cause own_cause[STRETCHES] = { MOE_CAUSE_BATCH, MOE_CAUSE_BATCH,
                                                     MOE_CAUSE_COMM,  MOE_CAUSE_ROUTING,
                                                     MOE_CAUSE_COMM,  MOE_CAUSE_BATCH };

/* causes: bits of what is unequal. */
static void make_stretch(struct stretch *out, struct draw *draw, uint32_t stretch, uint32_t causes,
                         const double *gpu_factor)
{
    for (uint32_t g = 0; g < GPUS; g++) {
        const double skew = uniform(draw);
        const double noise = uniform(draw);
        out->nominal[g] = 1e6 * (1 + ((causes >> own_cause[stretch] & 1) != 0 ? skew : 0));
        out->real[g] =
            out->nominal[g] * ((causes >> MOE_CAUSE_HARDWARE & 1) != 0 ? gpu_factor[g] : 1.0);
        out->jitter[g] = (causes >> MOE_CAUSE_JITTER & 1) != 0 ? 0.9 + 0.2 * noise : 1.0;
    }
}

static struct moe_stretch_prices view(const struct stretch *stretch)
{
    return (struct moe_stretch_prices){ stretch->real, stretch->nominal, stretch->jitter };
}

static moe_time_ns round_up(double ns)
{
    const moe_time_ns down = (moe_time_ns) ns;
    return (double) down < ns ? down + 1 : down;
}

/* Durations of one stretch while the causes of subset are on, by straggler.h's words. */
static void plain_durations(const struct stretch *stretch, uint32_t own, uint32_t subset,
                            moe_time_ns *out)
{
    double sum = 0;
    for (uint32_t g = 0; g < GPUS; g++) {
        sum += stretch->nominal[g];
    }
    for (uint32_t g = 0; g < GPUS; g++) {
        double ns = (subset >> own & 1) != 0 ? stretch->nominal[g] : sum / GPUS;
        if ((subset >> MOE_CAUSE_HARDWARE & 1) != 0 && (subset >> own & 1) != 0) {
            ns = stretch->real[g];
        } else if ((subset >> MOE_CAUSE_HARDWARE & 1) != 0) {
            ns *= stretch->real[g] / stretch->nominal[g];
        }
        out[g] = round_up((subset >> MOE_CAUSE_JITTER & 1) != 0 ? ns * stretch->jitter[g] : ns);
    }
}

/* One step under one subset through the timeline (held to its own twin elsewhere). */
static void plain_replay(struct stretch stretch[LAYERS][STRETCHES],
                         const struct moe_serving *serving, uint32_t subset, moe_time_ns *idle_ns,
                         moe_time_ns *time_ns)
{
    moe_time_ns ns[STRETCHES][LAYERS * GPUS];
    for (uint32_t l = 0; l < LAYERS; l++) {
        for (uint32_t s = 0; s < STRETCHES; s++) {
            plain_durations(&stretch[l][s], own_cause[s], subset, &ns[s][(size_t) l * GPUS]);
        }
    }
    const struct moe_step_times times = {
        .layer_count = LAYERS,
        .gpu_count = GPUS,
        .common_exit = serving->common_exit,
        .shared_mode = serving->shared,
        .before = ns[BEFORE],
        .shared = ns[SHARED],
        .dispatch = ns[DISPATCH],
        .expert = ns[EXPERT],
        .combine = ns[COMBINE],
        .after = ns[AFTER] + (size_t) (LAYERS - 1) * GPUS,
    };
    struct moe_barrier barriers[2 * LAYERS + 1];
    moe_time_ns clock[GPUS];
    *time_ns += moe_timeline_run(&times, clock, barriers);
    for (uint32_t b = 0; b < moe_barrier_count(LAYERS); b++) {
        *idle_ns += barriers[b].idle_ns;
    }
}

/* Plays STEPS steps with these causes planted; the plain replays into idle and time. */
static void play(struct moe_straggler *straggler, const struct moe_serving *serving,
                 struct draw *draw, uint32_t causes, moe_time_ns *idle_ns, moe_time_ns *time_ns)
{
    double gpu_factor[GPUS];
    for (uint32_t g = 0; g < GPUS; g++) {
        gpu_factor[g] = 1 + 0.2 * uniform(draw);
    }
    cr_assert_eq(moe_straggler_init(straggler, GPUS, serving, &arena, NULL), MOE_OK);
    for (uint32_t step = 0; step < STEPS; step++) {
        struct stretch s[LAYERS][STRETCHES];
        moe_straggler_begin_step(straggler);
        for (uint32_t l = 0; l < LAYERS; l++) {
            struct moe_stretch_prices p[STRETCHES];
            for (uint32_t i = 0; i < STRETCHES; i++) {
                make_stretch(&s[l][i], draw, i, causes, gpu_factor);
                p[i] = view(&s[l][i]);
            }
            moe_straggler_add_layer(straggler, &p[BEFORE], &p[SHARED], &p[DISPATCH], &p[EXPERT],
                                    &p[COMBINE]);
        }
        const struct moe_stretch_prices after = view(&s[LAYERS - 1][AFTER]);
        moe_straggler_end_step(straggler, &after);
        for (uint32_t subset = 0; subset < MOE_CAUSE_SUBSETS; subset++) {
            plain_replay(s, serving, subset, &idle_ns[subset], &time_ns[subset]);
        }
    }
}

Test(straggler, replays_of_all_subsets_agree_with_plain_ones)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct draw draw = { moe_random_key(seed, MOE_RANDOM_TEST), 0 };
        const struct moe_serving serving = {
            .common_exit = seed % 2 == 1,
            .shared = seed / 2 % 2 == 1 ? MOE_SHARED_SERIAL : MOE_SHARED_OVERLAPPED,
        };
        struct moe_straggler straggler;
        moe_time_ns idle_ns[MOE_CAUSE_SUBSETS] = { 0 };
        moe_time_ns time_ns[MOE_CAUSE_SUBSETS] = { 0 };
        moe_arena_reset(&arena);
        play(&straggler, &serving, &draw, (uint32_t) (seed % MOE_CAUSE_SUBSETS), idle_ns, time_ns);
        for (uint32_t s = 0; s < MOE_CAUSE_SUBSETS; s++) {
            cr_assert_eq(straggler.idle_ns[s], idle_ns[s], "seed %" PRIu64 ", subset %u", seed, s);
            cr_assert_eq(straggler.time_ns[s], time_ns[s], "seed %" PRIu64 ", subset %u", seed, s);
        }
        cr_assert_eq(straggler.idle_ns[0], 0, "someone waits with all causes off");
    }
}

Test(straggler, each_cause_planted_alone_gets_all_of_the_excess)
{
    for (uint32_t cause = 0; cause < MOE_CAUSE_COUNT; cause++) {
        for (uint32_t mode = 0; mode < 2; mode++) {
            struct draw draw = { moe_random_key(cause, MOE_RANDOM_TEST), 0 };
            const struct moe_serving serving = {
                .shared = mode == 1 ? MOE_SHARED_SERIAL : MOE_SHARED_OVERLAPPED,
            };
            struct moe_straggler straggler;
            moe_time_ns idle_ns[MOE_CAUSE_SUBSETS] = { 0 };
            moe_time_ns time_ns[MOE_CAUSE_SUBSETS] = { 0 };
            moe_time_ns parts[MOE_CAUSE_COUNT];
            moe_arena_reset(&arena);
            play(&straggler, &serving, &draw, 1u << cause, idle_ns, time_ns);
            moe_straggler_split(straggler.idle_ns, parts);
            const moe_time_ns total = straggler.idle_ns[MOE_CAUSE_ALL];
            cr_assert_gt(total, 100000);
            for (uint32_t c = 0; c < MOE_CAUSE_COUNT; c++) {
                const moe_time_ns off = c == cause ? total - parts[c] : parts[c];
                cr_assert_leq(llabs(off) * 100, total, "%s planted: %s has %" PRId64 " of %" PRId64,
                              moe_cause_name((enum moe_cause) cause),
                              moe_cause_name((enum moe_cause) c), parts[c], total);
            }
        }
    }
}

#include "sim/engine/straggler.h"

#include <assert.h>
#include <string.h>

#include "sim/engine/timeline.h"

#include "sim/base/no_malloc.h"

enum stretch { BEFORE, SHARED, DISPATCH, EXPERT, COMBINE, AFTER, STRETCH_COUNT };
enum { VARIANTS = MOE_STRAGGLER_VARIANTS };

static const char *const cause_name[MOE_CAUSE_COUNT] = {
    [MOE_CAUSE_ROUTING] = "routing", [MOE_CAUSE_BATCH] = "batch", [MOE_CAUSE_HARDWARE] = "hardware",
    [MOE_CAUSE_JITTER] = "jitter",   [MOE_CAUSE_COMM] = "comm",
};

static const enum moe_cause own_cause[STRETCH_COUNT] = {
    [BEFORE] = MOE_CAUSE_BATCH,   [SHARED] = MOE_CAUSE_BATCH, [DISPATCH] = MOE_CAUSE_COMM,
    [EXPERT] = MOE_CAUSE_ROUTING, [COMBINE] = MOE_CAUSE_COMM, [AFTER] = MOE_CAUSE_BATCH,
};

const char *moe_cause_name(enum moe_cause cause)
{
    assert(cause < MOE_CAUSE_COUNT);
    return cause_name[cause];
}

enum moe_status moe_straggler_init(struct moe_straggler *s, uint32_t gpu_count,
                                   const struct moe_serving *serving, struct moe_arena *arena,
                                   struct moe_error *err)
{
    *s = (struct moe_straggler){
        .gpu_count = gpu_count,
        .common_exit = serving->common_exit,
        .shared_mode = serving->shared,
        .clock = MOE_NEW(arena, moe_time_ns, (size_t) MOE_CAUSE_SUBSETS * gpu_count),
        .variant = MOE_NEW(arena, moe_time_ns, (size_t) STRETCH_COUNT * VARIANTS * gpu_count),
    };
    return s->clock != NULL && s->variant != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for the replays of %u GPUs", gpu_count);
}

void moe_straggler_begin_step(struct moe_straggler *s)
{
    memset(s->clock, 0, (size_t) MOE_CAUSE_SUBSETS * s->gpu_count * sizeof *s->clock);
    memset(s->step_idle_ns, 0, sizeof s->step_idle_ns);
}

uint32_t moe_straggler_variant(enum moe_cause cause, uint32_t subset)
{
    const uint32_t own = subset >> cause & 1;
    const uint32_t hardware = subset >> MOE_CAUSE_HARDWARE & 1;
    const uint32_t jitter = subset >> MOE_CAUSE_JITTER & 1;
    return own << 2 | hardware << 1 | jitter;
}

static moe_time_ns *variant_of(const struct moe_straggler *s, enum stretch stretch, uint32_t subset)
{
    const size_t index =
        (size_t) stretch * VARIANTS + moe_straggler_variant(own_cause[stretch], subset);
    return s->variant + index * s->gpu_count;
}

/* With the stretch's own cause absent and the hardware present, a GPU takes the mean time,
 * slower or faster by what its factors do to its own work. */
void moe_straggler_price(const struct moe_stretch_prices *prices, uint32_t gpu_count,
                         moe_time_ns *out)
{
    const uint32_t gpus = gpu_count;
    double sum = 0.0;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        sum += prices->nominal[gpu];
    }
    const double mean = sum / gpus;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        const double real = prices->real[gpu];
        const double nominal = prices->nominal[gpu];
        const double jitter = prices->jitter[gpu];
        const double slowed = nominal > 0.0 ? mean * (real / nominal) : mean;
        out[0 * gpus + gpu] = moe_time_round_up(mean);
        out[1 * gpus + gpu] = moe_time_round_up(mean * jitter);
        out[2 * gpus + gpu] = moe_time_round_up(slowed);
        out[3 * gpus + gpu] = moe_time_round_up(slowed * jitter);
        out[4 * gpus + gpu] = moe_time_round_up(nominal);
        out[5 * gpus + gpu] = moe_time_round_up(nominal * jitter);
        out[6 * gpus + gpu] = moe_time_round_up(real);
        out[7 * gpus + gpu] = moe_time_round_up(real * jitter);
    }
}

static void price_variants(struct moe_straggler *s, enum stretch stretch,
                           const struct moe_stretch_prices *prices)
{
    moe_straggler_price(prices, s->gpu_count,
                        s->variant + (size_t) stretch * VARIANTS * s->gpu_count);
}

static void play_layer(struct moe_straggler *s, uint32_t subset)
{
    const struct moe_layer_times layer = {
        .gpu_count = s->gpu_count,
        .common_exit = s->common_exit,
        .shared_mode = s->shared_mode,
        .before = variant_of(s, BEFORE, subset),
        .shared = variant_of(s, SHARED, subset),
        .dispatch = variant_of(s, DISPATCH, subset),
        .expert = variant_of(s, EXPERT, subset),
        .combine = variant_of(s, COMBINE, subset),
    };
    struct moe_barrier pair[2];
    moe_timeline_layer(&layer, s->clock + (size_t) subset * s->gpu_count, pair);
    s->step_idle_ns[subset] += pair[0].idle_ns + pair[1].idle_ns;
}

void moe_straggler_add_layer(struct moe_straggler *s, const struct moe_stretch_prices *before,
                             const struct moe_stretch_prices *shared,
                             const struct moe_stretch_prices *dispatch,
                             const struct moe_stretch_prices *expert,
                             const struct moe_stretch_prices *combine)
{
    price_variants(s, BEFORE, before);
    price_variants(s, SHARED, shared);
    price_variants(s, DISPATCH, dispatch);
    price_variants(s, EXPERT, expert);
    price_variants(s, COMBINE, combine);
    for (uint32_t subset = 0; subset < MOE_CAUSE_SUBSETS; subset++) {
        play_layer(s, subset);
    }
}

void moe_straggler_end_step(struct moe_straggler *s, const struct moe_stretch_prices *after)
{
    price_variants(s, AFTER, after);
    for (uint32_t subset = 0; subset < MOE_CAUSE_SUBSETS; subset++) {
        moe_time_ns *clock = s->clock + (size_t) subset * s->gpu_count;
        const moe_time_ns *tail = variant_of(s, AFTER, subset);
        for (uint32_t gpu = 0; gpu < s->gpu_count; gpu++) {
            clock[gpu] += tail[gpu];
        }
        const struct moe_barrier end = moe_timeline_barrier(clock, s->gpu_count);
        s->time_ns[subset] += end.open_ns;
        s->idle_ns[subset] += s->step_idle_ns[subset] + end.idle_ns;
    }
}

static uint32_t bit_count(uint32_t x)
{
    uint32_t count = 0;
    for (; x != 0; x &= x - 1) {
        count++;
    }
    return count;
}

void moe_straggler_split(const moe_time_ns idle_ns[MOE_CAUSE_SUBSETS],
                         moe_time_ns parts[MOE_CAUSE_COUNT])
{
    /* |S|! (4 - |S|)! of the 5! orders, so shares are whole numbers of 120ths. */
    static const moe_time_ns weight[MOE_CAUSE_COUNT] = { 24, 6, 4, 6, 24 };
    enum { ORDERS = 120 };
    moe_time_ns remainder[MOE_CAUSE_COUNT];
    moe_time_ns left = idle_ns[MOE_CAUSE_ALL] - idle_ns[0];
    for (uint32_t cause = 0; cause < MOE_CAUSE_COUNT; cause++) {
        moe_time_ns whole = 0;
        moe_time_ns fraction = 0; /* in 120ths; kept apart so that nothing overflows */
        for (uint32_t subset = 0; subset < MOE_CAUSE_SUBSETS; subset++) {
            if ((subset >> cause & 1) == 0) {
                const moe_time_ns gain = idle_ns[subset | UINT32_C(1) << cause] - idle_ns[subset];
                const moe_time_ns w = weight[bit_count(subset)];
                whole += gain / ORDERS * w;
                fraction += gain % ORDERS * w;
            }
        }
        whole += fraction / ORDERS;
        fraction %= ORDERS;
        if (fraction < 0) { /* round towards minus infinity: remainders are then >= 0 */
            whole--;
            fraction += ORDERS;
        }
        parts[cause] = whole;
        remainder[cause] = fraction;
        left -= whole;
    }
    assert(left >= 0);
    assert(left < MOE_CAUSE_COUNT);
    for (; left > 0; left--) {
        uint32_t best = 0;
        for (uint32_t cause = 1; cause < MOE_CAUSE_COUNT; cause++) {
            best = remainder[cause] > remainder[best] ? cause : best;
        }
        parts[best]++;
        remainder[best] = -1;
    }
}

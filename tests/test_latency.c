/* The histogram's quantiles against sorting everything. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "sim/base/random.h"
#include "sim/engine/latency.h"

enum { VALUE_LIMIT = 2000 };

static struct moe_arena arena;
static struct moe_latency latency;

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, 2 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_latency_init(&latency, &arena, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(latency, .init = setup, .fini = teardown);

static int compare(const void *a, const void *b)
{
    const moe_time_ns x = *(const moe_time_ns *) a;
    const moe_time_ns y = *(const moe_time_ns *) b;
    return (x > y) - (x < y);
}

/* Some place of the sorted values next to q must be near the answer: which of two
 * neighbours a quantile between them means is convention. */
static void check_quantile(const moe_time_ns *sorted, size_t count, double q, uint64_t seed)
{
    const double got = moe_latency_quantile(&latency, q);
    const double place = q * (double) count;
    const size_t low = place < 1 ? 0 : (size_t) floor(place) - 1;
    const size_t high = place + 1 > (double) count ? count - 1 : (size_t) ceil(place);
    const double least = (double) sorted[low] * (1 - 0.002);
    const double most = (double) sorted[high < count ? high : count - 1] * (1 + 0.002) + 1;
    cr_assert(got >= least && got <= most, "seed %" PRIu64 ", q %g: %g not in %g .. %g", seed, q,
              got, least, most);
}

Test(latency, quantiles_are_within_the_stated_error_of_sorting)
{
    static moe_time_ns sorted[VALUE_LIMIT];
    for (uint64_t seed = 0; seed < 60; seed++) {
        const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
        uint64_t counter = 0;
        moe_arena_reset(&arena);
        cr_assert_eq(moe_latency_init(&latency, &arena, NULL), MOE_OK);
        /* From nanoseconds to days, weights 1 to 3; every fourth case is all small numbers. */
        const double span = seed % 4 == 0 ? 12 : 48;
        size_t count = 0;
        double sum = 0;
        while (count + 3 <= VALUE_LIMIT) {
            const double log_ns = moe_random_uniform(key, counter++) * span;
            const moe_time_ns ns = (moe_time_ns) exp2(log_ns);
            const uint64_t weight = 1 + moe_random_below(key, counter++, 3);
            moe_latency_add(&latency, ns, weight);
            for (uint64_t w = 0; w < weight; w++) {
                sorted[count++] = ns;
                sum += (double) ns;
            }
        }
        qsort(sorted, count, sizeof *sorted, compare);
        cr_assert_eq(latency.total, count);
        cr_assert_eq(latency.min_ns, sorted[0]);
        cr_assert_eq(latency.max_ns, sorted[count - 1]);
        cr_assert_float_eq(latency.sum_ns, sum, sum * 1e-12);
        cr_assert_float_eq(moe_latency_mean(&latency), sum / (double) count, sum * 1e-12);
        double last = 0;
        for (int q = 0; q <= 100; q++) {
            check_quantile(sorted, count, q / 100.0, seed);
            cr_assert_geq(moe_latency_quantile(&latency, q / 100.0), last);
            last = moe_latency_quantile(&latency, q / 100.0);
        }
    }
}

Test(latency, one_value_is_every_quantile)
{
    static const moe_time_ns values[] = { 0,    1,    511,  512,       1023,
                                          1024, 1025, 4097, 123456789, INT64_C(1) << 60 };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        moe_arena_reset(&arena);
        cr_assert_eq(moe_latency_init(&latency, &arena, NULL), MOE_OK);
        moe_latency_add(&latency, values[i], 5);
        for (int q = 0; q <= 10; q++) {
            const double got = moe_latency_quantile(&latency, q / 10.0);
            cr_assert_float_eq(got, (double) values[i], (double) values[i] * 0.002 + 1e-9,
                               "%" PRId64 " at %d/10 gives %g", values[i], q, got);
        }
    }
}

Test(latency, nothing_counted_is_zero)
{
    cr_assert_eq(moe_latency_quantile(&latency, 0.5), 0.0);
    cr_assert_eq(moe_latency_mean(&latency), 0.0);
}

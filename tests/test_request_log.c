/* The request log against slow obvious definitions, on queues whose answer is known. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "sim/arrival/arrival_gap.h"
#include "sim/base/random.h"
#include "sim/engine/request_log.h"

enum { LIMIT = 20000 };

static struct moe_arena arena;
static struct moe_request_log request_log;

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, moe_request_log_bytes(LIMIT), NULL), MOE_OK);
    cr_assert_eq(moe_request_log_init(&request_log, LIMIT, &arena, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(request_log, .init = setup, .fini = teardown);

/* One server, first come first served: exponential gaps of mean 1/rate s and services of 1 s,
 * of which the first tenth makes the first token. Added in a made-up order. */
static void serve_single(uint32_t count, double rate, uint64_t seed)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    moe_time_ns arrival = 0;
    moe_time_ns free_ns = 0;
    request_log.count = 0;
    for (uint32_t i = 0; i < count; i++) {
        arrival += moe_time_from_seconds(moe_gap_exponential(key, 2 * i) / rate);
        const moe_time_ns start = arrival > free_ns ? arrival : free_ns;
        const moe_time_ns service = moe_time_from_seconds(moe_gap_exponential(key, 2 * i + 1));
        free_ns = start + service;
        const struct moe_request_record record = {
            .number = i,
            .arrival_ns = arrival,
            .admitted_ns = start,
            .first_token_ns = start + service / 10,
            .finished_ns = free_ns,
            .prompt_tokens = 5,
            .output_tokens = 1 + i % 7,
        };
        moe_request_log_add(&request_log, &record);
    }
    for (uint32_t i = count; i > 1; i--) { /* whatever order they finish in */
        const uint32_t j = (uint32_t) moe_random_below(key ^ 4, i, i);
        const struct moe_request_record held = request_log.records[i - 1];
        request_log.records[i - 1] = request_log.records[j];
        request_log.records[j] = held;
    }
}

/* The cut in batches of five, from the words. */
static uint32_t mser_twin(const struct moe_request_record *r, uint32_t count, bool whole)
{
    const uint32_t batches = count / 5;
    const uint32_t skipped = count % 5;
    static double batch[LIMIT / 5];
    double least = INFINITY;
    uint32_t best = 0;
    for (uint32_t b = 0; b < batches; b++) {
        batch[b] = 0.0;
        for (uint32_t i = 0; i < 5; i++) {
            const struct moe_request_record *q = &r[skipped + 5 * b + i];
            const moe_time_ns end = whole ? q->finished_ns : q->first_token_ns;
            batch[b] += (double) (end - q->arrival_ns) / 5.0;
        }
    }
    for (uint32_t d = 0; d <= batches / 2; d++) {
        double mean = 0.0;
        double sum = 0.0;
        for (uint32_t b = d; b < batches; b++) {
            mean += batch[b] / (batches - d);
        }
        for (uint32_t b = d; b < batches; b++) {
            sum += (batch[b] - mean) * (batch[b] - mean);
        }
        const double error = sum / ((double) (batches - d) * (batches - d));
        if (error < least * (1.0 - 1e-9)) {
            least = error;
            best = d;
        }
    }
    return best;
}

static int ascending(const void *left, const void *right)
{
    const double a = *(const double *) left;
    const double b = *(const double *) right;
    return (a > b) - (a < b);
}

/* Cut, quantiles and shares once more, from the words of request_log.h. */
Test(request_log, figures_are_those_of_the_definitions)
{
    static double ttft[LIMIT];
    const struct moe_slo slo = { .ttft_ms = 2500.0, .tpot_ms = 300.0 };
    for (uint32_t count = 20; count < 2000; count = count * 3 / 2 + 1) {
        struct moe_service s;
        serve_single(count, 0.7, count);
        moe_request_log_measure(&request_log, &slo, &s);
        const struct moe_request_record *r = request_log.records;
        const uint32_t one = mser_twin(r, count, false);
        const uint32_t other = mser_twin(r, count, true);
        cr_assert_eq(s.cut, count / 10);
        cr_assert_eq(s.is_steady, one < count / 5 / 2 && other < count / 5 / 2);
        uint64_t met = 0;
        for (uint64_t i = s.cut; i < count; i++) {
            cr_assert_eq(r[i].number, i);
            ttft[i - s.cut] = (double) (r[i].first_token_ns - r[i].arrival_ns);
            const double rest = (double) (r[i].finished_ns - r[i].first_token_ns);
            met += ttft[i - s.cut] <= 2.5e9 &&
                   (r[i].output_tokens == 1 || rest / (r[i].output_tokens - 1) <= 3e8);
        }
        qsort(ttft, s.scored, sizeof *ttft, ascending);
        cr_assert_eq(s.slo_met, met);
        cr_assert_eq(s.ttft.p50, ttft[(s.scored + 1) / 2 - 1]);
        cr_assert_eq(s.ttft.p90, ttft[(9 * s.scored + 9) / 10 - 1]);
        cr_assert_eq(s.ttft.p99, ttft[(99 * s.scored + 99) / 100 - 1]);
        cr_assert_eq(s.ttft.max, ttft[s.scored - 1]);
        cr_assert_eq(s.arrived, count);
    }
}

/* Time averages against a walk over the window in small steps. */
Test(request_log, queue_and_rates_are_time_averages)
{
    const struct moe_slo none = { 0 };
    struct moe_service s;
    serve_single(300, 0.8, 3);
    moe_request_log_measure(&request_log, &none, &s);
    const struct moe_request_record *r = request_log.records;
    const double from = (double) r[s.cut].arrival_ns;
    const double to = (double) r[299].arrival_ns;
    double waiting = 0.0;
    double running = 0.0;
    double largest = 0.0;
    enum { STEPS = 40000 };
    for (uint32_t k = 0; k < STEPS; k++) {
        const double now = from + (to - from) * (k + 0.5) / STEPS;
        double here = 0.0;
        for (uint32_t i = 0; i < 300; i++) {
            here += (double) r[i].arrival_ns <= now && (double) r[i].admitted_ns > now;
            running += (double) r[i].admitted_ns <= now && (double) r[i].finished_ns > now;
        }
        waiting += here;
        largest = here > largest ? here : largest;
    }
    cr_assert_float_eq(s.waiting_mean, waiting / STEPS, 0.02);
    cr_assert_float_eq(s.running_mean, running / STEPS, 0.02);
    cr_assert_float_eq(s.waiting_max, largest, 1.0);
    cr_assert_eq(s.slo_met, s.scored);
}

/* Below capacity it never cries; a tenth above it always does, and says how fast it serves. */
Test(request_log, saturation_is_told_from_a_busy_queue)
{
    const struct moe_slo none = { 0 };
    uint32_t wrong = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct moe_service s;
        serve_single(8000, seed % 2 == 0 ? 0.9 : 0.5, seed);
        moe_request_log_measure(&request_log, &none, &s);
        wrong += s.is_saturated;
        serve_single(8000, 1.15, seed);
        moe_request_log_measure(&request_log, &none, &s);
        cr_assert(s.is_saturated, "seed %llu: t %g, slope %g", (unsigned long long) seed, s.slope_t,
                  s.waiting_slope);
        cr_assert_float_eq(s.served_rate, 1.0, 0.06);
        cr_assert_float_eq(s.waiting_slope, s.offered_rate - s.served_rate, 0.05);
    }
    cr_assert_eq(wrong, 0, "%u of 100 stable queues called saturated", wrong);
}

Test(request_log, an_instant_and_a_single_request_have_figures_too)
{
    const struct moe_slo slo = { .ttft_ms = 1.0 };
    const struct moe_request_record one = { .arrival_ns = 5,
                                            .admitted_ns = 5,
                                            .first_token_ns = 1000005,
                                            .finished_ns = 1000005,
                                            .prompt_tokens = 1,
                                            .output_tokens = 1 };
    struct moe_service s;
    moe_request_log_add(&request_log, &one);
    moe_request_log_measure(&request_log, &slo, &s);
    cr_assert_eq(s.slo_met, 1); /* the limit itself is met */
    cr_assert_eq(s.ttft.p999, 1e6);
    cr_assert_eq(s.tpot.count, 0);
    cr_assert_eq(s.window_s, 0.0);
    request_log.count = 0;
    struct moe_request_record late = one;
    late.first_token_ns++;
    late.finished_ns++;
    moe_request_log_add(&request_log, &late);
    moe_request_log_measure(&request_log, &slo, &s);
    cr_assert_eq(s.slo_met, 0);
}

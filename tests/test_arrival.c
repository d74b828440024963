/* Arrivals: what each kind must hold, against the words of arrival.h and the theory of its
 * family. */
#include <criterion/criterion.h>
#include <math.h>

#include "sim/arrival/arrival.h"
#include "tests/trace_fixture.h"

enum { REQUESTS = 200, PASSES = 3, SAMPLE = 40000 };

static struct moe_trace *trace;
static struct moe_arena arena;
static struct moe_arrival_source source;
static struct moe_arrival_options options;

static void setup(void)
{
    const struct moe_trace_model model = fixture_model(2, 8, 2);
    fixture_setup();
    (void) fixture_store(fixture_path("t.db"), &model, REQUESTS, 0);
    cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&arena, (size_t) 1 << 20, NULL), MOE_OK);
    moe_arrival_options_default(&options);
}

static void teardown(void)
{
    moe_arrival_source_finish(&source);
    moe_arena_finish(&arena);
    moe_trace_close(trace);
    fixture_teardown();
}

TestSuite(arrival, .init = setup, .fini = teardown);

static enum moe_status make_source(uint32_t passes, struct moe_error *err)
{
    const struct moe_arrival_setup from = {
        .options = &options, .trace = trace, .plan_share = 0.2, .passes = passes
    };
    MOE_TRY(moe_arrival_options_check(&options, err));
    return moe_arrival_source_init(&source, &from, err);
}

static struct moe_arrival_stream open_stream(uint64_t seed)
{
    struct moe_arrival_stream stream;
    moe_arena_reset(&arena);
    cr_assert_eq(moe_arrival_stream_init(&stream, &source, trace, seed, &arena, NULL), MOE_OK);
    return stream;
}

Test(arrival, closed_loop_is_the_workload)
{
    struct moe_workload w;
    struct moe_arena own = { 0 };
    uint32_t request = 0;
    uint64_t count = 0;
    cr_assert_eq(make_source(PASSES, NULL), MOE_OK);
    struct moe_arrival_stream stream = open_stream(5);
    cr_assert_eq(moe_arena_init(&own, (size_t) 1 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_workload_init(&w, trace, 0.2, PASSES, 5, &own, NULL), MOE_OK);
    cr_assert(stream.is_closed_loop);
    while (moe_workload_peek(&w, &request)) {
        const struct moe_arrival *a = moe_arrival_peek(&stream);
        cr_assert_not_null(a);
        cr_assert_eq(a->request, request);
        cr_assert_eq(a->arrival_ns, 0);
        cr_assert_eq(a->number, count++);
        cr_assert_eq(a->scored, moe_workload_scores_next(&w));
        cr_assert_eq(moe_arrival_scores_next(&stream), a->scored);
        cr_assert_eq(a->prompt_tokens, moe_trace_requests(trace)[request].prompt_tokens);
        cr_assert_eq(a->output_tokens, moe_trace_requests(trace)[request].output_tokens);
        moe_workload_take(&w);
        moe_arrival_take(&stream);
    }
    cr_assert_null(moe_arrival_peek(&stream));
    cr_assert_eq(source.total, count);
    moe_arena_finish(&own);
}

/* Mean and squared coefficient of variation of the gaps of a long stream. */
static void measure_gaps(double *mean_s, double *cv)
{
    options.requests = SAMPLE;
    cr_assert_eq(make_source(1, NULL), MOE_OK);
    struct moe_arrival_stream stream = open_stream(11);
    double last = 0.0;
    double sum = 0.0;
    double squares = 0.0;
    uint64_t n = 0;
    for (const struct moe_arrival *a = moe_arrival_peek(&stream); a != NULL;
         a = moe_arrival_peek(&stream), n++) {
        const double gap = (double) a->arrival_ns - last;
        cr_assert_geq(gap, 0.0);
        last = (double) a->arrival_ns;
        sum += gap;
        squares += gap * gap;
        moe_arrival_take(&stream);
    }
    cr_assert_eq(n, SAMPLE);
    *mean_s = sum / (double) n * 1e-9;
    *cv = sqrt(squares / (double) n - (sum / (double) n) * (sum / (double) n)) * 1e-9 / *mean_s;
}

/* Four standard errors of the mean; of the deviation, as wide as heavy tails ask. */
Test(arrival, gaps_have_the_rate_and_variation_asked_for)
{
    static const struct {
        enum moe_arrival_kind kind;
        double cv;
        double off;
    } cases[] = {
        { MOE_ARRIVAL_POISSON, 1.0, 0.03 }, { MOE_ARRIVAL_GAMMA, 1.0, 0.03 },
        { MOE_ARRIVAL_GAMMA, 3.0, 0.06 },   { MOE_ARRIVAL_GAMMA, 0.3, 0.02 },
        { MOE_ARRIVAL_WEIBULL, 1.0, 0.03 }, { MOE_ARRIVAL_WEIBULL, 2.0, 0.08 },
        { MOE_ARRIVAL_WEIBULL, 0.5, 0.02 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double mean_s = 0.0;
        double cv = 0.0;
        moe_arrival_options_default(&options);
        options.kind = cases[i].kind;
        options.cv = cases[i].cv;
        options.rate = 25.0;
        measure_gaps(&mean_s, &cv);
        cr_assert_float_eq(mean_s * 25.0, 1.0, 4.0 * cases[i].cv / sqrt(SAMPLE), "case %zu: %g", i,
                           mean_s * 25.0);
        cr_assert_float_eq(cv / cases[i].cv, 1.0, cases[i].off, "case %zu: cv %g", i, cv);
        moe_arrival_source_finish(&source);
    }
}

/* One seed: the same requests and gaps at every rate, in proportion. */
Test(arrival, a_rate_moves_no_draw)
{
    options.kind = MOE_ARRIVAL_GAMMA;
    options.cv = 2.0;
    options.rate = 4.0;
    struct moe_arrival_options faster = options;
    struct moe_arrival_source second = { 0 };
    faster.rate = 8.0;
    const struct moe_arrival_setup from = {
        .options = &faster, .trace = trace, .plan_share = 0.2, .passes = 1
    };
    cr_assert_eq(make_source(1, NULL), MOE_OK);
    cr_assert_eq(moe_arrival_source_init(&second, &from, NULL), MOE_OK);
    struct moe_arrival_stream slow = open_stream(3);
    struct moe_arena own = { 0 };
    struct moe_arrival_stream fast;
    cr_assert_eq(moe_arena_init(&own, (size_t) 1 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_arrival_stream_init(&fast, &second, trace, 3, &own, NULL), MOE_OK);
    for (uint32_t i = 0; i < 160; i++) {
        const struct moe_arrival *a = moe_arrival_peek(&slow);
        const struct moe_arrival *b = moe_arrival_peek(&fast);
        cr_assert(a != NULL && b != NULL);
        cr_assert_eq(a->request, b->request);
        cr_assert(a->scored && b->scored);
        cr_assert_geq(a->request, 40u); /* never one of the planning set */
        cr_assert_float_eq((double) a->arrival_ns, 2.0 * (double) b->arrival_ns, 3.0);
        moe_arrival_take(&slow);
        moe_arrival_take(&fast);
    }
    cr_assert_null(moe_arrival_peek(&slow));
    moe_arrival_source_finish(&second);
    moe_arena_finish(&own);
}

/* Every row of every length against the definition, row by row. */
Test(arrival, routes_repeat_within_their_phase)
{
    for (uint32_t p = 1; p <= 4; p++) {
        for (uint32_t o = 1; o <= 4; o++) {
            const struct moe_trace_request from = { .first_row = 100,
                                                    .prompt_tokens = p,
                                                    .output_tokens = o };
            const struct moe_arrival a = { .prompt_tokens = 9, .output_tokens = 8 };
            for (uint32_t row = 0; row < 16; row++) {
                uint64_t got = 0;
                uint32_t count = 0;
                moe_arrival_route(&a, &from, row, &got, &count);
                cr_assert_geq(count, 1u);
                for (uint32_t i = 0; i < count; i++) {
                    const uint32_t at = row + i;
                    const uint64_t want = at < 9   ? 100 + at % p
                                          : o == 1 ? 100 + (at - 9) % p
                                                   : 100 + p + (at - 9) % (o - 1);
                    cr_assert_lt(at, 16u);
                    cr_assert_eq(got + i, want, "p %u, o %u, row %u", p, o, at);
                }
            }
        }
    }
}

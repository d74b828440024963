/* Arrivals from files and over time: recorded times that loop and scale, prefixes, schedules,
 * bursts, drift, priorities, lengths; and what is refused. */
#include <criterion/criterion.h>
#include <math.h>

#include "sim/arrival/arrival.h"
#include "tests/trace_fixture.h"

enum { REQUESTS = 60, PLANNED = 12, FILE_REQUESTS = 5 };

static struct moe_trace *trace;
static struct moe_arena arena;
static struct moe_arrival_source source;
static struct moe_arrival_options options;

/* 60 requests, at times that do not ascend: 1000 - 7 i ms for the last ones. */
static void store_routes(const char *path)
{
    const struct moe_trace_model model = fixture_model(1, 4, 1);
    const struct moe_trace_history history = { 0 };
    struct moe_trace_writer *writer = NULL;
    uint16_t rows[64] = { 0 };
    uint64_t hash = 0;
    cr_assert_eq(moe_trace_writer_open(&writer, path, false, &model, &history, NULL), MOE_OK);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        const struct moe_trace_request request = {
            .arrival_ns = i < 30 ? (int64_t) i * 1000000 : (int64_t) (1000 - 7 * i) * 1000000,
            .prompt_tokens = 2 + i % 5,
            .output_tokens = 1 + i % 3,
            .domain = i % 10 < 7 ? 0 : 1,
        };
        cr_assert_eq(moe_trace_writer_requests(writer, &request, 1, NULL), MOE_OK);
        cr_assert_eq(moe_trace_writer_rows(writer, rows, moe_trace_request_rows(&request), NULL),
                     MOE_OK);
    }
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, NULL), MOE_OK);
    cr_assert_not(moe_trace_writer_close(writer, MOE_OK));
}

static const int64_t file_ns[FILE_REQUESTS] = { 500, 500, 2500, 4500, 8500 };
static const uint32_t file_prompt[FILE_REQUESTS] = { 40, 40, 20, 9, 33 };

/* Five requests whose prompts have blocks of 8 tokens. */
static void store_arrivals(const char *path, bool with_times)
{
    static const int64_t blocks[FILE_REQUESTS][5] = {
        { 11, 12, 13, 14, 15 }, /* new */
        { 11, 12, 13, 14, 15 }, /* all of it: 40 tokens, of which one must run */
        { 11, 12, 77 },         /* two blocks */
        { 88, 12 },             /* none: 12 is a prefix only behind 11 */
        { 11, 12, 13, 14, 99 }, /* four: 32 of 33 tokens */
    };
    static const size_t counts[FILE_REQUESTS] = { 5, 5, 3, 2, 5 };
    struct moe_trace_model model = fixture_model(0, 0, 0);
    const struct moe_trace_history history = { 0 };
    struct moe_trace_writer *writer = NULL;
    uint64_t hash = 0;
    model.content = MOE_TRACE_ARRIVALS;
    model.group_count = 0;
    model.group_limit = 0;
    cr_assert_eq(moe_trace_writer_open(&writer, path, false, &model, &history, NULL), MOE_OK);
    for (uint32_t i = 0; i < FILE_REQUESTS; i++) {
        const struct moe_trace_request request = {
            .arrival_ns = with_times ? file_ns[i] * 1000000 : -1,
            .prompt_tokens = file_prompt[i],
            .output_tokens = 10 + i,
        };
        cr_assert_eq(moe_trace_writer_arrival(writer, &request, blocks[i], counts[i], 8, NULL),
                     MOE_OK);
    }
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, NULL), MOE_OK);
    cr_assert_not(moe_trace_writer_close(writer, MOE_OK));
}

static void setup(void)
{
    fixture_setup();
    store_routes(fixture_path("routes.db"));
    cr_assert_eq(moe_trace_open(&trace, fixture_path("routes.db"), NULL), MOE_OK);
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

TestSuite(arrival_source, .init = setup, .fini = teardown);

static enum moe_status make_source(uint32_t passes, struct moe_error *err)
{
    const struct moe_arrival_setup from = {
        .options = &options, .trace = trace, .plan_share = 0.2, .passes = passes
    };
    moe_arrival_source_finish(&source);
    MOE_TRY(moe_arrival_options_check(&options, err));
    return moe_arrival_source_init(&source, &from, err);
}

static struct moe_arrival_stream begin(uint32_t passes)
{
    struct moe_arrival_stream stream;
    struct moe_error err = { 0 };
    cr_assert_eq(make_source(passes, &err), MOE_OK, "%s", err.text);
    moe_arena_reset(&arena);
    cr_assert_eq(moe_arrival_stream_init(&stream, &source, trace, 1, &arena, NULL), MOE_OK);
    return stream;
}

/* The next arrival by value; asserts that there is one. */
static struct moe_arrival take(struct moe_arrival_stream *stream)
{
    const struct moe_arrival *next = moe_arrival_peek(stream);
    cr_assert_not_null(next);
    const struct moe_arrival a = *next;
    moe_arrival_take(stream);
    return a;
}

/* Only requests to score, by time, the first at 0, and each with its own routes; the second
 * pass begins one mean gap after the end of the first. */
Test(arrival_source, the_traces_own_times_are_sorted_and_repeat)
{
    moe_time_ns last[2] = { 0 };
    options.kind = MOE_ARRIVAL_TRACE;
    struct moe_arrival_stream stream = begin(2);
    const struct moe_trace_request *requests = moe_trace_requests(trace);
    const moe_time_ns span = (1000 - 7 * 30) * 1000000 - 12000000;
    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < REQUESTS - PLANNED; i++) {
            const struct moe_arrival a = take(&stream);
            const moe_time_ns own = requests[a.request].arrival_ns - 12000000;
            cr_assert_geq(a.request, (uint32_t) PLANNED);
            cr_assert_geq(a.arrival_ns, last[pass]);
            cr_assert_eq(a.arrival_ns, own + pass * (span + span / (REQUESTS - PLANNED - 1)));
            cr_assert_eq(a.prompt_tokens, requests[a.request].prompt_tokens);
            last[pass] = a.arrival_ns;
        }
    }
    cr_assert_null(moe_arrival_peek(&stream));
    cr_assert_not(source.is_stretched);
}

Test(arrival_source, a_file_loops_and_scales_and_keeps_its_lengths)
{
    store_arrivals(fixture_path("file.db"), true);
    options.kind = MOE_ARRIVAL_FILE;
    options.requests = 12;
    (void) snprintf(options.file, sizeof options.file, "%s", fixture_path("file.db"));
    struct moe_arrival_stream stream = begin(1);
    cr_assert(source.is_stretched);
    for (uint32_t i = 0; i < 12; i++) { /* 8 s, and 2 s of mean gap */
        const struct moe_arrival a = take(&stream);
        cr_assert_eq(a.arrival_ns, (file_ns[i % 5] - 500 + (int64_t) (i / 5) * 10000) * 1000000);
        cr_assert_eq(a.prompt_tokens, file_prompt[i % 5]);
        cr_assert_eq(a.output_tokens, 10 + i % 5);
    }
    cr_assert_null(moe_arrival_peek(&stream));
    cr_assert_float_eq(source.recorded_rate, 0.5, 1e-12); /* 5 in 10 s */
    options.rate = 2.0;
    options.duration_s = 4.0;
    stream = begin(1);
    for (uint32_t i = 0; i < 9; i++) { /* those before 4 s: a loop takes 2.5 s */
        cr_assert_eq(take(&stream).arrival_ns,
                     (file_ns[i % 5] - 500 + (int64_t) (i / 5) * 10000) * 1000000 / 4);
    }
    cr_assert_null(moe_arrival_peek(&stream));
    options.lengths = MOE_ARRIVAL_LENGTHS_TRACE;
    options.duration_s = 0.0;
    stream = begin(1);
    const struct moe_arrival a = take(&stream);
    cr_assert_eq(a.prompt_tokens, moe_trace_requests(trace)[a.request].prompt_tokens);
    cr_assert_not(source.is_stretched);
}

Test(arrival_source, prefixes_hit_as_far_as_an_earlier_prompt_went)
{
    static const uint32_t hits[FILE_REQUESTS] = { 0, 39, 16, 0, 32 };
    static const uint32_t groups[FILE_REQUESTS] = { 0, 0, 0, 1, 0 };
    store_arrivals(fixture_path("file.db"), true);
    options.kind = MOE_ARRIVAL_FILE;
    (void) snprintf(options.file, sizeof options.file, "%s", fixture_path("file.db"));
    struct moe_arrival_stream stream = begin(1);
    for (uint32_t i = 0; i < FILE_REQUESTS; i++) {
        const struct moe_arrival a = take(&stream);
        cr_assert_eq(a.hit_tokens, hits[i], "request %u: %u", i, a.hit_tokens);
        cr_assert_eq(a.prefix_group, groups[i], "request %u: %u", i, a.prefix_group);
    }
}

/* Arrivals in each second against the integral of the rate there: Poisson, so within five
 * standard deviations; none where the factor is 0. */
Test(arrival_source, a_schedule_gives_each_second_its_share)
{
    static const char *const points[] = { "0 1", "10 1", "10 0", "20 0", "30 4", "40 0" };
    static uint32_t seen[50];
    options.kind = MOE_ARRIVAL_POISSON;
    options.rate = 500.0;
    options.requests = 1 << 20;
    for (uint32_t i = 0; i < 6; i++) {
        (void) snprintf(options.schedule[options.schedule_count++], 32, "%s", points[i]);
    }
    struct moe_arrival_stream stream = begin(1);
    while (moe_arrival_peek(&stream) != NULL) {
        const moe_time_ns at = take(&stream).arrival_ns;
        cr_assert_lt(at, 40 * INT64_C(1000000000));
        seen[at / 1000000000]++;
    }
    for (uint32_t s = 0; s < 40; s++) {
        const double factor = s < 10   ? 1.0
                              : s < 20 ? 0.0
                              : s < 30 ? (s - 19.5) * 0.4
                                       : (39.5 - s) * 0.4;
        const double want = 500.0 * factor;
        cr_assert_float_eq(seen[s], want, 5.0 * sqrt(want), "second %u: %u, not %g", s, seen[s],
                           want);
    }
}

/* Silence between bursts; the long run has the rate. */
Test(arrival_source, bursts_hold_the_mean_rate)
{
    options.kind = MOE_ARRIVAL_BURSTS;
    options.rate = 10.0;
    options.requests = 200000;
    options.burst_on_s = 1.0;
    options.burst_off_s = 4.0;
    options.burst_share = 0.9;
    struct moe_arrival_stream stream = begin(1);
    double last = 0.0;
    double squares = 0.0;
    for (uint32_t i = 0; i < 200000; i++) {
        const double now = (double) take(&stream).arrival_ns * 1e-9;
        squares += (now - last) * (now - last);
        last = now;
    }
    cr_assert_float_eq(last, 20000.0, 0.06 * 20000.0);
    cr_assert_gt(squares / 200000.0 / 0.01 - 1.0, 2.0, "no burstier than Poisson");
}

Test(arrival_source, drift_moves_the_domains_and_priorities_have_their_shares)
{
    static uint32_t code[10];
    static uint32_t all[10];
    uint32_t classes[3] = { 0 };
    options.kind = MOE_ARRIVAL_POISSON;
    options.rate = 1000.0;
    options.requests = 10000;
    (void) snprintf(options.drift[0], 64, "0 code=1");
    (void) snprintf(options.drift[1], 64, "10 math=3 code=1");
    options.drift_count = 2;
    (void) snprintf(options.priorities[0], 8, "1");
    (void) snprintf(options.priorities[1], 8, "0");
    (void) snprintf(options.priorities[2], 8, "3");
    options.priority_count = 3;
    struct moe_arrival_stream stream = begin(1);
    while (moe_arrival_peek(&stream) != NULL) {
        const struct moe_arrival a = take(&stream);
        const uint32_t s = (uint32_t) (a.arrival_ns / 1000000000) % 10;
        cr_assert_geq(a.request, (uint32_t) PLANNED);
        cr_assert_eq(a.domain, moe_trace_requests(trace)[a.request].domain);
        code[s] += a.domain == 0;
        all[s]++;
        classes[a.priority]++;
    }
    for (uint32_t s = 0; s < 10; s++) { /* math's weight rises from 0 to 3 beside 1 */
        const double want = 1.0 / (1.0 + 0.3 * (s + 0.5));
        cr_assert_float_eq((double) code[s] / all[s], want, 0.08, "second %u", s);
    }
    cr_assert_eq(classes[1], 0);
    cr_assert_float_eq(classes[0] / 10000.0, 0.25, 0.02);
}

Test(arrival_source, lognormal_lengths_have_their_mean_and_variation)
{
    double sum = 0.0;
    double squares = 0.0;
    double outputs = 0.0;
    options.kind = MOE_ARRIVAL_POISSON;
    options.rate = 1.0;
    options.requests = 100000;
    options.lengths = MOE_ARRIVAL_LENGTHS_LOGNORMAL;
    options.prompt_tokens = 800.0;
    options.prompt_cv = 0.8;
    options.output_tokens = 17.4;
    options.output_cv = 0.0;
    struct moe_arrival_stream stream = begin(1);
    for (uint32_t i = 0; i < 100000; i++) {
        const struct moe_arrival a = take(&stream);
        sum += a.prompt_tokens;
        squares += (double) a.prompt_tokens * a.prompt_tokens;
        outputs += a.output_tokens;
    }
    const double mean = sum / 100000.0;
    cr_assert_float_eq(mean, 800.0, 10.0);
    cr_assert_float_eq(sqrt(squares / 100000.0 - mean * mean) / mean, 0.8, 0.04);
    cr_assert_eq(outputs, 1700000.0);
}

/* The survey is the stream. */
Test(arrival_source, a_survey_counts_what_comes)
{
    struct moe_arrival_survey survey;
    store_arrivals(fixture_path("file.db"), true);
    options.kind = MOE_ARRIVAL_FILE;
    (void) snprintf(options.file, sizeof options.file, "%s", fixture_path("file.db"));
    cr_assert_eq(make_source(1, NULL), MOE_OK);
    cr_assert_eq(moe_arrival_survey(&source, trace, 1, &arena, &survey, NULL), MOE_OK);
    cr_assert_eq(survey.count, 5);
    cr_assert_eq(survey.longest_tokens, 51);
    cr_assert_eq(survey.prompt_tokens, 142);
    cr_assert_eq(survey.output_tokens, 60);
    cr_assert_eq(survey.hit_tokens, 87);
    cr_assert_eq(survey.last_ns, 8000 * INT64_C(1000000));
    cr_assert_eq(moe_arrival_warmup(&source, 100), 1);
}

static void expect_refused(const char *text)
{
    struct moe_error err = { 0 };
    cr_expect_eq(make_source(1, &err), MOE_RANGE, "not refused: %s", text);
    cr_expect_not_null(strstr(err.text, text), "'%s' for '%s'", err.text, text);
    cr_expect_null(source.recorded);
    moe_arrival_options_default(&options);
    options.kind = MOE_ARRIVAL_POISSON;
    options.rate = 1.0;
}

static void set_point(char (*list)[MOE_ARRIVAL_POINT_BYTES], uint32_t *count, const char *text)
{
    (void) snprintf(list[(*count)++], MOE_ARRIVAL_POINT_BYTES, "%s", text);
}

Test(arrival_source, refused_with_the_reason)
{
    options.rate = 3.0;
    expect_refused("arrivals.rate: has no meaning with arrivals.kind closed");
    options.rate = 0.0;
    expect_refused("arrivals.rate: kind poisson needs requests per second above 0");
    options.kind = MOE_ARRIVAL_FILE;
    expect_refused("arrivals.file: none is named");
    (void) snprintf(options.file, 8, "x.db");
    expect_refused("arrivals.file: has no meaning with arrivals.kind poisson; it needs kind file");
    options.kind = MOE_ARRIVAL_TRACE;
    set_point(options.schedule, &options.schedule_count, "0 1");
    expect_refused("arrivals.schedule: has no meaning with arrivals.kind trace");
    set_point(options.schedule, &options.schedule_count, "1 1");
    expect_refused("arrivals.schedule: '1 1' is at 1 s; the first point must be at 0");
    set_point(options.schedule, &options.schedule_count, "0 1");
    set_point(options.schedule, &options.schedule_count, "5 x");
    expect_refused("arrivals.schedule: '5 x' is not SECONDS FACTOR");
    set_point(options.schedule, &options.schedule_count, "0 0");
    expect_refused("all factors are 0");
    set_point(options.drift, &options.drift_count, "0 code");
    expect_refused("arrivals.drift: 'code' is not DOMAIN=WEIGHT");
    set_point(options.drift, &options.drift_count, "0 code=0");
    expect_refused("gives no domain a weight above 0");
    set_point(options.drift, &options.drift_count, "0 chat=1");
    expect_refused("arrivals.drift: domain 'chat' is not in");
    set_point(options.drift, &options.drift_count, "0 prose=1");
    expect_refused("arrivals.drift: domain 'prose' has no request to score");
    (void) snprintf(options.priorities[0], 8, "-1");
    options.priority_count = 1;
    expect_refused("arrivals.priorities: '-1' is not a share");
    store_arrivals(fixture_path("untimed.db"), false);
    options.kind = MOE_ARRIVAL_FILE;
    options.rate = 0.0;
    (void) snprintf(options.file, sizeof options.file, "%s", fixture_path("untimed.db"));
    expect_refused("request 0 has no arrival time");
}

/* The first draws of every kind to the nanosecond: the same on every machine and for ever. */
Test(arrival_source, draws_are_reproducible_to_the_byte)
{
    static const moe_time_ns golden[4][3] = {
        { 675357687, 811627561, 834406497 },
        { 432188, 596094130, 4619456185 },
        { 410517242, 423429842, 423700273 },
        { 2026073062, 2434882683, 2503219493 },
    };
    static const enum moe_arrival_kind kinds[4] = { MOE_ARRIVAL_POISSON, MOE_ARRIVAL_GAMMA,
                                                    MOE_ARRIVAL_WEIBULL, MOE_ARRIVAL_BURSTS };
    options.rate = 2.0;
    options.cv = 2.5;
    for (uint32_t k = 0; k < 4; k++) {
        options.kind = kinds[k];
        struct moe_arrival_stream stream = begin(1);
        for (uint32_t i = 0; i < 3; i++) {
            const moe_time_ns at = take(&stream).arrival_ns;
            cr_expect_eq(at, golden[k][i], "kind %u, arrival %u: %lld", k, i, (long long) at);
        }
    }
}

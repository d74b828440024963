#include <math.h>

#include "tests/trace_fixture.h"
#include "traces/trace_stats.h"

TestSuite(trace_stats, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

enum { LAYERS = 4, EXPERTS = 12, TOP_K = 3, REQUESTS = 150, UNKNOWN_EVERY = 20 };

/* The slow twin: loads by phase and domain, straight from the definition of the trace. */
struct twin {
    double load[LAYERS][EXPERTS];
    double phase[2][LAYERS][EXPERTS];
    double domain[3][LAYERS][EXPERTS];
    uint64_t unknown;
    uint64_t rows;
};

static void count_twin(struct twin *twin, const struct moe_trace_model *model)
{
    uint64_t index = 0;
    for (uint64_t i = 0; i < REQUESTS; i++) {
        const struct moe_trace_request request = fixture_request(i);
        for (uint64_t row = 0; row < moe_trace_request_rows(&request); row++) {
            const int decode = row >= request.prompt_tokens;
            twin->rows++;
            for (uint64_t j = 0; j < (uint64_t) LAYERS * TOP_K; j++, index++) {
                const uint16_t expert = fixture_choice(model, index, UNKNOWN_EVERY);
                if (expert == MOE_EXPERT_UNKNOWN) {
                    twin->unknown++;
                    continue;
                }
                twin->load[j / TOP_K][expert] += 1;
                twin->phase[decode][j / TOP_K][expert] += 1;
                twin->domain[request.domain][j / TOP_K][expert] += 1;
            }
        }
    }
}

static double sum_of(const double *values)
{
    double sum = 0.0;
    for (int i = 0; i < EXPERTS; i++) {
        sum += values[i];
    }
    return sum;
}

static double peak(const double *load)
{
    double max = 0.0;
    for (int i = 0; i < EXPERTS; i++) {
        max = fmax(max, load[i]);
    }
    return max * EXPERTS / sum_of(load);
}

/* Pearson's r by its textbook formula. */
static double correlate(const double *x, const double *y)
{
    const double mx = sum_of(x) / EXPERTS;
    const double my = sum_of(y) / EXPERTS;
    double xy = 0.0;
    double xx = 0.0;
    double yy = 0.0;
    for (int i = 0; i < EXPERTS; i++) {
        xy += (x[i] - mx) * (y[i] - my);
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
    }
    return xy / sqrt(xx * yy);
}

static void check_near(double got, double wanted, const char *what)
{
    cr_expect_float_eq(got, wanted, 1e-12 * fmax(1.0, fabs(wanted)), "%s: %.17g, not %.17g", what,
                       got, wanted);
}

static void check_layer(const struct moe_trace_stats *stats, const struct twin *twin, int layer)
{
    const struct moe_trace_layer_stats *got = &stats->layers[layer];
    const double *load = twin->load[layer];
    const double total = sum_of(load);
    double squares = 0.0;
    double entropy = 0.0;
    for (int i = 0; i < EXPERTS; i++) {
        squares += (load[i] - total / EXPERTS) * (load[i] - total / EXPERTS);
        entropy -= load[i] / total * log(load[i] / total) / log(EXPERTS);
        cr_expect_eq(stats->load[layer * EXPERTS + i], load[i]);
    }
    check_near(got->max_over_mean, peak(load), "max/mean");
    check_near(got->balance, 1.0 / peak(load), "balance");
    check_near(got->variation, sqrt(squares / EXPERTS) * EXPERTS / total, "variation");
    check_near(got->entropy, entropy, "entropy");
    check_near(got->phase_correlation, correlate(twin->phase[0][layer], twin->phase[1][layer]),
               "correlation");
}

Test(trace_stats, equals_a_plain_count)
{
    const struct moe_trace_model model = fixture_model(LAYERS, EXPERTS, TOP_K);
    static struct twin twin;
    struct moe_trace_stats stats = { 0 };
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    (void) fixture_store(fixture_path("t.db"), &model, REQUESTS, UNKNOWN_EVERY);
    count_twin(&twin, &model);
    cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_stats_compute(&stats, trace, NULL, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(stats.prefill_rows + stats.decode_rows, twin.rows);
    cr_assert_eq(stats.unknown_count, twin.unknown);
    cr_assert_eq(stats.choice_count, twin.rows * LAYERS * TOP_K);
    double mean = 0.0;
    for (int layer = 0; layer < LAYERS; layer++) {
        check_layer(&stats, &twin, layer);
        mean += stats.layers[layer].phase_correlation / LAYERS;
    }
    check_near(stats.mean.phase_correlation, mean, "mean correlation");
    for (int domain = 0; domain < 2; domain++) {
        double sum = 0.0;
        for (int layer = 0; layer < LAYERS; layer++) {
            sum += peak(twin.domain[domain][layer]) / LAYERS;
        }
        check_near(stats.domains[domain].max_over_mean, sum, "domain");
    }
    cr_assert_eq(stats.domains[2].row_count, 0);
    cr_assert(isnan(stats.domains[2].max_over_mean));
    cr_assert_eq(stats.domains[0].request_count + stats.domains[1].request_count, REQUESTS);
    moe_trace_stats_finish(&stats);
    moe_trace_close(trace);
}

Test(trace_stats, curve_is_sorted_and_keeps_the_mean)
{
    double load[12] = { 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 4 }; /* mean 4 */
    const struct moe_trace_stats stats = { .layer_count = 1, .expert_count = 12, .load = load };
    double points[12];
    cr_assert_eq(moe_trace_stats_curve(&stats, 0, points, 12, NULL), MOE_OK);
    check_near(points[0], 9.0 / 4.0, "largest");
    check_near(points[11], 1.0 / 4.0, "smallest");
    cr_assert_eq(moe_trace_stats_curve(&stats, 0, points, 5, NULL), MOE_OK);
    /* Ranks 0-1, 2-3, 4-6, 7-8, 9-11 of 9 6 5 5 5 4 4 3 3 2 1 1. */
    check_near(points[0], 7.5 / 4.0, "first share");
    check_near(points[2], 13.0 / 3.0 / 4.0, "third share");
    check_near(points[4], 4.0 / 3.0 / 4.0, "last share");
}

Test(trace_stats, says_that_a_correlation_does_not_exist)
{
    const struct moe_trace_model model = fixture_model(1, 4, 1);
    const struct moe_trace_history history = { 0 };
    const struct moe_trace_request request = { .prompt_tokens = 3, .output_tokens = 1 };
    const uint16_t rows[3] = { 0, 1, 0 };
    struct moe_trace_writer *writer = NULL;
    struct moe_trace_stats stats = { 0 };
    struct moe_trace *trace = NULL;
    uint64_t hash = 0;
    const char *path = fixture_path("t.db");
    cr_assert_eq(moe_trace_writer_open(&writer, path, false, &model, &history, NULL), MOE_OK);
    cr_assert_eq(moe_trace_writer_requests(writer, &request, 1, NULL), MOE_OK);
    cr_assert_eq(moe_trace_writer_rows(writer, rows, 3, NULL), MOE_OK);
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, NULL), MOE_OK);
    (void) moe_trace_writer_close(writer, MOE_OK);
    cr_assert_eq(moe_trace_open(&trace, path, NULL), MOE_OK);
    cr_assert_eq(moe_trace_stats_compute(&stats, trace, NULL, NULL), MOE_OK);
    cr_assert(isnan(stats.layers[0].phase_correlation));
    cr_assert(isnan(stats.mean.phase_correlation));
    check_near(stats.layers[0].max_over_mean, 8.0 / 3.0, "max/mean");
    moe_trace_stats_finish(&stats);
    moe_trace_close(trace);
}

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/random.h"
#include "traces/generate/choice_draw.h"
#include "traces/generate/generate.h"
#include "traces/generate/routing_model.h"
#include "traces/trace_stats.h"

static char folder[64];

static void open_folder(void)
{
    (void) snprintf(folder, sizeof folder, "/tmp/moesim_generate_XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
}

static void close_folder(void)
{
    static const char *const names[] = { "a.db", "b.db", "m.json", "n.json", "loads.json" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void) remove(names[i]);
    }
    cr_assert_eq(rmdir(folder), 0, "%s holds more than was asked for", folder);
}

TestSuite(generate, .init = open_folder, .fini = close_folder);

/* --- choices ------------------------------------------------------------------------------- */

Test(generate, probabilities_share_what_is_capped)
{
    const double weights[4] = { 8, 1, 1, 0 };
    const double expected[4] = { 1, 0.5, 0.5, 0 };
    double p[4];
    moe_choice_probabilities(weights, 4, 2, p);
    for (int i = 0; i < 4; i++) {
        cr_assert_float_eq(p[i], expected[i], 1e-12);
    }
    moe_choice_probabilities(weights, 4, 3, p);
    cr_assert_float_eq(p[2], 1.0, 1e-12);
    cr_assert_float_eq(p[3], 0.0, 1e-12);
    moe_choice_probabilities(weights, 4, 4, p); /* one more than there are weights */
    cr_assert_float_eq(p[3], 1.0, 1e-12);
}

/* Draws n times; what came is distinct, keeps the group limit, and comes as often as asked. */
static void draw_many(const struct moe_choice_shape *shape, const float *p, uint64_t key,
                      double errors)
{
    enum { DRAWS = 40000 };
    double *seen = calloc(shape->expert_count, sizeof *seen);
    const uint32_t size = shape->expert_count / shape->group_count;
    cr_assert_not_null(seen);
    for (uint64_t i = 0; i < DRAWS; i++) {
        const struct moe_generate_row row = { .key = moe_generate_row_key(key, 7, i) };
        uint64_t bits[3];
        uint16_t out[64];
        bool used[64] = { false };
        uint32_t groups = 0;
        moe_generate_bits(&row, 3, bits);
        moe_choice_draw(shape, p, bits, out);
        for (uint32_t k = 0; k < shape->top_k; k++) {
            cr_assert_lt(out[k], shape->expert_count);
            for (uint32_t j = 0; j < k; j++) {
                cr_assert_neq(out[k], out[j]);
            }
            groups += !used[out[k] / size];
            used[out[k] / size] = true;
            seen[out[k]] += 1.0;
        }
        cr_assert_leq(groups, shape->group_limit);
    }
    for (uint32_t i = 0; i < shape->expert_count; i++) {
        const double wanted = (double) p[i] * DRAWS;
        const double error = sqrt(wanted * (1.0 - (double) p[i])) + 0.5;
        cr_assert_lt(fabs(seen[i] - wanted), errors * error, "expert %u of %u: %g, not %g", i,
                     shape->expert_count, seen[i], wanted);
    }
    free(seen);
}

Test(generate, experts_come_as_often_as_asked)
{
    const struct moe_choice_shape shapes[] = {
        { 8, 1, 1, 1 },  { 64, 6, 1, 1 }, { 60, 4, 1, 1 }, { 256, 8, 8, 4 },
        { 64, 8, 4, 2 }, { 48, 3, 8, 2 }, { 1, 1, 1, 1 },
    };
    for (uint64_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const uint64_t key = moe_random_key(i, MOE_RANDOM_TEST);
        double weights[256];
        double p[256];
        float probability[256];
        for (uint32_t e = 0; e < shapes[i].expert_count; e++) {
            weights[e] = 1.0 + moe_random_uniform(key, e); /* mild: exact under group limits */
            weights[e] *= shapes[i].group_count == 1 && e % 5 == 0 ? 6.0 : 1.0;
        }
        moe_choice_probabilities(weights, shapes[i].expert_count, shapes[i].top_k, p);
        for (uint32_t e = 0; e < shapes[i].expert_count; e++) {
            probability[e] = (float) p[e];
        }
        draw_many(&shapes[i], probability, key, 5.0);
    }
}

/* --- workloads ----------------------------------------------------------------------------- */

static const struct moe_generator *named(const char *name)
{
    const struct moe_generator *generator = NULL;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_generator_find(name, &generator, &err), MOE_OK, "%s", err.text);
    return generator;
}

static struct moe_generate_result
generate(const char *name, const struct moe_generate_options *options, const char *path)
{
    struct moe_generate_result result = { 0 };
    struct moe_error err = { 0 };
    (void) remove(path);
    cr_assert_eq(moe_generate(named(name), options, path, false, NULL, &result, &err), MOE_OK,
                 "%s: %s", name, err.text);
    return result;
}

/* All rows of a store, to be freed. */
static uint16_t *rows_of(const char *path, struct moe_trace_model *model,
                         struct moe_trace_request *last)
{
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_trace_open(&trace, path, &err), MOE_OK, "%s", err.text);
    *model = *moe_trace_model(trace);
    *last = moe_trace_requests(trace)[moe_trace_request_count(trace) - 1];
    const uint64_t rows = moe_trace_row_count(trace);
    uint16_t *out = malloc((size_t) rows * model->layer_count * model->top_k * sizeof *out);
    cr_assert_not_null(out);
    cr_assert_eq(moe_trace_read(trace, 0, rows, out, &err), MOE_OK, "%s", err.text);
    moe_trace_close(trace);
    return out;
}

enum { STEPS = 40, STEP_TOKENS = 64, LAYERS = 2, EXPERTS = 32, TOP_K = 4 };

static const struct moe_generate_options small = { .seed = 5,
                                                   .layer_count = LAYERS,
                                                   .expert_count = EXPERTS,
                                                   .top_k = TOP_K,
                                                   .step_count = STEPS,
                                                   .step_tokens = STEP_TOKENS,
                                                   .rank_count = 4 };

/* Counts of one layer over steps first .. end - 1. */
static void count_steps(const uint16_t *rows, uint32_t layer, uint32_t first, uint32_t end,
                        uint32_t *counts)
{
    memset(counts, 0, EXPERTS * sizeof *counts);
    for (uint32_t row = first * STEP_TOKENS; row < end * STEP_TOKENS; row++) {
        for (uint32_t k = 0; k < TOP_K; k++) {
            counts[rows[((size_t) row * LAYERS + layer) * TOP_K + k]]++;
        }
    }
}

/* Choices that go to the experts of each of 4 ranks. */
static void count_ranks(const uint32_t *counts, uint32_t *ranks)
{
    memset(ranks, 0, 4 * sizeof *ranks);
    for (uint32_t i = 0; i < EXPERTS; i++) {
        ranks[i / (EXPERTS / 4)] += counts[i];
    }
}

static uint32_t hottest(const uint32_t *counts, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        best = counts[i] > counts[best] ? i : best;
    }
    return best;
}

Test(generate, a_row_depends_on_workload_seed_step_and_token_alone)
{
    static const char *const same_under_ranks[] = { "w0_balanced", "w1_hot_experts",
                                                    "w4_ragged_source" };
    for (size_t i = 0; i < sizeof same_under_ranks / sizeof same_under_ranks[0]; i++) {
        struct moe_generate_options options = small;
        struct moe_trace_model model;
        struct moe_trace_request last;
        const struct moe_generate_result first = generate(same_under_ranks[i], &options, "a.db");
        uint16_t *a = rows_of("a.db", &model, &last);
        const size_t bytes = (size_t) STEPS * STEP_TOKENS * LAYERS * TOP_K * sizeof *a;
        options.rank_count = 2;
        (void) generate(same_under_ranks[i], &options, "b.db");
        uint16_t *b = rows_of("b.db", &model, &last);
        cr_assert_eq(memcmp(a, b, bytes), 0, "%s", same_under_ranks[i]);
        free(b);
        /* Fewer steps are the first ones. */
        options = small;
        options.step_count = 3;
        (void) generate(same_under_ranks[i], &options, "b.db");
        b = rows_of("b.db", &model, &last);
        cr_assert_eq(memcmp(a, b, bytes / STEPS * 3), 0, "%s", same_under_ranks[i]);
        free(b);
        options = small;
        cr_assert_eq(generate(same_under_ranks[i], &options, "b.db").hash, first.hash);
        options.seed = 6;
        cr_assert_neq(generate(same_under_ranks[i], &options, "b.db").hash, first.hash);
        free(a);
    }
}

Test(generate, each_workload_does_its_one_thing)
{
    size_t count = 0;
    const struct moe_generator *const *generators = moe_generators(&count);
    for (size_t i = 0; i < count; i++) {
        const char *name = generators[i]->name;
        struct moe_trace_model model;
        struct moe_trace_request last;
        uint32_t all[EXPERTS];
        uint32_t ranks[4];
        uint32_t part[4];
        if (name[0] != 'w') {
            continue;
        }
        (void) generate(name, &small, "a.db");
        uint16_t *rows = rows_of("a.db", &model, &last);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            const uint32_t total = STEPS * STEP_TOKENS * TOP_K;
            count_steps(rows, layer, 0, STEPS, all);
            count_ranks(all, ranks);
            const uint32_t hot_rank = hottest(ranks, 4);
            switch (name[1]) {
            case '0':
            case '4':
                cr_assert_eq(all[hottest(all, EXPERTS)], total / EXPERTS, "%s", name);
                break;
            case '1':
                cr_assert_gt(all[hottest(all, EXPERTS)], 3 * total / EXPERTS, "%s", name);
                break;
            case '2':
                cr_assert_float_eq((double) ranks[hot_rank] / total, 0.5, 0.03, "%s", name);
                break;
            case '3':
                cr_assert_float_eq((double) ranks[hot_rank] / total, 0.25, 0.03, "%s", name);
                cr_assert_gt(all[hottest(all, EXPERTS)], 3 * total / EXPERTS / 2, "%s", name);
                break;
            case '5':
                for (uint32_t rank = 0, empty = 0; rank < 4; rank++) {
                    empty += ranks[rank] == 0;
                    cr_assert(rank < 3 || empty == 1, "%s", name);
                }
                break;
            case '6':
                count_steps(rows, layer, 0, 16, all);
                count_ranks(all, ranks);
                count_steps(rows, layer, 16, 32, all);
                count_ranks(all, part);
                cr_assert_eq(hottest(part, 4), (hottest(ranks, 4) + 1) % 4, "%s", name);
                break;
            default:
                count_steps(rows, layer, 0, 8, all);
                cr_assert_eq(all[hottest(all, EXPERTS)], 8 * STEP_TOKENS * TOP_K / EXPERTS);
                count_steps(rows, layer, 8, 12, all);
                count_ranks(all, part);
                cr_assert_gt(part[hottest(part, 4)], 4 * STEP_TOKENS * TOP_K * 2 / 5, "%s", name);
                break;
            }
        }
        cr_assert_eq(last.prompt_tokens, name[1] == '4' ? 8u : 16u, "%s: %u", name,
                     last.prompt_tokens);
        free(rows);
    }
}

Test(generate, zipf_meets_its_target)
{
    for (int i = 0; i < 3; i++) {
        struct moe_generate_options options = { .seed = 3,
                                                .layer_count = 2,
                                                .expert_count = 64,
                                                .top_k = i == 2 ? 1 : 6,
                                                .request_count = 400,
                                                .max_over_mean = i == 0 ? 1.0 : 1.5 + 2.0 * i };
        struct moe_trace *trace = NULL;
        struct moe_trace_stats stats;
        struct moe_error err = { 0 };
        (void) generate("zipf", &options, "a.db");
        cr_assert_eq(moe_trace_open(&trace, "a.db", &err), MOE_OK, "%s", err.text);
        cr_assert_eq(moe_trace_stats_compute(&stats, trace, NULL, &err), MOE_OK, "%s", err.text);
        cr_assert_float_eq(stats.mean.max_over_mean / options.max_over_mean, 1.0, 0.05, "%g",
                           stats.mean.max_over_mean);
        moe_trace_stats_finish(&stats);
        moe_trace_close(trace);
    }
}

/* The shares of a load file come back, in the file's layers that are not dense. */
Test(generate, loads_are_met)
{
    static const double shares[2][4] = { { 10, 30, 40, 20 }, { 25, 25, 5, 45 } };
    struct moe_generate_options options = {
        .seed = 1, .input = "loads.json", .top_k = 2, .request_count = 100
    };
    struct moe_trace *trace = NULL;
    struct moe_trace_stats stats;
    struct moe_error err = { 0 };
    FILE *file = fopen("loads.json", "w");
    cr_assert_not_null(file);
    (void) fputs("{\"logical_count\": [[0, 0, 0, 0], [10, 30, 40, 20], [25, 25, 5, 45]]}", file);
    cr_assert_eq(fclose(file), 0);
    (void) generate("loads", &options, "a.db");
    cr_assert_eq(moe_trace_open(&trace, "a.db", &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_stats_compute(&stats, trace, NULL, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(stats.layer_count, 2);
    for (int layer = 0; layer < 2; layer++) {
        for (int i = 0; i < 4; i++) {
            cr_assert_float_eq(stats.load[layer * 4 + i] / (2.0 * 100 * 319),
                               shares[layer][i] / 100, 0.005);
        }
    }
    moe_trace_stats_finish(&stats);
    moe_trace_close(trace);
}

static void expect_refused(const char *name, const struct moe_generate_options *options,
                           const char *words)
{
    struct moe_generate_result result;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_generate(named(name), options, "a.db", false, NULL, &result, &err), MOE_RANGE,
                 "%s: %s", name, err.text);
    cr_assert_not_null(strstr(err.text, words), "'%s' lacks '%s'", err.text, words);
    cr_assert_neq(access("a.db", F_OK), 0, "a refused workload left a store");
}

Test(generate, what_does_not_fit_is_refused)
{
    const struct moe_generator *generator = NULL;
    struct moe_generate_options options = small;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_generator_find("nonesuch", &generator, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "zipf"), "%s", err.text);
    options.rank_count = 5;
    expect_refused("w2_hot_rank", &options, "do not divide over 5 ranks");
    options = small;
    options.heat = 0.5;
    expect_refused("w0_balanced", &options, "no use for --heat");
    options.heat = 1.0;
    expect_refused("w1_hot_experts", &options, "below 1");
    options = small;
    options.group_count = 4;
    expect_refused("w0_balanced", &options, "no use for --groups");
    options = (struct moe_generate_options){
        .layer_count = 1, .expert_count = 8, .top_k = 2, .request_count = 1, .max_over_mean = 4.0
    };
    expect_refused("zipf", &options, "to below 8 / 2 = 4");
    options.max_over_mean = 0.5;
    expect_refused("zipf", &options, "--max-over-mean 0.5");
    options.max_over_mean = 2.0;
    options.group_count = 3;
    expect_refused("zipf", &options, "do not divide");
    options.group_count = 0;
    options.top_k = 0;
    expect_refused("zipf", &options, "--top-k is needed");
}

/* --- fitted -------------------------------------------------------------------------------- */

static void fit_sample(struct moe_routing_model *model, uint32_t classes)
{
    const struct moe_routing_fit_options options = { classes, 20000, 1, NULL };
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    const char *path = MOE_SOURCE_ROOT "/results/quickstart/group256-sample.trace.db";
    cr_assert_eq(moe_trace_open(&trace, path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_routing_fit(model, trace, &options, &err), MOE_OK, "%s", err.text);
    moe_trace_close(trace);
}

static char *text_of(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, 8 << 20);
    cr_assert_not_null(file);
    cr_assert_not_null(text);
    cr_assert_gt(fread(text, 1, (8 << 20) - 1, file), 0);
    (void) fclose(file);
    return text;
}

/* Correlation of two loads[count]. */
static double correlation(const double *a, const double *b, size_t count)
{
    double sa = 0.0;
    double sb = 0.0;
    double saa = 0.0;
    double sbb = 0.0;
    double sab = 0.0;
    for (size_t i = 0; i < count; i++) {
        sa += a[i];
        sb += b[i];
    }
    for (size_t i = 0; i < count; i++) {
        const double x = a[i] - sa / (double) count;
        const double y = b[i] - sb / (double) count;
        saa += x * x;
        sbb += y * y;
        sab += x * y;
    }
    return sab / sqrt(saa * sbb);
}

Test(generate, a_fitted_trace_is_like_its_original)
{
    struct moe_routing_model model;
    struct moe_trace *traces[2] = { NULL };
    struct moe_trace_stats stats[2];
    struct moe_error err = { 0 };
    fit_sample(&model, 24);
    cr_assert_eq(moe_routing_model_write(&model, "m.json", false, &err), MOE_OK, "%s", err.text);
    moe_routing_model_finish(&model);
    const struct moe_generate_options options = { .seed = 2,
                                                  .input = "m.json",
                                                  .request_count = 2000 };
    (void) generate("fitted", &options, "a.db");
    const char *paths[2] = { MOE_SOURCE_ROOT "/results/quickstart/group256-sample.trace.db",
                             "a.db" };
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(moe_trace_open(&traces[i], paths[i], &err), MOE_OK, "%s", err.text);
        cr_assert_eq(moe_trace_stats_compute(&stats[i], traces[i], NULL, &err), MOE_OK);
    }
    const size_t experts = stats[0].expert_count;
    cr_assert_float_eq(stats[1].mean.max_over_mean, stats[0].mean.max_over_mean, 0.1, "%g %g",
                       stats[1].mean.max_over_mean, stats[0].mean.max_over_mean);
    cr_assert_float_eq(stats[1].mean.variation, stats[0].mean.variation, 0.02);
    cr_assert_float_eq(stats[1].mean.phase_correlation, stats[0].mean.phase_correlation, 0.06,
                       "%g %g", stats[1].mean.phase_correlation, stats[0].mean.phase_correlation);
    for (size_t layer = 0; layer < stats[0].layer_count; layer++) {
        cr_assert_gt(
            correlation(stats[0].load + layer * experts, stats[1].load + layer * experts, experts),
            0.95);
    }
    for (uint32_t domain = 0; domain < stats[0].domain_count; domain++) {
        const struct moe_trace_domain_stats *d[2] = { &stats[0].domains[domain],
                                                      &stats[1].domains[domain] };
        cr_assert_float_eq(d[1]->max_over_mean / d[0]->max_over_mean, 1.0, 0.1, "domain %u: %g %g",
                           domain, d[1]->max_over_mean, d[0]->max_over_mean);
    }
    for (int i = 0; i < 2; i++) {
        moe_trace_stats_finish(&stats[i]);
        moe_trace_close(traces[i]);
    }
}

Test(generate, a_model_is_read_back_and_written_the_same)
{
    struct moe_routing_model model;
    struct moe_routing_model back;
    struct moe_error err = { 0 };
    fit_sample(&model, 3);
    cr_assert_eq(moe_routing_model_write(&model, "m.json", false, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_routing_model_read(&back, "m.json", &err), MOE_OK, "%s", err.text);
    cr_assert_eq(back.class_count, 3);
    cr_assert_eq(back.source_hash, model.source_hash);
    cr_assert_str_eq(back.model.domains[0], model.model.domains[0]);
    cr_assert_float_eq(back.concentration, model.concentration, 1e-4 * model.concentration);
    const size_t cells = (size_t) model.model.layer_count * model.model.expert_count;
    for (size_t i = 0; i < 3 * cells; i++) {
        cr_assert_float_eq(back.class_popularity[i], model.class_popularity[i], 2e-6);
    }
    moe_routing_model_finish(&model);
    moe_routing_model_finish(&back);
}

/* A model of two unlike classes whose shares, drift, repetition and lengths are known. */
static void write_planted(const char *path)
{
    struct moe_routing_model model = { .model = { .name = "planted",
                                                  .layer_count = 2,
                                                  .expert_count = 8,
                                                  .top_k = 2,
                                                  .group_count = 1,
                                                  .group_limit = 1,
                                                  .domain_count = 1,
                                                  .domains = { "all" } },
                                       .request_count = 4000,
                                       .class_count = 2,
                                       .concentration = 6.0,
                                       .slot_count = 12 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_routing_model_allocate(&model, &err), MOE_OK);
    model.domains[0].share = 1.0;
    model.domains[0].length_correlation = -0.6;
    for (int i = 0; i < MOE_ROUTING_QUANTILES; i++) {
        model.domains[0].prompt_tokens[i] = 20 + i;
        model.domains[0].output_tokens[i] = 1 + 2 * i;
    }
    for (size_t phase = 0; phase < 2; phase++) {
        model.class_share[phase * 2] = 0.3;
        model.class_share[phase * 2 + 1] = 0.7;
        for (size_t i = 0; i < 16; i++) {
            const bool low = i % 8 < 4; /* class 0 takes mostly experts 0 to 3 */
            model.class_popularity[i] = low ? 0.22 : 0.03;
            model.class_popularity[16 + i] = low ? 0.03 : 0.22;
            model.popularity[phase * 16 + i] =
                low ? 0.3 * 0.22 + 0.7 * 0.03 : 0.3 * 0.03 + 0.7 * 0.22;
        }
    }
    model.class_drift[0] = 1.0;
    model.class_drift[1] = -1.0;
    model.repetition[0] = 0.2;
    model.repetition[1] = 0.9;
    cr_assert_eq(moe_routing_model_write(&model, path, false, &err), MOE_OK, "%s", err.text);
    moe_routing_model_finish(&model);
}

Test(generate, what_was_planted_is_found)
{
    const struct moe_generate_options options = { .seed = 9, .input = "m.json" };
    const struct moe_routing_fit_options fit = { 2, 1000000, 3, NULL };
    struct moe_routing_model found;
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    write_planted("m.json");
    (void) generate("fitted", &options, "a.db");
    cr_assert_eq(moe_trace_open(&trace, "a.db", &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_routing_fit(&found, trace, &fit, &err), MOE_OK, "%s", err.text);
    moe_trace_close(trace);
    const int low = found.class_popularity[0] > found.class_popularity[4] ? 0 : 1;
    cr_assert_float_eq(found.class_share[low], 0.3, 0.06, "%g", found.class_share[low]);
    for (int i = 0; i < 16; i++) {
        cr_assert_float_eq(found.class_popularity[(size_t) (low * 16 + i)], i % 8 < 4 ? 0.22 : 0.03,
                           0.02);
    }
    cr_assert_float_eq(found.class_drift[low] - found.class_drift[1 - low], 2.0, 0.5, "%g %g",
                       found.class_drift[low], found.class_drift[1 - low]);
    cr_assert_gt(found.repetition[1], 2.0 * found.repetition[0], "%g %g", found.repetition[0],
                 found.repetition[1]);
    cr_assert(found.slot_count >= 6 && found.slot_count <= 24, "%u", found.slot_count);
    cr_assert(found.concentration > 2.0 && found.concentration < 30.0, "%g", found.concentration);
    cr_assert_float_eq(found.domains[0].length_correlation, -0.6, 0.05);
    for (int i = 0; i < MOE_ROUTING_QUANTILES; i++) {
        cr_assert_float_eq(found.domains[0].prompt_tokens[i], 20 + i, 1.5);
        cr_assert_float_eq(found.domains[0].output_tokens[i], 1 + 2 * i, 3.0);
    }
    moe_routing_model_finish(&found);
}

static void expect_no_model(const char *from, const char *to, enum moe_status expected,
                            const char *words)
{
    char *text = text_of("m.json");
    char *at = strstr(text, from);
    struct moe_routing_model model = { 0 };
    struct moe_error err = { 0 };
    cr_assert_not_null(at, "%s", from);
    cr_assert_leq(strlen(to), strlen(from));
    for (size_t i = 0; i < strlen(from); i++) {
        at[i] = (char) (i < strlen(to) ? to[i] : ' ');
    }
    cr_assert_eq(moe_routing_model_parse(&model, "x.json", text, strlen(text), &err), expected,
                 "%s: %s", to, err.text);
    cr_assert_not_null(strstr(err.text, words), "'%s' lacks '%s'", err.text, words);
    cr_assert_null(model.popularity);
    free(text);
}

Test(generate, what_is_no_model_is_refused)
{
    struct moe_routing_model model;
    struct moe_error err = { 0 };
    fit_sample(&model, 2);
    cr_assert_eq(moe_routing_model_write(&model, "m.json", false, &err), MOE_OK, "%s", err.text);
    moe_routing_model_finish(&model);
    expect_no_model("moesim.routing_model", "moesim.plan", MOE_PARSE, "no routing model");
    expect_no_model("\"version\": 1", "\"version\": 2", MOE_UNSUPPORTED, "version 2");
    expect_no_model("\"classes\": 2", "\"classes\": 3", MOE_RANGE, "class_share");
    expect_no_model("\"classes\": 2", "\"classes\": 0", MOE_RANGE, "classes");
    expect_no_model("\"experts\": 256", "\"experts\": 248", MOE_RANGE, "popularity");
    expect_no_model("\"layers\": 8", "\"layers\": 7", MOE_RANGE, "7 layers");
    expect_no_model("\"top_k\": 8", "\"top_k\": 0", MOE_RANGE, "top_k");
    expect_no_model("\"share\": 0.", "\"share\": 9.", MOE_RANGE, "share is to be");
    expect_no_model("\"concentration\": ", "\"concentration\":-", MOE_RANGE, "concentration");
    expect_no_model("{", "[", MOE_PARSE, "not valid JSON");
}

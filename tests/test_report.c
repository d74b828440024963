#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/report/figure.h"
#include "sim/report/finding.h"
#include "sim/report/json_difference.h"
#include "sim/report/page.h"
#include "sim/report/report.h"
#include "tests/study_fixture.h"

static struct study_fixture fixture; /* large: not on the stack */

static void finish(void)
{
    fixture_finish(&fixture);
}

TestSuite(report, .fini = finish);

/* The report as text; the caller frees it. */
static char *report_text(const char *form, const struct moe_report_options *options)
{
    const struct moe_report_options none = { 0 };
    const struct moe_report *report = NULL;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    cr_assert_not_null(out);
    cr_assert_eq(moe_report_find(form, &report, NULL), MOE_OK);
    cr_assert_eq(report->write(&fixture.study, options != NULL ? options : &none, out, NULL),
                 MOE_OK);
    (void) fclose(out);
    return text;
}

static void expect_words(const char *form, const char *words)
{
    char *text = report_text(form, NULL);
    cr_assert_not_null(strstr(text, words), "no '%s' in:\n%s", words, text);
    free(text);
}

static void expect_no_words(const char *form, const char *words)
{
    char *text = report_text(form, NULL);
    cr_assert_null(strstr(text, words), "'%s' in:\n%s", words, text);
    free(text);
}

/* MOE_GOLDEN_WRITE=1 in the environment writes the file instead; look at it before it is
 * committed. */
static void expect_golden(const char *name, const char *text)
{
    char path[512];
    char expected[32768];
    (void) snprintf(path, sizeof path, "%s/tests/golden/%s", MOE_SOURCE_ROOT, name);
    const bool write = getenv("MOE_GOLDEN_WRITE") != NULL;
    FILE *file = fopen(path, write ? "wb" : "rb");
    cr_assert_not_null(file, "%s", path);
    if (write) {
        (void) fputs(text, file);
        (void) fclose(file);
        return;
    }
    const size_t bytes = fread(expected, 1, sizeof expected - 1, file);
    (void) fclose(file);
    expected[bytes] = '\0';
    cr_assert_str_eq(text, expected, "differs from tests/golden/%s:\n%s", name, text);
}

Test(report, table_is_as_agreed_and_fits_100_columns)
{
    fixture_make(&fixture, 3);
    fixture_judge(&fixture);
    char *text = report_text("table", NULL);
    expect_golden("report_table.txt", text);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        cr_assert_leq(moe_figure_width(line), MOE_PAGE_COLUMNS, "%s", line);
        cr_assert_neq(line[strlen(line) - 1], ' ', "ends in a blank: '%s'", line);
    }
    free(text);
}

Test(report, markdown_is_as_agreed)
{
    fixture_make(&fixture, 3);
    fixture_judge(&fixture);
    char *text = report_text("markdown", NULL);
    expect_golden("report_markdown.md", text);
    free(text);
}

Test(report, csv_has_the_same_columns_in_every_row)
{
    fixture_make(&fixture, 3);
    fixture_judge(&fixture);
    char *text = report_text("csv", NULL);
    uint32_t rows = 0;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        uint32_t commas = 0;
        for (const char *p = line; *p != '\0'; p++) {
            commas += *p == ',';
        }
        cr_assert_eq(commas, 11, "%s", line);
        if (rows++ == 0) {
            cr_assert_str_eq(line, "policy,mark,fits,oracle,metric,unit,higher_is_better,mean,"
                                   "half_width,seed_7,seed_8,seed_9");
        }
    }
    cr_assert_eq(rows, 1 + FIXTURE_POLICIES * (MOE_METRIC_EVERY_COUNT + 1 + MOE_PLAN_FIGURE_COUNT));
    free(text);
    expect_words("csv", "\neplb,best,1,0,speedup,,1,1.21000000");
    expect_words("csv", "\nlpt,does not fit,0,0,output_tokens_per_s,1/s,1,,,,,\n");
}

/* ---- JSON ---- */

static json_t *report_json(void)
{
    json_error_t reason;
    char *text = report_text("json", NULL);
    json_t *root = json_loads(text, 0, &reason);
    cr_assert_not_null(root, "line %d: %s", reason.line, reason.text);
    free(text);
    return root;
}

/* root["a"]["b"]... ; "#1" is the second item of an array. */
static json_t *at(json_t *root, const char *path)
{
    char copy[256];
    char *rest = NULL;
    (void) snprintf(copy, sizeof copy, "%s", path);
    for (char *step = strtok_r(copy, ".", &rest); step != NULL; step = strtok_r(NULL, ".", &rest)) {
        root = step[0] == '#' ? json_array_get(root, strtoul(step + 1, NULL, 10))
                              : json_object_get(root, step);
        cr_assert_not_null(root, "no %s", path);
    }
    return root;
}

static long long integer_at(json_t *root, const char *path)
{
    cr_assert(json_is_integer(at(root, path)), "%s is no integer", path);
    return json_integer_value(at(root, path));
}

Test(report, json_adds_up)
{
    fixture_make(&fixture, 3);
    fixture_judge(&fixture);
    json_t *root = report_json();
    cr_assert_str_eq(json_string_value(at(root, "schema")), "moesim.report/1");
    cr_assert_str_eq(json_string_value(at(root, "verdict.best")), "eplb");
    cr_assert_str_eq(json_string_value(at(root, "verdict.bounds.hindsight.policy")), "hindsight");
    cr_assert(json_is_true(at(root, "account.complete")));
    cr_assert_eq(integer_at(root, "account.due_tokens"), 2600);
    cr_assert_eq(json_array_size(at(root, "policies")), FIXTURE_POLICIES);
    json_t *policy = at(root, "policies.#1");
    long long parts = 0;
    long long runs = 0;
    long long tokens = 0;
    const char *key = NULL;
    json_t *cause = NULL;
    json_object_foreach(at(policy, "stragglers.causes"), key, cause)
    {
        parts += integer_at(cause, "idle_ns");
    }
    for (size_t i = 0; i < json_array_size(at(policy, "runs")); i++) {
        json_t *run = json_array_get(at(policy, "runs"), i);
        runs += integer_at(run, "idle_ns");
        tokens += integer_at(run, "account.warmup.tokens") +
                  integer_at(run, "account.scored.tokens") +
                  integer_at(run, "account.drain.tokens");
    }
    cr_assert_eq(parts, integer_at(policy, "stragglers.idle_ns"), "to the nanosecond");
    cr_assert_eq(runs, parts);
    cr_assert_eq(parts, 3LL * 15 * FIXTURE_CAUSE_NS + 5LL * (7 + 8 + 9));
    cr_assert_eq(tokens, 3 * 2600LL);
    cr_assert_eq(json_array_size(at(root, "slow_gpus")), 1);
    cr_assert_eq(integer_at(root, "slow_gpus.#0.seed"), 8);
    json_decref(root);
}

/* A policy's figures are the decode pool's; those of the prefill pool stand with its run. */
Test(report, json_has_the_figures_of_the_prefill_pool)
{
    fixture_make(&fixture, 1);
    fixture_judge(&fixture);
    const struct moe_run_result *prefill = &fixture.runs[0][0];
    const long long time_ns = prefill->account[MOE_PHASE_SCORED].time_ns;
    fixture.runs[1][0].prefill = prefill;
    json_t *root = report_json();
    json_t *run = at(root, "policies.#1.runs.#0");
    const double own = json_real_value(at(root, "policies.#1.metrics.balancedness.mean"));
    const double pool = json_real_value(at(run, "pools.prefill.figures.balancedness"));
    long long parts = 0;
    const char *key = NULL;
    json_t *part = NULL;
    cr_assert_float_eq(own, 1.0 / 1.1, 1e-9, "%g", own);
    cr_assert_float_eq(pool, 1.0 / 1.6, 1e-9, "%g", pool);
    json_object_foreach(at(run, "pools.prefill.time_ns"), key, part)
    {
        const char *source = NULL;
        json_t *ns = NULL;
        json_object_foreach(part, source, ns)
        {
            parts += json_integer_value(ns);
        }
    }
    cr_assert_eq(parts, time_ns, "%lld ns of %lld", parts, time_ns);
    cr_assert(json_is_null(at(root, "policies.#0.runs.#0.pools")));
    json_decref(root);
}

Test(report, json_says_null_where_nothing_applies)
{
    fixture_make(&fixture, 1);
    fixture_judge(&fixture);
    json_t *root = report_json();
    cr_assert(json_is_null(at(root, "policies.#1.speedup.half_width")), "one seed");
    cr_assert(json_is_null(at(root, "policies.#2.metrics")), "lpt does not fit");
    cr_assert(json_is_null(at(root, "policies.#2.stragglers")));
    cr_assert(json_is_string(at(root, "policies.#2.why")));
    cr_assert(json_is_null(at(root, "policies.#1.why")));
    json_decref(root);
}

Test(report, same_study_same_bytes_whatever_the_clock_says)
{
    fixture_make(&fixture, 3);
    fixture_judge(&fixture);
    char *one = report_text("json", NULL);
    fixture.study.wall_seconds *= 2.0;
    char *two = report_text("json", NULL);
    cr_assert_str_eq(one, two);
    free(one);
    free(two);
}

Test(report, difference_names_the_first_place)
{
    char text[200];
    moe_json_difference("{\"a\":[1,{\"b\":2}],\"c\":3}", "{\"a\":[1,{\"b\":4}],\"c\":5}", text,
                        sizeof text);
    cr_assert_str_eq(text, "a[1].b: 2 before, 4 now");
    moe_json_difference("{\"a\":1}", "{\"a\":1,\"b\":{}}", text, sizeof text);
    cr_assert_str_eq(text, "b: nothing before, {} now");
    moe_json_difference("{\"a\":[1,2]}", "{\"a\":[1]}", text, sizeof text);
    cr_assert_str_eq(text, "a[1]: 2 before, nothing now");
    moe_json_difference("{\"a\": 1.0}", "{\"a\":1.0}", text, sizeof text);
    cr_assert_str_eq(text, "");
    moe_json_difference("{", "{}", text, sizeof text);
    cr_assert_not_null(strstr(text, "no JSON"), "%s", text);
}

/* ---- what the sentences say ---- */

Test(report, one_seed_has_no_interval)
{
    fixture_make(&fixture, 1);
    fixture_judge(&fixture);
    expect_words("markdown", "one seed gives no interval");
    char *text = report_text("table", NULL);
    cr_assert_null(strstr(text, "±"), "%s", text);
    free(text);
}

Test(report, overlapping_intervals_are_a_tie)
{
    fixture_make(&fixture, 3);
    fixture.scenario.serving.passes = 3;
    for (uint32_t i = 0; i < 3; i++) { /* eplb: 0.9, 1.2, 1.5 times the baseline */
        fixture.runs[1][i].account[MOE_PHASE_SCORED].time_ns =
            (moe_time_ns) (1e9 / (0.9 + 0.3 * i));
    }
    fixture_judge(&fixture);
    expect_words("markdown", "a tie with contiguous, whose interval overlaps its own");
    expect_words("csv", "\ncontiguous,tie,");
}

Test(report, a_baseline_that_does_not_fit_is_stood_in_for)
{
    fixture_make(&fixture, 3);
    fixture.runs[0][1].fits = false;
    (void) snprintf(fixture.runs[0][1].why, sizeof fixture.runs[0][1].why, "no room");
    fixture_judge(&fixture);
    expect_words("markdown", "contiguous does not fit; the others are compared with eplb instead");
    expect_words("table", "does not fit: no room");
    expect_words("json", "\"best\": \"eplb\"");
}

Test(report, a_part_that_decides_the_verdict_is_named)
{
    fixture_make(&fixture, 3);
    for (uint32_t i = 0; i < 3; i++) { /* with combine 20 % dearer eplb loses its lead */
        fixture.runs[1][i].sensitivity_ns[2 * MOE_COST_COMBINE + 1] = 1100000000;
        fixture.runs[1][i].sensitivity_ns[2 * MOE_COST_EXPERT + 1] = 1100000000;
    }
    fixture_judge(&fixture);
    cr_assert_eq(fixture.study.flip_count, 2);
    expect_words("markdown", "If combine were 20 % dearer than its table says, contiguous would be "
                             "best.");
    expect_words("json", "\"part\": \"combine\"");
    expect_no_words("table", "If expert were"); /* measured: nothing to doubt */
    expect_no_words("table", "No cost part");
}

Test(report, a_run_that_lost_tokens_is_told)
{
    fixture_make(&fixture, 3);
    fixture.runs[3][2].account[MOE_PHASE_DRAIN].tokens--;
    fixture_judge(&fixture);
    expect_words("markdown", "WRONG: a run did not replay the 2,600 tokens");
    expect_words("json", "\"complete\": false");
    expect_no_words("table", "were replayed in each");
}

Test(report, an_audit_is_told)
{
    fixture_make(&fixture, 3);
    fixture_judge(&fixture);
    expect_no_words("table", "audit");
    fixture.study.audited = true;
    expect_words("table",
                 "audit         tokens, bytes, pages and time were conserved in every step");
}

/* One event for good, one for a while on the links, one of another GPU. */
Test(report, time_factors_of_a_rank_include_what_ifs)
{
    fixture_make(&fixture, 1);
    fixture_judge(&fixture);
    const struct moe_finding_rank plain = moe_finding_rank_of(&fixture.study, 0, 1);
    fixture.scenario.hardware.event_count = 3;
    fixture.scenario.hardware.event[0] =
        (struct moe_hardware_event){ MOE_HARDWARE_SLOW, 1, 2.0, 0, INT64_MAX };
    fixture.scenario.hardware.event[1] =
        (struct moe_hardware_event){ MOE_HARDWARE_LINK, 1, 3.0, 5, 9 };
    fixture.scenario.hardware.event[2] =
        (struct moe_hardware_event){ MOE_HARDWARE_SLOW, 0, 7.0, 0, INT64_MAX };
    const struct moe_finding_rank slow = moe_finding_rank_of(&fixture.study, 0, 1);
    cr_expect_eq(slow.low.compute, 2 * plain.low.compute);
    cr_expect_eq(slow.high.memory, 2 * plain.high.memory);
    cr_expect_eq(slow.low.comm, plain.low.comm);
    cr_expect_eq(slow.high.comm, 3 * plain.high.comm);
}

/* The price in quality of those who route by prediction, and of those who drop. */
Test(report, misplaced_and_dropped_tokens_are_said)
{
    fixture_make(&fixture, 3);
    fixture_judge(&fixture);
    expect_no_words("table", "Predictions");
    expect_no_words("table", "dropped");
    for (uint32_t seed = 0; seed < 3; seed++) { /* means over the seeds */
        fixture.runs[1][seed].foreseen_steps = (struct moe_foresight_score){
            .scored = 7, .error_share = 0.4, .wrong_share = 0.1 * (seed + 1), .hit_rate = 0.5
        };
        fixture.runs[1][seed].dropped_assignments =
            moe_finding_replayed(&fixture.runs[1][seed]).assignments / 16;
    }
    fixture_judge(&fixture);
    expect_words("table", "misplaced: at a wrong expert");
    expect_words("table", "each step             40.0 %     20.0 %     50.0 %");
    expect_words("table", "6.2 % of them under eplb: no quota was left for them");
    expect_words("json", "\"wrong_share\": 0.1");
    expect_words("json", "\"dropped_assignments\": ");
}

Test(report, all_policies_have_stragglers_when_asked)
{
    const struct moe_report_options all = { .all_policies = true, .chosen = "3 passes" };
    fixture_make(&fixture, 3);
    fixture_judge(&fixture);
    expect_no_words("table", "Stragglers: hindsight");
    char *text = report_text("table", &all);
    cr_assert_not_null(strstr(text, "Stragglers: hindsight"));
    cr_assert_null(strstr(text, "Stragglers: lpt"), "it does not fit");
    cr_assert_not_null(strstr(text, "defaults      3 passes"));
    free(text);
}

Test(report, forms_are_found_by_name)
{
    const struct moe_report *report = NULL;
    struct moe_error err;
    cr_assert_eq(moe_report_find("html", &report, &err), MOE_RANGE);
    cr_assert_str_eq(err.text, "--format: no form 'html'; there are: table json csv markdown");
}

Test(report, a_full_disk_is_an_error)
{
    FILE *full = fopen("/dev/full", "w");
    if (full == NULL) {
        return; /* no such device here */
    }
    size_t count = 0;
    fixture_make(&fixture, 3);
    fixture_judge(&fixture);
    const struct moe_report *const *reports = moe_report_list(&count);
    const struct moe_report_options none = { 0 };
    (void) setvbuf(full, NULL, _IONBF, 0);
    for (size_t i = 0; i < count; i++) {
        clearerr(full);
        cr_assert_eq(reports[i]->write(&fixture.study, &none, full, NULL), MOE_IO, "%s",
                     reports[i]->name);
    }
    (void) fclose(full);
}

/* ---- figures ---- */

Test(report, figures_read_as_people_write_them)
{
    cr_assert_str_eq(moe_figure_count(0).text, "0");
    cr_assert_str_eq(moe_figure_count(999).text, "999");
    cr_assert_str_eq(moe_figure_count(1000).text, "1,000");
    cr_assert_str_eq(moe_figure_count(UINT64_MAX).text, "18,446,744,073,709,551,615");
    cr_assert_str_eq(moe_figure_signed(-1234567).text, "-1,234,567");
    cr_assert_str_eq(moe_figure_fixed(-1234.56, 1).text, "-1,234.6");
    cr_assert_str_eq(moe_figure_real(0.01234).text, "0.012");
    cr_assert_str_eq(moe_figure_real(12.345).text, "12.35");
    cr_assert_str_eq(moe_figure_real(123456.7).text, "123,457");
    cr_assert_str_eq(moe_figure_real(NAN).text, "-");
    cr_assert_str_eq(moe_figure_share(0.0).text, "0.0 %");
    cr_assert_str_eq(moe_figure_share(0.0001).text, "<0.1 %");
    cr_assert_str_eq(moe_figure_share(0.1234).text, "12.3 %");
    cr_assert_str_eq(moe_figure_change(1.0623).text, "+6.2 %");
    cr_assert_str_eq(moe_figure_change(0.9).text, "-10.0 %");
    cr_assert_eq(moe_figure_width("± 1 █"), 5);
}

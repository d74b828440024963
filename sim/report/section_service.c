/* Requests that arrive over time: what came, how long it waited, and who kept up. */
#include <inttypes.h>
#include <math.h>

#include "sim/report/figure.h"
#include "sim/report/finding.h"
#include "sim/report/section.h"

enum { WORDS_BYTES = 240 };

#define COUNT(value) moe_figure_count(value).text

/* As goodput_report.c asks for. */
static const double stays_enough = 5.0;

static const char *plural(uint64_t count)
{
    return count == 1 ? "" : "s";
}

/* "Gamma gaps with a coefficient of variation of 2.5, 12 requests/s" */
static void kind_words(const struct moe_study *study, char *text, size_t text_bytes)
{
    const struct moe_arrival_options *o = &study->scenario->arrivals;
    const struct moe_arrival_source *source = study->arrivals;
    switch (o->kind) {
    case MOE_ARRIVAL_CLOSED:
        text[0] = '\0';
        break;
    case MOE_ARRIVAL_TRACE:
        (void) snprintf(text, text_bytes, "at the trace's own times");
        break;
    case MOE_ARRIVAL_FILE:
        (void) snprintf(text, text_bytes, "at the times of %s (%.100s, hash %s)", source->file_name,
                        o->file, moe_figure_hash(source->file_hash).text);
        break;
    case MOE_ARRIVAL_POISSON:
        (void) snprintf(text, text_bytes, "Poisson");
        break;
    case MOE_ARRIVAL_GAMMA:
    case MOE_ARRIVAL_WEIBULL:
        (void) snprintf(text, text_bytes, "%s gaps with a coefficient of variation of %g",
                        o->kind == MOE_ARRIVAL_GAMMA ? "Gamma" : "Weibull", o->cv);
        break;
    case MOE_ARRIVAL_BURSTS:
        (void) snprintf(text, text_bytes,
                        "bursts of %g s on average, %g s apart, with %s of the requests",
                        o->burst_on_s, o->burst_off_s, moe_figure_share(o->burst_share).text);
        break;
    }
}

static void rate_words(const struct moe_study *study, char *text, size_t text_bytes)
{
    const struct moe_arrival_options *o = &study->scenario->arrivals;
    const double recorded = study->arrivals->recorded_rate;
    if (recorded > 0.0 && o->rate > 0.0) {
        (void) snprintf(text, text_bytes, "scaled from %s to %s requests/s",
                        moe_figure_real(recorded).text, moe_figure_real(o->rate).text);
    } else {
        (void) snprintf(text, text_bytes, "%s requests/s%s",
                        moe_figure_real(recorded > 0.0 ? recorded : o->rate).text,
                        o->schedule_count > 0 ? " times the schedule" : "");
    }
}

static const char *lengths_words(const struct moe_study *study)
{
    const struct moe_arrival_options *o = &study->scenario->arrivals;
    if (o->lengths == MOE_ARRIVAL_LENGTHS_LOGNORMAL) {
        return "drawn, lognormal";
    }
    return o->lengths == MOE_ARRIVAL_LENGTHS_RECORDED && o->kind == MOE_ARRIVAL_FILE
               ? "those of the file"
               : "those of the trace";
}

void moe_section_arrivals(struct moe_page *page, const struct moe_study *study)
{
    const struct moe_arrival_options *o = &study->scenario->arrivals;
    const struct moe_arrival_survey *survey = &study->survey;
    char kind[WORDS_BYTES];
    char rate[WORDS_BYTES];
    if (study->arrivals == NULL || survey->count == 0) {
        return;
    }
    const double count = (double) survey->count;
    kind_words(study, kind, sizeof kind);
    rate_words(study, rate, sizeof rate);
    moe_page_field(page, "arrivals", "%s, %s: %s request%s in %s s under the first seed", kind,
                   rate, COUNT(survey->count), plural(survey->count),
                   moe_figure_real((double) survey->last_ns * 1e-9).text);
    moe_page_field(page, "lengths", "%s: prompts of %s and outputs of %s tokens on average%s",
                   lengths_words(study),
                   moe_figure_fixed((double) survey->prompt_tokens / count, 0).text,
                   moe_figure_fixed((double) survey->output_tokens / count, 0).text,
                   survey->hit_tokens > 0 ? "; at most " : "");
    if (survey->hit_tokens > 0) {
        moe_page_field(
            page, "",
            "%s of the prompt tokens begin as an earlier prompt did (a prefix cache "
            "without bounds)",
            moe_figure_share((double) survey->hit_tokens / (double) survey->prompt_tokens).text);
    }
    if (study->arrivals->is_stretched) {
        moe_page_field(page, "",
                       "assumed: a request's recorded routes are repeated within their phase to "
                       "reach these lengths");
    }
    if (o->drift_count > 0) {
        moe_page_field(page, "drift", "domains by weights over time, %u point%s, the last '%s'",
                       o->drift_count, plural(o->drift_count), o->drift[o->drift_count - 1]);
    }
}

static void cell_of(struct moe_grid *grid, const struct moe_study *study, uint32_t policy,
                    enum moe_metric metric)
{
    moe_grid_cell(grid, moe_figure_real(study->policies[policy].metric[metric].mean).text);
}

static void print_latency(struct moe_page *page, const struct moe_study *study)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false }, { "waiting", "mean", false, false },
        { "", "p99", false, true },    { "TTFT ms", "p50", false, false },
        { "", "p90", false, true },    { "", "p99", false, true },
        { "", "p99.9", false, true },  { "TPOT ms", "p50", false, false },
        { "", "p99", false, true },    { "end to end ms", "p50", false, false },
        { "", "p99", false, true },    { "", "p99.9", false, true },
    };
    static const enum moe_metric metrics[] = {
        MOE_METRIC_QUEUE_MEAN, MOE_METRIC_QUEUE_P99, MOE_METRIC_TTFT_P50, MOE_METRIC_TTFT_P90,
        MOE_METRIC_TTFT_P99,   MOE_METRIC_TTFT_P999, MOE_METRIC_TPOT_P50, MOE_METRIC_TPOT_P99,
        MOE_METRIC_E2E_P50,    MOE_METRIC_E2E_P99,   MOE_METRIC_E2E_P999,
    };
    struct moe_grid grid;
    moe_page_heading(page, "Latency", "from a request's arrival, after the warm-up");
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            moe_grid_cell(&grid, study->policies[i].composition.label);
            for (size_t m = 0; m < sizeof metrics / sizeof metrics[0]; m++) {
                cell_of(&grid, study, i, metrics[m]);
            }
        }
    }
    moe_grid_print(&grid, page);
}

static void load_row(struct moe_grid *grid, const struct moe_study *study, uint32_t policy)
{
    const struct moe_policy_summary *p = &study->policies[policy];
    const bool asked = moe_slo_is_asked(&study->scenario->slo);
    const struct moe_estimate good = p->metric[MOE_METRIC_GOODPUT];
    moe_grid_cell(grid, p->composition.label);
    cell_of(grid, study, policy, MOE_METRIC_OFFERED_RATE);
    cell_of(grid, study, policy, MOE_METRIC_REQUEST_RATE);
    moe_grid_cell(grid, asked ? moe_figure_share(p->metric[MOE_METRIC_SLO_SHARE].mean).text : "-");
    moe_grid_cell(grid, asked ? moe_figure_real(good.mean).text : "-");
    moe_grid_cell(grid, asked ? moe_figure_half(good, moe_figure_places(good.mean)).text : "");
    cell_of(grid, study, policy, MOE_METRIC_WAITING_MEAN);
    cell_of(grid, study, policy, MOE_METRIC_WAITING_MAX);
    cell_of(grid, study, policy, MOE_METRIC_RUNNING_MEAN);
    moe_grid_cell(grid, moe_figure_share(p->metric[MOE_METRIC_BUSY_SHARE].mean).text);
}

static void print_load(struct moe_page *page, const struct moe_study *study)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false },       { "requests/s", "come", false, false },
        { "", "served", false, true },       { "SLO", "met", false, false },
        { "goodput", "1/s", false, false },  { "", "", true, true },
        { "waiting", "mean", false, false }, { "", "most", false, true },
        { "running", "mean", false, false }, { "GPUs", "busy", false, false },
    };
    const struct moe_slo *slo = &study->scenario->slo;
    struct moe_grid grid;
    char aside[WORDS_BYTES] = "no SLO asked";
    if (moe_slo_is_asked(slo)) {
        char ttft[48] = "any";
        char tpot[48] = "any";
        if (slo->ttft_ms > 0.0) {
            (void) snprintf(ttft, sizeof ttft, "%g ms", slo->ttft_ms);
        }
        if (slo->tpot_ms > 0.0) {
            (void) snprintf(tpot, sizeof tpot, "%g ms", slo->tpot_ms);
        }
        (void) snprintf(aside, sizeof aside, "SLO: TTFT up to %s, TPOT up to %s", ttft, tpot);
    }
    moe_page_heading(page, "Load", aside);
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            load_row(&grid, study, i);
        }
    }
    moe_grid_print(&grid, page);
}

static void say_warmup(struct moe_page *page, const struct moe_study *study)
{
    moe_page_field(page, "warm-up",
                   "the first tenth of the %s requests of a run is cut; all that came later are "
                   "scored, to their ends",
                   COUNT(study->survey.count));
}

/* Who is served while others still come says what a policy can do only when that lasts for several
 * times as long as one request takes, its waiting apart: before, few can have finished. */
static bool is_too_short(const struct moe_policy_summary *p, uint32_t seeds, double *window_s,
                         double *stay_s)
{
    *window_s = 0.0;
    for (uint32_t seed = 0; seed < seeds; seed++) {
        *window_s += p->runs[seed].service.window_s / seeds;
    }
    *stay_s = (p->metric[MOE_METRIC_E2E_MEAN].mean - p->metric[MOE_METRIC_QUEUE_MEAN].mean) / 1e3;
    return *window_s < stays_enough * *stay_s;
}

/* A policy that does not keep up, and what would. */
static void say_saturated(struct moe_page *page, const struct moe_study *study, uint32_t policy,
                          const char **label)
{
    const struct moe_policy_summary *p = &study->policies[policy];
    const double come = p->metric[MOE_METRIC_OFFERED_RATE].mean;
    const double served = p->metric[MOE_METRIC_REQUEST_RATE].mean;
    double window_s = 0.0;
    double stay_s = 0.0;
    uint32_t seeds = 0;
    for (uint32_t seed = 0; seed < study->seed_count; seed++) {
        seeds += p->runs[seed].service.is_saturated;
    }
    if (seeds == 0) {
        return;
    }
    if (is_too_short(p, study->seed_count, &window_s, &stay_s)) {
        moe_page_field(page, *label,
                       "%s does not keep up (%u of %u seed%s): %s requests/s come, and the waiting "
                       "queue grows by %s/s. How many it could serve is not known: all come within "
                       "%s s, and one takes %s s once it is admitted. At %.0f times the "
                       "arrivals.requests it would be; `moesim goodput` searches for a rate",
                       p->composition.label, seeds, study->seed_count, plural(study->seed_count),
                       moe_figure_real(come).text,
                       moe_figure_real(p->metric[MOE_METRIC_WAITING_GROWTH].mean).text,
                       moe_figure_real(window_s).text, moe_figure_real(stay_s).text,
                       ceil(stays_enough * stay_s / window_s));
        *label = "";
        return;
    }
    moe_page_field(page, *label,
                   "%s does not keep up (%u of %u seed%s): %s requests/s come, %s are served, and "
                   "the waiting queue grows by %s/s, so its latencies grow with the length of the "
                   "run. An arrivals.rate below %s, or about %.0f %% more GPUs, would keep up",
                   p->composition.label, seeds, study->seed_count, plural(study->seed_count),
                   moe_figure_real(come).text, moe_figure_real(served).text,
                   moe_figure_real(p->metric[MOE_METRIC_WAITING_GROWTH].mean).text,
                   moe_figure_real(served).text, ceil(100.0 * (come / served - 1.0)));
    *label = "";
}

static void say_unsteady(struct moe_page *page, const struct moe_study *study, uint32_t policy,
                         const char **label)
{
    const struct moe_policy_summary *p = &study->policies[policy];
    uint32_t seeds = 0;
    for (uint32_t seed = 0; seed < study->seed_count; seed++) {
        const struct moe_service *s = &p->runs[seed].service;
        seeds += !s->is_steady && !s->is_saturated;
    }
    if (seeds == 0) {
        return;
    }
    moe_page_field(page, *label,
                   "%s came to no steady state in %u of %u seed%s: its latencies still changed "
                   "halfway through the arrivals; more arrivals.requests would show whether they "
                   "settle",
                   p->composition.label, seeds, study->seed_count, plural(study->seed_count));
    *label = "";
}

/* What the priority classes wait for their first token: of each policy's first seed. */
static void say_classes(struct moe_page *page, const struct moe_study *study)
{
    const char *label = "priorities";
    for (uint32_t i = 0; i < study->policy_count; i++) {
        const struct moe_service *s = &study->policies[i].runs[0].service;
        for (uint32_t c = 0; s->known && c < study->arrivals->priority_count; c++) {
            moe_page_field(
                page, label,
                "%s, class %u: %s request%s with a TTFT of %s ms at p50 and %s ms at p99%s",
                study->policies[i].composition.label, c, COUNT(s->class_ttft[c].count),
                plural(s->class_ttft[c].count), moe_figure_real(s->class_ttft[c].p50 * 1e-6).text,
                moe_figure_real(s->class_ttft[c].p99 * 1e-6).text,
                study->seed_count == 1 ? "" : " under the first seed");
            label = "";
        }
    }
}

void moe_section_service(struct moe_page *page, const struct moe_study *study)
{
    const char *saturated = "saturated";
    const char *unsteady = "unsteady";
    if (study->arrivals == NULL) {
        return;
    }
    print_latency(page, study);
    print_load(page, study);
    say_classes(page, study);
    say_warmup(page, study);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            say_saturated(page, study, i, &saturated);
        }
    }
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            say_unsteady(page, study, i, &unsteady);
        }
    }
}

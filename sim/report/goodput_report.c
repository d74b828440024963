#include "sim/report/goodput_report.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/report/figure.h"
#include "sim/report/section.h"

enum { WORDS_BYTES = 320 };

const char *moe_goodput_end_name(enum moe_goodput_end end)
{
    static const char *const names[] = { "found", "impossible", "unbounded", "does not fit" };
    return names[end];
}

static const struct moe_goodput *found_of(const struct moe_goodput_study *g, uint32_t policy,
                                          uint32_t seed)
{
    return &g->found[(size_t) policy * g->seed_count + seed];
}

/* Mean over seeds of a latency at the rate found, in ms. */
static double mean_ms(const struct moe_goodput_study *g, uint32_t policy, bool ttft)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < g->seed_count; i++) {
        const struct moe_service *at = &found_of(g, policy, i)->at;
        sum += (ttft ? at->ttft.p99 : at->tpot.p99) * 1e-6;
    }
    return sum / g->seed_count;
}

/* "95 % of the requests: TTFT up to 500 ms, TPOT up to 50 ms" */
static void slo_words(const struct moe_goodput_study *g, char *text, size_t text_bytes)
{
    const struct moe_slo *slo = &g->study->scenario->slo;
    size_t used = (size_t) snprintf(text, text_bytes,
                                    "%s of the requests:", moe_figure_share(slo->share).text);
    if (slo->ttft_ms > 0.0) {
        used += (size_t) snprintf(text + used, text_bytes - used, " TTFT up to %g ms%s",
                                  slo->ttft_ms, slo->tpot_ms > 0.0 ? "," : "");
    }
    if (slo->tpot_ms > 0.0) {
        (void) snprintf(text + used, text_bytes - used, " TPOT up to %g ms", slo->tpot_ms);
    }
}

static const char *mark_of(const struct moe_goodput_study *g, uint32_t policy)
{
    const struct moe_goodput_summary *s = &g->summaries[policy];
    return s->oracle               ? "oracle"
           : s->best               ? "best"
           : s->tie                ? "tie"
           : policy == g->baseline ? "baseline"
                                   : "behind";
}

static void policy_row(struct moe_grid *grid, const struct moe_goodput_study *g, uint32_t policy)
{
    const struct moe_goodput_summary *s = &g->summaries[policy];
    moe_grid_cell(grid, s->composition.label);
    if (s->end != MOE_GOODPUT_FOUND) {
        moe_grid_span(grid, moe_goodput_end_name(s->end));
        return;
    }
    moe_grid_cell(grid, moe_figure_real(s->rate.mean).text);
    moe_grid_cell(grid, moe_figure_half(s->rate, moe_figure_places(s->rate.mean)).text);
    moe_grid_cell(grid, moe_figure_real(s->tokens.mean).text);
    if (g->baseline == g->policy_count) {
        moe_grid_cell(grid, "-");
        moe_grid_cell(grid, "");
    } else if (policy == g->baseline) {
        moe_grid_cell(grid, "1");
        moe_grid_cell(grid, "");
    } else {
        moe_grid_cell(grid, moe_figure_fixed(s->ratio.mean, 3).text);
        moe_grid_cell(grid, moe_figure_half(s->ratio, 3).text);
    }
    moe_grid_cell(grid, moe_figure_real(mean_ms(g, policy, true)).text);
    moe_grid_cell(grid, moe_figure_real(mean_ms(g, policy, false)).text);
    moe_grid_cell(grid, mark_of(g, policy));
}

/* What stands in the way, of the first seed that has no answer, and what to change. */
static void say_end(struct moe_page *page, const struct moe_goodput_study *g, uint32_t policy)
{
    const struct moe_slo *slo = &g->study->scenario->slo;
    const struct moe_goodput_summary *s = &g->summaries[policy];
    const struct moe_goodput *f = NULL;
    for (uint32_t i = 0; i < g->seed_count && f == NULL; i++) {
        f = found_of(g, policy, i)->end == s->end ? found_of(g, policy, i) : NULL;
    }
    if (s->end == MOE_GOODPUT_UNFIT) {
        moe_page_field(page, "no room", "%s: %s", s->composition.label, f->why);
    } else if (s->end == MOE_GOODPUT_IMPOSSIBLE) {
        moe_page_field(
            page, "impossible",
            "%s cannot meet the SLO at any rate: with %s requests/s, %.2f of them at a "
            "time, %s meet it; %s of them have a TTFT of up to %s ms and a TPOT of up to "
            "%s ms. Ask for no less than that, or speed up the deployment (more GPUs, "
            "shorter prompts, fewer bytes per weight)",
            s->composition.label, moe_figure_real(f->rate).text, f->at.running_mean,
            moe_figure_share(f->at.slo_share).text, moe_figure_share(0.99).text,
            moe_figure_real(f->at.ttft.p99 * 1e-6).text,
            moe_figure_real(f->at.tpot.p99 * 1e-6).text);
    } else if (s->end == MOE_GOODPUT_UNBOUNDED) {
        moe_page_field(page, "unbounded",
                       "%s still meets the SLO when %" PRIu64 " requests come at %s/s, all but at "
                       "once: too few to fill the cluster. More arrivals.requests would show a "
                       "limit; so would a tighter SLO than %g and %g ms",
                       s->composition.label, f->at.arrived, moe_figure_real(f->rate).text,
                       slo->ttft_ms, slo->tpot_ms);
    }
}

/* A search that ends before the cluster is full measures the start, not the steady state. */
static void say_short(struct moe_page *page, const struct moe_goodput_study *g)
{
    for (uint32_t p = 0; p < g->policy_count; p++) {
        for (uint32_t i = 0; i < g->seed_count; i++) {
            const struct moe_goodput *f = found_of(g, p, i);
            const double inside_s = f->at.e2e.mean * 1e-9;
            if (f->end == MOE_GOODPUT_FOUND && f->at.window_s < 5.0 * inside_s) {
                moe_page_field(page, "short",
                               "at the rate found, all requests of %s come within %s s, less than "
                               "five times the %s s that one of them takes: the cluster was hardly "
                               "full, and a longer run would find less. Use about %s "
                               "arrivals.requests",
                               g->summaries[p].composition.label,
                               moe_figure_real(f->at.window_s).text, moe_figure_real(inside_s).text,
                               moe_figure_count((uint64_t) (10.0 * inside_s * f->rate) + 1).text);
                return;
            }
        }
    }
}

static void say_best(struct moe_page *page, const struct moe_goodput_study *g)
{
    if (g->best == g->policy_count) {
        moe_page_field(page, "best", "none: no policy met the SLO at any rate");
        return;
    }
    const struct moe_goodput_summary *s = &g->summaries[g->best];
    uint32_t ties = 0;
    for (uint32_t p = 0; p < g->policy_count; p++) {
        ties += g->summaries[p].tie;
    }
    const char *tail = g->seed_count == 1
                           ? "; one seed gives no interval, so a small lead may be chance"
                       : ties > 0 ? "; those marked tie overlap it"
                                  : "; no other policy's interval reaches its own";
    if (g->baseline == g->policy_count || g->best == g->baseline) {
        moe_page_field(page, "best", "%s: up to %s requests/s%s", s->composition.label,
                       moe_figure_real(s->rate.mean).text, tail);
        return;
    }
    moe_page_field(page, "best", "%s: up to %s requests/s, %s%s%s times %s%s", s->composition.label,
                   moe_figure_real(s->rate.mean).text, moe_figure_fixed(s->ratio.mean, 3).text,
                   g->seed_count == 1 ? "" : " ", moe_figure_half(s->ratio, 3).text,
                   g->summaries[g->baseline].composition.label, tail);
}

void moe_goodput_report_page(const struct moe_goodput_study *g, enum moe_page_dress dress,
                             FILE *out)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false },
        { "goodput", "requests/s", false, false },
        { "", "", true, true },
        { "output", "tokens/s", false, false },
        { "over the", "baseline", false, false },
        { "", "", true, true },
        { "p99 ms", "TTFT", false, false },
        { "", "TPOT", false, true },
        { "", "", true, false },
    };
    struct moe_page page = { .out = out, .dress = dress };
    struct moe_grid grid;
    char title[256];
    char slo[WORDS_BYTES];
    (void) snprintf(
        title, sizeof title, "%s: goodput of %u polic%s for %s on %u %s", g->study->scenario->name,
        g->policy_count, g->policy_count == 1 ? "y" : "ies", g->study->scenario->model.name,
        moe_cluster_gpu_count(&g->study->scenario->cluster), g->study->scenario->cluster.gpu);
    slo_words(g, slo, sizeof slo);
    moe_page_title(&page, title);
    moe_section_asked(&page, g->study, NULL);
    moe_page_heading(&page, "Goodput", slo);
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t p = 0; p < g->policy_count; p++) {
        policy_row(&grid, g, p);
    }
    moe_grid_print(&grid, &page);
    say_best(&page, g);
    for (uint32_t p = 0; p < g->policy_count; p++) {
        say_end(&page, g, p);
    }
    say_short(&page, g);
    moe_page_field(&page, "search",
                   "largest rate that meets it within %s, by bisection from %s requests/s, for "
                   "each seed alone; all rates and policies meet the same requests in the same "
                   "order",
                   moe_figure_share(g->tolerance).text, moe_figure_real(g->start_rate).text);
}

static void put(FILE *out, double value, bool known)
{
    (void) fputc(',', out);
    if (known && isfinite(value)) {
        (void) fprintf(out, "%.12g", value);
    }
}

void moe_goodput_report_csv(const struct moe_goodput_study *g, FILE *out)
{
    (void) fputs("policy,seed,end,requests_per_s,failed_requests_per_s,output_tokens_per_s,"
                 "slo_share,ttft_p50_ms,ttft_p99_ms,tpot_p50_ms,tpot_p99_ms,runs\n",
                 out);
    for (uint32_t p = 0; p < g->policy_count; p++) {
        for (uint32_t i = 0; i < g->seed_count; i++) {
            const struct moe_goodput *f = found_of(g, p, i);
            const bool found = f->end == MOE_GOODPUT_FOUND;
            const bool ran = f->end != MOE_GOODPUT_UNFIT;
            (void) fprintf(out, "%s,%" PRIu64 ",%s", g->summaries[p].composition.label,
                           g->study->scenario->first_seed + i, moe_goodput_end_name(f->end));
            put(out, f->rate, found);
            put(out, f->failed_rate, found);
            put(out, f->at.output_rate, found);
            put(out, f->at.slo_share, ran);
            put(out, f->at.ttft.p50 * 1e-6, ran);
            put(out, f->at.ttft.p99 * 1e-6, ran);
            put(out, f->at.tpot.p50 * 1e-6, ran);
            put(out, f->at.tpot.p99 * 1e-6, ran);
            (void) fprintf(out, ",%u\n", f->runs);
        }
    }
}

static json_t *real(double value, bool known)
{
    return known && isfinite(value) ? json_real(value) : json_null();
}

static json_t *estimate(struct moe_estimate e, bool known)
{
    return known ? json_pack("{s:o, s:o}", "mean", real(e.mean, true), "half_width",
                             real(e.half, true))
                 : json_null();
}

static json_t *seed_json(const struct moe_goodput *f, uint64_t seed)
{
    const bool found = f->end == MOE_GOODPUT_FOUND;
    const bool ran = f->end != MOE_GOODPUT_UNFIT;
    return json_pack("{s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:i}", "seed", (json_int_t) seed,
                     "end", moe_goodput_end_name(f->end), "requests_per_s", real(f->rate, found),
                     "failed_requests_per_s", real(f->failed_rate, found), "output_tokens_per_s",
                     real(f->at.output_rate, found), "slo_share", real(f->at.slo_share, ran),
                     "ttft_p99_ms", real(f->at.ttft.p99 * 1e-6, ran), "tpot_p99_ms",
                     real(f->at.tpot.p99 * 1e-6, ran), "runs", (int) f->runs);
}

static json_t *policy_json(const struct moe_goodput_study *g, uint32_t policy)
{
    const struct moe_goodput_summary *s = &g->summaries[policy];
    const bool found = s->end == MOE_GOODPUT_FOUND;
    json_t *seeds = json_array();
    for (uint32_t i = 0; i < g->seed_count; i++) {
        (void) json_array_append_new(
            seeds, seed_json(found_of(g, policy, i), g->study->scenario->first_seed + i));
    }
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "name", s->composition.label, "end",
                     moe_goodput_end_name(s->end), "mark", found ? mark_of(g, policy) : "none",
                     "requests_per_s", estimate(s->rate, found), "output_tokens_per_s",
                     estimate(s->tokens, found), "over_baseline",
                     estimate(s->ratio, found && g->baseline < g->policy_count), "seeds", seeds);
}

enum moe_status moe_goodput_report_json(const struct moe_goodput_study *g, FILE *out,
                                        struct moe_error *err)
{
    const struct moe_slo *slo = &g->study->scenario->slo;
    json_t *policies = json_array();
    for (uint32_t p = 0; p < g->policy_count; p++) {
        (void) json_array_append_new(policies, policy_json(g, p));
    }
    json_t *root = json_pack(
        "{s:s, s:s, s:{s:f, s:f, s:f}, s:f, s:f, s:s, s:s, s:o}", "schema", "moesim.goodput/1",
        "scenario", g->study->scenario->name, "slo", "ttft_ms", slo->ttft_ms, "tpot_ms",
        slo->tpot_ms, "share", slo->share, "start_rate", g->start_rate, "tolerance", g->tolerance,
        "trace_hash", moe_figure_hash(g->study->trace_hash).text, "calibration_hash",
        moe_figure_hash(g->study->calibration_hash).text, "policies", policies);
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(root);
    if (text == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for the JSON report");
    }
    (void) fputs(text, out);
    (void) fputc('\n', out);
    free(text);
    return MOE_OK;
}

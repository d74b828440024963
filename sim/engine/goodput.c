#include "sim/engine/goodput.h"

#include <assert.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/wall_clock.h"

/* So few in the system at a time that nobody is in another's way. */
static const double idle_requests = 0.1;

/* Tries a rate; keeps it when it passes. */
static enum moe_status try_rate(const struct moe_goodput_trial *trial, double rate,
                                struct moe_goodput *found, bool *passes, struct moe_error *err)
{
    struct moe_service at = { 0 };
    found->runs++;
    MOE_TRY(trial->pass(trial->context, rate, passes, &at, err));
    if (*passes || found->runs == 1) {
        found->rate = rate;
        found->at = at;
    }
    return MOE_OK;
}

/* Up by doubling from a rate that passes; *failed stays 0 when none fails. */
static enum moe_status double_up(const struct moe_goodput_trial *trial, struct moe_goodput *found,
                                 double *failed, struct moe_error *err)
{
    double rate = found->rate;
    bool passes = true;
    for (int i = 0; i < MOE_GOODPUT_REACH && passes; i++) {
        rate *= 2.0;
        MOE_TRY(try_rate(trial, rate, found, &passes, err));
    }
    *failed = passes ? 0.0 : rate;
    return MOE_OK;
}

/* The rate at which requests hardly meet others: there nothing helps any more. */
static double idle_rate(const struct moe_goodput *found)
{
    const double inside_s = found->at.e2e.mean * 1e-9;
    const double rate = inside_s > 0.0 ? idle_requests / inside_s : 0.0;
    const double least = ldexp(found->rate, -MOE_GOODPUT_REACH);
    return rate > least && rate < found->rate ? rate : least;
}

/* Down by halving from one that fails. A rate that passes is mostly near; when it is not, the
 * idle system is asked whether there is one at all. */
static enum moe_status halve_down(const struct moe_goodput_trial *trial, struct moe_goodput *found,
                                  double *failed, bool *passes, struct moe_error *err)
{
    double rate = found->rate;
    *passes = false;
    for (int i = 0; i < 2 * MOE_GOODPUT_REACH && !*passes; i++) {
        struct moe_service at = { 0 };
        const bool ask_idle = i == MOE_GOODPUT_NEAR;
        *failed = ask_idle ? *failed : rate;
        const double next = ask_idle ? idle_rate(found) : 0.5 * rate;
        found->runs++;
        MOE_TRY(trial->pass(trial->context, next, passes, &at, err));
        found->rate = next; /* also where nothing passes: the emptiest system says why */
        found->at = at;
        if (ask_idle && !*passes) {
            return MOE_OK;
        }
        *passes = *passes && !ask_idle;
        rate = ask_idle ? rate : next;
    }
    return MOE_OK;
}

enum moe_status moe_goodput_search(const struct moe_goodput_trial *trial, double start_rate,
                                   double tolerance, struct moe_goodput *found,
                                   struct moe_error *err)
{
    struct moe_goodput search = { 0 };
    double failed = 0.0;
    bool passes = false;
    assert(start_rate > 0.0);
    assert(tolerance > 0.0);
    MOE_TRY(try_rate(trial, start_rate, &search, &passes, err));
    if (passes) {
        MOE_TRY(double_up(trial, &search, &failed, err));
        search.end = failed > 0.0 ? MOE_GOODPUT_FOUND : MOE_GOODPUT_UNBOUNDED;
    } else {
        MOE_TRY(halve_down(trial, &search, &failed, &passes, err));
        search.end = passes ? MOE_GOODPUT_FOUND : MOE_GOODPUT_IMPOSSIBLE;
    }
    while (search.end == MOE_GOODPUT_FOUND && failed > search.rate * (1.0 + tolerance)) {
        const double rate = sqrt(search.rate * failed);
        MOE_TRY(try_rate(trial, rate, &search, &passes, err));
        failed = passes ? failed : rate;
    }
    search.failed_rate = failed;
    *found = search;
    return MOE_OK;
}

/* One policy under one seed. */
struct served {
    const struct moe_study *study;
    uint32_t policy;
    uint32_t seed;
    bool fits;
    char why[MOE_RUN_WHY_BYTES];
};

static enum moe_status serve_at(void *context, double rate, bool *passes, struct moe_service *at,
                                struct moe_error *err)
{
    struct served *s = context;
    *passes = false;
    if (!s->fits) {
        return MOE_OK; /* at no rate */
    }
    MOE_TRY(moe_study_serve(s->study, s->policy, s->seed, rate, at, &s->fits, s->why, err));
    *passes = s->fits && at->slo_share >= s->study->scenario->slo.share && !at->is_saturated;
    return MOE_OK;
}

static enum moe_status search_one(const struct moe_goodput_study *g, uint32_t index,
                                  struct moe_error *err)
{
    struct moe_goodput *found = &g->found[index];
    struct served served = { .study = g->study,
                             .policy = index / g->seed_count,
                             .seed = index % g->seed_count,
                             .fits = true };
    const struct moe_goodput_trial trial = { &served, serve_at };
    MOE_TRY(moe_goodput_search(&trial, g->start_rate, g->tolerance, found, err));
    if (!served.fits) {
        found->end = MOE_GOODPUT_UNFIT;
        memcpy(found->why, served.why, sizeof found->why);
    }
    return MOE_OK;
}

static enum moe_status search_all(struct moe_goodput_study *g, struct moe_error *errors,
                                  bool progress, struct moe_error *err)
{
    const uint32_t count = g->policy_count * g->seed_count;
    uint32_t done = 0;
#pragma omp parallel for schedule(dynamic, 1)
    for (uint32_t i = 0; i < count; i++) {
        (void) search_one(g, i, &errors[i]);
#pragma omp critical(moe_goodput_progress)
        {
            done++;
            if (progress) {
                (void) fprintf(stderr, "\r%u of %u searches", done, count);
                (void) fflush(stderr);
            }
        }
    }
    if (progress) {
        (void) fputs("\r                              \r", stderr);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (errors[i].status != MOE_OK) {
            *err = errors[i];
            return err->status;
        }
    }
    return MOE_OK;
}

static void summarise_one(struct moe_goodput_study *g, uint32_t policy, double *scratch)
{
    struct moe_goodput_summary *s = &g->summaries[policy];
    const struct moe_goodput *found = g->found + (size_t) policy * g->seed_count;
    s->composition = g->study->policies[policy].composition;
    s->oracle = (moe_composition_needs(&s->composition) & MOE_POLICY_NEEDS_FUTURE) != 0;
    s->end = MOE_GOODPUT_FOUND;
    for (uint32_t i = 0; i < g->seed_count; i++) {
        s->end = found[i].end > s->end ? found[i].end : s->end;
    }
    if (s->end != MOE_GOODPUT_FOUND) {
        return;
    }
    for (uint32_t i = 0; i < g->seed_count; i++) {
        scratch[i] = found[i].rate;
    }
    s->rate = moe_estimate_of(scratch, g->seed_count);
    for (uint32_t i = 0; i < g->seed_count; i++) {
        scratch[i] = found[i].at.output_rate;
    }
    s->tokens = moe_estimate_of(scratch, g->seed_count);
}

/* With one seed only equal ratios tie, as in verdict.c. */
static bool overlap(struct moe_estimate a, struct moe_estimate b)
{
    if (isnan(a.half) || isnan(b.half)) {
        return a.mean == b.mean;
    }
    return a.mean - a.half <= b.mean + b.half && b.mean - b.half <= a.mean + a.half;
}

static void judge(struct moe_goodput_study *g, double *scratch)
{
    const struct moe_goodput *base = g->found + (size_t) g->study->baseline * g->seed_count;
    g->best = g->policy_count;
    g->baseline = g->study->baseline;
    if (g->summaries[g->baseline].end != MOE_GOODPUT_FOUND) {
        g->baseline = g->policy_count;
    }
    for (uint32_t p = 0; p < g->policy_count; p++) {
        struct moe_goodput_summary *s = &g->summaries[p];
        if (s->end != MOE_GOODPUT_FOUND) {
            continue;
        }
        for (uint32_t i = 0; i < g->seed_count; i++) {
            const double rate = g->found[(size_t) p * g->seed_count + i].rate;
            scratch[i] = g->baseline < g->policy_count ? rate / base[i].rate : rate;
        }
        s->ratio = moe_estimate_of(scratch, g->seed_count);
        if (!s->oracle &&
            (g->best == g->policy_count || s->ratio.mean > g->summaries[g->best].ratio.mean)) {
            g->best = p;
        }
    }
    for (uint32_t p = 0; p < g->policy_count && g->best < g->policy_count; p++) {
        struct moe_goodput_summary *s = &g->summaries[p];
        s->best = p == g->best;
        s->tie = !s->best && !s->oracle && s->end == MOE_GOODPUT_FOUND &&
                 overlap(s->ratio, g->summaries[g->best].ratio);
    }
}

static enum moe_status check(const struct moe_scenario *scenario, struct moe_error *err)
{
    if (scenario->arrivals.kind == MOE_ARRIVAL_CLOSED) {
        return moe_fail(err, MOE_RANGE,
                        "arrivals.kind: closed has no arrival rate to search; use poisson, gamma, "
                        "weibull, bursts, trace or file");
    }
    if (!moe_slo_is_asked(&scenario->slo)) {
        return moe_fail(err, MOE_RANGE,
                        "slo: none is asked; give --slo ttft=MS,tpot=MS, or slo.ttft_ms and "
                        "slo.tpot_ms in the scenario");
    }
    return MOE_OK;
}

static enum moe_status fill(struct moe_goodput_study *g, const struct moe_scenario *scenario,
                            bool progress, struct moe_error *err)
{
    const size_t searches = (size_t) scenario->policy_count * scenario->seed_count;
    struct moe_error *errors = calloc(searches, sizeof *errors);
    double *scratch = calloc(scenario->seed_count, sizeof *scratch);
    enum moe_status status = MOE_OK;
    g->policy_count = scenario->policy_count;
    g->seed_count = scenario->seed_count;
    g->found = calloc(searches, sizeof *g->found);
    g->summaries = calloc(scenario->policy_count, sizeof *g->summaries);
    if (errors == NULL || scratch == NULL || g->found == NULL || g->summaries == NULL) {
        status = moe_fail(err, MOE_LIMIT, "no memory for %zu searches", searches);
    }
    if (status == MOE_OK) {
        status = moe_study_open(&g->study, scenario, err);
    }
    if (status == MOE_OK) {
        const struct moe_arrival_source *source = g->study->arrivals;
        g->start_rate =
            scenario->arrivals.rate > 0.0 ? scenario->arrivals.rate : source->recorded_rate;
        if (!(g->start_rate > 0.0)) {
            status = moe_fail(err, MOE_RANGE,
                              "%s: all requests arrive at one moment: there is no "
                              "rate to search from",
                              scenario->arrivals.file);
        }
    }
    if (status == MOE_OK) {
        status = search_all(g, errors, progress, err);
    }
    for (uint32_t p = 0; status == MOE_OK && p < g->policy_count; p++) {
        summarise_one(g, p, scratch);
    }
    if (status == MOE_OK) {
        judge(g, scratch);
    }
    free(errors);
    free(scratch);
    return status;
}

enum moe_status moe_goodput_create(struct moe_goodput_study **out,
                                   const struct moe_scenario *scenario, double tolerance,
                                   uint32_t threads, bool progress, struct moe_error *err)
{
    const double begin = moe_wall_clock_s();
    struct moe_goodput_study *g = NULL;
    MOE_TRY(check(scenario, err));
    g = calloc(1, sizeof *g);
    if (g == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a search");
    }
    g->tolerance = tolerance;
    if (threads > 0) {
        omp_set_num_threads((int) threads);
    }
    const enum moe_status status = fill(g, scenario, progress, err);
    if (status != MOE_OK) {
        moe_goodput_destroy(g);
        return status;
    }
    g->wall_seconds = moe_wall_clock_s() - begin;
    *out = g;
    return MOE_OK;
}

void moe_goodput_destroy(struct moe_goodput_study *goodput)
{
    if (goodput != NULL) {
        moe_study_destroy(goodput->study);
        free(goodput->found);
        free(goodput->summaries);
        free(goodput);
    }
}

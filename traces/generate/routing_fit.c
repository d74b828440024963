/* Fitting a routing model: one pass over the trace, classes, and what the requests say. */
#include <assert.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_fit.h>
#include <gsl/gsl_sort_double.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/progress.h"
#include "sim/base/random.h"
#include "traces/generate/generate.h"
#include "traces/generate/routing_classes.h"
#include "traces/generate/routing_model.h"

enum {
    PARTS = 8,        /* of the trace, for drift */
    REPEAT_PAIRS = 64 /* of rows, in each request */
};

static const double DRIFT_ERRORS = 4.0; /* standard errors that count as drift */
static const double CONCENTRATION_MIN = 1e-2;
static const double CONCENTRATION_MAX = 1e6;

struct fit {
    struct moe_trace *trace;
    const struct moe_trace_model *model;
    const struct moe_trace_request *requests;
    uint64_t request_count;
    struct moe_routing_model *out;
    uint16_t *experts;     /* [token][layer][k] of the sample; owned */
    uint64_t *first_token; /* [sampled + 1]; owned */
    uint64_t *sampled;     /* [sampled] request numbers, ascending; owned */
    uint64_t sampled_count;
    uint16_t *class_of; /* [token]; owned */
    double *overall;    /* [layer][expert], sums to 1 over experts; owned */
    double *work;       /* whatever one step needs; owned */
    FILE *progress;     /* NULL: silent */
    double spread;      /* of requests' class shares beyond chance, of the most possible */
};

static size_t cells_of(const struct fit *fit)
{
    return (size_t) fit->model->layer_count * fit->model->expert_count;
}

static size_t ids_of(const struct fit *fit)
{
    return (size_t) fit->model->layer_count * fit->model->top_k;
}

/* Whole requests, drawn so that their rows are about as many as wanted; at least one. */
static enum moe_status choose_sample(struct fit *fit, const struct moe_routing_fit_options *options,
                                     struct moe_error *err)
{
    const double share = (double) options->token_limit / (double) moe_trace_row_count(fit->trace);
    const uint64_t key = moe_generate_key("sample", options->seed, 0);
    uint64_t tokens = 0;
    fit->sampled = malloc((size_t) fit->request_count * sizeof *fit->sampled);
    fit->first_token = malloc(((size_t) fit->request_count + 1) * sizeof *fit->first_token);
    if (fit->sampled == NULL || fit->first_token == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %llu requests",
                        (unsigned long long) fit->request_count);
    }
    for (uint64_t i = 0; i < fit->request_count; i++) {
        if (moe_random_uniform(key, i) < share ||
            (i == fit->request_count - 1 && fit->sampled_count == 0)) {
            fit->first_token[fit->sampled_count] = tokens;
            fit->sampled[fit->sampled_count++] = i;
            tokens += moe_trace_request_rows(&fit->requests[i]);
        }
    }
    fit->first_token[fit->sampled_count] = tokens;
    fit->experts = malloc((size_t) tokens * ids_of(fit) * sizeof *fit->experts);
    fit->class_of = calloc((size_t) tokens, sizeof *fit->class_of);
    return fit->experts == NULL || fit->class_of == NULL
               ? moe_fail(err, MOE_LIMIT, "no memory for a sample of %llu tokens",
                          (unsigned long long) tokens)
               : MOE_OK;
}

static void count_rows(const struct fit *fit, const uint16_t *experts, uint64_t rows, double *table)
{
    const uint32_t top_k = fit->model->top_k;
    for (uint64_t i = 0; i < rows * ids_of(fit); i++) {
        if (experts[i] != MOE_EXPERT_UNKNOWN) {
            const size_t layer = i / top_k % fit->model->layer_count;
            table[layer * fit->model->expert_count + experts[i]] += 1.0;
        }
    }
}

/* The whole trace into popularity counts, the sample into memory. */
static enum moe_status read_all(struct fit *fit, struct moe_error *err)
{
    const size_t cells = cells_of(fit);
    uint64_t next = 0;
    uint64_t longest = 1;
    for (uint64_t i = 0; i < fit->request_count; i++) {
        const uint64_t rows = moe_trace_request_rows(&fit->requests[i]);
        longest = rows > longest ? rows : longest;
    }
    assert(ids_of(fit) > 0);
    uint16_t *rows = malloc((size_t) longest * ids_of(fit) * sizeof *rows);
    if (rows == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a request of %llu rows",
                        (unsigned long long) longest);
    }
    enum moe_status status = MOE_OK;
    struct moe_progress progress;
    moe_progress_begin(&progress, fit->progress, "counting", "rows", 0,
                       moe_trace_row_count(fit->trace));
    for (uint64_t i = 0; i < fit->request_count && status == MOE_OK; i++) {
        const struct moe_trace_request *r = &fit->requests[i];
        moe_progress_update(&progress, r->first_row);
        const uint64_t count = moe_trace_request_rows(r);
        double *prefill = fit->out->popularity + (size_t) r->domain * MOE_ROUTING_PHASES * cells;
        status = moe_trace_read(fit->trace, r->first_row, count, rows, err);
        if (status != MOE_OK) {
            break;
        }
        count_rows(fit, rows, r->prompt_tokens, prefill);
        count_rows(fit, rows + r->prompt_tokens * ids_of(fit), count - r->prompt_tokens,
                   prefill + cells);
        if (next < fit->sampled_count && fit->sampled[next] == i) {
            memcpy(fit->experts + fit->first_token[next] * ids_of(fit), rows,
                   (size_t) count * ids_of(fit) * sizeof *rows);
            next++;
        }
    }
    moe_progress_end(&progress);
    free(rows);
    return status;
}

/* Divides each layer by its sum; one without counts becomes like fallback, or even. */
static void normalise(const struct fit *fit, double *table, const double *fallback)
{
    const uint32_t experts = fit->model->expert_count;
    for (uint32_t layer = 0; layer < fit->model->layer_count; layer++) {
        double *row = table + (size_t) layer * experts;
        double sum = 0.0;
        for (uint32_t i = 0; i < experts; i++) {
            sum += row[i];
        }
        for (uint32_t i = 0; i < experts; i++) {
            row[i] = sum > 0.0          ? row[i] / sum
                     : fallback != NULL ? fallback[(size_t) layer * experts + i]
                                        : 1.0 / experts;
        }
    }
}

static void settle_popularity(struct fit *fit)
{
    const size_t cells = cells_of(fit);
    const size_t tables = (size_t) fit->model->domain_count * MOE_ROUTING_PHASES;
    for (size_t table = 0; table < tables; table++) {
        for (size_t i = 0; i < cells; i++) {
            fit->overall[i] += fit->out->popularity[table * cells + i];
        }
    }
    normalise(fit, fit->overall, NULL);
    for (size_t table = 0; table < tables; table++) {
        /* A phase without rows is as the domain's other one; a domain without, as all. */
        double *mine = fit->out->popularity + table * cells;
        normalise(fit, mine, fit->overall);
    }
}

/* Class counts of a sampled request's phase: counts[class]; the number of its tokens. */
static double count_classes(const struct fit *fit, uint64_t index, uint32_t phase, double *counts)
{
    const struct moe_trace_request *r = &fit->requests[fit->sampled[index]];
    const uint64_t first = fit->first_token[index];
    const uint64_t middle = first + r->prompt_tokens;
    const uint64_t begin = phase == MOE_ROUTING_PREFILL ? first : middle;
    const uint64_t end = phase == MOE_ROUTING_PREFILL ? middle : fit->first_token[index + 1];
    for (uint64_t t = begin; t < end; t++) {
        counts[fit->class_of[t]] += 1.0;
    }
    return (double) (end - begin);
}

static double *share_of(const struct fit *fit, uint32_t domain, uint32_t phase)
{
    return fit->out->class_share +
           ((size_t) domain * MOE_ROUTING_PHASES + phase) * fit->out->class_count;
}

static void settle_shares(struct fit *fit)
{
    const uint32_t classes = fit->out->class_count;
    for (uint64_t i = 0; i < fit->sampled_count; i++) {
        const uint32_t domain = fit->requests[fit->sampled[i]].domain;
        for (uint32_t phase = 0; phase < MOE_ROUTING_PHASES; phase++) {
            (void) count_classes(fit, i, phase, share_of(fit, domain, phase));
        }
    }
    for (uint32_t domain = 0; domain < fit->model->domain_count; domain++) {
        for (uint32_t phase = 0; phase < MOE_ROUTING_PHASES; phase++) {
            double *share = share_of(fit, domain, phase);
            double sum = 0.0;
            for (uint32_t c = 0; c < classes; c++) {
                /* A little of each class, so that none is impossible. */
                share[c] += 0.5 / classes;
                sum += share[c];
            }
            for (uint32_t c = 0; c < classes; c++) {
                share[c] /= sum;
            }
        }
    }
}

static uint32_t shared_choices(const struct fit *fit, uint64_t a, uint64_t b, uint32_t layer)
{
    const uint32_t top_k = fit->model->top_k;
    const uint16_t *left = fit->experts + a * ids_of(fit) + (size_t) layer * top_k;
    const uint16_t *right = fit->experts + b * ids_of(fit) + (size_t) layer * top_k;
    uint32_t count = 0;
    for (uint32_t i = 0; i < top_k; i++) {
        for (uint32_t j = 0; j < top_k; j++) {
            count += left[i] == right[j] && left[i] != MOE_EXPERT_UNKNOWN;
        }
    }
    return count;
}

/* expected[class][class]: the share of top_k that two independent rows of these classes have in
 * common in a layer. */
static void expect_shared(const struct fit *fit, uint32_t layer, double *expected)
{
    const uint32_t classes = fit->out->class_count;
    const uint32_t experts = fit->model->expert_count;
    for (uint32_t a = 0; a < classes; a++) {
        for (uint32_t b = 0; b <= a; b++) {
            const double *left =
                fit->out->class_popularity + a * cells_of(fit) + (size_t) layer * experts;
            const double *right =
                fit->out->class_popularity + b * cells_of(fit) + (size_t) layer * experts;
            double sum = 0.0;
            for (uint32_t i = 0; i < experts; i++) {
                sum += left[i] * right[i];
            }
            expected[(size_t) a * classes + b] = sum * fit->model->top_k;
            expected[(size_t) b * classes + a] = sum * fit->model->top_k;
        }
    }
}

/* How much more two rows of a request share than their classes make likely, relative to what a
 * row and its exact repetition would: the probability that they are one. */
static double repeats_in(const struct fit *fit, uint32_t layer, uint64_t key,
                         const double *expected)
{
    const uint32_t classes = fit->out->class_count;
    double excess = 0.0;
    double possible = 0.0;
    for (uint64_t i = 0; i < fit->sampled_count; i++) {
        const uint64_t first = fit->first_token[i];
        const uint64_t count = fit->first_token[i + 1] - first;
        for (uint64_t pair = 0; count >= 2 && pair < REPEAT_PAIRS; pair++) {
            const uint64_t draw = (i * REPEAT_PAIRS + pair) * 2;
            const uint64_t a = moe_random_below(key, draw, count);
            const uint64_t b = (a + 1 + moe_random_below(key, draw + 1, count - 1)) % count;
            const uint32_t left = fit->class_of[first + a];
            const uint32_t right = fit->class_of[first + b];
            const double shared =
                (double) shared_choices(fit, first + a, first + b, layer) / fit->model->top_k;
            excess += shared - expected[(size_t) left * classes + right];
            possible += 1.0 - expected[(size_t) left * classes + left];
        }
    }
    return possible > 0.0 && excess > 0.0 ? excess / possible : 0.0;
}

/* The probability that two rows of a request are in one slot of so many. */
static double meeting(uint32_t slots)
{
    double sum = 0.0;
    double squares = 0.0;
    for (uint32_t slot = 0; slot < slots; slot++) {
        sum += 1.0 / (slot + 1);
        squares += 1.0 / ((double) (slot + 1) * (slot + 1));
    }
    return squares / (sum * sum);
}

/* Two rows of one slot have both its choices in r^2 of the cases: so many slots that the layer
 * that repeats most does so nearly always. */
static enum moe_status settle_repetition(struct fit *fit, uint64_t seed, struct moe_error *err)
{
    const uint32_t classes = fit->out->class_count;
    const uint64_t key = moe_generate_key("pairs", seed, 0);
    double most = 0.0;
    double *expected = malloc((size_t) classes * classes * sizeof *expected);
    if (expected == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for pairs of %u classes", classes);
    }
    for (uint32_t layer = 0; layer < fit->model->layer_count; layer++) {
        expect_shared(fit, layer, expected);
        fit->out->repetition[layer] = repeats_in(fit, layer, key, expected);
        most = fit->out->repetition[layer] > most ? fit->out->repetition[layer] : most;
    }
    free(expected);
    fit->out->slot_count = 1;
    while (fit->out->slot_count < MOE_ROUTING_SLOT_LIMIT &&
           meeting(fit->out->slot_count + 1) >= most) {
        fit->out->slot_count++;
    }
    for (uint32_t layer = 0; layer < fit->model->layer_count; layer++) {
        fit->out->repetition[layer] =
            sqrt(fit->out->repetition[layer] / meeting(fit->out->slot_count));
    }
    return MOE_OK;
}

/* Requests differ more than tokens drawn alike would: for shares drawn from a Dirichlet of
 * concentration a, the variance of a request's class share exceeds the multinomial's by the factor
 * that 1 / (1 + a) takes of it. Over prompt rows, which all requests have. */
static void settle_concentration(struct fit *fit)
{
    const uint32_t classes = fit->out->class_count;
    double excess = 0.0;
    double possible = 0.0;
    for (uint64_t i = 0; i < fit->sampled_count; i++) {
        const double *share =
            share_of(fit, fit->requests[fit->sampled[i]].domain, MOE_ROUTING_PREFILL);
        memset(fit->work, 0, classes * sizeof *fit->work);
        const double n = count_classes(fit, i, MOE_ROUTING_PREFILL, fit->work);
        for (uint32_t c = 0; c < classes && n >= 2.0; c++) {
            const double spread = share[c] * (1.0 - share[c]);
            const double miss = fit->work[c] / n - share[c];
            excess += miss * miss - spread / n;
            possible += spread * (1.0 - 1.0 / n);
        }
    }
    /* Drawing slots has spread the shares already. */
    const double all = possible > 0.0 ? excess / possible : 0.0;
    const double slots = meeting(fit->out->slot_count);
    const double factor = slots < 1.0 ? (all - slots) / (1.0 - slots) : 0.0;
    fit->spread = all > 0.0 ? all : 0.0;
    const double a = factor > 0.0 ? 1.0 / factor - 1.0 : CONCENTRATION_MAX;
    fit->out->concentration = a < CONCENTRATION_MIN   ? CONCENTRATION_MIN
                              : a > CONCENTRATION_MAX ? CONCENTRATION_MAX
                                                      : a;
}

/* The slope of log(seen / expected) over the parts, 0 unless it stands out. Weights are counts:
 * the variance of a logarithm of a count n is about 1 / n, times what requests differ. */
static double drift_of(const double *seen, const double *expected, double inflation)
{
    double x[PARTS];
    double y[PARTS];
    double w[PARTS];
    size_t count = 0;
    for (int part = 0; part < PARTS; part++) {
        if (seen[part] > 0.0 && expected[part] > 0.0) {
            x[count] = (part + 0.5) / PARTS - 0.5;
            y[count] = log(seen[part] / expected[part]);
            w[count] = expected[part] / inflation;
            count++;
        }
    }
    double c0 = 0.0;
    double c1 = 0.0;
    double cov00 = 0.0;
    double cov01 = 0.0;
    double cov11 = 0.0;
    double chi = 0.0;
    if (count < 3 || gsl_fit_wlinear(x, 1, w, 1, y, 1, count, &c0, &c1, &cov00, &cov01, &cov11,
                                     &chi) != GSL_SUCCESS) {
        return 0.0;
    }
    return fabs(c1) > DRIFT_ERRORS * sqrt(cov11) ? c1 : 0.0;
}

static void settle_drift(struct fit *fit)
{
    const uint32_t classes = fit->out->class_count;
    double *seen = fit->work; /* [class][PARTS] */
    double *expected = fit->work + (size_t) classes * PARTS;
    double *counts = fit->work + (size_t) 2 * classes * PARTS;
    double tokens = 0.0;
    memset(fit->work, 0, (size_t) classes * (2 * PARTS + 1) * sizeof *fit->work);
    for (uint64_t i = 0; i < fit->sampled_count; i++) {
        const uint64_t part = fit->sampled[i] * PARTS / fit->request_count;
        const uint32_t domain = fit->requests[fit->sampled[i]].domain;
        for (uint32_t phase = 0; phase < MOE_ROUTING_PHASES; phase++) {
            memset(counts, 0, classes * sizeof *counts);
            const double n = count_classes(fit, i, phase, counts);
            const double *share = share_of(fit, domain, phase);
            tokens += n;
            for (uint32_t c = 0; c < classes; c++) {
                seen[(size_t) c * PARTS + part] += counts[c];
                expected[(size_t) c * PARTS + part] += n * share[c];
            }
        }
    }
    const double per_request = tokens / (double) fit->sampled_count;
    const double inflation = 1.0 + (per_request - 1.0) * fit->spread;
    for (uint32_t c = 0; c < classes; c++) {
        fit->out->class_drift[c] =
            drift_of(seen + (size_t) c * PARTS, expected + (size_t) c * PARTS, inflation);
    }
}

static void take_quantiles(double *sorted, size_t count, double *out)
{
    gsl_sort(sorted, 1, count);
    for (int i = 0; i < MOE_ROUTING_QUANTILES; i++) {
        out[i] = gsl_stats_quantile_from_sorted_data(sorted, 1, count,
                                                     (double) i / (MOE_ROUTING_QUANTILES - 1));
    }
}

/* Lengths of a domain's requests: lengths[2 * count] and work[2 * count] are scratch. */
static void settle_domain(struct fit *fit, uint32_t domain, double *prompt, double *output,
                          double *work)
{
    struct moe_routing_domain *d = &fit->out->domains[domain];
    size_t count = 0;
    for (uint64_t i = 0; i < fit->request_count; i++) {
        if (fit->requests[i].domain == domain) {
            prompt[count] = fit->requests[i].prompt_tokens;
            output[count] = fit->requests[i].output_tokens;
            count++;
        }
    }
    d->share = (double) count / (double) fit->request_count;
    if (count == 0) {
        prompt[0] = 1.0;
        output[0] = 1.0;
        count = 1;
    }
    const double r = count > 2 ? gsl_stats_spearman(prompt, 1, output, 1, count, work) : 0.0;
    d->length_correlation = isfinite(r) ? r : 0.0;
    take_quantiles(prompt, count, d->prompt_tokens);
    take_quantiles(output, count, d->output_tokens);
}

static enum moe_status settle_domains(struct fit *fit, struct moe_error *err)
{
    const size_t count = (size_t) fit->request_count;
    double *lengths = malloc(4 * count * sizeof *lengths);
    if (lengths == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for the lengths of %zu requests", count);
    }
    for (uint32_t domain = 0; domain < fit->model->domain_count; domain++) {
        settle_domain(fit, domain, lengths, lengths + count, lengths + 2 * count);
    }
    free(lengths);
    return MOE_OK;
}

static enum moe_status find_classes(struct fit *fit, uint64_t seed, struct moe_error *err)
{
    const struct moe_routing_sample sample = {
        .layer_count = fit->model->layer_count,
        .expert_count = fit->model->expert_count,
        .top_k = fit->model->top_k,
        .token_count = fit->first_token[fit->sampled_count],
        .experts = fit->experts,
    };
    return moe_routing_classes_find(&sample, fit->overall, fit->out->class_count, seed,
                                    fit->out->class_popularity, fit->class_of, fit->progress, err);
}

static enum moe_status run(struct fit *fit, const struct moe_routing_fit_options *options,
                           struct moe_error *err)
{
    fit->overall = calloc(cells_of(fit), sizeof *fit->overall);
    fit->work = calloc((size_t) options->class_count * (2 * PARTS + 1), sizeof *fit->work);
    if (fit->overall == NULL || fit->work == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to fit");
    }
    MOE_TRY(choose_sample(fit, options, err));
    MOE_TRY(read_all(fit, err));
    settle_popularity(fit);
    MOE_TRY(find_classes(fit, options->seed, err));
    settle_shares(fit);
    MOE_TRY(settle_repetition(fit, options->seed, err));
    settle_concentration(fit);
    settle_drift(fit);
    return settle_domains(fit, err);
}

enum moe_status moe_routing_fit(struct moe_routing_model *out, struct moe_trace *trace,
                                const struct moe_routing_fit_options *options,
                                struct moe_error *err)
{
    struct moe_routing_model model = {
        .model = *moe_trace_model(trace),
        .source_hash = moe_trace_hash(trace),
        .request_count = moe_trace_request_count(trace),
        .class_count = options->class_count,
    };
    struct fit fit = {
        .trace = trace,
        .model = moe_trace_model(trace),
        .requests = moe_trace_requests(trace),
        .request_count = model.request_count,
        .out = &model,
        .progress = options->progress,
    };
    gsl_set_error_handler_off();
    enum moe_status status = moe_routing_model_allocate(&model, err);
    if (status == MOE_OK) {
        status = run(&fit, options, err);
    }
    free(fit.experts);
    free(fit.first_token);
    free(fit.sampled);
    free(fit.class_of);
    free(fit.overall);
    free(fit.work);
    if (status != MOE_OK) {
        moe_routing_model_finish(&model);
        return status;
    }
    *out = model;
    return MOE_OK;
}

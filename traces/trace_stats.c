#include "traces/trace_stats.h"

#include <assert.h>
#include <gsl/gsl_sort_double.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "traces/trace_loads.h"

enum { PIECE_IDS = 1 << 17 };

enum { PREFILL, DECODE, PHASE_COUNT };

_Static_assert(PIECE_IDS >= MOE_TRACE_LAYER_LIMIT * MOE_TRACE_TOP_K_LIMIT, "a piece holds a row");

struct pass {
    struct moe_trace *trace;
    const struct moe_trace_model *model;
    struct moe_trace_stats *out;
    uint16_t *rows;              /* [PIECE_IDS] */
    uint64_t *counts;            /* [domain][phase][layer][expert] */
    double *loads;               /* [domain][layer][expert], of recorded loads; else NULL */
    double *phases[PHASE_COUNT]; /* [expert], of one layer */
};

static uint64_t *table_of(const struct pass *pass, uint32_t domain, uint32_t phase)
{
    const size_t table = (size_t) pass->model->layer_count * pass->model->expert_count;
    return pass->counts + ((size_t) domain * PHASE_COUNT + phase) * table;
}

static void count_rows(struct pass *pass, uint64_t row_count, uint64_t *table)
{
    const struct moe_trace_model *model = pass->model;
    const uint16_t *experts = pass->rows;
    for (uint64_t row = 0; row < row_count; row++) {
        uint64_t *layer = table;
        for (uint32_t i = 0; i < model->layer_count; i++, layer += model->expert_count) {
            for (uint32_t k = 0; k < model->top_k; k++, experts++) {
                if (*experts == MOE_EXPERT_UNKNOWN) {
                    pass->out->unknown_count++;
                } else {
                    layer[*experts]++;
                }
            }
        }
    }
}

static enum moe_status count_phase(struct pass *pass, uint64_t first, uint64_t row_count,
                                   uint64_t *table, struct moe_error *err)
{
    const uint64_t most = PIECE_IDS / ((uint64_t) pass->model->layer_count * pass->model->top_k);
    while (row_count > 0) {
        const uint64_t rows = row_count < most ? row_count : most;
        MOE_TRY(moe_trace_read(pass->trace, first, rows, pass->rows, err));
        count_rows(pass, rows, table);
        first += rows;
        row_count -= rows;
    }
    return MOE_OK;
}

static enum moe_status count_all(struct pass *pass, struct moe_progress *progress,
                                 struct moe_error *err)
{
    const struct moe_trace_request *requests = moe_trace_requests(pass->trace);
    struct moe_trace_stats *out = pass->out;
    for (uint64_t i = 0; i < moe_trace_request_count(pass->trace); i++) {
        const struct moe_trace_request *request = &requests[i];
        const uint64_t decode = request->output_tokens - 1;
        MOE_TRY(count_phase(pass, request->first_row, request->prompt_tokens,
                            table_of(pass, request->domain, PREFILL), err));
        MOE_TRY(count_phase(pass, request->first_row + request->prompt_tokens, decode,
                            table_of(pass, request->domain, DECODE), err));
        out->prefill_rows += request->prompt_tokens;
        out->decode_rows += decode;
        out->domains[request->domain].request_count++;
        out->domains[request->domain].row_count += moe_trace_request_rows(request);
        moe_progress_update(progress, request->first_row);
    }
    out->choice_count =
        (out->prefill_rows + out->decode_rows) * pass->model->layer_count * pass->model->top_k;
    return MOE_OK;
}

static enum moe_status add_loads(struct pass *pass, struct moe_trace_load_cursor *cursor,
                                 double *counts, struct moe_progress *progress,
                                 struct moe_error *err)
{
    const size_t cells = (size_t) pass->model->layer_count * pass->model->expert_count;
    struct moe_trace_load load = { 0 };
    uint64_t seen = 0;
    double total = 0.0;
    bool got = true;
    for (;;) {
        MOE_TRY(moe_trace_loads_next(cursor, &load, counts, &got, err));
        if (!got) {
            return MOE_OK;
        }
        double *table = pass->loads + load.domain * cells;
        struct moe_trace_domain_stats *domain = &pass->out->domains[load.domain];
        total = 0.0;
        for (size_t i = 0; i < cells; i++) {
            table[i] += counts[i];
            total += counts[i];
        }
        const bool is_new_step = load.step == pass->out->step_count;
        pass->out->step_count += is_new_step;
        domain->request_count += is_new_step;
        domain->row_count += (uint64_t) total;
        moe_progress_update(progress, ++seen);
    }
}

/* The same for a store that holds loads. */
static enum moe_status count_loads(struct pass *pass, struct moe_progress *progress,
                                   struct moe_error *err)
{
    struct moe_trace_load_cursor cursor = { 0 };
    const size_t cells = (size_t) pass->model->layer_count * pass->model->expert_count;
    double *counts = malloc(cells * sizeof *counts);
    pass->loads = calloc((size_t) pass->model->domain_count * cells, sizeof *pass->loads);
    if (counts == NULL || pass->loads == NULL) {
        free(counts);
        return moe_fail(err, MOE_LIMIT, "%s: no memory to add its loads",
                        moe_trace_path(pass->trace));
    }
    enum moe_status status = moe_trace_loads_begin(&cursor, pass->trace, err);
    if (status == MOE_OK) {
        status = add_loads(pass, &cursor, counts, progress, err);
    }
    moe_trace_loads_end(&cursor);
    free(counts);
    return status;
}

/* Adds one table's layer to load[expert_count]. */
static void add_layer(const struct pass *pass, uint32_t domain, uint32_t phase, uint32_t layer,
                      double *load)
{
    const size_t count = pass->model->expert_count;
    const size_t first = (size_t) layer * count;
    const size_t cells = (size_t) pass->model->layer_count * count;
    if (pass->loads != NULL) {
        const double *row = pass->loads + domain * cells + first;
        for (size_t expert = 0; phase == PREFILL && expert < count; expert++) {
            load[expert] += row[expert];
        }
        return;
    }
    const uint64_t *table = table_of(pass, domain, phase);
    for (size_t expert = 0; expert < count; expert++) {
        load[expert] += (double) table[first + expert];
    }
}

static double max_over_mean(const double *load, size_t count)
{
    const double mean = gsl_stats_mean(load, 1, count);
    return mean > 0.0 ? gsl_stats_max(load, 1, count) / mean : 1.0;
}

static double entropy(const double *load, size_t count)
{
    const double total = gsl_stats_mean(load, 1, count) * (double) count;
    double sum = 0.0;
    for (size_t i = 0; i < count && total > 0.0; i++) {
        const double share = load[i] / total;
        sum -= share > 0.0 ? share * log(share) : 0.0;
    }
    return count > 1 && total > 0.0 ? sum / log((double) count) : 1.0;
}

static void summarise_layer(struct pass *pass, uint32_t layer)
{
    struct moe_trace_stats *out = pass->out;
    const size_t count = pass->model->expert_count;
    struct moe_trace_layer_stats *stats = &out->layers[layer];
    double *load = out->load + (size_t) layer * count;
    for (uint32_t phase = 0; phase < PHASE_COUNT; phase++) {
        memset(pass->phases[phase], 0, count * sizeof(double));
        for (uint32_t domain = 0; domain < pass->model->domain_count; domain++) {
            add_layer(pass, domain, phase, layer, pass->phases[phase]);
        }
        for (size_t expert = 0; expert < count; expert++) {
            load[expert] += pass->phases[phase][expert];
        }
    }
    const double mean = gsl_stats_mean(load, 1, count);
    stats->max_over_mean = max_over_mean(load, count);
    stats->balance = 1.0 / stats->max_over_mean;
    stats->variation =
        mean > 0.0 ? sqrt(gsl_stats_variance_with_fixed_mean(load, 1, count, mean)) / mean : 0.0;
    stats->entropy = entropy(load, count);
    const double r =
        count > 1 ? gsl_stats_correlation(pass->phases[PREFILL], 1, pass->phases[DECODE], 1, count)
                  : NAN;
    /* 0/0 inside GSL is NaN, of either sign; give one. */
    stats->phase_correlation = isfinite(r) ? r : NAN;
}

static void summarise_domain(struct pass *pass, uint32_t domain)
{
    struct moe_trace_domain_stats *stats = &pass->out->domains[domain];
    const size_t count = pass->model->expert_count;
    double sum = 0.0;
    for (uint32_t layer = 0; layer < pass->model->layer_count; layer++) {
        double *load = pass->phases[PREFILL];
        memset(load, 0, count * sizeof(double));
        add_layer(pass, domain, PREFILL, layer, load);
        add_layer(pass, domain, DECODE, layer, load);
        sum += max_over_mean(load, count);
    }
    stats->max_over_mean = stats->row_count > 0 ? sum / (double) pass->model->layer_count : NAN;
}

static void average_layers(struct moe_trace_stats *out)
{
    struct moe_trace_layer_stats *mean = &out->mean;
    const double layers = (double) out->layer_count;
    uint32_t correlated = 0;
    double correlation = 0.0;
    for (uint32_t layer = 0; layer < out->layer_count; layer++) {
        const struct moe_trace_layer_stats *stats = &out->layers[layer];
        mean->max_over_mean += stats->max_over_mean / layers;
        mean->balance += stats->balance / layers;
        mean->variation += stats->variation / layers;
        mean->entropy += stats->entropy / layers;
        if (!isnan(stats->phase_correlation)) {
            correlation += stats->phase_correlation;
            correlated++;
        }
    }
    mean->phase_correlation = correlated > 0 ? correlation / (double) correlated : NAN;
}

static enum moe_status compute(struct pass *pass, struct moe_progress *progress,
                               struct moe_error *err)
{
    const struct moe_trace_model *model = pass->model;
    struct moe_trace_stats *out = pass->out;
    const size_t table = (size_t) model->layer_count * model->expert_count;
    out->layer_count = model->layer_count;
    out->expert_count = model->expert_count;
    out->domain_count = model->domain_count;
    out->load = calloc(table, sizeof *out->load);
    out->layers = calloc(model->layer_count, sizeof *out->layers);
    pass->rows = malloc((size_t) PIECE_IDS * sizeof *pass->rows);
    pass->counts = calloc((size_t) model->domain_count * PHASE_COUNT, table * sizeof(uint64_t));
    pass->phases[PREFILL] = calloc(model->expert_count, sizeof(double));
    pass->phases[DECODE] = calloc(model->expert_count, sizeof(double));
    if (out->load == NULL || out->layers == NULL || pass->rows == NULL || pass->counts == NULL ||
        pass->phases[PREFILL] == NULL || pass->phases[DECODE] == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for the loads of %u layers of %u experts",
                        moe_trace_path(pass->trace), model->layer_count, model->expert_count);
    }
    MOE_TRY(model->content == MOE_TRACE_LOADS ? count_loads(pass, progress, err)
                                              : count_all(pass, progress, err));
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        summarise_layer(pass, layer);
    }
    for (uint32_t domain = 0; domain < model->domain_count; domain++) {
        summarise_domain(pass, domain);
    }
    average_layers(out);
    return MOE_OK;
}

enum moe_status moe_trace_stats_compute(struct moe_trace_stats *out, struct moe_trace *trace,
                                        struct moe_progress *progress, struct moe_error *err)
{
    struct moe_trace_stats stats = { 0 };
    struct pass pass = { .trace = trace, .model = moe_trace_model(trace), .out = &stats };
    const enum moe_status status = compute(&pass, progress, err);
    free(pass.phases[PREFILL]);
    free(pass.phases[DECODE]);
    free(pass.counts);
    free(pass.loads);
    free(pass.rows);
    if (status != MOE_OK) {
        moe_trace_stats_finish(&stats);
        return status;
    }
    *out = stats;
    return MOE_OK;
}

void moe_trace_stats_finish(struct moe_trace_stats *stats)
{
    free(stats->load);
    free(stats->layers);
    *stats = (struct moe_trace_stats){ 0 };
}

enum moe_status moe_trace_stats_curve(const struct moe_trace_stats *stats, uint32_t layer,
                                      double *points, uint32_t point_count, struct moe_error *err)
{
    const size_t count = stats->expert_count;
    const double *load = stats->load + (size_t) layer * count;
    assert(layer < stats->layer_count);
    assert(point_count >= 1);
    assert(point_count <= count);
    double *sorted = malloc(count * sizeof *sorted);
    if (sorted == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to sort %zu loads", count);
    }
    memcpy(sorted, load, count * sizeof *sorted);
    gsl_sort(sorted, 1, count); /* ascending; equal loads are equal, so their order is moot */
    const double mean = gsl_stats_mean(sorted, 1, count);
    for (size_t p = 0; p < point_count; p++) {
        const size_t from = p * count / point_count;
        const size_t to = (p + 1) * count / point_count;
        points[p] = 0.0;
        for (size_t rank = from; rank < to; rank++) {
            points[p] += sorted[count - 1 - rank] / (double) (to - from);
        }
        points[p] = mean > 0.0 ? points[p] / mean : 0.0;
    }
    free(sorted);
    return MOE_OK;
}

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "sim/base/options.h"
#include "sim/command/command.h"
#include "sim/command/trace_command.h"
#include "traces/trace_stats.h"

/* The JSON's schema; raised when a field changes its meaning or goes. */
enum { STATS_VERSION = 1 };

enum { SPARK_WIDTH = 32, PLOT_WIDTH = 64, PLOT_HEIGHT = 12 };

static const char *const blocks[] = { " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };

static uint32_t width_of(const struct moe_trace_stats *stats, uint32_t width)
{
    return stats->expert_count < width ? stats->expert_count : width;
}

/* The block that fills a cell to `eighths` of it. */
static const char *block(double eighths)
{
    const double clipped = eighths < 0.0 ? 0.0 : eighths > 8.0 ? 8.0 : eighths;
    return blocks[(int) (clipped + 0.5)];
}

/* -0.00 is no help to anyone, and "nan" needs a word. */
static void print_correlation(double r)
{
    if (isnan(r)) {
        (void) printf("%10s", "-");
    } else {
        (void) printf("%10.3f", r);
    }
}

static void print_numbers(const struct moe_trace_layer_stats *stats)
{
    (void) printf("%9.3f%9.3f%9.3f%9.3f", stats->max_over_mean, stats->balance, stats->variation,
                  stats->entropy);
    print_correlation(stats->phase_correlation);
}

/* The sorted-frequency curve in one line; its height is relative to the layer's largest. */
static enum moe_status print_spark(const struct moe_trace_stats *stats, uint32_t layer,
                                   struct moe_error *err)
{
    double points[SPARK_WIDTH];
    const uint32_t width = width_of(stats, SPARK_WIDTH);
    MOE_TRY(moe_trace_stats_curve(stats, layer, points, width, err));
    for (uint32_t i = 0; i < width; i++) {
        (void) fputs(block(points[0] > 0.0 ? 8.0 * points[i] / points[0] : 0.0), stdout);
    }
    return MOE_OK;
}

static enum moe_status print_plot(const struct moe_trace_stats *stats, uint32_t layer,
                                  struct moe_error *err)
{
    double points[PLOT_WIDTH];
    const uint32_t width = width_of(stats, PLOT_WIDTH);
    MOE_TRY(moe_trace_stats_curve(stats, layer, points, width, err));
    const double top = points[0] > 0.0 ? points[0] : 1.0;
    (void) printf("\nlayer %u: load of the experts, sorted, relative to their mean\n", layer);
    for (int line = PLOT_HEIGHT; line > 0; line--) {
        (void) printf("%6.2f ", top * line / PLOT_HEIGHT);
        for (uint32_t i = 0; i < width; i++) {
            (void) fputs(block(8.0 * (PLOT_HEIGHT * points[i] / top - (line - 1))), stdout);
        }
        (void) putchar('\n');
    }
    (void) printf("       1st of %u experts ... last\n", stats->expert_count);
    return MOE_OK;
}

static void print_domains(const struct moe_trace_stats *stats, const struct moe_trace_model *model)
{
    const bool loads = model->content == MOE_TRACE_LOADS;
    (void) printf("\n%-24s%12s%12s%10s\n", "domain", loads ? "steps" : "requests",
                  loads ? "counts" : "tokens", "max/mean");
    for (uint32_t i = 0; i < stats->domain_count; i++) {
        const struct moe_trace_domain_stats *domain = &stats->domains[i];
        (void) printf("%-24s%12" PRIu64 "%12" PRIu64, model->domains[i], domain->request_count,
                      domain->row_count);
        if (domain->row_count > 0) {
            (void) printf("%10.3f\n", domain->max_over_mean);
        } else {
            (void) printf("%10s\n", "-");
        }
    }
}

static enum moe_status print_table(const struct moe_trace_stats *stats,
                                   const struct moe_trace *trace, uint32_t first, uint32_t last,
                                   struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    if (model->content == MOE_TRACE_LOADS) {
        (void) printf("%s: %u layers of %u experts; recorded loads of %" PRIu64 " step%s\n\n",
                      model->name, model->layer_count, model->expert_count, stats->step_count,
                      stats->step_count == 1 ? "" : "s");
    } else {
        (void) printf("%s: %u layers of %u experts, top-%u; %" PRIu64 " prefill and %" PRIu64
                      " decode tokens; %.3g %% of the choices not recorded\n\n",
                      model->name, model->layer_count, model->expert_count, model->top_k,
                      stats->prefill_rows, stats->decode_rows,
                      100.0 * (double) stats->unknown_count / (double) stats->choice_count);
    }
    (void) printf("%5s%9s%9s%9s%9s%10s  %s\n", "layer", "max/mean", "mean/max", "cv", "entropy",
                  "pre/dec r", "experts by load");
    for (uint32_t layer = first; layer <= last; layer++) {
        (void) printf("%5u", layer);
        print_numbers(&stats->layers[layer]);
        (void) fputs("  ", stdout);
        MOE_TRY(print_spark(stats, layer, err));
        (void) putchar('\n');
    }
    if (first == last) {
        return print_plot(stats, first, err);
    }
    (void) printf("%5s", "mean");
    print_numbers(&stats->mean);
    (void) putchar('\n');
    print_domains(stats, model);
    return MOE_OK;
}

static json_t *number_json(double value)
{
    return isnan(value) ? json_null() : json_real(value);
}

static json_t *layer_json(const struct moe_trace_layer_stats *stats)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:o}", "max_over_mean", stats->max_over_mean, "balance",
                     stats->balance, "variation", stats->variation, "entropy", stats->entropy,
                     "prefill_decode_correlation", number_json(stats->phase_correlation));
}

static json_t *layers_json(const struct moe_trace_stats *stats, uint32_t first, uint32_t last)
{
    json_t *layers = json_array();
    for (uint32_t layer = first; layer <= last; layer++) {
        json_t *load = json_array();
        for (uint32_t expert = 0; expert < stats->expert_count; expert++) {
            const double count = stats->load[(size_t) layer * stats->expert_count + expert];
            (void) json_array_append_new(
                load, count == floor(count) ? json_integer((json_int_t) count) : json_real(count));
        }
        json_t *object = layer_json(&stats->layers[layer]);
        (void) json_object_set_new(object, "layer", json_integer(layer));
        (void) json_object_set_new(object, "load", load);
        (void) json_array_append_new(layers, object);
    }
    return layers;
}

static enum moe_status print_json(const struct moe_trace_stats *stats,
                                  const struct moe_trace *trace, uint32_t first, uint32_t last,
                                  struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    json_t *domains = json_array();
    for (uint32_t i = 0; i < stats->domain_count; i++) {
        (void) json_array_append_new(
            domains, json_pack("{s:s, s:I, s:I, s:o}", "name", model->domains[i], "requests",
                               (json_int_t) stats->domains[i].request_count, "tokens",
                               (json_int_t) stats->domains[i].row_count, "max_over_mean",
                               number_json(stats->domains[i].max_over_mean)));
    }
    json_t *document = json_pack(
        "{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "version", STATS_VERSION, "model",
        model->name, "prefill_tokens", (json_int_t) stats->prefill_rows, "decode_tokens",
        (json_int_t) stats->decode_rows, "steps", (json_int_t) stats->step_count, "choices",
        (json_int_t) stats->choice_count, "unknown_choices", (json_int_t) stats->unknown_count,
        "layers", layers_json(stats, first, last), "mean", layer_json(&stats->mean), "domains",
        domains);
    if (document == NULL) {
        return moe_fail(err, MOE_PARSE, "%s: a name in it is not UTF-8, which JSON demands",
                        moe_trace_path(trace));
    }
    const int failed = json_dumpf(document, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    json_decref(document);
    (void) putchar('\n');
    return failed == 0 ? MOE_OK : moe_fail(err, MOE_IO, "cannot write to standard output");
}

static enum moe_status print_stats(struct moe_trace *trace, const char *layer_text, bool json,
                                   struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    const uint32_t layer_count = model->layer_count;
    uint64_t first = 0;
    uint64_t last = layer_count == 0 ? 0 : layer_count - 1;
    struct moe_trace_stats stats = { 0 };
    struct moe_progress progress;
    if (model->content == MOE_TRACE_ARRIVALS) {
        return moe_fail(err, MOE_RANGE,
                        "%s: holds arrivals of requests without routes; `moesim trace info` tells "
                        "about them",
                        moe_trace_path(trace));
    }
    if (layer_text != NULL) {
        MOE_TRY(moe_parse_count(layer_text, "--layer", 0, layer_count - 1, &first, err));
        last = first;
    }
    const bool loads = model->content == MOE_TRACE_LOADS;
    moe_progress_begin(&progress, stderr, "counting", loads ? "loads" : "rows", 0,
                       loads ? moe_trace_load_count(trace) : moe_trace_row_count(trace));
    enum moe_status status = moe_trace_stats_compute(&stats, trace, &progress, err);
    moe_progress_end(&progress);
    if (status == MOE_OK) {
        status = json ? print_json(&stats, trace, (uint32_t) first, (uint32_t) last, err)
                      : print_table(&stats, trace, (uint32_t) first, (uint32_t) last, err);
    }
    moe_trace_stats_finish(&stats);
    return status;
}

enum moe_status moe_trace_command_stats(int argc, char **argv, struct moe_error *err)
{
    const char *input = NULL;
    const char *format = "table";
    const char *layer = NULL;
    bool json = false;
    struct moe_trace *trace = NULL;
    const struct moe_option options[] = {
        { "format", MOE_OPTION_TEXT, &format, "FORM", "table or json", 0, 0 },
        { "layer", MOE_OPTION_TEXT, &layer, "N", "one layer only, with its curve", 0, 0 },
    };
    struct moe_positionals inputs = { .items = &input, .min = 1, .max = 1, .what = "T.db" };
    if (moe_command_wants_help(argc, argv)) {
        (void) fputs("usage: moesim trace stats [--format table|json] [--layer N] T.db\n", stdout);
        moe_options_print(stdout, options, sizeof options / sizeof options[0]);
        return MOE_OK;
    }
    MOE_TRY(
        moe_options_parse(options, sizeof options / sizeof options[0], &inputs, argc, argv, err));
    MOE_TRY(moe_trace_command_format(format, &json, err));
    MOE_TRY(moe_trace_open_any(&trace, input, err));
    const enum moe_status status = print_stats(trace, layer, json, err);
    moe_trace_close(trace);
    return status;
}

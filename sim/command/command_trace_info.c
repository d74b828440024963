#include <gsl/gsl_sort_double.h>
#include <gsl/gsl_statistics_double.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "sim/base/options.h"
#include "sim/command/command.h"
#include "sim/command/trace_command.h"
#include "traces/trace_loads.h"
#include "traces/trace_provenance.h"
#include "traces/trace_schema.h"

/* The JSON's schema; raised when a field changes its meaning or goes. */
enum { INFO_VERSION = 1 };

static const struct {
    const char *name;
    double share;
} quantiles[] = { { "min", 0.0 }, { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "max", 1.0 } };

enum { QUANTILE_COUNT = sizeof quantiles / sizeof quantiles[0] };

struct lengths {
    double mean;
    double quantile[QUANTILE_COUNT]; /* linear between neighbours */
};

struct info {
    const struct moe_trace_model *model;
    struct moe_trace_history history;
    struct lengths prompt;
    struct lengths output;
    uint64_t domain_requests[MOE_TRACE_DOMAIN_LIMIT];
    uint64_t domain_rows[MOE_TRACE_DOMAIN_LIMIT];
    bool has_arrivals;
    int64_t last_arrival_ns;
    uint64_t file_bytes;
    uint64_t step_count;   /* of a store of loads */
    uint32_t slot_count;   /* of the recorded placement; 0: none */
    uint32_t block_tokens; /* of the recorded prefix blocks; 0: none */
};

static void summarise(struct lengths *lengths, double *values, size_t count)
{
    gsl_sort(values, 1, count);
    lengths->mean = gsl_stats_mean(values, 1, count);
    for (int i = 0; i < QUANTILE_COUNT; i++) {
        lengths->quantile[i] =
            gsl_stats_quantile_from_sorted_data(values, 1, count, quantiles[i].share);
    }
}

static enum moe_status collect_rest(struct info *info, struct moe_trace *trace,
                                    struct moe_error *err)
{
    uint16_t *experts = NULL;
    struct stat file;
    info->model = moe_trace_model(trace);
    info->file_bytes = stat(moe_trace_path(trace), &file) == 0 ? (uint64_t) file.st_size : 0;
    MOE_TRY(moe_trace_step_count(trace, &info->step_count, err));
    MOE_TRY(moe_trace_block_tokens(trace, &info->block_tokens, err));
    MOE_TRY(moe_trace_placement_read(trace, &info->slot_count, &experts, err));
    free(experts);
    return moe_trace_history_load(&info->history, moe_trace_database(trace), err);
}

static enum moe_status collect(struct info *info, struct moe_trace *trace, struct moe_error *err)
{
    const struct moe_trace_request *requests = moe_trace_requests(trace);
    const size_t count = (size_t) moe_trace_request_count(trace);
    MOE_TRY(collect_rest(info, trace, err));
    if (count == 0) {
        return MOE_OK;
    }
    double *values = malloc(count * sizeof *values);
    if (values == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to sort %zu lengths", moe_trace_path(trace),
                        count);
    }
    for (size_t i = 0; i < count; i++) {
        values[i] = requests[i].prompt_tokens;
    }
    summarise(&info->prompt, values, count);
    for (size_t i = 0; i < count; i++) {
        const struct moe_trace_request *request = &requests[i];
        values[i] = request->output_tokens;
        info->domain_requests[request->domain]++;
        info->domain_rows[request->domain] += moe_trace_request_rows(request);
        info->has_arrivals = info->has_arrivals || request->arrival_ns >= 0;
        info->last_arrival_ns = request->arrival_ns > info->last_arrival_ns ? request->arrival_ns
                                                                            : info->last_arrival_ns;
    }
    summarise(&info->output, values, count);
    free(values);
    return MOE_OK;
}

static void print_lengths(const char *what, const struct lengths *lengths)
{
    (void) printf("%-14s mean %.1f", what, lengths->mean);
    for (int i = 0; i < QUANTILE_COUNT; i++) {
        (void) printf(", %s %g", quantiles[i].name, lengths->quantile[i]);
    }
    (void) putchar('\n');
}

static void print_history(const struct moe_trace_history *history)
{
    for (size_t i = 0; i < history->count; i++) {
        const struct moe_trace_provenance *record = &history->records[i];
        (void) printf("%-14s format %s; engine %s; %s; %" PRIu64 " rows skipped%s%s%s%s\n",
                      i == 0 ? "provenance" : "", record->format, record->engine, record->layer_map,
                      record->rows_skipped, record->skip_reason[0] == '\0' ? "" : ": ",
                      record->skip_reason, record->note[0] == '\0' ? "" : "; ", record->note);
        for (size_t j = 0; j < record->source_count; j++) {
            (void) printf("%-14s   %s, %" PRIu64 " bytes, hash %016" PRIx64 "\n", "",
                          record->sources[j].name, record->sources[j].size_bytes,
                          record->sources[j].hash);
        }
    }
}

static void print_model(const struct moe_trace_model *model)
{
    if (model->content == MOE_TRACE_ARRIVALS) {
        (void) printf("%-14s %s: arrivals of requests, no routes\n", "model", model->name);
        return;
    }
    (void) printf("%-14s %s: %u MoE layers, %u experts", "model", model->name, model->layer_count,
                  model->expert_count);
    if (model->top_k > 0) {
        (void) printf(", top-%u", model->top_k);
    }
    if (model->group_count > 1) {
        (void) printf(", %u of %u groups", model->group_limit, model->group_count);
    }
    (void) printf("; hidden %u, expert %u, shared %u (0: not stated or none)\n", model->hidden_size,
                  model->expert_size, model->shared_size);
}

static void print_requests(const struct info *info, const struct moe_trace *trace)
{
    const struct moe_trace_model *model = info->model;
    (void) printf("%-14s %" PRIu64, "requests", moe_trace_request_count(trace));
    if (model->content == MOE_TRACE_ROUTES) {
        (void) printf(", %" PRIu64 " tokens", moe_trace_row_count(trace));
    }
    (void) putchar('\n');
    print_lengths("prompt length", &info->prompt);
    print_lengths("output length", &info->output);
    if (info->has_arrivals) {
        (void) printf("%-14s the last after %.3f s\n", "arrivals",
                      (double) info->last_arrival_ns * 1e-9);
    } else {
        (void) printf("%-14s not recorded\n", "arrivals");
    }
    for (uint32_t i = 0; i < model->domain_count; i++) {
        (void) printf("%-14s %s: %" PRIu64 " requests, %" PRIu64 " tokens\n",
                      i == 0 ? "domains" : "", model->domains[i], info->domain_requests[i],
                      info->domain_rows[i]);
    }
}

static void print_loads(const struct info *info, const struct moe_trace *trace)
{
    const struct moe_trace_model *model = info->model;
    (void) printf("%-14s %" PRIu64 " step%s, %" PRIu64 " loads (one for each step and source rank "
                  "that was told apart)\n",
                  "loads", info->step_count, info->step_count == 1 ? "" : "s",
                  moe_trace_load_count(trace));
    for (uint32_t i = 0; i < model->domain_count; i++) {
        (void) printf("%-14s %s\n", i == 0 ? "domains" : "", model->domains[i]);
    }
}

static void print_table(const struct info *info, const struct moe_trace *trace)
{
    (void) printf("%-14s %s, %" PRIu64 " bytes, content %016" PRIx64 "\n", "trace",
                  moe_trace_path(trace), info->file_bytes, moe_trace_hash(trace));
    print_model(info->model);
    if (info->model->content == MOE_TRACE_LOADS) {
        print_loads(info, trace);
    } else {
        print_requests(info, trace);
    }
    if (info->slot_count > 0) {
        (void) printf("%-14s recorded: %u physical slots per layer\n", "placement",
                      info->slot_count);
    }
    if (info->block_tokens > 0) {
        (void) printf("%-14s hashes of blocks of %u tokens\n", "prefixes", info->block_tokens);
    }
    print_history(&info->history);
}

static json_t *hash_json(uint64_t hash)
{
    /* As text: JSON's numbers are doubles in most readers. */
    return json_sprintf("%016" PRIx64, hash);
}

static json_t *lengths_json(const struct lengths *lengths)
{
    if (lengths->quantile[QUANTILE_COUNT - 1] == 0.0) {
        return json_null(); /* no requests: a request's lengths are at least 1 */
    }
    json_t *object = json_pack("{s:f}", "mean", lengths->mean);
    for (int i = 0; i < QUANTILE_COUNT; i++) {
        (void) json_object_set_new(object, quantiles[i].name, json_real(lengths->quantile[i]));
    }
    return object;
}

static json_t *model_json(const struct moe_trace_model *model)
{
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", model->name, "moe_layer_count",
        (json_int_t) model->layer_count, "expert_count", (json_int_t) model->expert_count, "top_k",
        (json_int_t) model->top_k, "group_count", (json_int_t) model->group_count, "group_limit",
        (json_int_t) model->group_limit, "hidden_size", (json_int_t) model->hidden_size,
        "expert_size", (json_int_t) model->expert_size, "shared_size",
        (json_int_t) model->shared_size);
}

static json_t *history_json(const struct moe_trace_history *history)
{
    json_t *list = json_array();
    for (size_t i = 0; i < history->count; i++) {
        const struct moe_trace_provenance *record = &history->records[i];
        json_t *sources = json_array();
        for (size_t j = 0; j < record->source_count; j++) {
            (void) json_array_append_new(
                sources, json_pack("{s:s, s:I, s:o}", "name", record->sources[j].name, "size_bytes",
                                   (json_int_t) record->sources[j].size_bytes, "hash",
                                   hash_json(record->sources[j].hash)));
        }
        (void) json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:o}", "format", record->format,
                            "engine", record->engine, "layer_map", record->layer_map,
                            "rows_skipped", (json_int_t) record->rows_skipped, "skip_reason",
                            record->skip_reason, "note", record->note, "sources", sources));
    }
    return list;
}

static enum moe_status print_json(const struct info *info, const struct moe_trace *trace,
                                  struct moe_error *err)
{
    const struct moe_trace_model *model = info->model;
    json_t *domains = json_array();
    for (uint32_t i = 0; i < model->domain_count; i++) {
        (void) json_array_append_new(domains,
                                     json_pack("{s:s, s:I, s:I}", "name", model->domains[i],
                                               "requests", (json_int_t) info->domain_requests[i],
                                               "tokens", (json_int_t) info->domain_rows[i]));
    }
    json_t *document = json_pack(
        "{s:i, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}",
        "version", INFO_VERSION, "content", moe_trace_content_text(model->content), "steps",
        (json_int_t) info->step_count, "loads", (json_int_t) moe_trace_load_count(trace),
        "placement_slots", (json_int_t) info->slot_count, "block_tokens",
        (json_int_t) info->block_tokens, "path", moe_trace_path(trace), "content_hash",
        hash_json(moe_trace_hash(trace)), "file_bytes", (json_int_t) info->file_bytes, "requests",
        (json_int_t) moe_trace_request_count(trace), "tokens",
        (json_int_t) moe_trace_row_count(trace), "model", model_json(model), "prompt_tokens",
        lengths_json(&info->prompt), "output_tokens", lengths_json(&info->output),
        "last_arrival_ns", info->has_arrivals ? json_integer(info->last_arrival_ns) : json_null(),
        "domains", domains, "provenance", history_json(&info->history));
    if (document == NULL) {
        return moe_fail(err, MOE_PARSE, "%s: a name in it is not UTF-8, which JSON demands",
                        moe_trace_path(trace));
    }
    const int failed = json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    json_decref(document);
    (void) putchar('\n');
    return failed == 0 ? MOE_OK : moe_fail(err, MOE_IO, "cannot write to standard output");
}

enum moe_status moe_trace_command_info(int argc, char **argv, struct moe_error *err)
{
    const char *input = NULL;
    const char *format = "table";
    bool json = false;
    struct moe_trace *trace = NULL;
    struct info info = { 0 };
    const struct moe_option options[] = {
        { "format", MOE_OPTION_TEXT, &format, "FORM", "table or json", 0, 0 },
    };
    struct moe_positionals inputs = { .items = &input, .min = 1, .max = 1, .what = "T.db" };
    if (moe_command_wants_help(argc, argv)) {
        (void) fputs("usage: moesim trace info [--format table|json] T.db\n", stdout);
        moe_options_print(stdout, options, 1);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, 1, &inputs, argc, argv, err));
    MOE_TRY(moe_trace_command_format(format, &json, err));
    MOE_TRY(moe_trace_open_any(&trace, input, err));
    enum moe_status status = collect(&info, trace, err);
    if (status == MOE_OK && json) {
        status = print_json(&info, trace, err);
    } else if (status == MOE_OK) {
        print_table(&info, trace);
    }
    moe_trace_history_finish(&info.history);
    moe_trace_close(trace);
    return status;
}

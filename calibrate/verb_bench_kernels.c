/* Expert kernels, ours and the library's, side by side in one run. */
#include <cuda_runtime_api.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/bench/bench_around.h"
#include "calibrate/bench/bench_bar.h"
#include "calibrate/bench/bench_ffn.h"
#include "calibrate/bench/bench_kv.h"
#include "calibrate/bench/bench_plan.h"
#include "calibrate/bench/bench_record.h"
#include "calibrate/bench/bench_table.h"
#include "calibrate/bench/ceilings.h"
#include "calibrate/device/device.h"
#include "calibrate/verb.h"
#include "sim/base/options.h"
#include "sim/base/output_file.h"
#include "sim/base/wall_clock.h"

enum { SENTINEL_TOKENS = 256, ROUTE_LIMIT = 16 };

static const char *const default_routes[] = { "256x7168x256x8", "4096x7168x256x8",
                                              "16384x7168x256x8", "4096x2048x128x8",
                                              "16384x2048x128x8" };

static const char *const default_contexts[] = { "64x1024", "64x8192" };

/* Set by a signal: the run ends after the point under way, and tells what it has. */
static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int signal_number)
{
    (void) signal_number;
    stop_asked = 1;
}

/* What the command line asks for. */
struct request {
    struct moe_bench_request plan;
    const struct moe_expert_backend *backends[MOE_BENCH_CELL_LIMIT];
    uint32_t backend_count;
    double seconds;
    uint32_t gpu;
    uint32_t stream_mib;
    uint32_t product_size;
    bool ffn; /* suites */
    bool around;
    struct moe_bench_route routes[ROUTE_LIMIT];
    uint32_t route_count;
    struct moe_bench_context contexts[ROUTE_LIMIT];
    uint32_t context_count;
    const char *csv;
    const char *json;
    bool overwrite;
};

/* What a run holds. */
struct run {
    struct moe_device device;
    struct moe_nvml *nvml;
    struct moe_graph_timer *timer;
    struct moe_blas *blas;
    struct moe_bench_ffn ffn;
    struct moe_bench_ceilings ceilings;
    struct moe_bench_moves moves;
    struct moe_bench_gpu gpu;
    char cublas[32];
    char cuda[32];
    struct moe_bench_row *rows;
    size_t row_count;
    struct moe_bench_row sentinels[2];
    double begin_s;
    struct moe_output_file csv;
    struct moe_output_file json;
};

/* Comma-separated names to indices, by a function that names index i (NULL behind the last). */
static enum moe_status parse_names(const char *text, const char *option,
                                   const char *(*name_of)(int index), bool *chosen,
                                   struct moe_error *err)
{
    for (const char *at = text; *at != '\0';) {
        const size_t length = strcspn(at, ",");
        int index = 0;
        while (name_of(index) != NULL &&
               (strlen(name_of(index)) != length || strncmp(name_of(index), at, length) != 0)) {
            index++;
        }
        if (name_of(index) == NULL) {
            char names[300] = "";
            size_t used = 0;
            for (int i = 0; name_of(i) != NULL && used < sizeof names; i++) {
                used += (size_t) snprintf(names + used, sizeof names - used, " %s", name_of(i));
            }
            return moe_fail(err, MOE_RANGE, "%s: there is no '%.*s'; allowed:%s", option,
                            (int) length, at, names);
        }
        chosen[index] = true;
        at += length + (at[length] == ',');
    }
    return MOE_OK;
}

static const char *name_of_dtype(int index)
{
    return index < MOE_EXPERT_DTYPE_COUNT ? moe_expert_dtype_name((enum moe_expert_dtype) index)
                                          : NULL;
}

static const char *name_of_histogram(int index)
{
    return index < MOE_ROW_HISTOGRAM_COUNT ? moe_row_histogram_name((enum moe_row_histogram) index)
                                           : NULL;
}

static const char *name_of_backend(int index)
{
    return index < (int) moe_expert_backend_count ? moe_expert_backends[index]->name : NULL;
}

static enum moe_status choose_backends(const char *text, struct request *request,
                                       struct moe_error *err)
{
    bool chosen[64] = { false };
    if (text != NULL) {
        MOE_TRY(parse_names(text, "--backends", name_of_backend, chosen, err));
    }
    for (size_t i = 0; i < moe_expert_backend_count; i++) {
        if (text == NULL ? !moe_expert_backends[i]->chosen : !chosen[i]) {
            continue;
        }
        if (request->backend_count == MOE_BENCH_CELL_LIMIT) {
            return moe_fail(err, MOE_RANGE, "--backends: more than %d", MOE_BENCH_CELL_LIMIT);
        }
        request->backends[request->backend_count++] = moe_expert_backends[i];
    }
    return MOE_OK;
}

static enum moe_status choose_plan(const struct moe_option_list *shapes, const char *tokens,
                                   const char *dtypes, const char *spreads, struct request *request,
                                   struct moe_error *err)
{
    struct moe_bench_request *plan = &request->plan;
    if (shapes->count > 0) {
        plan->shape_count = 0;
    }
    for (size_t i = 0; i < shapes->count; i++) {
        if (plan->shape_count == MOE_BENCH_SHAPE_LIMIT) {
            return moe_fail(err, MOE_RANGE, "--shape: more than %d", MOE_BENCH_SHAPE_LIMIT);
        }
        MOE_TRY(moe_bench_shape_parse(shapes->items[i], &plan->shapes[plan->shape_count++], err));
    }
    if (tokens != NULL) {
        MOE_TRY(moe_bench_tokens_parse(tokens, plan, err));
    }
    if (dtypes != NULL) {
        memset(plan->dtypes, 0, sizeof plan->dtypes);
        MOE_TRY(parse_names(dtypes, "--dtype", name_of_dtype, plan->dtypes, err));
    }
    if (spreads != NULL) {
        memset(plan->histograms, 0, sizeof plan->histograms);
        MOE_TRY(parse_names(spreads, "--spread", name_of_histogram, plan->histograms, err));
    }
    return MOE_OK;
}

static enum moe_status choose_contexts(const struct moe_option_list *contexts,
                                       struct request *request, struct moe_error *err)
{
    const size_t count = contexts->count > 0 ? contexts->count
                                             : sizeof default_contexts / sizeof default_contexts[0];
    for (size_t i = 0; i < count; i++) {
        if (request->context_count == ROUTE_LIMIT) {
            return moe_fail(err, MOE_RANGE, "--context: more than %d", ROUTE_LIMIT);
        }
        MOE_TRY(
            moe_bench_context_parse(contexts->count > 0 ? contexts->items[i] : default_contexts[i],
                                    &request->contexts[request->context_count++], err));
    }
    return MOE_OK;
}

static enum moe_status choose_suite(const char *text, const struct moe_option_list *routes,
                                    struct request *request, struct moe_error *err)
{
    request->ffn = strcmp(text, "around") != 0;
    request->around = strcmp(text, "ffn") != 0;
    if (request->ffn && request->around && strcmp(text, "all") != 0) {
        return moe_fail(err, MOE_RANGE, "--suite: there is no '%s'; allowed: ffn around all", text);
    }
    const size_t count =
        routes->count > 0 ? routes->count : sizeof default_routes / sizeof default_routes[0];
    for (size_t i = 0; i < count; i++) {
        if (request->route_count == ROUTE_LIMIT) {
            return moe_fail(err, MOE_RANGE, "--route: more than %d", ROUTE_LIMIT);
        }
        MOE_TRY(moe_bench_route_parse(routes->count > 0 ? routes->items[i] : default_routes[i],
                                      &request->routes[request->route_count++], err));
    }
    return MOE_OK;
}

/* Files are opened before anything is measured: a name that can't be written costs no GPU time. */
static enum moe_status open_files(struct run *run, const struct request *request,
                                  struct moe_error *err)
{
    if (request->csv != NULL) {
        MOE_TRY(moe_output_file_open(&run->csv, request->csv, request->overwrite, err));
    }
    if (request->json != NULL) {
        MOE_TRY(moe_output_file_open(&run->json, request->json, request->overwrite, err));
    }
    return MOE_OK;
}

static enum moe_status run_open(struct run *run, const struct request *request,
                                struct moe_error *err)
{
    struct moe_error nvml_err = { 0 };
    uint32_t count = 0;
    int khz = 0;
    int cache_bytes = 0;
    struct moe_cuda_version driver;
    struct moe_cuda_version runtime;
    MOE_TRY(moe_device_count(&count, err));
    MOE_TRY(open_files(run, request, err));
    if (request->gpu >= count) {
        return moe_fail(err, MOE_RANGE, "--gpu %u: there are GPUs 0 to %u", request->gpu,
                        count - 1);
    }
    MOE_TRY(moe_device_check((int) cudaSetDevice((int) request->gpu), "cudaSetDevice", err));
    MOE_TRY(moe_device_read(request->gpu, &run->device, err));
    MOE_TRY(moe_cuda_versions(&driver, &runtime, err));
    if (moe_nvml_create(&run->nvml, &nvml_err) != MOE_OK) {
        run->nvml = NULL;
        (void) fprintf(stderr, "moecal: going on without power: %s\n", nvml_err.text);
    }
    MOE_TRY(moe_graph_timer_create(&run->device, run->nvml, &run->timer, err));
    MOE_TRY(moe_blas_create(&run->blas, err));
    MOE_TRY(moe_device_check(
        (int) cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, (int) request->gpu),
        "cudaDeviceGetAttribute", err));
    MOE_TRY(moe_device_check(
        (int) cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, (int) request->gpu),
        "cudaDeviceGetAttribute", err));
    moe_blas_version(run->blas, run->cublas, sizeof run->cublas);
    (void) snprintf(run->cuda, sizeof run->cuda, "%u.%u", runtime.major, runtime.minor);
    run->gpu = (struct moe_bench_gpu){
        .name = run->device.name,
        .uuid = run->device.uuid,
        .driver = run->nvml == NULL ? "unknown" : moe_nvml_driver(run->nvml),
        .cuda = run->cuda,
        .cublas = run->cublas,
        .sm_count = run->device.sm_count,
        .fallback_mhz = (double) khz / 1e3,
    };
    run->ffn.tools = (struct moe_expert_tools){ .blas = run->blas, .timer = run->timer };
    run->ffn.cache_bytes = (double) cache_bytes;
    run->ffn.backend_count = request->backend_count;
    memcpy(run->ffn.backends, request->backends, sizeof run->ffn.backends);
    return moe_bench_plan_make(&request->plan, &run->rows, &run->row_count, err);
}

static void run_close(struct run *run)
{
    free(run->rows);
    moe_output_file_discard(&run->csv);
    moe_output_file_discard(&run->json);
    if (run->timer != NULL && moe_graph_timer_stuck(run->timer)) {
        return; /* whatever is left would wait for a kernel that does not end */
    }
    moe_bench_ffn_finish(&run->ffn);
    moe_blas_destroy(run->blas);
    moe_graph_timer_destroy(run->timer);
    moe_nvml_destroy(run->nvml);
}

static enum moe_status measure_row(struct run *run, struct moe_bench_row *row, int32_t capacity,
                                   struct moe_error *err)
{
    row->begin_s = moe_wall_clock_s() - run->begin_s;
    run->ffn.seed++;
    const enum moe_status status = moe_bench_ffn_measure(&run->ffn, capacity, row, err);
    if (status == MOE_OK) {
        moe_bench_print_progress(stderr, row);
    }
    return status;
}

/* The sentinel, measured at both ends of the run: the first shape at 256 rows per expert, or at
 * the most below that are asked for. */
static void make_sentinels(struct run *run, const struct request *request)
{
    const struct moe_bench_shape *shape = &request->plan.shapes[0];
    int32_t tokens = 1;
    for (uint32_t i = 0; i < request->plan.tokens_count; i++) {
        const int32_t asked = request->plan.tokens[i];
        tokens = asked <= SENTINEL_TOKENS && asked > tokens ? asked : tokens;
    }
    for (int i = 0; i < 2; i++) {
        run->sentinels[i] = (struct moe_bench_row){
            .shape = { .hidden = shape->hidden,
                       .inter = shape->inter,
                       .expert_count = shape->expert_count,
                       .dtype =
                           request->plan.dtypes[MOE_EXPERT_BF16] ? MOE_EXPERT_BF16 : MOE_EXPERT_FP8,
                       .activation = shape->activation },
            .histogram = MOE_ROW_UNIFORM,
            .rows_per_expert = tokens,
            .sentinel = true,
        };
    }
}

static enum moe_status measure_ffn(struct run *run, const struct request *request,
                                   struct moe_error *err)
{
    double slowest_s = 0.0;
    make_sentinels(run, request);
    /* As many as any point of the shape has, so that operands are made once. */
    int32_t sentinel_rows =
        run->sentinels[0].rows_per_expert * run->sentinels[0].shape.expert_count;
    for (size_t i = 0; i < run->row_count; i++) {
        const int32_t rows = run->rows[i].rows_per_expert * run->rows[i].shape.expert_count;
        if (rows > sentinel_rows &&
            moe_bench_same_shape(&run->rows[i].shape, &run->sentinels[0].shape)) {
            sentinel_rows = rows;
        }
    }
    MOE_TRY(measure_row(run, &run->sentinels[0], sentinel_rows, err));
    for (size_t i = 0; i < run->row_count; i++) {
        const double before_s = moe_wall_clock_s();
        /* Room for the slowest point so far and for the last sentinel. */
        if (stop_asked != 0 || before_s - run->begin_s + 2.0 * slowest_s > request->seconds) {
            break;
        }
        MOE_TRY(measure_row(run, &run->rows[i],
                            moe_bench_plan_capacity(run->rows, run->row_count, i), err));
        const double took_s = moe_wall_clock_s() - before_s;
        slowest_s = took_s > slowest_s ? took_s : slowest_s;
    }
    return measure_row(run, &run->sentinels[1], sentinel_rows, err);
}

/* What stands around the experts comes first: it takes seconds. */
static enum moe_status measure_all(struct run *run, const struct request *request,
                                   struct moe_error *err)
{
    const struct sigaction action = { .sa_handler = ask_to_stop, .sa_flags = (int) SA_RESETHAND };
    (void) sigaction(SIGTERM, &action, NULL);
    (void) sigaction(SIGINT, &action, NULL);
    run->begin_s = moe_wall_clock_s();
    MOE_TRY(moe_ceilings_measure(run->blas, run->timer, (int64_t) request->stream_mib << 20,
                                 (int32_t) request->product_size, &run->moves, &run->ceilings,
                                 err));
    moe_bench_print_ceilings(stderr, &run->ceilings);
    for (uint32_t i = 0; request->around && i < request->route_count; i++) {
        MOE_TRY(moe_bench_around_measure(run->timer, &request->routes[i], request->plan.seed,
                                         &run->moves, err));
    }
    for (uint32_t i = 0; request->around && i < request->context_count; i++) {
        MOE_TRY(moe_bench_kv_measure(run->timer, &request->contexts[i], request->plan.seed,
                                     &run->moves, err));
    }
    return request->ffn ? measure_ffn(run, request, err) : MOE_OK;
}

static void print_all(const struct run *run)
{
    size_t measured = 0;
    for (size_t i = 0; i < run->row_count; i++) {
        measured += run->rows[i].cell_count > 0;
    }
    (void) printf("%s, %s, driver %s, CUDA %s, cuBLAS %s\n", run->gpu.name, run->gpu.uuid,
                  run->gpu.driver, run->gpu.cuda, run->gpu.cublas);
    moe_bench_print_ceilings(stdout, &run->ceilings);
    if (measured > 0) {
        (void) printf(
            "%zu of %zu points measured; medians in us; 'xfloor' is time over floor; W is "
            "the sensor's last interval, in which backends take turns\n",
            measured, run->row_count);
    }
    moe_bench_print_tables(stdout, run->rows, run->row_count, &run->ceilings, &run->gpu);
    moe_bench_print_tables(stdout, run->sentinels, 2, &run->ceilings, &run->gpu);
}

/* The same to the screen and into the files. */
static enum moe_status report(struct run *run, const struct request *request, int argc, char **argv,
                              const char *failure, struct moe_error *err)
{
    const struct moe_bench_run judged = { .rows = run->rows,
                                          .row_count = run->row_count,
                                          .moves = &run->moves,
                                          .ceilings = run->ceilings,
                                          .sm_count = run->gpu.sm_count,
                                          .fallback_mhz = run->gpu.fallback_mhz };
    struct moe_bench_bar bars[MOE_BENCH_BAR_COUNT];
    moe_bench_bars_judge(&judged, bars);
    print_all(run);
    if (request->around) {
        moe_bench_print_moves(stdout, &run->moves, &run->ceilings);
    }
    moe_bench_print_bars(stdout, bars);
    const struct moe_bench_record record = { .argc = argc,
                                             .argv = argv,
                                             .gpu = &run->gpu,
                                             .ceilings = &run->ceilings,
                                             .rows = run->rows,
                                             .row_count = run->row_count,
                                             .sentinels = run->sentinels,
                                             .sentinel_count = 2,
                                             .moves = &run->moves,
                                             .bars = bars,
                                             .failure = failure };
    if (run->csv.stream != NULL) {
        moe_bench_write_csv(run->csv.stream, &record);
        MOE_TRY(moe_output_file_commit(&run->csv, err));
    }
    if (run->json.stream != NULL) {
        moe_bench_write_json(run->json.stream, &record);
        MOE_TRY(moe_output_file_commit(&run->json, err));
    }
    return MOE_OK;
}

/* What stands on the command line before it is understood. */
struct words {
    struct moe_option_list shapes;
    struct moe_option_list routes;
    struct moe_option_list contexts;
    const char *suite;
    const char *tokens;
    const char *dtypes;
    const char *spreads;
    const char *backends;
};

/* help is set when the options were asked for and printed. */
static enum moe_status parse(int argc, char **argv, struct request *request, bool *help,
                             struct moe_error *err)
{
    struct words words = { .suite = "all" };
    struct moe_positionals none = { 0 };
    const struct moe_option options[] = {
        { "suite", MOE_OPTION_TEXT, &words.suite, "NAME", "ffn, around or all", 0, 0 },
        { "shape", MOE_OPTION_LIST, &words.shapes, "HxIxE[:ACT]",
          "hidden x expert size x experts, ACT swiglu, relu or gelu; may be repeated", 0, 0 },
        { "tokens", MOE_OPTION_TEXT, &words.tokens, "N,...", "rows per expert", 0, 0 },
        { "dtype", MOE_OPTION_TEXT, &words.dtypes, "NAME,...", "bf16, fp8", 0, 0 },
        { "spread", MOE_OPTION_TEXT, &words.spreads, "NAME,...",
          "of the rows: uniform, hot8x, zipf1.2, half-empty", 0, 0 },
        { "backends", MOE_OPTION_TEXT, &words.backends, "NAME,...", "which to measure", 0, 0 },
        { "route", MOE_OPTION_LIST, &words.routes, "TxHxExK",
          "tokens x hidden x experts x choices, for the suite around; may be repeated", 0, 0 },
        { "context", MOE_OPTION_LIST, &words.contexts, "SxT",
          "sequences x tokens of each, for the suite around; may be repeated", 0, 0 },
        { "seconds", MOE_OPTION_REAL, &request->seconds, "S", "end after this long", 1, 86400 },
        { "seed", MOE_OPTION_SEED, &request->plan.seed, "N", "of the order of the points", 0, 0 },
        { "csv", MOE_OPTION_TEXT, &request->csv, "FILE", "one line per point and backend", 0, 0 },
        { "json", MOE_OPTION_TEXT, &request->json, "FILE", "everything", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &request->overwrite, NULL, "replace these files", 0, 0 },
        { "gpu", MOE_OPTION_COUNT, &request->gpu, "N", "as `moecal list` numbers them", 0, 1024 },
        { "stream-mib", MOE_OPTION_COUNT, &request->stream_mib, "N",
          "arrays by which the memory's ceilings are measured", 1, 16384 },
        { "product", MOE_OPTION_COUNT, &request->product_size, "N",
          "square matrices by which those of arithmetic are, a multiple of 16", 16, 32768 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    *help = argc > 0 && strcmp(argv[0], "--help") == 0;
    if (*help) {
        moe_options_print(stdout, options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &none, argc, argv, err));
    if (request->product_size % 16 != 0) {
        return moe_fail(err, MOE_RANGE, "--product: %u is no multiple of 16",
                        request->product_size);
    }
    MOE_TRY(choose_backends(words.backends, request, err));
    MOE_TRY(choose_plan(&words.shapes, words.tokens, words.dtypes, words.spreads, request, err));
    MOE_TRY(choose_contexts(&words.contexts, request, err));
    return choose_suite(words.suite, &words.routes, request, err);
}

enum moe_status moe_verb_bench_kernels(int argc, char **argv, struct moe_error *err)
{
    struct request request = { .seconds = 480.0, .stream_mib = 1024, .product_size = 8192 };
    bool help = false;
    moe_bench_request_default(&request.plan);
    MOE_TRY(parse(argc, argv, &request, &help, err));
    if (help) {
        return MOE_OK;
    }
    static struct run run; /* too large for the stack */
    enum moe_status status = run_open(&run, &request, err);
    if (status == MOE_OK) {
        struct moe_error late = { 0 };
        status = measure_all(&run, &request, err);
        /* Also what was measured before a failure is told. */
        const char *failure = status == MOE_OK || err == NULL ? "" : err->text;
        const enum moe_status told = report(&run, &request, argc, argv, failure, &late);
        if (status == MOE_OK && told != MOE_OK) {
            status = told;
            if (err != NULL) {
                *err = late;
            }
        }
    }
    run_close(&run);
    return status;
}

/* Expert kernels, ours and the library's, side by side in one run. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calibrate/bench_ffn.h"
#include "calibrate/bench_plan.h"
#include "calibrate/bench_table.h"
#include "calibrate/ceilings.h"
#include "calibrate/device.h"
#include "calibrate/verb.h"
#include "sim/base/options.h"

/* What the command line asks for. */
struct request {
    struct moe_bench_request plan;
    const struct moe_expert_backend *backends[MOE_BENCH_CELL_LIMIT];
    uint32_t backend_count;
    double seconds;
    uint32_t gpu;
    uint32_t stream_mib;
    uint32_t product_size;
};

/* What a run holds. */
struct run {
    struct moe_device device;
    struct moe_nvml *nvml;
    struct moe_graph_timer *timer;
    struct moe_blas *blas;
    struct moe_bench_ffn ffn;
    struct moe_bench_ceilings ceilings;
    struct moe_bench_gpu gpu;
    char cublas[32];
    char cuda[32];
    struct moe_bench_row *rows;
    size_t row_count;
    struct moe_bench_row sentinels[2];
    double begin_s;
};

static double now_s(void)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}

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
    moe_expert_data_destroy(run->ffn.data);
    moe_blas_destroy(run->blas);
    moe_graph_timer_destroy(run->timer);
    moe_nvml_destroy(run->nvml);
    free(run->rows);
}

static enum moe_status measure_row(struct run *run, struct moe_bench_row *row, int32_t capacity,
                                   struct moe_error *err)
{
    row->begin_s = now_s() - run->begin_s;
    run->ffn.seed++;
    const enum moe_status status = moe_bench_ffn_measure(&run->ffn, capacity, row, err);
    if (status == MOE_OK) {
        moe_bench_print_progress(stderr, row);
    }
    return status;
}

/* The sentinel is the first shape at 256 rows, at both ends of the run. */
static void make_sentinels(struct run *run, const struct request *request)
{
    const struct moe_bench_shape *shape = &request->plan.shapes[0];
    for (int i = 0; i < 2; i++) {
        run->sentinels[i] = (struct moe_bench_row){
            .shape = { .hidden = shape->hidden,
                       .inter = shape->inter,
                       .expert_count = shape->expert_count,
                       .dtype =
                           request->plan.dtypes[MOE_EXPERT_BF16] ? MOE_EXPERT_BF16 : MOE_EXPERT_FP8,
                       .activation = shape->activation },
            .histogram = MOE_ROW_UNIFORM,
            .rows_per_expert = 256,
            .sentinel = true,
        };
    }
}

static enum moe_status measure_all(struct run *run, const struct request *request,
                                   struct moe_error *err)
{
    double slowest_s = 0.0;
    run->begin_s = now_s();
    MOE_TRY(moe_ceilings_measure(run->blas, run->timer, (int64_t) request->stream_mib << 20,
                                 (int32_t) request->product_size, &run->ceilings, err));
    make_sentinels(run, request);
    const int32_t sentinel_rows = 256 * run->sentinels[0].shape.expert_count;
    MOE_TRY(measure_row(run, &run->sentinels[0], sentinel_rows, err));
    for (size_t i = 0; i < run->row_count; i++) {
        const double before_s = now_s();
        /* Room for the slowest point so far and for the last sentinel. */
        if (before_s - run->begin_s + 2.0 * slowest_s > request->seconds) {
            break;
        }
        MOE_TRY(measure_row(run, &run->rows[i],
                            moe_bench_plan_capacity(run->rows, run->row_count, i), err));
        const double took_s = now_s() - before_s;
        slowest_s = took_s > slowest_s ? took_s : slowest_s;
    }
    return measure_row(run, &run->sentinels[1], sentinel_rows, err);
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
    (void) printf("%zu of %zu points measured; medians in us; 'xfloor' is time over floor\n",
                  measured, run->row_count);
    moe_bench_print_tables(stdout, run->rows, run->row_count, &run->ceilings, &run->gpu);
    moe_bench_print_tables(stdout, run->sentinels, 2, &run->ceilings, &run->gpu);
}

enum moe_status moe_verb_bench_kernels(int argc, char **argv, struct moe_error *err)
{
    struct request request = { .seconds = 480.0, .stream_mib = 1024, .product_size = 8192 };
    struct moe_option_list shapes = { 0 };
    const char *tokens = NULL;
    const char *dtypes = NULL;
    const char *spreads = NULL;
    const char *backends = NULL;
    moe_bench_request_default(&request.plan);
    const struct moe_option options[] = {
        { .name = "shape",
          .kind = MOE_OPTION_LIST,
          .target = &shapes,
          .value = "HxIxE[:ACT]",
          .help = "hidden x expert size x experts, ACT swiglu, relu or gelu; may be repeated" },
        { .name = "tokens",
          .kind = MOE_OPTION_TEXT,
          .target = &tokens,
          .value = "N,...",
          .help = "rows per expert" },
        { .name = "dtype",
          .kind = MOE_OPTION_TEXT,
          .target = &dtypes,
          .value = "NAME,...",
          .help = "bf16, fp8" },
        { .name = "spread",
          .kind = MOE_OPTION_TEXT,
          .target = &spreads,
          .value = "NAME,...",
          .help = "uniform, hot8x, zipf1.2, half-empty" },
        { .name = "backends",
          .kind = MOE_OPTION_TEXT,
          .target = &backends,
          .value = "NAME,...",
          .help = "which to measure" },
        { .name = "seconds",
          .kind = MOE_OPTION_REAL,
          .target = &request.seconds,
          .value = "S",
          .help = "stop after this long",
          .min = 1.0,
          .max = 86400.0 },
        { .name = "seed",
          .kind = MOE_OPTION_SEED,
          .target = &request.plan.seed,
          .value = "N",
          .help = "of the order of the points" },
        { .name = "stream-mib",
          .kind = MOE_OPTION_COUNT,
          .target = &request.stream_mib,
          .value = "N",
          .help = "size of the arrays by which the memory's ceilings are measured",
          .min = 1,
          .max = 16384 },
        { .name = "product",
          .kind = MOE_OPTION_COUNT,
          .target = &request.product_size,
          .value = "N",
          .help = "size of the square products by which the ceilings of arithmetic are measured; a "
                  "multiple of 16",
          .min = 16,
          .max = 32768 },
        { .name = "gpu",
          .kind = MOE_OPTION_COUNT,
          .target = &request.gpu,
          .value = "N",
          .help = "which GPU, as `moecal list` numbers them",
          .max = 1024 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals none = { 0 };
    if (argc > 0 && strcmp(argv[0], "--help") == 0) {
        moe_options_print(stdout, options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &none, argc, argv, err));
    if (request.product_size % 16 != 0) {
        return moe_fail(err, MOE_RANGE, "--product: %u is no multiple of 16", request.product_size);
    }
    MOE_TRY(choose_backends(backends, &request, err));
    MOE_TRY(choose_plan(&shapes, tokens, dtypes, spreads, &request, err));
    struct run run = { 0 };
    enum moe_status status = run_open(&run, &request, err);
    if (status == MOE_OK) {
        status = measure_all(&run, &request, err);
        print_all(&run); /* also what was measured before a failure */
    }
    run_close(&run);
    return status;
}

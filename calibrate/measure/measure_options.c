#include "calibrate/measure/measure_options.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/options.h"

/* What stands on the command line before it is understood. */
struct words {
    const char *models;
    const char *ep;
    const char *dtypes;
    const char *kinds;
    const char *backends;
    const char *gpus;
    const char *sentinel;
    struct moe_option_list shapes;
    uint32_t rows_max;
    uint32_t context_max;
    uint32_t stream_mib;
    uint32_t sentinel_rows;
    uint32_t link_mib;
    bool no_collectives;
    double memory_gb; /* 0: not said */
};

/* An H200's, when plans are made where there is none: free memory of one that nobody uses. */
static const double USUAL_MEMORY_GB = 150.0;
static const double USUAL_CACHE_BYTES = 50.0 * 0x1p20;

/* "0,2" to CUDA's numbers; without a text all there are. */
static enum moe_status choose_gpus(const char *text, struct moe_measure_run *run,
                                   struct moe_error *err)
{
    uint32_t count = 0;
    MOE_TRY(moe_device_count(&count, err));
    run->gpu_count = 0;
    for (uint32_t i = 0; text == NULL && i < count && i < MOE_MEASURE_GPU_LIMIT; i++) {
        run->devices[run->gpu_count++] = i;
    }
    for (const char *at = text; at != NULL && *at != '\0';) {
        const size_t length = strcspn(at, ",");
        char part[16];
        uint64_t value = 0;
        (void) snprintf(part, sizeof part, "%.*s", (int) (length < 15 ? length : 15), at);
        MOE_TRY(moe_parse_count(part, "--gpus", 0, count - 1, &value, err));
        for (uint32_t i = 0; i < run->gpu_count; i++) {
            if (run->devices[i] == value) {
                return moe_fail(err, MOE_RANGE, "--gpus: %llu is named twice",
                                (unsigned long long) value);
            }
        }
        run->devices[run->gpu_count++] = (uint32_t) value;
        at += length + (at[length] == ',');
    }
    return run->gpu_count > 0 ? MOE_OK : moe_fail(err, MOE_RANGE, "--gpus: no GPU is named");
}

/* The least that any of the GPUs has free, and its cache. */
static enum moe_status read_memory(struct moe_measure_run *run, struct moe_error *err)
{
    double least = INFINITY;
    int cache_bytes = 0;
    for (uint32_t i = 0; i < run->gpu_count; i++) {
        size_t free_bytes = 0;
        size_t all_bytes = 0;
        const int device = (int) run->devices[i];
        MOE_TRY(moe_device_check((int) cudaSetDevice(device), "cudaSetDevice", err));
        MOE_TRY(
            moe_device_check((int) cudaMemGetInfo(&free_bytes, &all_bytes), "cudaMemGetInfo", err));
        MOE_TRY(moe_device_check(
            (int) cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, device),
            "cudaDeviceGetAttribute", err));
        least = fmin(least, (double) free_bytes);
    }
    run->request.memory_bytes = least;
    run->request.cache_bytes = (double) cache_bytes;
    return MOE_OK;
}

/* Beside the operands of a series: the libraries' workspaces, a reference, the driver's own. (The
 * ceilings' arrays are gone by then.) */
static const double RESERVE_BYTES = 1.2e9;

static enum moe_status understand(const struct words *words, struct moe_measure_run *run,
                                  struct moe_error *err)
{
    struct moe_measure_request *request = &run->request;
    if (words->models != NULL) {
        MOE_TRY(moe_measure_parse_models(words->models, request, err));
    }
    if (words->ep != NULL) {
        MOE_TRY(moe_measure_parse_ep(words->ep, request, err));
    }
    if (words->dtypes != NULL) {
        MOE_TRY(moe_measure_parse_dtypes(words->dtypes, request, err));
    }
    if (words->kinds != NULL) {
        MOE_TRY(moe_measure_parse_kinds(words->kinds, request, err));
    }
    if (words->backends != NULL) {
        MOE_TRY(moe_measure_parse_backends(words->backends, request, err));
    }
    for (size_t i = 0; i < words->shapes.count; i++) {
        if (request->shape_count == MOE_BENCH_SHAPE_LIMIT) {
            return moe_fail(err, MOE_RANGE, "--shape: more than %d", MOE_BENCH_SHAPE_LIMIT);
        }
        MOE_TRY(moe_bench_shape_parse(words->shapes.items[i],
                                      &request->shapes[request->shape_count++], err));
    }
    if (words->sentinel != NULL) {
        MOE_TRY(moe_bench_shape_parse(words->sentinel, &request->sentinel, err));
    }
    request->rows_max = (int32_t) words->rows_max;
    request->context_max = (int32_t) words->context_max;
    request->stream_bytes = (double) words->stream_mib * 0x1p20;
    request->sentinel_rows = (int32_t) words->sentinel_rows;
    request->reserve_bytes = RESERVE_BYTES;
    request->settle_s = run->settle_s;
    if (run->product_size % 16 != 0) {
        return moe_fail(err, MOE_RANGE, "--product: %u is no multiple of 16", run->product_size);
    }
    return MOE_OK;
}

static enum moe_status look(const struct words *words, struct moe_measure_run *run,
                            struct moe_error *err)
{
    MOE_TRY(choose_gpus(words->gpus, run, err));
    return read_memory(run, err);
}

/* A plan may be made at a desk: for GPUs that are said, or usual ones where there are none. */
static enum moe_status plan_for(const struct words *words, struct moe_measure_run *run,
                                struct moe_error *err)
{
    struct moe_error none = { 0 };
    double memory_gb = words->memory_gb;
    if (!(memory_gb > 0.0)) {
        const enum moe_status status = look(words, run, &none);
        if (status == MOE_OK) {
            return MOE_OK;
        }
        if (status != MOE_UNSUPPORTED && status != MOE_DEVICE) {
            *err = none;
            return status;
        }
        memory_gb = USUAL_MEMORY_GB;
    }
    uint32_t count = 1; /* of --gpus: names separated by commas */
    for (const char *at = words->gpus; at != NULL && *at != '\0'; at++) {
        count += *at == ',';
    }
    run->gpu_count = count < MOE_MEASURE_GPU_LIMIT ? count : MOE_MEASURE_GPU_LIMIT;
    run->request.memory_bytes = memory_gb * 1e9;
    run->request.cache_bytes = USUAL_CACHE_BYTES;
    (void) printf("planned for %u GPU%s with %.0f GB of free memory, none of which was looked at\n",
                  run->gpu_count, run->gpu_count == 1 ? "" : "s", memory_gb);
    return MOE_OK;
}

/* Options that `moecal card` takes come first. */
enum { CARD_OPTIONS = 11 };

enum moe_status moe_measure_options_parse(int argc, char **argv, bool is_card,
                                          struct moe_measure_run *run,
                                          struct moe_measure_options *out, struct moe_error *err)
{
    struct words words = {
        .rows_max = 8192, .context_max = 65536, .stream_mib = 1024, .sentinel_rows = 256
    };
    struct moe_positionals none = { 0 };
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &out->output, "FILE", "the store (*.cal.db); made, or added to", 0,
          0 },
        { "gpus", MOE_OPTION_TEXT, &words.gpus, "N,...", "as `moecal list` numbers them", 0, 0 },
        { "limit", MOE_OPTION_REAL, &run->limit_s, "S", "wall time, which is kept", 10, 86400 },
        { "seed", MOE_OPTION_SEED, &run->request.seed, "N", "of order and held-out points", 0, 0 },
        { "soak", MOE_OPTION_REAL, &run->soak_s, "S", "full load before the clock is sustained", 0,
          600 },
        { "settle", MOE_OPTION_REAL, &run->settle_s, "S",
          "at most, until the clock of a point holds", 0, 10 },
        { "sentinel", MOE_OPTION_TEXT, &words.sentinel, "HxIxE[:ACT]",
          "shape that ties runs together (7168x2048x32)", 0, 0 },
        { "sentinel-rows", MOE_OPTION_COUNT, &words.sentinel_rows, "N",
          "rows per expert of the compute-bound sentinel", 1, 4096 },
        { "stream-mib", MOE_OPTION_COUNT, &words.stream_mib, "N",
          "arrays by which the memory's ceilings are measured", 1, 16384 },
        { "product", MOE_OPTION_COUNT, &run->product_size, "N",
          "square matrices by which those of arithmetic are, a multiple of 16", 16, 32768 },
        { "dtype", MOE_OPTION_TEXT, &words.dtypes, "NAME,...", "bf16, fp8", 0, 0 },
        { "models", MOE_OPTION_TEXT, &words.models, "NAME,...", "model cards, or all", 0, 0 },
        { "ep", MOE_OPTION_TEXT, &words.ep, "N,...",
          "expert-parallel degrees: experts on a GPU are the model's over this", 0, 0 },
        { "kinds", MOE_OPTION_TEXT, &words.kinds, "NAME,...",
          "expert, gemm, permute, combine, gate, kv_gqa, kv_mla, stream, launch (all)", 0, 0 },
        { "backend", MOE_OPTION_TEXT, &words.backends, "NAME,...",
          "own; lt-expert, lt-padded, blas-grouped, lt-fp8-row, lt-fp8-block at three shapes", 0,
          0 },
        { "shape", MOE_OPTION_LIST, &words.shapes, "HxIxE[:ACT]",
          "an expert shape besides those of the models; may be repeated", 0, 0 },
        { "rows-max", MOE_OPTION_COUNT, &words.rows_max, "N",
          "rows of an expert or a product, sequences", 1, 65536 },
        { "context-max", MOE_OPTION_COUNT, &words.context_max, "N", "tokens of a sequence", 1,
          1048576 },
        { "repeat", MOE_OPTION_COUNT, &run->request.repeat_percent, "PERCENT",
          "of the points measured once more in a later pass", 0, 100 },
        { "raw", MOE_OPTION_REAL, &run->raw_share, "X", "share of samples kept time by time", 0,
          1 },
        { "link-mib", MOE_OPTION_COUNT, &words.link_mib, "N",
          "largest message between GPUs, and overlap by the sentinel's shape (0: 256, its own)", 0,
          16384 },
        { "no-collectives", MOE_OPTION_FLAG, &words.no_collectives, NULL,
          "nothing that takes links", 0, 0 },
        { "plan-only", MOE_OPTION_FLAG, &out->plan_only, NULL,
          "say what would be measured, for how long, in how much memory", 0, 0 },
        { "memory-gb", MOE_OPTION_REAL, &words.memory_gb, "N",
          "with --plan-only: free memory of a GPU (0: of these, or 150 where there are none)", 0,
          10000 },
        { "die-after", MOE_OPTION_COUNT, &run->test_kill, "N",
          "for tests: end as if killed after so many samples (0: never)", 0, 1000000 },
    };
    const size_t option_count = is_card ? CARD_OPTIONS : sizeof options / sizeof options[0];
    out->help = argc > 0 && strcmp(argv[0], "--help") == 0;
    if (out->help) {
        moe_options_print(stdout, options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &none, argc, argv, err));
    MOE_TRY(understand(&words, run, err));
    run->link_bytes_max = (int64_t) words.link_mib << 20;
    out->collectives = !is_card && !words.no_collectives;
    if (out->output == NULL && !out->plan_only) {
        return moe_fail(err, MOE_RANGE, "-o FILE: which file to write is not said");
    }
    return out->plan_only ? plan_for(&words, run, err) : look(&words, run, err);
}

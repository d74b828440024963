#include "calibrate/bench/ceilings.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>

#include "calibrate/bench/move_contest.h"
#include "calibrate/blas/lt_plan.h"
#include "calibrate/device/device.h"
#include "calibrate/timing/graph_settle.h"
#include "kernels/memory/random_fill.h"
#include "kernels/memory/stream.h"

enum { LIBRARY_VERSION = 0 };

static const double BUDGET_S = 0.1;
static const double REST_S = 0.25;
static const double BURST_S = 0.018; /* of products: then the power limit takes hold */
static const double SETTLE_S = 0.4;

enum stream_kind { STREAM_READ, STREAM_WRITE, STREAM_COPY, STREAM_NOTHING, STREAM_KIND_COUNT };

struct stream_work {
    enum stream_kind kind;
    int64_t bytes;
    int version; /* LIBRARY_VERSION: cudaMemcpyAsync or cudaMemsetAsync */
    void *src_dev;
    void *dst_dev;
    uint32_t *sum_dev;
};

struct product_work {
    struct moe_blas *blas;
    struct moe_lt_plan *plan;
    struct moe_lt_operands operands;
};

static enum moe_status stream_launch(void *context, uint32_t set, void *stream,
                                     struct moe_error *err)
{
    const struct stream_work *work = context;
    int code = 0;
    (void) set;
    switch (work->kind) {
    case STREAM_READ:
        code = moe_stream_read(work->sum_dev, work->src_dev, work->bytes, work->version, stream);
        break;
    case STREAM_WRITE:
        code =
            work->version == LIBRARY_VERSION
                ? (int) cudaMemsetAsync(work->dst_dev, 0x3f, (size_t) work->bytes, stream)
                : moe_stream_write(work->dst_dev, 0x3f3f3f3f, work->bytes, work->version, stream);
        break;
    case STREAM_COPY:
        code =
            work->version == LIBRARY_VERSION
                ? (int) cudaMemcpyAsync(work->dst_dev, work->src_dev, (size_t) work->bytes,
                                        cudaMemcpyDeviceToDevice, stream)
                : moe_stream_copy(work->dst_dev, work->src_dev, work->bytes, work->version, stream);
        break;
    case STREAM_NOTHING: /* the smallest node that a graph can hold */
        code = (int) cudaMemsetAsync(work->sum_dev, 0, 4, stream);
        break;
    case STREAM_KIND_COUNT:
        break;
    }
    return moe_device_check(code, "a stream kernel", err);
}

static enum moe_status product_launch(void *context, uint32_t set, void *stream,
                                      struct moe_error *err)
{
    const struct product_work *work = context;
    (void) set;
    return moe_lt_plan_run(work->blas, work->plan, &work->operands, 0, stream, err);
}

/* Median of a work by itself. */
static enum moe_status median_of(struct moe_graph_timer *timer, moe_graph_launch launch,
                                 void *context, double *median_us, struct moe_error *err)
{
    struct moe_graph_work work;
    struct moe_timing timing;
    /* First outside of the capture, so that the kernel is loaded and a refusal is told. */
    MOE_TRY(launch(context, 0, moe_graph_timer_stream(timer), err));
    MOE_TRY(moe_graph_capture(timer, launch, context, 1, &work, err));
    enum moe_status status = MOE_OK;
    while (status == MOE_OK && !moe_graph_enough(&work, BUDGET_S)) {
        status = moe_graph_batch(timer, &work, err);
    }
    if (status == MOE_OK) {
        moe_timing_summarise(work.us, work.count, &timing);
        *median_us = timing.median_us;
    }
    moe_graph_release(&work);
    return status;
}

static double median_us(const struct moe_graph_work *work)
{
    struct moe_timing timing;
    moe_timing_summarise(work->us, work->count, &timing);
    return timing.median_us;
}

/* Medians of a work right after light load and at the clock that it keeps. */
static enum moe_status both_states(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                   double *burst_us, double *sustained_us, struct moe_error *err)
{
    double mhz = 0.0;
    bool settled = false;
    MOE_TRY(moe_graph_window(timer, work, 1e-3, &mhz, err));
    work->batch_s = BURST_S;
    MOE_TRY(moe_graph_rest(timer, REST_S, REST_S, 0.0, err));
    MOE_TRY(moe_graph_batch(timer, work, err));
    *burst_us = median_us(work);
    work->batch_s = 0.0;
    MOE_TRY(moe_graph_settle(timer, work, 0.0, false, SETTLE_S, &settled, err));
    work->flow = true;
    work->count = 0;
    work->spent_s = 0.0;
    while (!moe_graph_enough(work, BUDGET_S)) {
        MOE_TRY(moe_graph_batch(timer, work, err));
    }
    *sustained_us = median_us(work);
    return moe_graph_wait(timer, "the last products", err);
}

/* All versions of one kind side by side; the best is the ceiling. */
static enum moe_status measure_stream(struct moe_graph_timer *timer, const struct stream_work *base,
                                      enum stream_kind kind, struct moe_bench_moves *moves,
                                      double *bytes_per_s, struct moe_error *err)
{
    static const char *const names[] = { "read", "write", "copy" };
    static const char *const library[] = { "", "cudaMemsetAsync", "cudaMemcpyAsync" };
    struct stream_work works[MOE_STREAM_VERSION_COUNT + 1];
    struct moe_move_variant variants[MOE_STREAM_VERSION_COUNT + 1] = { 0 };
    char size[32];
    struct moe_move_family family = {
        .name = names[kind],
        .size = size,
        .bytes = (double) base->bytes * (kind == STREAM_COPY ? 2.0 : 1.0),
        .launch = stream_launch,
        /* As a node of a graph cudaMemcpyAsync loses a third of its speed: all are measured where
         * it is at its best. */
        .in_stream = kind == STREAM_COPY,
        .variants = variants,
    };
    (void) snprintf(size, sizeof size, "%lld MiB", (long long) (base->bytes >> 20));
    const int least = kind == STREAM_READ ? 1 : LIBRARY_VERSION;
    const int most = kind == STREAM_READ ? MOE_STREAM_READ_VERSION_COUNT : MOE_STREAM_VERSION_COUNT;
    for (int version = least; version <= most; version++) {
        const uint32_t i = family.variant_count++;
        works[i] = *base;
        works[i].kind = kind;
        works[i].version = version;
        variants[i].context = &works[i];
        variants[i].is_library = version == LIBRARY_VERSION;
        (void) snprintf(variants[i].name, sizeof variants[i].name, "v%d", version);
        if (version == LIBRARY_VERSION) {
            (void) snprintf(variants[i].name, sizeof variants[i].name, "%s", library[kind]);
        }
    }
    const uint32_t first = moves->count;
    MOE_TRY(moe_move_contest(timer, &family, BUDGET_S, (uint64_t) kind, moves, err));
    *bytes_per_s = 0.0;
    for (uint32_t i = first; i < moves->count; i++) {
        *bytes_per_s = fmax(*bytes_per_s, moe_bench_move_rate(&moves->items[i]));
    }
    if (*bytes_per_s > 0.0) {
        return MOE_OK;
    }
    return moe_fail(err, MOE_DEVICE, "no way to %s memory works: %s", names[kind],
                    moves->items[first].refusal);
}

static enum moe_status measure_streams(struct moe_graph_timer *timer, struct stream_work *work,
                                       struct moe_bench_moves *moves,
                                       struct moe_bench_ceilings *out, struct moe_error *err)
{
    MOE_TRY(measure_stream(timer, work, STREAM_READ, moves, &out->read_bytes_per_s, err));
    MOE_TRY(measure_stream(timer, work, STREAM_WRITE, moves, &out->write_bytes_per_s, err));
    MOE_TRY(measure_stream(timer, work, STREAM_COPY, moves, &out->copy_bytes_per_s, err));
    work->kind = STREAM_NOTHING;
    return median_of(timer, stream_launch, work, &out->empty_graph_us, err);
}

static enum moe_status measure_product(struct moe_blas *blas, struct moe_graph_timer *timer,
                                       enum moe_lt_precision precision, int32_t size,
                                       const struct moe_lt_operands *operands, double *burst,
                                       double *sustained, struct moe_error *err)
{
    struct moe_graph_work graph;
    const double flops = 2.0 * size * size * size;
    struct product_work work = { .blas = blas, .operands = *operands };
    const struct moe_lt_problem problem = { .columns = size,
                                            .rows = size,
                                            .depth = size,
                                            .batch_count = 1,
                                            .precision = (int32_t) precision };
    double us[2] = { 0.0, 0.0 };
    MOE_TRY(moe_lt_plan_find(blas, &problem, &work.operands, 1, moe_graph_timer_stream(timer),
                             &work.plan, err));
    MOE_TRY(moe_graph_capture(timer, product_launch, &work, 1, &graph, err));
    const enum moe_status status = both_states(timer, &graph, &us[0], &us[1], err);
    if (!moe_graph_timer_stuck(timer)) {
        moe_graph_release(&graph);
    }
    if (status == MOE_OK) {
        *burst = flops / us[0] * 1e6;
        *sustained = flops / us[1] * 1e6;
    }
    return status;
}

/* Fills the operands anew for either precision: the sizes of bf16 hold those of fp8. */
static enum moe_status measure_products(struct moe_blas *blas, struct moe_graph_timer *timer,
                                        int32_t size, char *base_dev,
                                        struct moe_bench_ceilings *out, struct moe_error *err)
{
    const int64_t cells = (int64_t) size * size;
    char *weight = base_dev;
    char *rows = weight + cells * 2;
    char *result = rows + cells * 2;
    float *scales = (float *) (void *) (result + cells * 2);
    const struct moe_lt_operands operands = {
        .weight = weight, .rows = rows, .out = result, .weight_scale = scales, .row_scale = scales
    };
    MOE_TRY(moe_device_check(moe_kernel_fill_bf16(weight, cells, 1.0F, 1, NULL), "filling", err));
    MOE_TRY(moe_device_check(moe_kernel_fill_bf16(rows, cells, 1.0F, 2, NULL), "filling", err));
    MOE_TRY(moe_device_check((int) cudaDeviceSynchronize(), "filling", err));
    MOE_TRY(measure_product(blas, timer, MOE_LT_BF16, size, &operands, &out->bf16_flops_per_s,
                            &out->bf16_sustained_flops_per_s, err));
    MOE_TRY(moe_device_check(moe_kernel_fill_e4m3(weight, cells, 128.0F, 1, NULL), "filling", err));
    MOE_TRY(moe_device_check(moe_kernel_fill_e4m3(rows, cells, 128.0F, 2, NULL), "filling", err));
    MOE_TRY(moe_device_check(moe_kernel_fill_f32(scales, size, 0.001F, 0.002F, 3, NULL), "filling",
                             err));
    MOE_TRY(moe_device_check((int) cudaDeviceSynchronize(), "filling", err));
    struct moe_error refusal = { 0 };
    const enum moe_status status =
        measure_product(blas, timer, MOE_LT_FP8_ROW, size, &operands, &out->fp8_flops_per_s,
                        &out->fp8_sustained_flops_per_s, &refusal);
    if (status == MOE_UNSUPPORTED) { /* a GPU without fp8 */
        out->fp8_flops_per_s = 0.0;
        out->fp8_sustained_flops_per_s = 0.0;
        return MOE_OK;
    }
    if (status != MOE_OK && err != NULL) {
        *err = refusal;
    }
    return status;
}

enum moe_status moe_ceilings_measure(struct moe_blas *blas, struct moe_graph_timer *timer,
                                     int64_t stream_bytes, int32_t product_size,
                                     struct moe_bench_moves *moves, struct moe_bench_ceilings *out,
                                     struct moe_error *err)
{
    struct moe_bench_ceilings ceilings = { 0 };
    struct stream_work work = { .bytes = stream_bytes };
    void *sum = NULL;
    void *product = NULL;
    enum moe_status status =
        moe_device_check((int) cudaMalloc(&work.src_dev, (size_t) stream_bytes), "cudaMalloc", err);
    if (status == MOE_OK) {
        status = moe_device_check((int) cudaMalloc(&work.dst_dev, (size_t) stream_bytes),
                                  "cudaMalloc", err);
    }
    if (status == MOE_OK) {
        status = moe_device_check((int) cudaMalloc(&sum, MOE_STREAM_SUM_COUNT * sizeof(uint32_t)),
                                  "cudaMalloc", err);
    }
    if (status == MOE_OK) {
        work.sum_dev = sum;
        status = moe_device_check(
            moe_kernel_fill_bf16(work.src_dev, stream_bytes / 2, 1.0F, 1, NULL), "filling", err);
    }
    if (status == MOE_OK) {
        status = moe_device_check((int) cudaDeviceSynchronize(), "filling", err);
    }
    if (status == MOE_OK) {
        status = measure_streams(timer, &work, moves, &ceilings, err);
    }
    if (status == MOE_OK) {
        const size_t bytes = (size_t) product_size * (size_t) product_size * 6 +
                             (size_t) product_size * sizeof(float);
        status = moe_device_check((int) cudaMalloc(&product, bytes), "cudaMalloc", err);
    }
    if (status == MOE_OK) {
        status = measure_products(blas, timer, product_size, product, &ceilings, err);
    }
    (void) cudaFree(product);
    (void) cudaFree(sum);
    (void) cudaFree(work.dst_dev);
    (void) cudaFree(work.src_dev);
    if (status == MOE_OK) {
        *out = ceilings;
    }
    return status;
}

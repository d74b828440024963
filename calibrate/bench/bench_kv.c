#include "calibrate/bench/bench_kv.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/bench/move_contest.h"
#include "calibrate/device/device.h"
#include "kernels/attention/kv_read.h"
#include "kernels/memory/random_fill.h"
#include "sim/base/random.h"

enum { PAGE_TOKENS = 64, OWNED_LIMIT = 8 };

static const double BUDGET_S = 0.1;

/* Kinds of attention that the model cards have. */
static const struct kind {
    const char *name;
    enum moe_kv_kind kind;
    int32_t q_heads;
    int32_t kv_heads;
    int32_t head_dim;
} kinds[] = {
    { "kv gqa 32 of 4", MOE_KV_GQA, 32, 4, 128 },    /* Qwen3-30B */
    { "kv gqa 32 of 8", MOE_KV_GQA, 32, 8, 128 },    /* Mixtral 8x7B */
    { "kv gqa 64 of 8", MOE_KV_GQA, 64, 8, 64 },     /* gpt-oss-120b */
    { "kv mla 128 heads", MOE_KV_MLA, 128, 1, 576 }, /* DeepSeek-V3, attention not split */
    { "kv mla 16 heads", MOE_KV_MLA, 16, 1, 576 },   /* DeepSeek-V2-Lite */
};

struct attention {
    struct moe_kv_shape shape;
    struct moe_kv_batch batch;
    int32_t split_count;
    void *owned[OWNED_LIMIT];
    uint32_t owned_count;
};

static enum moe_status take(struct attention *attention, int64_t bytes, void **out,
                            struct moe_error *err)
{
    assert(attention->owned_count < OWNED_LIMIT);
    MOE_TRY(moe_device_check((int) cudaMalloc(out, (size_t) bytes), "cudaMalloc", err));
    attention->owned[attention->owned_count++] = *out;
    return MOE_OK;
}

static enum moe_status take_filled(struct attention *attention, int64_t count, uint64_t seed,
                                   void **out, struct moe_error *err)
{
    MOE_TRY(take(attention, count * 2, out, err));
    return moe_device_check(moe_kernel_fill_bf16(*out, count, 1.0F, seed, NULL), "filling", err);
}

static enum moe_status take_numbers(struct attention *attention, const int32_t *numbers,
                                    int64_t count, void **out, struct moe_error *err)
{
    const int64_t bytes = count * (int64_t) sizeof *numbers;
    MOE_TRY(take(attention, bytes, out, err));
    return moe_device_check((int) cudaMemcpy(*out, numbers, (size_t) bytes, cudaMemcpyHostToDevice),
                            "cudaMemcpy", err);
}

/* All pages in random order, and the contexts behind them. */
static enum moe_status take_tables(struct attention *attention, uint64_t seed,
                                   const int32_t **page_table_dev, const int32_t **context_dev,
                                   struct moe_error *err)
{
    const int64_t sequences = attention->shape.sequence_count;
    const int64_t pages = sequences * attention->shape.page_limit;
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    void *table = NULL;
    void *contexts = NULL;
    int32_t *numbers = calloc((size_t) (pages + sequences), sizeof *numbers);
    if (numbers == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %lld pages", (long long) pages);
    }
    for (int64_t i = 0; i < pages; i++) { /* Fisher and Yates, from the front */
        const int64_t j = (int64_t) moe_random_below(key, (uint64_t) i, (uint64_t) i + 1);
        numbers[i] = numbers[j];
        numbers[j] = (int32_t) i;
    }
    for (int64_t i = 0; i < sequences; i++) {
        numbers[pages + i] = attention->shape.context_limit;
    }
    enum moe_status status = take_numbers(attention, numbers, pages, &table, err);
    if (status == MOE_OK) {
        status = take_numbers(attention, numbers + pages, sequences, &contexts, err);
    }
    free(numbers);
    *page_table_dev = table;
    *context_dev = contexts;
    return status;
}

static enum moe_status prepare(struct attention *attention, uint64_t seed, struct moe_error *err)
{
    const struct moe_kv_shape *shape = &attention->shape;
    const int64_t heads = (int64_t) shape->sequence_count * shape->q_heads;
    const int64_t cells = (int64_t) shape->sequence_count * shape->page_limit * shape->page_tokens *
                          shape->kv_heads * shape->head_dim;
    void *q = NULL;
    void *k = NULL;
    void *v = NULL;
    MOE_TRY(take_filled(attention, heads * shape->head_dim, 1, &q, err));
    MOE_TRY(take_filled(attention, cells, 2, &k, err));
    if (shape->kind == MOE_KV_GQA) {
        MOE_TRY(take_filled(attention, cells, 3, &v, err));
    }
    MOE_TRY(take(attention, heads * shape->head_dim * 2, &attention->batch.out_dev, err));
    MOE_TRY(take_tables(attention, seed, &attention->batch.page_table_dev,
                        &attention->batch.context_dev, err));
    attention->batch.q_dev = q;
    attention->batch.k_dev = k;
    attention->batch.v_dev = v;
    MOE_TRY(moe_device_check(moe_kv_split_count(shape, &attention->split_count),
                             "moe_kv_split_count", err));
    const size_t workspace = moe_kv_workspace_bytes(shape, attention->split_count);
    if (workspace > 0) {
        MOE_TRY(take(attention, (int64_t) workspace, &attention->batch.workspace_dev, err));
    }
    return moe_device_check((int) cudaDeviceSynchronize(), "filling", err);
}

static enum moe_status kv_launch(void *context, uint32_t set, void *stream, struct moe_error *err)
{
    const struct attention *attention = context;
    (void) set;
    return moe_device_check(
        moe_kv_read(&attention->shape, &attention->batch, attention->split_count, stream),
        "moe_kv_read", err);
}

static enum moe_status measure(struct moe_graph_timer *timer, const struct kind *kind,
                               const struct moe_bench_context *size, uint64_t seed,
                               struct moe_bench_moves *moves, struct moe_error *err)
{
    char text[48];
    struct moe_move_variant variant = { 0 };
    struct attention attention = {
        .shape = { .kind = kind->kind,
                   .sequence_count = size->sequences,
                   .q_heads = kind->q_heads,
                   .kv_heads = kind->kv_heads,
                   .head_dim = kind->head_dim,
                   .page_tokens = PAGE_TOKENS,
                   .page_limit = (size->tokens + PAGE_TOKENS - 1) / PAGE_TOKENS,
                   .context_limit = size->tokens,
                   .softmax_scale = 1.0F / sqrtf((float) kind->head_dim) },
    };
    const double cells = (double) size->sequences * (double) size->tokens *
                         (double) kind->kv_heads * (double) kind->head_dim;
    const struct moe_move_family family = {
        .name = kind->name,
        .size = text,
        .bytes = cells * (kind->kind == MOE_KV_GQA ? 4.0 : 2.0),
        .launch = kv_launch,
        .variants = &variant,
        .variant_count = 1,
    };
    (void) snprintf(text, sizeof text, "%d sequences x %d tokens", (int) size->sequences,
                    (int) size->tokens);
    enum moe_status status = prepare(&attention, seed, err);
    if (status == MOE_OK) {
        variant.context = &attention;
        (void) snprintf(variant.name, sizeof variant.name, "%d splits",
                        (int) attention.split_count);
        status = moe_move_contest(timer, &family, BUDGET_S, seed, moves, err);
    }
    for (uint32_t i = 0; !moe_graph_timer_stuck(timer) && i < attention.owned_count; i++) {
        (void) cudaFree(attention.owned[i]);
    }
    return status;
}

enum moe_status moe_bench_kv_measure(struct moe_graph_timer *timer,
                                     const struct moe_bench_context *size, uint64_t seed,
                                     struct moe_bench_moves *moves, struct moe_error *err)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        MOE_TRY(measure(timer, &kinds[i], size, seed, moves, err));
    }
    return MOE_OK;
}

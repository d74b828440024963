/* Attention of decoding over a paged cache; copies of the page table that name other pages take the
 * place of other sets of weights. */
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/device/device.h"
#include "calibrate/measure/measure_work.h"
#include "kernels/attention/kv_read.h"
#include "kernels/expert/expert_rows.h"
#include "kernels/memory/random_fill.h"
#include "sim/base/random.h"

enum { PAGE_TOKENS = 64 };

struct kv {
    struct moe_measure_tools tools;
    struct moe_kv_shape shape;
    struct moe_measure_buffers buffers; /* of the series */
    struct moe_measure_buffers own;     /* of the point */
    int64_t page_count;
    void *k_dev;
    void *v_dev;
    void *q_dev;
    void *out_dev;
    void *found_dev;
    void *context_dev;
    void *tables_dev[MOE_GRAPH_SET_LIMIT];
    void *workspace_dev;
    uint32_t set_count;
    int32_t split_count;
};

static double page_cells(const struct moe_kv_shape *shape)
{
    return (double) PAGE_TOKENS * (double) shape->kv_heads * (double) shape->head_dim;
}

static enum moe_status take_filled(struct kv *kv, double cells, uint64_t seed, void *target,
                                   struct moe_error *err)
{
    void **slot = target;
    MOE_TRY(moe_measure_take(&kv->buffers, cells * 2.0, target, err));
    return moe_device_check(moe_kernel_fill_bf16(*slot, (int64_t) cells, 1.0F, seed, NULL),
                            "filling", err);
}

static void kv_leave(void *state)
{
    struct kv *kv = state;
    moe_measure_give(&kv->own);
}

static void kv_close(void *state)
{
    struct kv *kv = state;
    kv_leave(kv);
    moe_measure_give(&kv->buffers);
    free(kv);
}

static enum moe_status take_all(struct kv *kv, double sequences, struct moe_error *err)
{
    const double q_cells = sequences * (double) kv->shape.q_heads * (double) kv->shape.head_dim;
    const double cells = page_cells(&kv->shape) * (double) kv->page_count;
    MOE_TRY(take_filled(kv, cells, 2, &kv->k_dev, err));
    if (kv->shape.kind == MOE_KV_GQA) {
        MOE_TRY(take_filled(kv, cells, 3, &kv->v_dev, err));
    }
    MOE_TRY(take_filled(kv, q_cells, 1, &kv->q_dev, err));
    MOE_TRY(moe_measure_take(&kv->buffers, q_cells * 2.0, &kv->out_dev, err));
    MOE_TRY(moe_measure_take(&kv->buffers, 8.0, &kv->found_dev, err));
    return moe_device_check((int) cudaDeviceSynchronize(), "filling", err);
}

static enum moe_status kv_open(const struct moe_measure_tools *tools,
                               const struct moe_measure_series *series,
                               const struct moe_measure_extent *extent, void **state,
                               struct moe_error *err)
{
    struct kv *kv = calloc(1, sizeof *kv);
    if (kv == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a series");
    }
    kv->tools = *tools;
    kv->shape = (struct moe_kv_shape){
        .kind = series->kind == MOE_MEASURE_KV_MLA ? MOE_KV_MLA : MOE_KV_GQA,
        .q_heads = series->units,
        .kv_heads = series->inter,
        .head_dim = series->hidden,
        .page_tokens = PAGE_TOKENS,
        .softmax_scale = 1.0F / sqrtf((float) series->hidden),
    };
    /* Room for the largest point (a page more for each sequence's last, unfilled one), and for
     * five times the cache, through which smaller ones rotate. */
    const double cell_bytes = page_cells(&kv->shape) * 2.0;
    const double pages = extent->tokens_context / PAGE_TOKENS + extent->tokens + 1.0;
    kv->page_count = (int64_t) fmax(pages, ceil(6.0 * tools->cache_bytes / cell_bytes));
    const enum moe_status status = take_all(kv, extent->tokens, err);
    if (status != MOE_OK) {
        kv_close(kv);
        return status;
    }
    *state = kv;
    return MOE_OK;
}

static enum moe_status upload(struct kv *kv, const int32_t *numbers, int64_t count, void **out,
                              struct moe_error *err)
{
    const size_t bytes = (size_t) count * sizeof *numbers;
    MOE_TRY(moe_measure_take(&kv->own, (double) bytes, out, err));
    return moe_device_check((int) cudaMemcpy(*out, numbers, bytes, cudaMemcpyHostToDevice),
                            "cudaMemcpy", err);
}

/* Each set's table names pages of a stretch of its own, shuffled, as a server's cache would have
 * them after some time. */
static enum moe_status make_tables(struct kv *kv, int64_t pages, struct moe_error *err)
{
    const int64_t sequences = kv->shape.sequence_count;
    const uint64_t key = moe_random_key(kv->tools.seed, MOE_RANDOM_TEST);
    int32_t *numbers = malloc((size_t) (pages > sequences ? pages : sequences) * sizeof *numbers);
    if (numbers == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %lld pages", (long long) pages);
    }
    enum moe_status status = MOE_OK;
    for (uint32_t set = 0; status == MOE_OK && set < kv->set_count; set++) {
        for (int64_t i = 0; i < pages; i++) { /* Fisher and Yates, from the front */
            const int64_t j = (int64_t) moe_random_below(key, (uint64_t) i, (uint64_t) i + 1);
            numbers[i] = numbers[j];
            numbers[j] = (int32_t) (i + pages * (int64_t) set);
        }
        status = upload(kv, numbers, pages, &kv->tables_dev[set], err);
    }
    for (int64_t i = 0; i < sequences; i++) {
        numbers[i] = kv->shape.context_limit;
    }
    if (status == MOE_OK) {
        status = upload(kv, numbers, sequences, &kv->context_dev, err);
    }
    free(numbers);
    return status;
}

static enum moe_status kv_launch(void *context, uint32_t set, void *stream, struct moe_error *err)
{
    const struct kv *kv = context;
    const struct moe_kv_batch batch = { .q_dev = kv->q_dev,
                                        .k_dev = kv->k_dev,
                                        .v_dev = kv->v_dev,
                                        .page_table_dev = kv->tables_dev[set],
                                        .context_dev = kv->context_dev,
                                        .out_dev = kv->out_dev,
                                        .workspace_dev = kv->workspace_dev };
    return moe_device_check(moe_kv_read(&kv->shape, &batch, kv->split_count, stream), "moe_kv_read",
                            err);
}

static enum moe_status kv_set(void *state, const struct moe_measure_point *point,
                              struct moe_measure_launch *out, struct moe_error *err)
{
    struct kv *kv = state;
    const int32_t page_limit = ((int32_t) point->context + PAGE_TOKENS - 1) / PAGE_TOKENS;
    kv->shape.sequence_count = (int32_t) point->tokens;
    kv->shape.context_limit = (int32_t) point->context;
    kv->shape.page_limit = page_limit;
    const int64_t pages = (int64_t) kv->shape.sequence_count * page_limit;
    const uint32_t wanted = moe_graph_set_count(point->cold_bytes, kv->tools.cache_bytes);
    const int64_t room = kv->page_count / pages;
    kv->set_count = (int64_t) wanted < room ? wanted : (uint32_t) room;
    kv->set_count = kv->set_count < 1 ? 1 : kv->set_count;
    MOE_TRY(make_tables(kv, pages, err));
    MOE_TRY(moe_device_check(moe_kv_split_count(&kv->shape, &kv->split_count), "moe_kv_split_count",
                             err));
    const size_t workspace = moe_kv_workspace_bytes(&kv->shape, kv->split_count);
    kv->workspace_dev = NULL;
    if (workspace > 0) {
        MOE_TRY(moe_measure_take(&kv->own, (double) workspace, &kv->workspace_dev, err));
    }
    *out = (struct moe_measure_launch){ .launch = kv_launch,
                                        .context = kv,
                                        .set_count = kv->set_count };
    return moe_device_check((int) cudaDeviceSynchronize(), "page tables", err);
}

/* MLA writes 512 of 576 columns per head, one after the other. */
static int64_t out_cells(const struct kv *kv)
{
    const int64_t columns =
        kv->shape.kind == MOE_KV_MLA ? MOE_KV_MLA_OUT_COLUMNS : kv->shape.head_dim;
    return (int64_t) kv->shape.sequence_count * kv->shape.q_heads * columns;
}

static enum moe_status kv_poison(void *state, const struct moe_measure_point *point,
                                 struct moe_error *err)
{
    const struct kv *kv = state;
    (void) point;
    MOE_TRY(moe_device_check((int) cudaMemset(kv->out_dev, 0xff, (size_t) out_cells(kv) * 2),
                             "cudaMemset", err));
    return moe_device_check((int) cudaDeviceSynchronize(), "cudaMemset", err);
}

/* That all was written; that it is right is tested in tests/gpu_kv_read.c. */
static enum moe_status kv_judge(void *state, const struct moe_measure_point *point,
                                struct moe_measure_verdict *out, struct moe_error *err)
{
    const struct kv *kv = state;
    uint64_t found = 0;
    (void) point;
    MOE_TRY(moe_device_check((int) cudaMemset(kv->found_dev, 0, sizeof found), "cudaMemset", err));
    MOE_TRY(moe_device_check(
        moe_kernel_count_poison(kv->out_dev, out_cells(kv) / 8 * 8, kv->found_dev, NULL),
        "moe_kernel_count_poison", err));
    MOE_TRY(moe_device_check(
        (int) cudaMemcpy(&found, kv->found_dev, sizeof found, cudaMemcpyDeviceToHost), "cudaMemcpy",
        err));
    out->error = -1.0;
    out->wrong = found != 0;
    (void) snprintf(out->why, sizeof out->why, "%llu cells of the output are no number",
                    (unsigned long long) found);
    return MOE_OK;
}

const struct moe_measure_work moe_measure_work_kv = {
    .open = kv_open,
    .set = kv_set,
    .poison = kv_poison,
    .judge = kv_judge,
    .leave = kv_leave,
    .close = kv_close,
};

/* Decode attention against its CPU twin in double: relative error of each head's output within
 * 5e-3, which is what rounding the probabilities and the result to bf16 may cost. Contexts are
 * ragged, some are empty; pages are handed out in random order; whatever lies in the cache behind a
 * context or in a page that nobody has is NaN. */
#include <inttypes.h>
#include <math.h>

#include "kernels/reference/reference_kv_read.h"
#include "kernels/reference/reference_number.h"
#include "tests/gpu_case.h"

struct drawn {
    struct moe_kv_shape shape;
    int32_t columns; /* of out */
    size_t q_count;
    size_t cache_count; /* of k, and of v */
    size_t out_count;
    uint16_t *q;
    uint16_t *k;
    uint16_t *v; /* NULL for MLA */
    int32_t *page_table;
    int32_t *context;
    double *expected;
};

static int32_t draw_context(uint64_t key, int32_t sequence, int32_t limit)
{
    switch (sequence) {
    case 0:
        return limit;
    case 1:
        return 1;
    case 2:
        return 0;
    case 3:
        return limit < 65 ? limit : 65; /* one token into the second tile */
    default:
        return (int32_t) moe_random_below(key, (uint64_t) sequence, (uint64_t) limit + 1);
    }
}

/* A permutation of all pages, cut into rows of the table. */
static void draw_pages(uint64_t key, int32_t *table, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        const int32_t j =
            (int32_t) moe_random_below(key, (uint64_t) i + (UINT64_C(1) << 40), (uint64_t) i + 1);
        table[i] = table[j];
        table[j] = i;
    }
}

static void draw_rows(uint64_t key, const struct drawn *d, uint16_t *cache)
{
    const struct moe_kv_shape *shape = &d->shape;
    const int64_t row_count = (int64_t) shape->kv_heads * shape->head_dim;
    for (int64_t s = 0; s < shape->sequence_count; s++) {
        for (int32_t t = 0; t < d->context[s]; t++) {
            const int64_t page = d->page_table[s * shape->page_limit + t / shape->page_tokens];
            const int64_t first = (page * shape->page_tokens + t % shape->page_tokens) * row_count;
            for (int64_t i = first; i < first + row_count; i++) {
                cache[i] = moe_bf16_from_float(gpu_draw(key, (uint64_t) i));
            }
        }
    }
}

static struct drawn draw(struct moe_kv_shape shape, uint64_t seed)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    const int is_mla = shape.kind == MOE_KV_MLA;
    const int32_t pages = shape.sequence_count * shape.page_limit;
    struct drawn d = { .shape = shape };
    d.columns = is_mla ? MOE_KV_MLA_OUT_COLUMNS : shape.head_dim;
    d.q_count = (size_t) shape.sequence_count * (size_t) shape.q_heads * (size_t) shape.head_dim;
    d.out_count = (size_t) shape.sequence_count * (size_t) shape.q_heads * (size_t) d.columns;
    d.cache_count = (size_t) (pages + 1) * (size_t) shape.page_tokens * (size_t) shape.kv_heads *
                    (size_t) shape.head_dim;
    d.q = gpu_host(d.q_count * sizeof *d.q);
    d.k = gpu_host(d.cache_count * sizeof *d.k);
    d.v = is_mla ? NULL : gpu_host(d.cache_count * sizeof *d.v);
    d.page_table = gpu_host((size_t) pages * sizeof *d.page_table);
    d.context = gpu_host((size_t) shape.sequence_count * sizeof *d.context);
    d.expected = gpu_host(d.out_count * sizeof *d.expected);
    for (size_t i = 0; i < d.q_count; i++) {
        d.q[i] = moe_bf16_from_float(gpu_draw(key, i + (UINT64_C(1) << 41)));
    }
    for (int32_t s = 0; s < shape.sequence_count; s++) {
        d.context[s] = draw_context(key, s, shape.context_limit);
    }
    draw_pages(key, d.page_table, pages);
    draw_rows(key, &d, d.k);
    if (!is_mla) {
        draw_rows(key ^ 2, &d, d.v);
    }
    moe_reference_kv_read(&shape, d.expected, d.q, d.k, d.v, d.page_table, d.context);
    return d;
}

static void compare(const struct drawn *d, const uint16_t *found, int32_t splits)
{
    for (size_t row = 0; row < d->out_count / (size_t) d->columns; row++) {
        double error = 0.0;
        double size = 0.0;
        for (size_t i = row * (size_t) d->columns; i < (row + 1) * (size_t) d->columns; i++) {
            const double far = (double) moe_float_from_bf16(found[i]) - d->expected[i];
            error += far * far;
            size += d->expected[i] * d->expected[i];
        }
        gpu_require(error <= 25e-6 * size, /* false for NaN */
                    "kind %d, %" PRId32 " heads of %" PRId32 ", %" PRId32
                    " splits, sequence %zu of context %" PRId32 ", head %zu: relative error %.3g",
                    (int) d->shape.kind, d->shape.q_heads, d->shape.head_dim, splits,
                    row / (size_t) d->shape.q_heads, d->context[row / (size_t) d->shape.q_heads],
                    row % (size_t) d->shape.q_heads, sqrt(error / size));
    }
    for (size_t i = d->out_count; i < d->out_count + 8; i++) {
        gpu_require(found[i] == 0xffff, "written behind the last head");
    }
}

static void check(struct moe_kv_shape shape, uint64_t seed)
{
    struct drawn d = draw(shape, seed);
    const size_t out_bytes = (d.out_count + 8) * sizeof(uint16_t);
    uint16_t *found = gpu_host(out_bytes);
    int32_t best = 0;
    struct moe_kv_batch batch = {
        .q_dev = gpu_upload(d.q, d.q_count * sizeof *d.q),
        .k_dev = gpu_upload(d.k, d.cache_count * sizeof *d.k),
        .v_dev = d.v == NULL ? NULL : gpu_upload(d.v, d.cache_count * sizeof *d.v),
        .page_table_dev =
            gpu_upload(d.page_table, (size_t) shape.sequence_count * (size_t) shape.page_limit *
                                         sizeof *d.page_table),
        .context_dev = gpu_upload(d.context, (size_t) shape.sequence_count * sizeof *d.context),
        .out_dev = gpu_alloc(out_bytes),
    };
    gpu_demand(moe_kv_split_count(&shape, &best), "moe_kv_split_count");
    gpu_require(best >= 1 && best <= MOE_KV_SPLIT_LIMIT, "%" PRId32 " splits", best);
    const int32_t splits[] = { 1, 3, best, MOE_KV_SPLIT_LIMIT };
    for (size_t i = 0; i < sizeof splits / sizeof splits[0]; i++) {
        const size_t bytes = moe_kv_workspace_bytes(&shape, splits[i]);
        batch.workspace_dev = bytes == 0 ? NULL : gpu_alloc(bytes);
        gpu_poison(batch.out_dev, out_bytes);
        gpu_demand(moe_kv_read(&shape, &batch, splits[i], NULL), "moe_kv_read");
        gpu_download(found, batch.out_dev, out_bytes, "moe_kv_read");
        compare(&d, found, splits[i]);
        gpu_free(batch.workspace_dev);
    }
    const void *dev[] = { batch.q_dev,          batch.k_dev,       batch.v_dev,
                          batch.page_table_dev, batch.context_dev, batch.out_dev };
    for (size_t i = 0; i < sizeof dev / sizeof dev[0]; i++) {
        void *one;
        memcpy(&one, &dev[i], sizeof one);
        gpu_free(one);
    }
    gpu_free_all(NULL, 0, (void *[]){ d.q, d.k, d.v, d.page_table, d.context, d.expected, found },
                 7);
}

static const struct moe_kv_shape shapes[] = {
    /* kind, sequence_count, q_heads, kv_heads, head_dim, page_tokens, page_limit, context_limit */
    { MOE_KV_GQA, 5, 8, 2, 128, 16, 9, 130, 0.5F },
    { MOE_KV_GQA, 4, 3, 3, 64, 32, 3, 96, 0.5F },
    { MOE_KV_MLA, 4, 16, 1, MOE_KV_MLA_COLUMNS, 64, 3, 190, 0.25F },
    { MOE_KV_MLA, 2, 32, 1, MOE_KV_MLA_COLUMNS, 16, 5, 80, 0.25F },
    { MOE_KV_MLA, 3, 64, 1, MOE_KV_MLA_COLUMNS, 48, 4, 150, 0.25F },
    { MOE_KV_GQA, 2, 16, 1, 128, 64, 2, 128, 0.5F },
    /* large */
    { MOE_KV_GQA, 6, 32, 2, 128, 64, 12, 700, 0.5F },
    { MOE_KV_GQA, 6, 32, 8, 64, 16, 66, 1055, 0.5F },
    { MOE_KV_GQA, 1, 7, 1, 128, 256, 40, 10000, 0.5F },
    { MOE_KV_MLA, 4, 128, 1, MOE_KV_MLA_COLUMNS, 64, 4, 250, 0.25F },
    { MOE_KV_MLA, 1, 48, 1, MOE_KV_MLA_COLUMNS, 64, 32, 1900, 0.25F },
};

static void check_refusals(void)
{
    const int bad = (int) cudaErrorInvalidValue;
    void *dev = gpu_alloc(1 << 20);
    const struct moe_kv_batch batch = { dev, dev, dev, dev, dev, dev, dev };
    struct moe_kv_batch lacking = batch;
    struct moe_kv_shape shape = shapes[0];
    gpu_require(moe_kv_read(&shape, &batch, 0, NULL) == bad, "no split");
    gpu_require(moe_kv_read(&shape, &batch, MOE_KV_SPLIT_LIMIT + 1, NULL) == bad,
                "a split too many");
    lacking.v_dev = NULL;
    gpu_require(moe_kv_read(&shape, &lacking, 1, NULL) == bad, "no values");
    lacking = batch, lacking.workspace_dev = NULL;
    gpu_require(moe_kv_read(&shape, &lacking, 2, NULL) == bad, "no workspace");
    shape.context_limit = 16 * 9 + 1;
    gpu_require(moe_kv_read(&shape, &batch, 1, NULL) == bad, "a context beyond its pages");
    shape = shapes[0], shape.head_dim = 96;
    gpu_require(moe_kv_read(&shape, &batch, 1, NULL) == bad, "head_dim 96");
    shape = shapes[0], shape.q_heads = 34;
    gpu_require(moe_kv_read(&shape, &batch, 1, NULL) == bad, "17 heads per kv head");
    shape = shapes[0], shape.page_tokens = 24;
    gpu_require(moe_kv_read(&shape, &batch, 1, NULL) == bad, "pages of 24 tokens");
    shape = shapes[0], shape.softmax_scale = 0.0F;
    gpu_require(moe_kv_read(&shape, &batch, 1, NULL) == bad, "scale 0");
    shape = shapes[2], shape.q_heads = 24;
    gpu_require(moe_kv_read(&shape, &batch, 1, NULL) == bad, "MLA of 24 heads");
    shape = shapes[2], shape.q_heads = 144;
    gpu_require(moe_kv_read(&shape, &batch, 1, NULL) == bad, "MLA of 144 heads");
    gpu_free(dev);
}

int main(int argc, char **argv)
{
    const size_t count = gpu_begin(argc, argv) ? 6 : sizeof shapes / sizeof shapes[0];
    for (size_t s = 0; s < count; s++) {
        check(shapes[s], s + 1);
    }
    check_refusals();
    return EXIT_SUCCESS;
}

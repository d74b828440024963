/* Plan, permute, combine and quantise against their CPU twins, to the bit, in all versions: ragged
 * counts, experts without rows, choices without an expert, rows that do not fill a tile. */
#include <inttypes.h>

#include "kernels/reference/reference_number.h"
#include "kernels/reference/reference_permute.h"
#include "tests/gpu_case.h"

struct drawn {
    struct moe_permute_shape shape;
    size_t choices;
    size_t x_count; /* values */
    int32_t scale_columns;
    int32_t *ids;
    int32_t *offset;
    int32_t *position;
    int32_t *source;
    uint16_t *x;
    uint8_t *q; /* x in fp8, and its scales */
    float *scale;
    float *weight;
};

/* Low experts are chosen often, high ones hardly ever, one of 16 choices is nobody's. */
static int32_t draw_id(uint64_t key, uint64_t i, int32_t expert_count)
{
    const double u = moe_random_uniform(key, i);
    if (moe_random_below(key, i + (UINT64_C(1) << 40), 16) == 0) {
        return moe_random_below(key, i + (UINT64_C(1) << 41), 2) == 0 ? -1 : expert_count;
    }
    return (int32_t) (u * u * u * expert_count);
}

/* Magnitudes from 2^-7 to 2^8 by block; some blocks are zeros, and some lie on either side of what
 * counts as zeros. */
static float draw_size(size_t block)
{
    switch (block % 11) {
    case 0:
        return 0.0F;
    case 4:
        return 0x1p-100F;
    case 7:
        return 0x1p-99F;
    default:
        return (float) (1 << block % 16) / 128.0F;
    }
}

static struct drawn draw(struct moe_permute_shape shape, uint64_t seed)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    struct drawn d = { .shape = shape };
    d.choices = (size_t) shape.token_count * (size_t) shape.top_k;
    d.x_count = (size_t) shape.token_count * (size_t) shape.hidden;
    d.scale_columns = (shape.hidden + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
    d.ids = gpu_host(d.choices * sizeof *d.ids);
    d.offset = gpu_host(((size_t) shape.expert_count + 1) * sizeof *d.offset);
    d.position = gpu_host(d.choices * sizeof *d.position);
    d.source = gpu_host(d.choices * sizeof *d.source);
    d.x = gpu_host(d.x_count * sizeof *d.x);
    d.q = gpu_host(d.x_count);
    d.scale = gpu_host((size_t) d.scale_columns * (size_t) shape.token_count * sizeof *d.scale);
    d.weight = gpu_host(d.choices * sizeof *d.weight);
    for (size_t i = 0; i < d.choices; i++) {
        d.ids[i] = draw_id(key, i, shape.expert_count);
        d.weight[i] = gpu_draw(key, i + (UINT64_C(1) << 42));
    }
    for (size_t i = 0; i < d.x_count; i++) {
        d.x[i] = moe_bf16_from_float(draw_size(i / MOE_EXPERT_SCALE_BLOCK) *
                                     gpu_draw(key, i + (UINT64_C(1) << 43)));
    }
    moe_reference_permute_plan(&shape, d.ids, d.offset, d.position, d.source);
    moe_reference_quantise_rows(shape.token_count, shape.hidden, d.q, d.scale, shape.token_count,
                                d.x);
    return d;
}

static void drawn_free(struct drawn *d)
{
    gpu_free_all(
        NULL, 0,
        (void *[]){ d->ids, d->offset, d->position, d->source, d->x, d->q, d->scale, d->weight },
        8);
}

static void compare(const struct drawn *d, const char *what, int version, const void *found,
                    const void *expected, size_t bytes)
{
    const unsigned char *a = found;
    const unsigned char *b = expected;
    const int equal = memcmp(a, b, bytes) == 0;
    for (size_t i = 0; !equal && i < bytes; i++) {
        gpu_require(a[i] == b[i],
                    "%s version %d, %" PRId32 " tokens, top %" PRId32 " of %" PRId32
                    ", hidden %" PRId32 ": byte %zu is %d, its twin says %d",
                    what, version, d->shape.token_count, d->shape.top_k, d->shape.expert_count,
                    d->shape.hidden, i, a[i], b[i]);
    }
}

/* Downloads and compares; expected is poisoned where nothing may be written. */
static void compare_dev(const struct drawn *d, const char *what, int version, const void *dev,
                        const void *expected, size_t bytes)
{
    void *found = gpu_host(bytes);
    gpu_download(found, dev, bytes, what);
    compare(d, what, version, found, expected, bytes);
    free(found);
}

static void check_plan(const struct drawn *d)
{
    const struct moe_permute_shape *shape = &d->shape;
    const size_t ids_bytes = d->choices * sizeof *d->ids;
    const size_t offset_bytes = ((size_t) shape->expert_count + 1) * sizeof *d->offset;
    int32_t *ids = gpu_upload(d->ids, ids_bytes);
    int32_t *offset = gpu_alloc(offset_bytes);
    int32_t *position = gpu_alloc(ids_bytes);
    int32_t *source = gpu_alloc(ids_bytes);
    void *workspace = gpu_alloc(moe_permute_workspace_bytes(shape));
    for (int with_source = 1; with_source >= 0; with_source--) {
        gpu_poison(position, ids_bytes);
        gpu_demand(moe_permute_plan(shape, ids, offset, position, with_source ? source : NULL,
                                    workspace, NULL),
                   "moe_permute_plan");
        compare_dev(d, "row_offset", 1, offset, d->offset, offset_bytes);
        compare_dev(d, "position", 1, position, d->position, ids_bytes);
        compare_dev(d, "row_source", 1, source, d->source, ids_bytes);
    }
    gpu_free_all((void *[]){ ids, offset, position, source, workspace }, 5, NULL, 0);
}

static void check_rows(const struct drawn *d, enum moe_expert_dtype dtype)
{
    const struct moe_permute_shape *shape = &d->shape;
    const int fp8 = dtype == MOE_EXPERT_FP8;
    const int32_t stride = (int32_t) d->choices + 5;
    const size_t value_bytes = fp8 ? 1 : 2;
    const size_t rows_bytes = (d->choices + 1) * (size_t) shape->hidden * value_bytes;
    const size_t scale_bytes = (size_t) d->scale_columns * (size_t) stride * sizeof(float);
    void *rows = gpu_host(rows_bytes);
    float *scale = gpu_host(scale_bytes);
    int32_t *position_dev = gpu_upload(d->position, d->choices * sizeof *d->position);
    int32_t *source_dev = gpu_upload(d->source, d->choices * sizeof *d->source);
    int32_t *offset_dev =
        gpu_upload(d->offset, ((size_t) shape->expert_count + 1) * sizeof *d->offset);
    void *x_dev = gpu_upload(fp8 ? (void *) d->q : d->x, d->x_count * value_bytes);
    float *x_scale_dev = gpu_upload(d->scale, (size_t) d->scale_columns *
                                                  (size_t) shape->token_count * sizeof(float));
    void *rows_dev = gpu_alloc(rows_bytes);
    float *scale_dev = gpu_alloc(scale_bytes);
    moe_reference_permute_values(shape, dtype, rows, fp8 ? (void *) d->q : d->x, d->position);
    if (fp8) {
        moe_reference_permute_scales(shape, scale, stride, d->scale, shape->token_count,
                                     d->position);
    }
    for (int version = 1; version <= MOE_PERMUTE_VERSION_COUNT; version++) {
        gpu_poison(rows_dev, rows_bytes);
        gpu_poison(scale_dev, scale_bytes);
        const struct moe_permute_operands operands = {
            .dtype = dtype,
            .rows_dev = rows_dev,
            .row_scale_dev = fp8 ? scale_dev : NULL,
            .row_scale_stride = fp8 ? stride : 0,
            .x_dev = x_dev,
            .x_scale_dev = fp8 ? x_scale_dev : NULL,
            .x_scale_stride = fp8 ? shape->token_count : 0,
            .position_dev = position_dev,
            .row_source_dev = version == 1 ? source_dev : NULL,
            .row_offset_dev = version == 1 ? offset_dev : NULL,
        };
        gpu_demand(moe_permute_rows(shape, &operands, version, NULL), "moe_permute_rows");
        compare_dev(d, fp8 ? "permute fp8" : "permute bf16", version, rows_dev, rows, rows_bytes);
        compare_dev(d, "permute scales", version, scale_dev, scale, scale_bytes);
    }
    gpu_free_all(
        (void *[]){ position_dev, source_dev, offset_dev, x_dev, x_scale_dev, rows_dev, scale_dev },
        7, (void *[]){ rows, scale }, 2);
}

/* The rows combined are those that permute makes of x, in bf16. */
static void check_combine(const struct drawn *d)
{
    const struct moe_permute_shape *shape = &d->shape;
    const size_t rows_bytes = d->choices * (size_t) shape->hidden * 2;
    const size_t out_bytes = d->x_count * 2;
    uint16_t *rows = gpu_host(rows_bytes);
    uint16_t *out = gpu_host(out_bytes);
    moe_reference_permute_values(shape, MOE_EXPERT_BF16, rows, d->x, d->position);
    moe_reference_combine_rows(shape, out, rows, d->position, d->weight);
    void *rows_dev = gpu_upload(rows, rows_bytes);
    void *out_dev = gpu_alloc(out_bytes);
    int32_t *position_dev = gpu_upload(d->position, d->choices * sizeof *d->position);
    float *weight_dev = gpu_upload(d->weight, d->choices * sizeof *d->weight);
    for (int version = 1; version <= MOE_COMBINE_VERSION_COUNT; version++) {
        gpu_poison(out_dev, out_bytes);
        gpu_demand(
            moe_combine_rows(shape, out_dev, rows_dev, position_dev, weight_dev, version, NULL),
            "moe_combine_rows");
        compare_dev(d, "combine", version, out_dev, out, out_bytes);
    }
    gpu_free_all((void *[]){ rows_dev, out_dev, position_dev, weight_dev }, 4,
                 (void *[]){ rows, out }, 2);
}

static void check_quantise(const struct drawn *d)
{
    const int32_t rows = d->shape.token_count;
    const int32_t stride = rows + 3;
    const size_t scale_bytes = (size_t) d->scale_columns * (size_t) stride * sizeof(float);
    float *scale = gpu_host(scale_bytes);
    uint8_t *q = gpu_host(d->x_count);
    void *x_dev = gpu_upload(d->x, d->x_count * 2);
    void *q_dev = gpu_alloc(d->x_count);
    float *scale_dev = gpu_alloc(scale_bytes);
    moe_reference_quantise_rows(rows, d->shape.hidden, q, scale, stride, d->x);
    for (int version = 1; version <= MOE_QUANTISE_VERSION_COUNT; version++) {
        gpu_poison(q_dev, d->x_count);
        gpu_poison(scale_dev, scale_bytes);
        gpu_demand(moe_quantise_rows(rows, d->shape.hidden, q_dev, scale_dev, stride, x_dev,
                                     version, NULL),
                   "moe_quantise_rows");
        compare_dev(d, "quantise", version, q_dev, q, d->x_count);
        compare_dev(d, "quantise scales", version, scale_dev, scale, scale_bytes);
    }
    gpu_free_all((void *[]){ x_dev, q_dev, scale_dev }, 3, (void *[]){ q, scale }, 2);
}

static void check_refusals(void)
{
    const int bad = (int) cudaErrorInvalidValue;
    const struct moe_permute_shape good = {
        .token_count = 2, .top_k = 2, .expert_count = 4, .hidden = 64
    };
    struct moe_permute_shape shape = good;
    char *dev = gpu_alloc(1 << 16);
    float *scale = (float *) (void *) dev;
    int32_t *index = (int32_t *) (void *) dev;
    shape.expert_count = MOE_PERMUTE_EXPERT_LIMIT + 1;
    gpu_require(moe_permute_plan(&shape, index, index, index, index, index, NULL) == bad,
                "an expert too many");
    shape = good, shape.top_k = MOE_PERMUTE_TOP_K_LIMIT + 1;
    gpu_require(moe_permute_plan(&shape, index, index, index, index, index, NULL) == bad,
                "a place too many");
    shape = good, shape.token_count = 0;
    gpu_require(moe_permute_plan(&shape, index, index, index, index, index, NULL) == bad,
                "no token");
    gpu_require(moe_permute_plan(&good, index, index, index, index, NULL, NULL) == bad,
                "no workspace");
    shape = good, shape.hidden = 24;
    const struct moe_permute_operands fine = { MOE_EXPERT_BF16, dev,   NULL, 0, dev, NULL, 0,
                                               index,           index, index };
    struct moe_permute_operands broken = fine;
    gpu_require(moe_permute_rows(&shape, &fine, 2, NULL) == bad, "hidden 24");
    gpu_require(moe_permute_rows(&good, &fine, MOE_PERMUTE_VERSION_COUNT + 1, NULL) == bad,
                "a version too many");
    broken.rows_dev = dev + 8;
    gpu_require(moe_permute_rows(&good, &broken, 2, NULL) == bad, "unaligned rows");
    broken = fine, broken.row_source_dev = NULL;
    gpu_require(moe_permute_rows(&good, &broken, 1, NULL) == bad, "version 1 without sources");
    broken = (struct moe_permute_operands){ MOE_EXPERT_FP8, dev, scale, 4,     dev,
                                            scale,          1,   index, index, index };
    gpu_require(moe_permute_rows(&good, &broken, 2, NULL) == bad,
                "a scale stride below the tokens");
    gpu_require(moe_combine_rows(&good, dev, dev, index, scale, 0, NULL) == bad, "version 0");
    gpu_require(moe_quantise_rows(4, 64, dev, scale, 3, dev, 2, NULL) == bad,
                "a scale stride below the rows");
    gpu_free(dev);
}

int main(int argc, char **argv)
{
    static const struct moe_permute_shape shapes[] = {
        /* small: token_count, top_k, expert_count, hidden */
        { 1, 1, 1, 16 },
        { 7, 8, 256, 144 },
        { 37, 6, 1024, 2880 },
        { 300, 8, 32, 400 },
        { 33, 32, 3, 768 },
        /* large */
        { 2100, 9, 257, 1408 },
        { 131, 8, 256, 7168 },
        { 3, 2, 8, 32768 },
        { 4096, 8, 1000, 128 },
    };
    const size_t count = gpu_begin(argc, argv) ? 5 : sizeof shapes / sizeof shapes[0];
    for (size_t s = 0; s < count; s++) {
        struct drawn d = draw(shapes[s], s + 1);
        check_plan(&d);
        check_rows(&d, MOE_EXPERT_BF16);
        check_rows(&d, MOE_EXPERT_FP8);
        check_combine(&d);
        check_quantise(&d);
        drawn_free(&d);
    }
    check_refusals();
    return EXIT_SUCCESS;
}

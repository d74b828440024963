/* The activation in bf16 and both kinds of fp8 against its CPU twin: a cell may be one step of its
 * type off, and in fp8 few may; scales agree to a few roundings; what lies behind the last row must
 * stay as it was. */
#include <math.h>

#include "kernels/expert/activation.h"
#include "kernels/reference/reference_activation.h"
#include "kernels/reference/reference_number.h"
#include "tests/gpu_case.h"

enum { ROWS_MAX = 300, INTER_MAX = 2880, GUARD = 64, STRIDE_EXTRA = 5 };

struct arrays {
    uint16_t *projected;
    void *projected_dev;
    unsigned char *mid;
    unsigned char *twin;
    void *mid_dev;
    float *scale;
    float *scale_twin;
    float *scale_dev;
};

static void check_guard(const struct arrays *a, size_t bytes)
{
    for (size_t i = bytes; i < bytes + GUARD; i++) {
        gpu_require(a->mid[i] == GPU_POISON, "byte %zu behind mid was written", i - bytes);
    }
}

static void check_bf16(const struct arrays *a, int64_t rows, int32_t inter,
                       enum moe_expert_activation activation)
{
    const size_t count = (size_t) rows * (size_t) inter;
    gpu_poison(a->mid_dev, 2 * count + GUARD);
    gpu_demand(
        moe_kernel_activation_bf16(a->projected_dev, a->mid_dev, rows, inter, activation, NULL),
        "moe_kernel_activation_bf16");
    gpu_download(a->mid, a->mid_dev, 2 * count + GUARD, "moe_kernel_activation_bf16");
    moe_reference_activation_bf16(a->projected, (uint16_t *) (void *) a->twin, rows, inter,
                                  activation);
    for (size_t i = 0; i < count; i++) {
        const float found = moe_float_from_bf16(((const uint16_t *) (const void *) a->mid)[i]);
        const float twin = moe_float_from_bf16(((const uint16_t *) (const void *) a->twin)[i]);
        gpu_require(fabsf(found - twin) <= 0.008F * fabsf(twin) + 1e-30F,
                    "bf16, activation %d, %d columns: cell %zu is %g, its twin says %g",
                    (int) activation, (int) inter, i, (double) found, (double) twin);
    }
    check_guard(a, 2 * count);
}

/* by_row: one scale per row, else one per 128 columns. */
static void check_fp8(const struct arrays *a, int64_t rows, int32_t inter,
                      enum moe_expert_activation activation, int by_row)
{
    const size_t count = (size_t) rows * (size_t) inter;
    const int64_t stride = rows + STRIDE_EXTRA;
    const int64_t blocks = by_row ? 1 : (inter + 127) / 128;
    const size_t scale_bytes = (size_t) (blocks * stride) * sizeof(float);
    size_t apart = 0;
    gpu_poison(a->mid_dev, count + GUARD);
    gpu_poison(a->scale_dev, scale_bytes);
    gpu_demand(by_row ? moe_kernel_activation_fp8_row(a->projected_dev, a->mid_dev, a->scale_dev,
                                                      rows, inter, activation, NULL)
                      : moe_kernel_activation_fp8(a->projected_dev, a->mid_dev, a->scale_dev, rows,
                                                  inter, stride, activation, NULL),
               "moe_kernel_activation_fp8");
    gpu_download(a->mid, a->mid_dev, count + GUARD, "moe_kernel_activation_fp8");
    gpu_download(a->scale, a->scale_dev, scale_bytes, "moe_kernel_activation_fp8");
    if (by_row) {
        moe_reference_activation_fp8_row(a->projected, a->twin, a->scale_twin, rows, inter,
                                         activation);
    } else {
        moe_reference_activation_fp8(a->projected, a->twin, a->scale_twin, rows, inter, stride,
                                     activation);
    }
    for (int64_t block = 0; block < blocks; block++) {
        for (int64_t row = 0; row < rows; row++) {
            const float found = a->scale[block * stride + row];
            const float twin = a->scale_twin[block * stride + row];
            gpu_require(fabsf(found - twin) <= 1e-5F * twin,
                        "fp8, %d columns: scale of row %d, block %d is %g, its twin says %g",
                        (int) inter, (int) row, (int) block, (double) found, (double) twin);
        }
    }
    for (size_t i = 0; i < count; i++) {
        const float found = moe_float_from_e4m3(a->mid[i]);
        const float twin = moe_float_from_e4m3(a->twin[i]);
        apart += a->mid[i] != a->twin[i];
        gpu_require(fabsf(found - twin) <= 0.13F * fabsf(twin) + 0.002F,
                    "fp8, activation %d, %d columns: cell %zu is %g, its twin says %g",
                    (int) activation, (int) inter, i, (double) found, (double) twin);
    }
    gpu_require(apart <= count / 500 + 2, "fp8: %zu of %zu cells are a step off", apart, count);
    check_guard(a, count);
}

static void check_refusals(const struct arrays *a)
{
    const int bad = (int) cudaErrorInvalidValue;
    gpu_require(moe_kernel_activation_bf16(a->projected_dev, a->mid_dev, 1, 24, MOE_EXPERT_RELU,
                                           NULL) == bad,
                "24 columns");
    gpu_require(moe_kernel_activation_bf16(a->projected_dev, a->mid_dev, -1, 64, MOE_EXPERT_RELU,
                                           NULL) == bad,
                "-1 rows");
    gpu_require(moe_kernel_activation_bf16(NULL, a->mid_dev, 1, 64, MOE_EXPERT_RELU, NULL) == bad,
                "no input");
    gpu_require(moe_kernel_activation_fp8(a->projected_dev, a->mid_dev, a->scale_dev, 4, 64, 3,
                                          MOE_EXPERT_RELU, NULL) == bad,
                "a stride below the rows");
    gpu_require(moe_kernel_activation_bf16(NULL, NULL, 0, 64, MOE_EXPERT_RELU, NULL) == 0,
                "no rows are allowed");
}

int main(int argc, char **argv)
{
    const int32_t inters[] = { 64, 80, 128, 768, 2048, INTER_MAX };
    const int64_t row_counts[] = { 1, 7, ROWS_MAX };
    const int small = gpu_begin(argc, argv);
    const uint64_t key = moe_random_key(2, MOE_RANDOM_TEST);
    const size_t cells = (size_t) ROWS_MAX * INTER_MAX;
    const size_t scales = (size_t) (ROWS_MAX + STRIDE_EXTRA) * (INTER_MAX / 128 + 1);
    struct arrays a = { .projected = gpu_host(4 * cells),
                        .mid = gpu_host(2 * cells + GUARD),
                        .twin = gpu_host(2 * cells + GUARD),
                        .scale = gpu_host(scales * sizeof(float)),
                        .scale_twin = gpu_host(scales * sizeof(float)),
                        .mid_dev = gpu_alloc(2 * cells + GUARD),
                        .scale_dev = gpu_alloc(scales * sizeof(float)) };
    for (size_t i = 0; i < 2 * cells; i++) { /* the first 128 are zeros: a block with scale 1 */
        a.projected[i] = moe_bf16_from_float(i < 128 ? 0.0F : 4.0F * gpu_draw(key, i));
    }
    a.projected_dev = gpu_upload(a.projected, 4 * cells);
    for (size_t i = 0; i < sizeof inters / sizeof inters[0]; i++) {
        for (size_t r = 0; r < sizeof row_counts / sizeof row_counts[0]; r++) {
            for (int activation = 0; activation < MOE_EXPERT_ACTIVATION_COUNT; activation++) {
                if (small && (int64_t) inters[i] * row_counts[r] > 6000) {
                    continue;
                }
                const enum moe_expert_activation kind = (enum moe_expert_activation) activation;
                check_bf16(&a, row_counts[r], inters[i], kind);
                check_fp8(&a, row_counts[r], inters[i], kind, 0);
                check_fp8(&a, row_counts[r], inters[i], kind, 1);
            }
        }
    }
    check_refusals(&a);
    gpu_free_all((void *[]){ a.projected_dev, a.mid_dev, a.scale_dev }, 3,
                 (void *[]){ a.projected, a.mid, a.twin, a.scale, a.scale_twin }, 5);
    return EXIT_SUCCESS;
}

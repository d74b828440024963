/* The float64 rows that backends are judged by, against their CPU twin, in each dtype, scaling and
 * activation; and the count of what is left of a poisoned output. */
#include <math.h>

#include "kernels/expert/expert_rows.h"
#include "kernels/memory/random_fill.h"
#include "kernels/reference/reference_expert_rows.h"
#include "tests/gpu_case.h"

#define HIDDEN ((size_t) 144)
#define INTER  ((size_t) 208)
enum { EXPERTS = 3, ROWS = 9, SAMPLES = 4, STRIDE = 12 };

/* The same operands on both sides; GPU first, so that the host's are copies of random fills. */
struct sides {
    struct moe_expert_rows dev;
    struct moe_expert_rows host;
    void *owned_dev[12];
    void *owned[12];
    int count;
};

/* Takes bytes on both sides and fills them: kind 0 bf16, 1 e4m3, 2 float. */
static void take(struct sides *s, size_t count, int kind, uint64_t seed, const void **dev,
                 const void **host)
{
    const size_t bytes = count * (kind == 0 ? 2 : kind == 1 ? 1 : 4);
    s->owned_dev[s->count] = gpu_alloc(bytes);
    s->owned[s->count] = gpu_host(bytes);
    void *place = s->owned_dev[s->count];
    if (kind == 0) {
        gpu_demand(moe_kernel_fill_bf16(place, (int64_t) count, 0.1F, seed, NULL), "fill");
    } else if (kind == 1) {
        gpu_demand(moe_kernel_fill_e4m3(place, (int64_t) count, 100.0F, seed, NULL), "fill");
    } else {
        gpu_demand(moe_kernel_fill_f32(place, (int64_t) count, 5e-4F, 2e-3F, seed, NULL), "fill");
    }
    gpu_download(s->owned[s->count], place, bytes, "fill");
    *dev = place;
    *host = s->owned[s->count++];
}

static void take_scales(struct sides *s, size_t count, uint64_t seed, const float **dev,
                        const float **host)
{
    const void *on_dev = NULL;
    const void *on_host = NULL;
    take(s, count, 2, seed, &on_dev, &on_host);
    *dev = on_dev;
    *host = on_host;
}

static void make(struct sides *s, enum moe_expert_dtype dtype, enum moe_expert_scaling scaling,
                 enum moe_expert_activation activation)
{
    const int kind = dtype == MOE_EXPERT_FP8;
    const size_t matrices = activation == MOE_EXPERT_SWIGLU ? 2 : 1;
    s->dev = (struct moe_expert_rows){ .shape = { .hidden = (int32_t) HIDDEN,
                                                  .inter = (int32_t) INTER,
                                                  .expert_count = EXPERTS,
                                                  .dtype = dtype,
                                                  .activation = activation },
                                       .scaling = scaling,
                                       .scale_stride = STRIDE,
                                       .sample_count = SAMPLES };
    s->host = s->dev;
    take(s, ROWS * HIDDEN, kind, 1, &s->dev.x_dev, &s->host.x_dev);
    take(s, EXPERTS * matrices * INTER * HIDDEN, kind, 2, &s->dev.weights.w1_dev,
         &s->host.weights.w1_dev);
    take(s, EXPERTS * HIDDEN * INTER, kind, 3, &s->dev.weights.w2_dev, &s->host.weights.w2_dev);
    /* Enough for either scaling. */
    take_scales(s, (size_t) STRIDE * 2, 4, &s->dev.x_scale_dev, &s->host.x_scale_dev);
    take_scales(s, EXPERTS * matrices * INTER, 5, &s->dev.weights.w1_scale_dev,
                &s->host.weights.w1_scale_dev);
    take_scales(s, EXPERTS * HIDDEN, 6, &s->dev.weights.w2_scale_dev,
                &s->host.weights.w2_scale_dev);
}

static void check(enum moe_expert_dtype dtype, enum moe_expert_scaling scaling,
                  enum moe_expert_activation activation)
{
    static const int32_t rows[SAMPLES] = { 0, 8, 3, 3 };
    static const int32_t experts[SAMPLES] = { 0, 2, 1, 2 };
    static double mid[SAMPLES * INTER];
    static double out[SAMPLES * HIDDEN];
    static double found[SAMPLES * HIDDEN];
    struct sides s = { 0 };
    double apart = 0.0;
    double length = 0.0;
    make(&s, dtype, scaling, activation);
    void *index_dev[] = { gpu_upload(rows, sizeof rows), gpu_upload(experts, sizeof experts),
                          gpu_alloc(sizeof mid), gpu_alloc(sizeof out) };
    s.dev.row_dev = index_dev[0];
    s.dev.expert_dev = index_dev[1];
    s.dev.mid_dev = index_dev[2];
    s.dev.out_dev = index_dev[3];
    s.host.row_dev = rows;
    s.host.expert_dev = experts;
    s.host.mid_dev = mid;
    s.host.out_dev = out;
    gpu_demand(moe_kernel_expert_rows(&s.dev, NULL), "moe_kernel_expert_rows");
    gpu_download(found, s.dev.out_dev, sizeof found, "moe_kernel_expert_rows");
    moe_reference_expert_rows(&s.host);
    for (size_t i = 0; i < SAMPLES * HIDDEN; i++) {
        apart += (found[i] - out[i]) * (found[i] - out[i]);
        length += out[i] * out[i];
    }
    /* One intermediate value may fall to the other side of a middle. */
    gpu_require(length > 0.0 && sqrt(apart / length) <= 2e-3,
                "dtype %d, scaling %d, activation %d: relative error %g", (int) dtype,
                (int) scaling, (int) activation, sqrt(apart / length));
    gpu_free_all(s.owned_dev, s.count, s.owned, s.count);
    gpu_free_all(index_dev, 4, NULL, 0);
}

static void check_poison(void)
{
    const size_t count = 80000;
    uint64_t found = 0;
    uint64_t *found_dev = gpu_upload(&found, sizeof found);
    unsigned char *cells_dev = gpu_alloc(count * 2);
    gpu_demand(moe_kernel_fill_bf16(cells_dev, (int64_t) count, 1.0F, 1, NULL), "fill");
    gpu_demand((int) cudaDeviceSynchronize(), "fill");
    gpu_poison(cells_dev + 6, 2);
    gpu_poison(cells_dev + 2 * (count - 3), 6);
    gpu_demand(moe_kernel_count_poison(cells_dev, (int64_t) count, found_dev, NULL),
               "moe_kernel_count_poison");
    gpu_download(&found, found_dev, sizeof found, "moe_kernel_count_poison");
    gpu_require(found == 4, "%llu poisoned cells were found, 4 are there",
                (unsigned long long) found);
    gpu_require(moe_kernel_count_poison(cells_dev, 12, found_dev, NULL) ==
                    (int) cudaErrorInvalidValue,
                "12 cells are counted");
    gpu_free(found_dev);
    gpu_free(cells_dev);
}

int main(int argc, char **argv)
{
    (void) gpu_begin(argc, argv);
    for (int activation = 0; activation < MOE_EXPERT_ACTIVATION_COUNT; activation++) {
        const enum moe_expert_activation kind = (enum moe_expert_activation) activation;
        check(MOE_EXPERT_BF16, MOE_EXPERT_SCALING_BLOCK, kind);
        check(MOE_EXPERT_FP8, MOE_EXPERT_SCALING_BLOCK, kind);
        check(MOE_EXPERT_FP8, MOE_EXPERT_SCALING_ROW, kind);
    }
    check_poison();
    return EXIT_SUCCESS;
}

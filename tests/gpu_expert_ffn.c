/* The expert FFN against its CPU twin in double, every version, every row. Exit code 77 without a
 * GPU.
 *
 * Counts per expert are ragged, with zeros and with the edges of the row tiles; outputs are
 * poisoned before each run; replays of a graph must say what the first run said; the rows behind
 * the last one must stay as they were. Two kinds of data: small whole numbers whose sums are
 * exact, where the answer must be right to the last bit (bf16, ReLU), and random ones. Each GEMM is
 * judged by itself: out by what the twin makes of the mid that the kernel stored; mid by the
 * twin's, from which an element may differ by one step of its type, and in e4m3 few may, since the
 * tensor cores keep about 14 bits of a sum of 128 products and only what lies that close to a
 * middle can fall to the other side.
 * --small leaves out the larger shapes, for slow checkers such as compute-sanitizer. */
#include <cuda_runtime_api.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/device/device.h"
#include "kernels/expert/expert_ffn.h"
#include "kernels/reference/reference_expert.h"
#include "kernels/reference/reference_number.h"
#include "sim/base/random.h"

enum { GUARD_ROWS = 3, BLOCK = MOE_EXPERT_SCALE_BLOCK };

static const double OUT_BOUND[MOE_EXPERT_DTYPE_COUNT] = { 5e-3, 1e-2 };
/* Share of mid's elements that may be a step off. */
static const double STEP_BOUND[MOE_EXPERT_DTYPE_COUNT] = { 0.02, 0.05 };

struct test_case {
    int32_t hidden;
    int32_t inter;
    enum moe_expert_activation activation;
    bool large;
    int32_t expert_count;
    int32_t rows[70];
};

static const struct test_case cases[] = {
    { 128, 128, MOE_EXPERT_RELU, false, 4, { 1, 0, 8, 9 } },
    { 256, 192, MOE_EXPERT_SWIGLU, false, 5, { 0, 33, 0, 64, 65 } },
    { 192, 320, MOE_EXPERT_GELU, false, 3, { 17, 128, 3 } },
    { 64, 64, MOE_EXPERT_SWIGLU, false, 2, { 2, 5 } },
    { 80, 176, MOE_EXPERT_SWIGLU, false, 3, { 12, 0, 70 } },
    { 592, 336, MOE_EXPERT_SWIGLU, false, 3, { 3, 16, 9 } }, /* few rows, rings that come round */
    { 64, 64, MOE_EXPERT_RELU, false, 70, { [2] = 3, [32] = 17, [33] = 1, [69] = 5 } },
    /* More tiles than blocks in both GEMMs, whose second waits for the first, expert by expert. */
    { 512, 256, MOE_EXPERT_SWIGLU, true, 70, { 70, 3, 5, 0, 4, 1,   3, 5, 2, 4, 1, 3, 5, 2,
                                               4,  1, 3, 5, 2, 130, 1, 3, 5, 2, 4, 1, 3, 5,
                                               2,  4, 1, 3, 5, 2,   4, 1, 3, 5, 2, 4, 0, 3,
                                               5,  2, 4, 1, 3, 5,   2, 4, 1, 3, 5, 2, 4, 1,
                                               3,  5, 2, 4, 1, 3,   5, 2, 4, 1, 3, 5, 2, 9 } },
    { 2048, 256, MOE_EXPERT_SWIGLU, true, 1, { 300 } },
    { 512, 384, MOE_EXPERT_SWIGLU, true, 8, { 129, 0, 256, 1, 31, 127, 0, 300 } },
    { 1024, 768, MOE_EXPERT_RELU, true, 4, { 100, 7, 40, 0 } },
    /* Wide tiles (expert_split.h): alone, beside all smaller ones, several and a rest. */
    { 128, 128, MOE_EXPERT_RELU, false, 1, { 192 } },
    { 272, 144, MOE_EXPERT_SWIGLU, false, 3, { 129, 0, 191 } },
    { 256, 512, MOE_EXPERT_RELU, true, 9, { 192, 0, 384, 1, 150, 320, 16, 33, 512 } },
    { 192, 272, MOE_EXPERT_GELU, true, 6, { 320, 3, 0, 130, 192, 70 } },
    { 192, 320, MOE_EXPERT_GELU, true, 6, { 193, 5, 576, 0, 192, 100 } },
    { 448, 400, MOE_EXPERT_SWIGLU, true, 5, { 0, 1024, 185, 9, 385 } },
    /* More than 128 rows and nothing wide. */
    { 192, 192, MOE_EXPERT_RELU, false, 1, { 256 } },
    { 176, 96, MOE_EXPERT_SWIGLU, false, 3, { 193, 0, 255 } },
};

/* One case in host memory. */
struct host_data {
    struct moe_expert_ffn_shape shape;
    int32_t row_offset[MOE_EXPERT_COUNT_LIMIT + 1];
    int32_t row_count;
    int32_t scale_stride;
    size_t element_bytes;
    size_t x_count, w1_count, w2_count, mid_count, out_count;
    size_t x_scale_count, w1_scale_count, w2_scale_count, mid_scale_count;
    void *x, *w1, *w2;
    float *x_scale, *w1_scale, *w2_scale;
    double *scratch;
    double *mid; /* the twin's, not rounded */
    double mid_rms;
    void *mid_rounded;
    float *mid_rounded_scale;
    void *mid_found;
    float *mid_scale_found;
    double *expected; /* of out, from mid_found */
    uint16_t *found;  /* after replays; found_first: after the first run */
    uint16_t *found_first;
    struct moe_reference_expert twin;
};

static void demand(int cuda_error, const char *call)
{
    struct moe_error err = { 0 };
    if (moe_device_check(cuda_error, call, &err) != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        exit(EXIT_FAILURE);
    }
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count == 0 ? 1 : count, size);
    if (memory == NULL) {
        (void) fprintf(stderr, "out of memory\n");
        exit(EXIT_FAILURE);
    }
    return memory;
}

static int32_t blocks(int32_t count)
{
    return (count + BLOCK - 1) / BLOCK;
}

/* About normal, or small whole numbers: most of them zero, so that sums stay below 256 and are
 * whole in bf16 too. */
static void fill(void *values, size_t count, enum moe_expert_dtype dtype, bool exact,
                 uint64_t *seed)
{
    for (size_t i = 0; i < count; i++) {
        float value = 0.0F;
        if (exact) {
            const uint64_t r = moe_random_mix(++*seed);
            value = r % 16 == 0 ? (float) ((int) (r >> 8 & 2) - 1) : 0.0F;
        } else {
            for (int part = 0; part < 4; part++) {
                value += (float) (moe_random_mix(++*seed) >> 40) * 0x1p-24F - 0.5F;
            }
        }
        if (dtype == MOE_EXPERT_BF16) {
            ((uint16_t *) values)[i] = moe_bf16_from_float(value);
        } else {
            ((uint8_t *) values)[i] = moe_e4m3_from_float(value * 100.0F);
        }
    }
}

static float *fill_scales(size_t count, uint64_t *seed)
{
    float *scales = allocate(count, sizeof *scales);
    for (size_t i = 0; i < count; i++) {
        scales[i] = 0.004F + 0.01F * (float) (moe_random_mix(++*seed) >> 40) * 0x1p-24F;
    }
    return scales;
}

static void host_init(struct host_data *d, const struct test_case *c, enum moe_expert_dtype dtype,
                      bool exact)
{
    uint64_t seed = (uint64_t) c->hidden * 1000 + (uint64_t) c->inter + (exact ? 7 : 0);
    const size_t matrices = (size_t) moe_expert_ffn_w1_matrix_count(c->activation);
    const size_t experts = (size_t) c->expert_count;
    const size_t weights = (size_t) c->hidden * (size_t) c->inter;
    *d =
        (struct host_data){ .shape = { c->hidden, c->inter, c->expert_count, dtype, c->activation },
                            .element_bytes = dtype == MOE_EXPERT_BF16 ? 2 : 1 };
    for (int32_t e = 0; e < c->expert_count; e++) {
        d->row_offset[e + 1] = d->row_offset[e] + c->rows[e];
    }
    d->row_count = d->row_offset[c->expert_count];
    d->scale_stride = (d->row_count + 3) / 4 * 4;
    const size_t rows = (size_t) d->row_count;
    d->x_count = rows * (size_t) c->hidden;
    d->w1_count = experts * matrices * weights;
    d->w2_count = experts * weights;
    d->mid_count = rows * (size_t) c->inter;
    d->out_count = (rows + GUARD_ROWS) * (size_t) c->hidden;
    const size_t block_count = (size_t) blocks(c->hidden) * (size_t) blocks(c->inter);
    d->x_scale_count = (size_t) blocks(c->hidden) * (size_t) d->scale_stride;
    d->mid_scale_count = (size_t) blocks(c->inter) * (size_t) d->scale_stride;
    d->w1_scale_count = experts * matrices * block_count;
    d->w2_scale_count = experts * block_count;
    d->x = allocate(d->x_count, d->element_bytes);
    d->w1 = allocate(d->w1_count, d->element_bytes);
    d->w2 = allocate(d->w2_count, d->element_bytes);
    fill(d->x, d->x_count, dtype, exact, &seed);
    fill(d->w1, d->w1_count, dtype, exact, &seed);
    fill(d->w2, d->w2_count, dtype, exact, &seed);
    d->x_scale = fill_scales(d->x_scale_count, &seed);
    d->w1_scale = fill_scales(d->w1_scale_count, &seed);
    d->w2_scale = fill_scales(d->w2_scale_count, &seed);
    d->scratch = allocate(moe_reference_expert_scratch_count(&d->shape), sizeof *d->scratch);
    d->mid = allocate(d->mid_count, sizeof *d->mid);
    d->mid_rounded = allocate(d->mid_count, d->element_bytes);
    d->mid_rounded_scale = allocate(d->mid_scale_count, sizeof(float));
    d->mid_found = allocate(d->mid_count, d->element_bytes);
    d->mid_scale_found = allocate(d->mid_scale_count, sizeof(float));
    d->expected = allocate(d->out_count, sizeof *d->expected);
    d->found = allocate(d->out_count, sizeof *d->found);
    d->found_first = allocate(d->out_count, sizeof *d->found_first);
    d->twin = (struct moe_reference_expert){ d->shape,    d->row_offset, d->scale_stride,
                                             d->x,        d->x_scale,    d->w1,
                                             d->w1_scale, d->w2,         d->w2_scale };
    moe_reference_expert_first(&d->twin, d->scratch, d->mid);
    moe_reference_expert_round(&d->twin, d->mid, d->mid_rounded, d->mid_rounded_scale);
    for (size_t i = 0; i < d->mid_count; i++) {
        d->mid_rms += d->mid[i] * d->mid[i] / (double) d->mid_count;
    }
    d->mid_rms = sqrt(d->mid_rms);
}

static void host_finish(struct host_data *d)
{
    free(d->x);
    free(d->w1);
    free(d->w2);
    free(d->x_scale);
    free(d->w1_scale);
    free(d->w2_scale);
    free(d->scratch);
    free(d->mid);
    free(d->mid_rounded);
    free(d->mid_rounded_scale);
    free(d->mid_found);
    free(d->mid_scale_found);
    free(d->expected);
    free(d->found);
    free(d->found_first);
}

/* Device memory with a copy of `from`, or poisoned with NaNs when that is NULL. */
static void *upload(const void *from, size_t bytes)
{
    void *memory = NULL;
    demand((int) cudaMalloc(&memory, bytes == 0 ? 16 : bytes), "cudaMalloc");
    if (from != NULL) {
        demand((int) cudaMemcpy(memory, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    } else {
        demand((int) cudaMemset(memory, 0xff, bytes), "cudaMemset");
    }
    return memory;
}

static void download(void *to, const void *from_dev, size_t bytes)
{
    demand((int) cudaMemcpy(to, from_dev, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
}

/* Twice in a graph, the graph twice, back to back: a run must find what the one before it left. */
static void replay(const struct moe_expert_ffn *ffn)
{
    cudaStream_t stream = NULL;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    demand((int) cudaStreamCreate(&stream), "cudaStreamCreate");
    demand((int) cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
           "cudaStreamBeginCapture");
    demand(moe_expert_ffn_run(ffn, stream), "moe_expert_ffn_run");
    demand(moe_expert_ffn_run(ffn, stream), "moe_expert_ffn_run");
    demand((int) cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    demand((int) cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    demand((int) cudaGraphLaunch(exec, stream), "cudaGraphLaunch");
    demand((int) cudaGraphLaunch(exec, stream), "cudaGraphLaunch");
    demand((int) cudaStreamSynchronize(stream), "cudaGraphLaunch");
    demand((int) cudaGraphExecDestroy(exec), "cudaGraphExecDestroy");
    demand((int) cudaGraphDestroy(graph), "cudaGraphDestroy");
    demand((int) cudaStreamDestroy(stream), "cudaStreamDestroy");
}

static void run_on_gpu(struct host_data *d, int version)
{
    const bool fp8 = d->shape.dtype == MOE_EXPERT_FP8;
    void *dev[10] = {
        upload(d->w1, d->w1_count * d->element_bytes),
        upload(d->w2, d->w2_count * d->element_bytes),
        upload(d->w1_scale, d->w1_scale_count * sizeof(float)),
        upload(d->w2_scale, d->w2_scale_count * sizeof(float)),
        upload(d->row_offset, sizeof d->row_offset),
        upload(d->x, d->x_count * d->element_bytes),
        upload(d->x_scale, d->x_scale_count * sizeof(float)),
        upload(NULL, d->mid_count * d->element_bytes),
        upload(NULL, d->mid_scale_count * sizeof(float)),
        upload(NULL, d->out_count * sizeof(uint16_t)),
    };
    const struct moe_expert_ffn_weights weights = { dev[0], dev[1], fp8 ? dev[2] : NULL,
                                                    fp8 ? dev[3] : NULL };
    const struct moe_expert_ffn_batch batch = { .row_count = d->row_count,
                                                .row_offset = d->row_offset,
                                                .row_offset_dev = dev[4],
                                                .scale_stride = d->scale_stride,
                                                .x_dev = dev[5],
                                                .x_scale_dev = fp8 ? dev[6] : NULL,
                                                .mid_dev = dev[7],
                                                .mid_scale_dev = fp8 ? dev[8] : NULL,
                                                .out_dev = dev[9] };
    struct moe_expert_ffn *ffn = NULL;
    demand(moe_expert_ffn_create(&d->shape, &weights, &batch, version, &ffn),
           "moe_expert_ffn_create");
    demand(moe_expert_ffn_run(ffn, NULL), "moe_expert_ffn_run");
    demand((int) cudaDeviceSynchronize(), "moe_expert_ffn_run");
    download(d->found_first, dev[9], d->out_count * sizeof(uint16_t));
    demand((int) cudaMemset(dev[7], 0xff, d->mid_count * d->element_bytes), "cudaMemset");
    demand((int) cudaMemset(dev[8], 0xff, d->mid_scale_count * sizeof(float)), "cudaMemset");
    demand((int) cudaMemset(dev[9], 0xff, d->out_count * sizeof(uint16_t)), "cudaMemset");
    replay(ffn);
    download(d->found, dev[9], d->out_count * sizeof(uint16_t));
    download(d->mid_found, dev[7], d->mid_count * d->element_bytes);
    download(d->mid_scale_found, dev[8], d->mid_scale_count * sizeof(float));
    moe_expert_ffn_destroy(ffn);
    for (size_t i = 0; i < sizeof dev / sizeof dev[0]; i++) {
        demand((int) cudaFree(dev[i]), "cudaFree");
    }
}

/* The largest relative L2 error of a row; 1 when a value is not finite or a guard row changed. */
static double largest_error(const struct host_data *d, int32_t *worst_row)
{
    double worst = 0.0;
    const int32_t hidden = d->shape.hidden;
    for (int32_t row = 0; row < d->row_count + GUARD_ROWS; row++) {
        double difference = 0.0;
        double norm = 0.0;
        for (int32_t h = 0; h < hidden; h++) {
            const size_t i = (size_t) row * (size_t) hidden + (size_t) h;
            const double found = (double) moe_float_from_bf16(d->found[i]);
            difference += (found - d->expected[i]) * (found - d->expected[i]);
            norm += d->expected[i] * d->expected[i];
            if (row >= d->row_count && d->found[i] != 0xffff) {
                *worst_row = row;
                return 1.0;
            }
        }
        if (row >= d->row_count) {
            continue;
        }
        const double error = norm > 0.0 ? sqrt(difference / norm) : sqrt(difference);
        if (!(error <= worst)) {
            worst = isfinite(error) ? error : 1.0;
            *worst_row = row;
        }
    }
    return worst;
}

/* How far element i of the stored mid lies from the twin's, in steps of its type. Steps shrink
 * with the value, errors of a sum do not: what is small beside mid's root mean square is judged
 * by the steps of a larger value. A scale that is off by more than a rounding of its block's
 * largest value, or of mid's root mean square where that is larger (a short last block may hold
 * small values only), counts as a thousand, and so does what is not finite. */
static double mid_steps(const struct host_data *d, size_t i)
{
    if (d->shape.dtype == MOE_EXPERT_BF16) {
        const double found = (double) moe_float_from_bf16(((const uint16_t *) d->mid_found)[i]);
        const double step = fmax(fabs(d->mid[i]), d->mid_rms * 0x1p-8) * 0x1p-8;
        return isfinite(found) ? floor(fabs(found - d->mid[i]) / step) : 1000.0;
    }
    const int32_t row = (int32_t) (i / (size_t) d->shape.inter);
    const int32_t column = (int32_t) (i % (size_t) d->shape.inter);
    const size_t s = (size_t) (column / BLOCK) * (size_t) d->scale_stride + (size_t) row;
    const double scale = (double) d->mid_scale_found[s];
    const double found = scale * (double) moe_float_from_e4m3(((const uint8_t *) d->mid_found)[i]);
    const double twin = (double) d->mid_rounded_scale[s] *
                        (double) moe_float_from_e4m3(((const uint8_t *) d->mid_rounded)[i]);
    const double twin_scale = (double) d->mid_rounded_scale[s];
    const double least = d->mid_rms / 448.0;
    if (!(fabs(scale - twin_scale) < 1e-3 * fmax(twin_scale, least)) || !isfinite(found)) {
        return 1000.0;
    }
    /* A step is an eighth of the leading power of two, so at most an eighth of the value; e4m3 has
     * none below 2^-9. */
    const double step =
        fmax(fmax(fabs(twin), d->mid_rms * 0x1p-4) * 0x1p-3, scale * 0x1p-9) * (1.0 + 1e-2);
    return ceil((fabs(found - twin) - step * 1e-2) / step);
}

/* Share of mid's elements that are a step off; 1 when one is further off. */
static double mid_error(const struct host_data *d)
{
    size_t off = 0;
    for (size_t i = 0; i < d->mid_count; i++) {
        const double steps = mid_steps(d, i);
        if (steps > 1.0) {
            return 1.0;
        }
        off += steps > 0.0;
    }
    return (double) off / (double) d->mid_count;
}

static bool check(const struct test_case *c, enum moe_expert_dtype dtype, bool exact)
{
    static const char *const dtypes[] = { "bf16", "fp8" };
    struct host_data d;
    bool good = true;
    host_init(&d, c, dtype, exact);
    for (int version = 1; version <= MOE_EXPERT_FFN_VERSION_COUNT; version++) {
        const char *refusal = moe_expert_ffn_refusal(&d.shape, version);
        if (refusal != NULL) {
            (void) printf("version %d left out: %s\n", version, refusal);
            continue;
        }
        int32_t row = 0;
        run_on_gpu(&d, version);
        moe_reference_expert_second(&d.twin, d.mid_found, d.mid_scale_found, d.scratch, d.expected);
        const double steps = mid_error(&d);
        const double error = largest_error(&d, &row);
        const bool same = memcmp(d.found, d.found_first, d.out_count * sizeof *d.found) == 0;
        const bool passed =
            same && (exact ? steps == 0.0 && error == 0.0
                           : steps <= STEP_BOUND[dtype] && error <= OUT_BOUND[dtype]);
        (void) printf(
            "%s v%d %s %dx%d%s%s: mid %.2e a step off; largest error of a row of out %.2e "
            "(row %d)\n",
            passed ? "ok  " : "FAIL", version, dtypes[dtype], c->hidden, c->inter,
            exact ? " exact" : "", same ? "" : " REPLAY DIFFERS", steps, error, row);
        good = good && passed;
    }
    host_finish(&d);
    return good;
}

int main(int argc, char **argv)
{
    const bool small = argc > 1 && strcmp(argv[1], "--small") == 0;
    struct moe_error err = { 0 };
    uint32_t gpu_count = 0;
    bool good = true;
    const enum moe_status status = moe_device_count(&gpu_count, &err);
    if (status != MOE_OK) {
        (void) fprintf(stderr, "%s\n", err.text);
        return status == MOE_UNSUPPORTED ? 77 : EXIT_FAILURE;
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (small && cases[i].large) {
            continue;
        }
        good = check(&cases[i], MOE_EXPERT_BF16, false) && good;
        good = check(&cases[i], MOE_EXPERT_FP8, false) && good;
        if (cases[i].activation == MOE_EXPERT_RELU) {
            good = check(&cases[i], MOE_EXPERT_BF16, true) && good;
        }
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

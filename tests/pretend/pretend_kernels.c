/* Our kernels of the pretend GPU, each a few plain loops after its header. */
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/attention/kv_read.h"
#include "kernels/clock/clock.h"
#include "kernels/clock/hold.h"
#include "kernels/expert/activation.h"
#include "kernels/expert/expert_ffn.h"
#include "kernels/expert/expert_rows.h"
#include "kernels/kernels.h"
#include "kernels/memory/random_fill.h"
#include "kernels/memory/stream.h"
#include "kernels/reference/reference_activation.h"
#include "kernels/reference/reference_expert_rows.h"
#include "kernels/reference/reference_gate.h"
#include "kernels/reference/reference_number.h"
#include "kernels/route/gate.h"
#include "kernels/route/permute.h"
#include "sim/base/random.h"
#include "tests/pretend/pretend_gpu.h"

double pretend_read(const void *base, int type, long i)
{
    if (type == 0) {
        return (double) moe_float_from_bf16(((const uint16_t *) base)[i]);
    }
    return type == 1 ? (double) moe_float_from_e4m3(((const uint8_t *) base)[i])
                     : (double) ((const float *) base)[i];
}

void pretend_write(void *base, int type, long i, double value)
{
    if (type == 0) {
        ((uint16_t *) base)[i] = moe_bf16_from_float((float) value);
    } else if (type == 1) {
        ((uint8_t *) base)[i] = moe_e4m3_from_float((float) value);
    } else {
        ((float *) base)[i] = (float) value;
    }
}

static int fill(void *dst, int type, int64_t count, double sigma, uint64_t seed, void *stream)
{
    for (int64_t i = 0; i < count; i++) {
        const double u = moe_random_uniform(seed * 2 + 1, (uint64_t) i);
        pretend_write(dst, type, i, (u - 0.5) * 3.46 * sigma);
    }
    return pretend_launch(stream);
}

int moe_kernel_fill_bf16(void *dst, int64_t count, float sigma, uint64_t seed, void *stream)
{
    return fill(dst, 0, count, (double) sigma, seed, stream);
}

int moe_kernel_fill_e4m3(void *dst, int64_t count, float sigma, uint64_t seed, void *stream)
{
    return fill(dst, 1, count, (double) sigma, seed, stream);
}

int moe_kernel_fill_f32(float *dst, int64_t count, float low, float high, uint64_t seed,
                        void *stream)
{
    for (int64_t i = 0; i < count; i++) {
        dst[i] = low + (high - low) * (float) moe_random_uniform(seed * 2 + 1, (uint64_t) i);
    }
    return pretend_launch(stream);
}

int moe_kernel_activation_bf16(const void *projected, void *mid, int64_t row_count, int32_t inter,
                               enum moe_expert_activation activation, void *stream)
{
    moe_reference_activation_bf16(projected, mid, row_count, inter, activation);
    return pretend_launch(stream);
}

int moe_kernel_activation_fp8(const void *projected, void *mid, float *scale, int64_t row_count,
                              int32_t inter, int64_t scale_stride,
                              enum moe_expert_activation activation, void *stream)
{
    moe_reference_activation_fp8(projected, mid, scale, row_count, inter, scale_stride, activation);
    return pretend_launch(stream);
}

int moe_kernel_activation_fp8_row(const void *projected, void *mid, float *scale, int64_t row_count,
                                  int32_t inter, enum moe_expert_activation activation,
                                  void *stream)
{
    moe_reference_activation_fp8_row(projected, mid, scale, row_count, inter, activation);
    return pretend_launch(stream);
}

int moe_kernel_expert_rows(const struct moe_expert_rows *rows, void *stream)
{
    moe_reference_expert_rows(rows);
    return pretend_launch(stream);
}

int moe_kernel_count_poison(const void *src, int64_t count, uint64_t *found, void *stream)
{
    for (int64_t i = 0; i < count; i++) {
        *found += isfinite(pretend_read(src, 0, i)) ? 0 : 1;
    }
    return pretend_launch(stream);
}

/* Our own expert FFN: the reference on every row. */
struct moe_expert_ffn {
    struct moe_expert_ffn_shape shape;
    struct moe_expert_ffn_weights weights;
    struct moe_expert_ffn_batch batch;
};

int32_t moe_expert_ffn_w1_matrix_count(enum moe_expert_activation activation)
{
    return activation == MOE_EXPERT_SWIGLU ? 2 : 1;
}

const char *moe_expert_ffn_refusal(const struct moe_expert_ffn_shape *shape, int version)
{
    (void) shape;
    return version == 2 ? "version 2 is not pretended" : NULL;
}

int moe_expert_ffn_create(const struct moe_expert_ffn_shape *shape,
                          const struct moe_expert_ffn_weights *weights,
                          const struct moe_expert_ffn_batch *batch, int version,
                          struct moe_expert_ffn **out)
{
    (void) version;
    *out = malloc(sizeof **out);
    **out = (struct moe_expert_ffn){ *shape, *weights, *batch };
    return 0;
}

void moe_expert_ffn_destroy(struct moe_expert_ffn *ffn)
{
    free(ffn);
}

const char *moe_expert_ffn_describe(const struct moe_expert_ffn *ffn)
{
    (void) ffn;
    return "pretended";
}

int moe_expert_ffn_run(const struct moe_expert_ffn *ffn, void *stream)
{
    const int32_t hidden = ffn->shape.hidden;
    double *mid = calloc((size_t) ffn->shape.inter, sizeof *mid);
    double *out = calloc((size_t) hidden, sizeof *out);
    int32_t expert = 0;
    for (int32_t row = 0; row < ffn->batch.row_count; row++) {
        while (ffn->batch.row_offset_dev[expert + 1] <= row) {
            expert++;
        }
        const struct moe_expert_rows one = { .shape = ffn->shape,
                                             .weights = ffn->weights,
                                             .scaling = MOE_EXPERT_SCALING_BLOCK,
                                             .scale_stride = ffn->batch.scale_stride,
                                             .x_dev = ffn->batch.x_dev,
                                             .x_scale_dev = ffn->batch.x_scale_dev,
                                             .sample_count = 1,
                                             .row_dev = &row,
                                             .expert_dev = &expert,
                                             .mid_dev = mid,
                                             .out_dev = out };
        moe_reference_expert_rows(&one);
        for (int32_t i = 0; i < hidden; i++) {
            pretend_write(ffn->batch.out_dev, 0, (long) row * hidden + i, out[i]);
        }
    }
    free(mid);
    free(out);
    pretend_busy(stream, 0.0, 100.0);
    return pretend_launch(stream);
}

/* Streams, clock and hold: nothing to see on a CPU but that they are called. */
int moe_kernel_triad(float *dst, const float *x, const float *y, float a, int64_t count,
                     void *stream)
{
    for (int64_t i = 0; i < count; i++) {
        dst[i] = a * x[i] + y[i];
    }
    return pretend_launch(stream);
}

int moe_stream_read(uint32_t *sum, const void *src, int64_t bytes, int version, void *stream)
{
    (void) sum;
    (void) src;
    return bytes % 16 != 0 || version < 1 ? (int) cudaErrorInvalidValue : pretend_launch(stream);
}

int moe_stream_write(void *dst, uint32_t word, int64_t bytes, int version, void *stream)
{
    if (bytes % 16 != 0 || version < 1) {
        return (int) cudaErrorInvalidValue;
    }
    for (int64_t i = 0; i < bytes; i += (int64_t) sizeof word) {
        memcpy((char *) dst + i, &word, sizeof word);
    }
    return pretend_launch(stream);
}

int moe_stream_copy(void *dst, const void *src, int64_t bytes, int version, void *stream)
{
    if (bytes % 16 != 0 || version < 1) {
        return (int) cudaErrorInvalidValue;
    }
    memcpy(dst, src, (size_t) bytes);
    return pretend_launch(stream);
}

int moe_clock_stamp(struct moe_clock_reading *stamps, int32_t sm_count, void *stream)
{
    static _Thread_local int64_t now_ns;
    static _Thread_local int64_t cycles;
    static _Thread_local int64_t mhz = 1980;
    /* Under load from the beginning: the clock comes down, and stays where it is then. */
    mhz = mhz > 1500 ? mhz - 20 : mhz;
    now_ns += 1000000;
    cycles += 1000 * mhz;
    for (int32_t i = 0; i < sm_count; i++) {
        stamps[i] = (struct moe_clock_reading){ .cycles = cycles, .time_ns = now_ns };
    }
    return pretend_stamp(stream);
}

struct moe_hold {
    int enqueued;
};

int moe_hold_create(struct moe_hold **out)
{
    *out = calloc(1, sizeof **out);
    return 0;
}

void moe_hold_destroy(struct moe_hold *hold)
{
    free(hold);
}

int moe_hold_enqueue(struct moe_hold *hold, int64_t timeout_ns, void *stream)
{
    hold->enqueued++;
    pretend_hold(stream);
    return timeout_ns < 1 ? (int) cudaErrorInvalidValue : pretend_launch(stream);
}

void moe_hold_open(struct moe_hold *hold)
{
    hold->enqueued = 0;
}

int moe_hold_timed_out(const struct moe_hold *hold)
{
    return hold->enqueued < 0;
}

static long blocks(int32_t columns)
{
    return (columns + 127) / 128;
}

/* What stands around the experts only writes where it should: its results have their own tests. */
size_t moe_permute_workspace_bytes(const struct moe_permute_shape *shape)
{
    return (size_t) shape->token_count;
}

int moe_permute_plan(const struct moe_permute_shape *shape, const int32_t *expert_ids,
                     int32_t *row_offset, int32_t *position, int32_t *row_source, void *workspace,
                     void *stream)
{
    const size_t choices = (size_t) shape->token_count * (size_t) shape->top_k;
    for (size_t i = 0; i < choices; i++) {
        if (expert_ids[i] < 0 || expert_ids[i] >= shape->expert_count) {
            return (int) cudaErrorInvalidValue;
        }
        position[i] = (int32_t) i;
        row_source[i] = (int32_t) i;
    }
    memset(row_offset, 0, (size_t) (shape->expert_count + 1) * sizeof *row_offset);
    memset(workspace, 0, (size_t) shape->token_count);
    return pretend_launch(stream);
}

int moe_permute_rows(const struct moe_permute_shape *shape, const struct moe_permute_operands *o,
                     int version, void *stream)
{
    const size_t choices = (size_t) shape->token_count * (size_t) shape->top_k;
    const size_t row_bytes = (size_t) shape->hidden * (o->dtype == MOE_EXPERT_BF16 ? 2 : 1);
    if (version == 3 || o->position_dev == NULL || o->row_source_dev == NULL ||
        o->row_offset_dev == NULL) {
        return (int) cudaErrorNotSupported;
    }
    for (size_t i = 0; i < choices; i++) {
        memcpy((char *) o->rows_dev + i * row_bytes,
               (const char *) o->x_dev + i / (size_t) shape->top_k * row_bytes, row_bytes);
    }
    for (long block = 0; o->dtype == MOE_EXPERT_FP8 && block < blocks(shape->hidden); block++) {
        for (size_t i = 0; i < choices; i++) {
            o->row_scale_dev[(size_t) block * (size_t) o->row_scale_stride + i] =
                o->x_scale_dev[(size_t) block * (size_t) o->x_scale_stride +
                               i / (size_t) shape->top_k];
        }
    }
    return pretend_launch(stream);
}

int moe_combine_rows(const struct moe_permute_shape *shape, void *out, const void *rows,
                     const int32_t *position, const float *weight, int version, void *stream)
{
    for (long token = 0; token < shape->token_count; token++) {
        for (long column = 0; column < shape->hidden; column++) {
            double sum = 0.0;
            for (long place = token * shape->top_k; place < (token + 1) * shape->top_k; place++) {
                sum += (double) weight[place] *
                       pretend_read(rows, 0, (long) position[place] * shape->hidden + column);
            }
            pretend_write(out, 0, token * shape->hidden + column, sum);
        }
    }
    return version < 1 ? (int) cudaErrorInvalidValue : pretend_launch(stream);
}

int moe_quantise_rows(int32_t row_count, int32_t hidden, void *q, float *scale,
                      int32_t scale_stride, const void *x, int version, void *stream)
{
    memcpy(q, x, (size_t) row_count * (size_t) hidden);
    for (long block = 0; block < blocks(hidden); block++) {
        for (long row = 0; row < row_count; row++) {
            scale[block * scale_stride + row] = 1.0F;
        }
    }
    return version < 1 ? (int) cudaErrorInvalidValue : pretend_launch(stream);
}

int moe_gate_choose(const struct moe_gate *gate, int32_t token_count, int32_t *ids, float *weights,
                    const float *logits, const float *bias, int version, void *stream)
{
    const long count = (long) token_count * gate->top_k;
    double *exact = calloc((size_t) count, sizeof *exact);
    if (exact == NULL || version < 1) {
        free(exact);
        return (int) cudaErrorInvalidValue;
    }
    moe_reference_gate_choose(gate, token_count, ids, exact, logits, bias, NULL);
    for (long i = 0; i < count; i++) {
        weights[i] = (float) exact[i];
    }
    free(exact);
    return pretend_launch(stream);
}

int moe_kv_split_count(const struct moe_kv_shape *shape, int32_t *out)
{
    *out = shape->context_limit > 1 ? 2 : 1;
    return 0;
}

size_t moe_kv_workspace_bytes(const struct moe_kv_shape *shape, int32_t split_count)
{
    return split_count == 1 ? 0 : (size_t) shape->sequence_count * (size_t) shape->q_heads;
}

int moe_kv_read(const struct moe_kv_shape *shape, const struct moe_kv_batch *batch,
                int32_t split_count, void *stream)
{
    const int64_t pages = (int64_t) shape->sequence_count * shape->page_limit;
    int64_t sum = 0;
    for (int64_t i = 0; i < pages; i++) {
        sum += batch->page_table_dev[i];
    }
    if ((sum - pages * (pages - 1) / 2) % (pages * pages) != 0) { /* each page of a stretch once */
        return (int) cudaErrorInvalidValue;
    }
    for (int64_t i = 0; i < shape->sequence_count; i++) {
        sum += batch->context_dev[i];
    }
    memset(batch->out_dev, 0,
           (size_t) shape->sequence_count * (size_t) shape->q_heads * (size_t) shape->head_dim * 2);
    if (split_count > 1) {
        memset(batch->workspace_dev, 0, moe_kv_workspace_bytes(shape, split_count));
    }
    return (batch->v_dev == NULL) != (shape->kind == MOE_KV_MLA) ? (int) cudaErrorInvalidValue
                                                                 : pretend_launch(stream);
}

#include "kernels/reference/reference_expert.h"

#include <math.h>
#include <stddef.h>

#include "kernels/reference/reference_number.h"

enum { BLOCK = MOE_EXPERT_SCALE_BLOCK };

/* A matrix of rows x columns with the scales that belong to it. */
struct matrix {
    const void *values;
    const float *scale; /* NULL for bf16 */
    int32_t columns;
    int32_t row_scale_step;   /* rows under one scale: 1 or 128 */
    int64_t row_block_stride; /* from one row block's scales to the next */
    int64_t column_block_stride;
};

static double element(const struct matrix *matrix, int64_t row, int32_t column)
{
    const int64_t index = row * matrix->columns + column;
    if (matrix->scale == NULL) {
        return (double) moe_float_from_bf16(((const uint16_t *) matrix->values)[index]);
    }
    const float scale = matrix->scale[row / matrix->row_scale_step * matrix->row_block_stride +
                                      column / BLOCK * matrix->column_block_stride];
    return (double) moe_float_from_e4m3(((const uint8_t *) matrix->values)[index]) * (double) scale;
}

static int32_t blocks(int32_t count)
{
    return (count + BLOCK - 1) / BLOCK;
}

/* One weight matrix of w1 (matrix_count of them per expert) or w2. */
static struct matrix weights(const struct moe_reference_expert *ffn, const void *values,
                             const float *scale, int64_t index, int32_t rows, int32_t columns)
{
    const size_t size = ffn->shape.dtype == MOE_EXPERT_BF16 ? 2 : 1;
    const int64_t elements = (int64_t) rows * columns;
    const int64_t scales = (int64_t) blocks(rows) * blocks(columns);
    return (struct matrix){ .values = (const char *) values + (size_t) (index * elements) * size,
                            .scale =
                                ffn->shape.dtype == MOE_EXPERT_BF16 ? NULL : scale + index * scales,
                            .columns = columns,
                            .row_scale_step = BLOCK,
                            .row_block_stride = blocks(columns),
                            .column_block_stride = 1 };
}

static double activate(enum moe_expert_activation activation, double gate, double up)
{
    switch (activation) {
    case MOE_EXPERT_SWIGLU:
        return gate / (1.0 + exp(-gate)) * up;
    case MOE_EXPERT_RELU:
        return gate > 0.0 ? gate : 0.0;
    case MOE_EXPERT_GELU:
        return 0.5 * gate * erfc(gate * -sqrt(0.5)); /* 1 + erf would cancel below 0 */
    case MOE_EXPERT_ACTIVATION_COUNT:
        break;
    }
    return NAN;
}

/* The matrix of activations that stands in rows: x or mid. */
static struct matrix activations(const struct moe_reference_expert *ffn, const void *values,
                                 const float *scale, int32_t columns)
{
    return (struct matrix){ .values = values,
                            .scale = ffn->shape.dtype == MOE_EXPERT_BF16 ? NULL : scale,
                            .columns = columns,
                            .row_scale_step = 1,
                            .row_block_stride = 1,
                            .column_block_stride = ffn->scale_stride };
}

/* Row `row` as doubles, so that nothing is decoded twice: to[columns]. */
static void decode(const struct matrix *matrix, int64_t row, double *to)
{
    for (int32_t c = 0; c < matrix->columns; c++) {
        to[c] = element(matrix, row, c);
    }
}

static double dot(const double *a, const double *b, int32_t count)
{
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

size_t moe_reference_expert_scratch_count(const struct moe_expert_ffn_shape *shape)
{
    return (size_t) shape->hidden * (size_t) shape->inter * 2 +
           (size_t) (shape->hidden > shape->inter ? shape->hidden : shape->inter);
}

void moe_reference_expert_first(const struct moe_reference_expert *ffn, double *scratch,
                                double *mid)
{
    const struct moe_expert_ffn_shape *shape = &ffn->shape;
    const int32_t matrix_count = shape->activation == MOE_EXPERT_SWIGLU ? 2 : 1;
    const struct matrix x = activations(ffn, ffn->x, ffn->x_scale, shape->hidden);
    double *x_row = scratch;
    double *w[2] = { scratch + shape->hidden,
                     scratch + shape->hidden + (size_t) shape->hidden * (size_t) shape->inter };
    for (int32_t expert = 0; expert < shape->expert_count; expert++) {
        for (int32_t m = 0; m < matrix_count; m++) {
            const struct matrix matrix =
                weights(ffn, ffn->w1, ffn->w1_scale, (int64_t) expert * matrix_count + m,
                        shape->inter, shape->hidden);
            for (int32_t i = 0; i < shape->inter; i++) {
                decode(&matrix, i, w[m] + (size_t) i * (size_t) shape->hidden);
            }
        }
        for (int32_t row = ffn->row_offset[expert]; row < ffn->row_offset[expert + 1]; row++) {
            decode(&x, row, x_row);
            for (int32_t i = 0; i < shape->inter; i++) {
                const size_t at = (size_t) i * (size_t) shape->hidden;
                const double gate = dot(x_row, w[0] + at, shape->hidden);
                const double up = matrix_count == 2 ? dot(x_row, w[1] + at, shape->hidden) : 0.0;
                mid[(int64_t) row * shape->inter + i] = activate(shape->activation, gate, up);
            }
        }
    }
}

static void round_block(const double *mid, int32_t count, uint8_t *values, float *scale)
{
    float largest = 0.0F;
    for (int32_t i = 0; i < count; i++) {
        largest = fmaxf(largest, fabsf((float) mid[i]));
    }
    *scale = moe_e4m3_scale(largest);
    for (int32_t i = 0; i < count; i++) {
        values[i] = moe_e4m3_from_float((float) mid[i] / *scale);
    }
}

void moe_reference_expert_round(const struct moe_reference_expert *ffn, const double *mid,
                                void *values, float *scales)
{
    const int32_t inter = ffn->shape.inter;
    const int32_t row_count = ffn->row_offset[ffn->shape.expert_count];
    if (ffn->shape.dtype == MOE_EXPERT_BF16) {
        for (int64_t i = 0; i < (int64_t) row_count * inter; i++) {
            ((uint16_t *) values)[i] = moe_bf16_from_float((float) mid[i]);
        }
        return;
    }
    for (int32_t row = 0; row < row_count; row++) {
        for (int32_t first = 0; first < inter; first += BLOCK) {
            const int64_t at = (int64_t) row * inter + first;
            round_block(mid + at, first + BLOCK < inter ? BLOCK : inter - first,
                        (uint8_t *) values + at,
                        &scales[(int64_t) (first / BLOCK) * ffn->scale_stride + row]);
        }
    }
}

void moe_reference_expert_second(const struct moe_reference_expert *ffn, const void *values,
                                 const float *scales, double *scratch, double *out)
{
    const struct moe_expert_ffn_shape *shape = &ffn->shape;
    const struct matrix mid = activations(ffn, values, scales, shape->inter);
    double *mid_row = scratch;
    double *w = scratch + shape->inter;
    for (int32_t expert = 0; expert < shape->expert_count; expert++) {
        const struct matrix matrix =
            weights(ffn, ffn->w2, ffn->w2_scale, expert, shape->hidden, shape->inter);
        for (int32_t h = 0; h < shape->hidden; h++) {
            decode(&matrix, h, w + (size_t) h * (size_t) shape->inter);
        }
        for (int32_t row = ffn->row_offset[expert]; row < ffn->row_offset[expert + 1]; row++) {
            decode(&mid, row, mid_row);
            for (int32_t h = 0; h < shape->hidden; h++) {
                out[(int64_t) row * shape->hidden + h] =
                    dot(mid_row, w + (size_t) h * (size_t) shape->inter, shape->inter);
            }
        }
    }
}

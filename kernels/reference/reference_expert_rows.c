#include "kernels/reference/reference_expert_rows.h"

#include <math.h>

#include "kernels/reference/reference_activation.h"
#include "kernels/reference/reference_number.h"

static double element(const void *base, int64_t index, enum moe_expert_dtype dtype)
{
    return dtype == MOE_EXPERT_BF16 ? (double) moe_float_from_bf16(((const uint16_t *) base)[index])
                                    : (double) moe_float_from_e4m3(((const uint8_t *) base)[index]);
}

static int64_t blocks(int32_t columns)
{
    return (columns + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
}

/* weight[row][column] of a matrix [row_count][column_count]; matrix counts over all experts. */
static double weight(const struct moe_expert_rows *rows, const void *w, const float *scale,
                     int64_t matrix, int32_t row_count, int32_t column_count, int32_t row,
                     int32_t column)
{
    const double value =
        element(w, (matrix * row_count + row) * column_count + column, rows->shape.dtype);
    if (rows->shape.dtype == MOE_EXPERT_BF16) {
        return value;
    }
    if (rows->scaling == MOE_EXPERT_SCALING_ROW) {
        return value * (double) scale[matrix * row_count + row];
    }
    const int64_t block_row = matrix * blocks(row_count) + row / MOE_EXPERT_SCALE_BLOCK;
    return value *
           (double) scale[block_row * blocks(column_count) + column / MOE_EXPERT_SCALE_BLOCK];
}

static double input(const struct moe_expert_rows *rows, int32_t row, int32_t column)
{
    const double value =
        element(rows->x_dev, (int64_t) row * rows->shape.hidden + column, rows->shape.dtype);
    if (rows->shape.dtype == MOE_EXPERT_BF16) {
        return value;
    }
    const int64_t block = column / MOE_EXPERT_SCALE_BLOCK;
    return value * (double) (rows->scaling == MOE_EXPERT_SCALING_ROW
                                 ? rows->x_scale_dev[row]
                                 : rows->x_scale_dev[block * rows->scale_stride + row]);
}

static void make_mid(const struct moe_expert_rows *rows, int32_t sample, double *mid)
{
    const int32_t hidden = rows->shape.hidden;
    const int32_t inter = rows->shape.inter;
    const int matrices = rows->shape.activation == MOE_EXPERT_SWIGLU ? 2 : 1;
    for (int32_t i = 0; i < inter; i++) {
        double sum[2] = { 0.0, 0.0 };
        for (int m = 0; m < matrices; m++) {
            const int64_t matrix = (int64_t) rows->expert_dev[sample] * matrices + m;
            for (int32_t k = 0; k < hidden; k++) {
                sum[m] += input(rows, rows->row_dev[sample], k) *
                          weight(rows, rows->weights.w1_dev, rows->weights.w1_scale_dev, matrix,
                                 inter, hidden, i, k);
            }
        }
        mid[i] = moe_reference_activate(sum[0], sum[1], rows->shape.activation);
    }
}

/* What is left of mid after it was stored in its type. */
static void round_mid(const struct moe_expert_rows *rows, double *mid)
{
    const int32_t inter = rows->shape.inter;
    const int32_t width =
        rows->scaling == MOE_EXPERT_SCALING_ROW ? inter : (int32_t) MOE_EXPERT_SCALE_BLOCK;
    if (rows->shape.dtype == MOE_EXPERT_BF16) {
        for (int32_t i = 0; i < inter; i++) {
            mid[i] = (double) moe_float_from_bf16(moe_bf16_from_float((float) mid[i]));
        }
        return;
    }
    for (int32_t first = 0; first < inter; first += width) {
        const int32_t last = first + width < inter ? first + width : inter;
        double most = 0.0;
        for (int32_t i = first; i < last; i++) {
            most = fmax(most, fabs(mid[i]));
        }
        const float scale = moe_e4m3_scale((float) most);
        for (int32_t i = first; i < last; i++) {
            const uint8_t stored = moe_e4m3_from_float((float) mid[i] / scale);
            mid[i] = (double) moe_float_from_e4m3(stored) * (double) scale;
        }
    }
}

void moe_reference_expert_rows(const struct moe_expert_rows *rows)
{
    const int32_t hidden = rows->shape.hidden;
    const int32_t inter = rows->shape.inter;
    for (int32_t sample = 0; sample < rows->sample_count; sample++) {
        double *mid = rows->mid_dev + (int64_t) sample * inter;
        make_mid(rows, sample, mid);
        round_mid(rows, mid);
        for (int32_t i = 0; i < hidden; i++) {
            double sum = 0.0;
            for (int32_t k = 0; k < inter; k++) {
                sum += mid[k] * weight(rows, rows->weights.w2_dev, rows->weights.w2_scale_dev,
                                       rows->expert_dev[sample], hidden, inter, i, k);
            }
            rows->out_dev[(int64_t) sample * hidden + i] = sum;
        }
    }
}

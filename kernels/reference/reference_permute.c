#include "kernels/reference/reference_permute.h"

#include <math.h>
#include <string.h>

#include "kernels/reference/reference_number.h"

void moe_reference_permute_plan(const struct moe_permute_shape *shape, const int32_t *expert_ids,
                                int32_t *row_offset, int32_t *position, int32_t *row_source)
{
    const int32_t choices = shape->token_count * shape->top_k;
    int32_t row = 0;
    for (int32_t i = 0; i < choices; i++) {
        position[i] = -1;
    }
    for (int32_t expert = 0; expert < shape->expert_count; expert++) {
        row_offset[expert] = row;
        for (int32_t i = 0; i < choices; i++) {
            if (expert_ids[i] == expert) {
                position[i] = row;
                if (row_source != NULL) {
                    row_source[row] = i;
                }
                row++;
            }
        }
    }
    row_offset[shape->expert_count] = row;
}

void moe_reference_permute_values(const struct moe_permute_shape *shape,
                                  enum moe_expert_dtype dtype, void *rows, const void *x,
                                  const int32_t *position)
{
    const size_t row_bytes = (size_t) shape->hidden * (dtype == MOE_EXPERT_FP8 ? 1 : 2);
    for (int32_t i = 0; i < shape->token_count * shape->top_k; i++) {
        if (position[i] >= 0) {
            memcpy((char *) rows + (size_t) position[i] * row_bytes,
                   (const char *) x + (size_t) (i / shape->top_k) * row_bytes, row_bytes);
        }
    }
}

void moe_reference_permute_scales(const struct moe_permute_shape *shape, float *row_scale,
                                  int32_t row_scale_stride, const float *x_scale,
                                  int32_t x_scale_stride, const int32_t *position)
{
    const int64_t columns = (shape->hidden + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
    for (int32_t i = 0; i < shape->token_count * shape->top_k; i++) {
        for (int64_t c = 0; c < columns && position[i] >= 0; c++) {
            row_scale[c * row_scale_stride + position[i]] =
                x_scale[c * x_scale_stride + i / shape->top_k];
        }
    }
}

void moe_reference_combine_rows(const struct moe_permute_shape *shape, uint16_t *out,
                                const uint16_t *rows, const int32_t *position, const float *weight)
{
    for (int64_t token = 0; token < shape->token_count; token++) {
        for (int64_t c = 0; c < shape->hidden; c++) {
            float sum = 0.0F;
            for (int64_t i = token * shape->top_k; i < (token + 1) * shape->top_k; i++) {
                if (position[i] >= 0) {
                    const uint16_t value = rows[position[i] * (int64_t) shape->hidden + c];
                    sum = fmaf(weight[i], moe_float_from_bf16(value), sum);
                }
            }
            out[token * shape->hidden + c] = moe_bf16_from_float(sum);
        }
    }
}

void moe_reference_quantise_rows(int32_t row_count, int32_t hidden, uint8_t *q, float *scale,
                                 int32_t scale_stride, const uint16_t *x)
{
    for (int64_t row = 0; row < row_count; row++) {
        for (int64_t first = 0; first < hidden; first += MOE_EXPERT_SCALE_BLOCK) {
            const int64_t last =
                first + MOE_EXPERT_SCALE_BLOCK < hidden ? first + MOE_EXPERT_SCALE_BLOCK : hidden;
            float largest = 0.0F;
            for (int64_t c = first; c < last; c++) {
                largest = fmaxf(largest, fabsf(moe_float_from_bf16(x[row * hidden + c])));
            }
            const float mine = moe_e4m3_scale(largest);
            const float inverse = 1.0F / mine;
            for (int64_t c = first; c < last; c++) {
                q[row * hidden + c] =
                    moe_e4m3_from_float(moe_float_from_bf16(x[row * hidden + c]) * inverse);
            }
            scale[first / MOE_EXPERT_SCALE_BLOCK * scale_stride + row] = mine;
        }
    }
}

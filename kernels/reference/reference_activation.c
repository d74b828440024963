#include "kernels/reference/reference_activation.h"

#include <math.h>

#include "kernels/reference/reference_number.h"

double moe_reference_activate(double gate, double up, enum moe_expert_activation activation)
{
    if (activation == MOE_EXPERT_SWIGLU) {
        return gate / (1.0 + exp(-gate)) * up;
    }
    return activation == MOE_EXPERT_RELU ? fmax(gate, 0.0)
                                         : 0.5 * gate * (1.0 + erf(gate * 0.70710678118654752440));
}

static double value(const uint16_t *projected, int64_t row, int32_t inter, int32_t column,
                    enum moe_expert_activation activation)
{
    const int64_t matrices = activation == MOE_EXPERT_SWIGLU ? 2 : 1;
    const uint16_t *cells = projected + row * matrices * inter;
    const double gate = (double) moe_float_from_bf16(cells[column]);
    const double up = matrices == 2 ? (double) moe_float_from_bf16(cells[inter + column]) : 0.0;
    return moe_reference_activate(gate, up, activation);
}

void moe_reference_activation_bf16(const uint16_t *projected, uint16_t *mid, int64_t row_count,
                                   int32_t inter, enum moe_expert_activation activation)
{
    for (int64_t row = 0; row < row_count; row++) {
        for (int32_t i = 0; i < inter; i++) {
            mid[row * inter + i] =
                moe_bf16_from_float((float) value(projected, row, inter, i, activation));
        }
    }
}

/* Columns [first, last) of a row under one scale, which is returned. */
static float quantise(const uint16_t *projected, uint8_t *mid, int64_t row, int32_t inter,
                      int32_t first, int32_t last, enum moe_expert_activation activation)
{
    double most = 0.0;
    for (int32_t i = first; i < last; i++) {
        most = fmax(most, fabs(value(projected, row, inter, i, activation)));
    }
    const float scale = moe_e4m3_scale((float) most);
    for (int32_t i = first; i < last; i++) {
        const double ratio = value(projected, row, inter, i, activation) / (double) scale;
        mid[row * inter + i] = moe_e4m3_from_float((float) ratio);
    }
    return scale;
}

void moe_reference_activation_fp8(const uint16_t *projected, uint8_t *mid, float *scale,
                                  int64_t row_count, int32_t inter, int64_t scale_stride,
                                  enum moe_expert_activation activation)
{
    const int32_t width = MOE_EXPERT_SCALE_BLOCK;
    for (int64_t row = 0; row < row_count; row++) {
        for (int32_t first = 0; first < inter; first += width) {
            const int32_t last = first + width < inter ? first + width : inter;
            scale[first / width * scale_stride + row] =
                quantise(projected, mid, row, inter, first, last, activation);
        }
    }
}

void moe_reference_activation_fp8_row(const uint16_t *projected, uint8_t *mid, float *scale,
                                      int64_t row_count, int32_t inter,
                                      enum moe_expert_activation activation)
{
    for (int64_t row = 0; row < row_count; row++) {
        scale[row] = quantise(projected, mid, row, inter, 0, inter, activation);
    }
}

#include "calibrate/expert/lt_scales.h"

#include <cuda_runtime_api.h>

#include "calibrate/device/device.h"

static int64_t blocks(int64_t columns)
{
    return (columns + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
}

/* Scales are read 16 bytes at a time. */
static int64_t round_up_4(int64_t count)
{
    return (count + 3) / 4 * 4;
}

const char *moe_lt_scales_refusal(const struct moe_expert_ffn_shape *shape)
{
    if (shape->inter % MOE_EXPERT_SCALE_BLOCK != 0 &&
        moe_expert_ffn_w1_matrix_count(shape->activation) == 2) {
        return "the expert size is no multiple of 128, so gate and up do not stack by blocks";
    }
    return NULL;
}

static enum moe_status take(float **target, int64_t count, struct moe_error *err)
{
    return moe_device_check((int) cudaMalloc((void **) target, (size_t) count * sizeof(float)),
                            "cudaMalloc of scales", err);
}

/* row_count rows of `width` floats, apart from each other by the strides. */
static enum moe_status copy(float *dst_dev, int64_t dst_stride, const float *src_dev,
                            int64_t src_stride, int64_t width, int64_t row_count,
                            struct moe_error *err)
{
    return moe_device_check((int) cudaMemcpy2D(dst_dev, (size_t) dst_stride * sizeof(float),
                                               src_dev, (size_t) src_stride * sizeof(float),
                                               (size_t) width * sizeof(float), (size_t) row_count,
                                               cudaMemcpyDeviceToDevice),
                            "cudaMemcpy2D of scales", err);
}

static enum moe_status make_weights(struct moe_lt_scales *scales,
                                    const struct moe_expert_data *data, struct moe_error *err)
{
    const struct moe_expert_ffn_shape *shape = &data->shape;
    const int64_t experts = shape->expert_count;
    const int64_t across_hidden = blocks(shape->hidden);
    const int64_t across_inter = blocks(shape->inter);
    const int64_t w1_rows = moe_expert_ffn_w1_matrix_count(shape->activation) * across_inter;
    scales->w1_stride = w1_rows * round_up_4(across_hidden);
    scales->w2_stride = across_hidden * round_up_4(across_inter);
    MOE_TRY(take(&scales->w1_dev, experts * scales->w1_stride, err));
    MOE_TRY(take(&scales->w2_dev, experts * scales->w2_stride, err));
    MOE_TRY(copy(scales->w1_dev, round_up_4(across_hidden), data->w1_scale_dev, across_hidden,
                 across_hidden, experts * w1_rows, err));
    return copy(scales->w2_dev, round_up_4(across_inter), data->w2_scale_dev, across_inter,
                across_inter, experts * across_hidden, err);
}

static enum moe_status make_rows(struct moe_lt_scales *scales, const struct moe_expert_case *kase,
                                 struct moe_error *err)
{
    const struct moe_expert_data *data = kase->data;
    const int64_t across_hidden = blocks(data->shape.hidden);
    const int64_t across_inter = blocks(data->shape.inter);
    int64_t x_count = 0;
    int64_t mid_count = 0;
    for (int32_t e = 0; e < data->shape.expert_count; e++) {
        const int64_t rows = kase->row_offset[e + 1] - kase->row_offset[e];
        scales->x_offset[e] = x_count;
        scales->mid_offset[e] = mid_count;
        x_count += round_up_4(rows * across_hidden);
        mid_count += round_up_4(rows * across_inter);
    }
    MOE_TRY(take(&scales->x_dev, x_count, err));
    MOE_TRY(take(&scales->mid_dev, mid_count, err));
    for (int32_t e = 0; e < data->shape.expert_count; e++) {
        const int64_t rows = kase->row_offset[e + 1] - kase->row_offset[e];
        if (rows > 0) {
            MOE_TRY(copy(scales->x_dev + scales->x_offset[e], rows,
                         data->x_scale_dev + kase->row_offset[e], data->scale_stride, rows,
                         across_hidden, err));
        }
    }
    /* Streams that do not wait for the default one read this next; and the intermediate's scales
     * must be numbers when products are tried out before the activation ran. */
    MOE_TRY(
        moe_device_check((int) cudaMemset(scales->mid_dev, 0, (size_t) mid_count * sizeof(float)),
                         "cudaMemset of scales", err));
    return moe_device_check((int) cudaDeviceSynchronize(), "copies of scales", err);
}

enum moe_status moe_lt_scales_init(struct moe_lt_scales *scales, const struct moe_expert_case *kase,
                                   struct moe_error *err)
{
    *scales = (struct moe_lt_scales){ 0 };
    enum moe_status status = make_weights(scales, kase->data, err);
    if (status == MOE_OK) {
        status = make_rows(scales, kase, err);
    }
    if (status != MOE_OK) {
        moe_lt_scales_finish(scales);
    }
    return status;
}

void moe_lt_scales_finish(struct moe_lt_scales *scales)
{
    (void) cudaFree(scales->w1_dev);
    (void) cudaFree(scales->w2_dev);
    (void) cudaFree(scales->x_dev);
    (void) cudaFree(scales->mid_dev);
    *scales = (struct moe_lt_scales){ 0 };
}

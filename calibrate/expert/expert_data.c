#include "calibrate/expert/expert_data.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>

#include "calibrate/expert/expert_floor.h"
#include "kernels/memory/random_fill.h"

/* e4m3 reaches 448: with this deviation a bell of four draws, which ends at 3.46 deviations, fills
 * the range as a quantised tensor does. */
static const float E4M3_SIGMA = 128.0F;

int64_t moe_expert_cell_bytes(const struct moe_expert_ffn_shape *shape)
{
    return shape->dtype == MOE_EXPERT_BF16 ? 2 : 1;
}

static int64_t blocks(int64_t columns)
{
    return (columns + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
}

static enum moe_status take(struct moe_expert_data *data, int64_t bytes, void *target,
                            struct moe_error *err)
{
    void **slot = target;
    assert(data->owned_count < sizeof data->owned / sizeof data->owned[0]);
    MOE_TRY(
        moe_device_check((int) cudaMalloc(slot, (size_t) bytes), "cudaMalloc of expert data", err));
    data->owned[data->owned_count++] = *slot;
    return MOE_OK;
}

/* count values with deviation sigma, as e4m3 or as bf16. */
static enum moe_status fill(const struct moe_expert_data *data, void *dst_dev, int64_t count,
                            float sigma, uint64_t seed, struct moe_error *err)
{
    const int code = data->shape.dtype == MOE_EXPERT_BF16
                         ? moe_kernel_fill_bf16(dst_dev, count, sigma, seed, NULL)
                         : moe_kernel_fill_e4m3(dst_dev, count, E4M3_SIGMA, seed, NULL);
    return moe_device_check(code, "filling expert data", err);
}

/* Scales around the one that gives deviation sigma. */
static enum moe_status take_scales(struct moe_expert_data *data, int64_t count, float sigma,
                                   uint64_t seed, float **target, struct moe_error *err)
{
    const float scale = sigma / E4M3_SIGMA;
    MOE_TRY(take(data, count * (int64_t) sizeof(float), target, err));
    return moe_device_check(
        moe_kernel_fill_f32(*target, count, 0.75F * scale, 1.25F * scale, seed, NULL),
        "filling scales", err);
}

static enum moe_status make_scales(struct moe_expert_data *data, struct moe_error *err)
{
    const struct moe_expert_ffn_shape *shape = &data->shape;
    const int64_t experts = shape->expert_count;
    const int64_t matrices = moe_expert_ffn_w1_matrix_count(shape->activation);
    const int64_t across_hidden = blocks(shape->hidden);
    const int64_t across_inter = blocks(shape->inter);
    const int64_t rows = data->scale_stride;
    const float w1_sigma = 1.0F / sqrtf((float) shape->hidden);
    const float w2_sigma = 1.0F / sqrtf((float) shape->inter);
    MOE_TRY(take_scales(data, across_hidden * rows, 1.0F, 11, &data->x_scale_dev, err));
    MOE_TRY(take_scales(data, across_inter * rows, 1.0F, 12, &data->mid_scale_dev, err));
    MOE_TRY(take_scales(data, experts * matrices * across_inter * across_hidden, w1_sigma, 13,
                        &data->w1_scale_dev, err));
    MOE_TRY(take_scales(data, experts * across_hidden * across_inter, w2_sigma, 14,
                        &data->w2_scale_dev, err));
    MOE_TRY(take_scales(data, rows, 1.0F, 15, &data->x_row_scale_dev, err));
    MOE_TRY(take_scales(data, rows, 1.0F, 16, &data->mid_row_scale_dev, err));
    MOE_TRY(take_scales(data, experts * matrices * shape->inter, w1_sigma, 17,
                        &data->w1_row_scale_dev, err));
    return take_scales(data, experts * shape->hidden, w2_sigma, 18, &data->w2_row_scale_dev, err);
}

static enum moe_status make_weights(struct moe_expert_data *data, uint32_t set,
                                    struct moe_error *err)
{
    const struct moe_expert_ffn_shape *shape = &data->shape;
    const int64_t cells =
        (int64_t) shape->expert_count * (int64_t) shape->hidden * (int64_t) shape->inter;
    const int64_t w1_count = cells * moe_expert_ffn_w1_matrix_count(shape->activation);
    const int64_t cell = moe_expert_cell_bytes(shape);
    MOE_TRY(take(data, w1_count * cell, &data->w1_dev[set], err));
    MOE_TRY(take(data, cells * cell, &data->w2_dev[set], err));
    MOE_TRY(fill(data, data->w1_dev[set], w1_count, 1.0F / sqrtf((float) shape->hidden),
                 100 + (uint64_t) set, err));
    return fill(data, data->w2_dev[set], cells, 1.0F / sqrtf((float) shape->inter),
                200 + (uint64_t) set, err);
}

static enum moe_status make_rows(struct moe_expert_data *data, struct moe_error *err)
{
    const struct moe_expert_ffn_shape *shape = &data->shape;
    const int64_t rows = data->row_capacity;
    const int64_t matrices = moe_expert_ffn_w1_matrix_count(shape->activation);
    const int64_t cell = moe_expert_cell_bytes(shape);
    MOE_TRY(take(data, rows * shape->hidden * cell, &data->x_dev, err));
    MOE_TRY(take(data, rows * shape->inter * matrices * 2, &data->projected_dev, err));
    MOE_TRY(take(data, rows * shape->inter * cell, &data->mid_dev, err));
    MOE_TRY(take(data, rows * shape->hidden * 2, &data->out_dev, err));
    MOE_TRY(take(data, (int64_t) (shape->expert_count + 1) * (int64_t) sizeof(int32_t),
                 &data->row_offset_dev, err));
    return fill(data, data->x_dev, rows * shape->hidden, 1.0F, 1, err);
}

enum moe_status moe_expert_data_create(const struct moe_expert_ffn_shape *shape,
                                       int32_t row_capacity, double cache_bytes,
                                       double active_share, struct moe_expert_data **out,
                                       struct moe_error *err)
{
    struct moe_expert_data *data = calloc(1, sizeof *data);
    if (data == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for expert data");
    }
    data->shape = *shape;
    data->row_capacity = row_capacity;
    data->scale_stride = (row_capacity + 3) / 4 * 4;
    data->set_count = moe_graph_set_count(
        moe_expert_weight_bytes(shape) * (double) shape->expert_count * active_share, cache_bytes);
    enum moe_status status = make_rows(data, err);
    for (uint32_t set = 0; status == MOE_OK && set < data->set_count; set++) {
        status = make_weights(data, set, err);
    }
    if (status == MOE_OK && shape->dtype == MOE_EXPERT_FP8) {
        status = make_scales(data, err);
    }
    if (status == MOE_OK) {
        status = moe_device_check((int) cudaDeviceSynchronize(), "filling expert data", err);
    }
    if (status != MOE_OK) {
        moe_expert_data_destroy(data);
        return status;
    }
    *out = data;
    return MOE_OK;
}

void moe_expert_data_destroy(struct moe_expert_data *data)
{
    if (data == NULL) {
        return;
    }
    for (uint32_t i = 0; i < data->owned_count; i++) {
        (void) cudaFree(data->owned[i]);
    }
    free(data);
}

/* What follows from out->row_offset, and its copy on the GPU. */
static enum moe_status finish_case(const struct moe_expert_data *data, struct moe_expert_case *out,
                                   struct moe_error *err)
{
    const int32_t experts = data->shape.expert_count;
    out->data = data;
    out->load = moe_row_load_read(out->row_offset, experts);
    MOE_TRY(moe_device_check((int) cudaMemcpy(data->row_offset_dev, out->row_offset,
                                              (size_t) (experts + 1) * sizeof(int32_t),
                                              cudaMemcpyHostToDevice),
                             "cudaMemcpy of row offsets", err));
    /* The copy may still be under way, and the streams used later do not wait for it. */
    return moe_device_check((int) cudaDeviceSynchronize(), "cudaMemcpy of row offsets", err);
}

enum moe_status moe_expert_case_set(const struct moe_expert_data *data, enum moe_row_histogram kind,
                                    int32_t rows_per_expert, struct moe_expert_case *out,
                                    struct moe_error *err)
{
    const int32_t experts = data->shape.expert_count;
    assert((int64_t) experts * rows_per_expert <= data->row_capacity);
    moe_row_histogram_make(kind, experts, rows_per_expert, out->row_offset);
    return finish_case(data, out, err);
}

enum moe_status moe_expert_case_set_rows(const struct moe_expert_data *data, const int32_t *rows,
                                         struct moe_expert_case *out, struct moe_error *err)
{
    out->row_offset[0] = 0;
    for (int32_t e = 0; e < data->shape.expert_count; e++) {
        out->row_offset[e + 1] = out->row_offset[e] + rows[e];
    }
    assert(out->row_offset[data->shape.expert_count] >= 1);
    assert(out->row_offset[data->shape.expert_count] <= data->row_capacity);
    return finish_case(data, out, err);
}

struct moe_expert_ffn_weights moe_expert_data_weights(const struct moe_expert_data *data,
                                                      uint32_t set)
{
    assert(set < data->set_count);
    return (struct moe_expert_ffn_weights){
        .w1_dev = data->w1_dev[set],
        .w2_dev = data->w2_dev[set],
        .w1_scale_dev = data->w1_scale_dev,
        .w2_scale_dev = data->w2_scale_dev,
    };
}

enum moe_status moe_expert_data_poison(const struct moe_expert_data *data, struct moe_error *err)
{
    const size_t bytes = (size_t) data->row_capacity * (size_t) data->shape.hidden * 2;
    MOE_TRY(moe_device_check((int) cudaMemset(data->out_dev, 0xff, bytes), "cudaMemset", err));
    return moe_device_check((int) cudaDeviceSynchronize(), "cudaMemset", err);
}

/*
 * cuBLASLt, one product per expert and GEMM, spread over streams that fork and join inside the
 * graph. Two things are tried out: how many streams, and whether all experts wait for one common
 * activation launch or each has its own in its stream.
 *
 * In bf16; in fp8 with a scale per row, and in fp8 with scales by block. The fp8 sums are the
 * accurate ones (no fast accumulation), as ours are.
 */
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/blas/lt_plan.h"
#include "calibrate/device/device.h"
#include "calibrate/expert/expert_backend.h"
#include "calibrate/expert/lt_scales.h"
#include "kernels/expert/activation.h"

enum { SAMPLE_LIMIT = 4, ALL = -1 };

struct lt_expert {
    const struct moe_expert_case *kase;
    struct moe_blas *blas;
    enum moe_lt_precision precision;
    int64_t cell;                /* bytes of an element of x, mid and the weights */
    struct moe_lt_scales scales; /* by block only */
    int32_t matrix_count;
    int32_t active_count;
    int32_t order[MOE_EXPERT_COUNT_LIMIT];             /* active experts, most rows first */
    struct moe_lt_plan *first[MOE_EXPERT_COUNT_LIMIT]; /* by place in order */
    struct moe_lt_plan *second[MOE_EXPERT_COUNT_LIMIT];
    bool fused; /* the product activates by itself: ReLU */
    uint32_t lane_count;
    bool joined; /* one activation for all */
    char text[64];
};

static int32_t row_count(const struct moe_expert_case *kase, int32_t expert)
{
    return kase->row_offset[expert + 1] - kase->row_offset[expert];
}

static struct moe_lt_operands first_operands(const struct lt_expert *lt, uint32_t set,
                                             int32_t expert)
{
    const struct moe_expert_data *data = lt->kase->data;
    const int64_t hidden = data->shape.hidden;
    const int64_t columns = (int64_t) data->shape.inter * lt->matrix_count;
    const int64_t row = lt->kase->row_offset[expert];
    char *out = lt->fused ? data->mid_dev : data->projected_dev;
    struct moe_lt_operands operands = {
        .weight = (const char *) data->w1_dev[set] + expert * columns * hidden * lt->cell,
        .rows = (const char *) data->x_dev + row * hidden * lt->cell,
        .out = out + row * columns * 2,
    };
    if (lt->precision == MOE_LT_FP8_ROW) {
        operands.weight_scale = data->w1_row_scale_dev + expert * columns;
        operands.row_scale = data->x_row_scale_dev + row;
    } else if (lt->precision == MOE_LT_FP8_BLOCK) {
        operands.weight_scale = lt->scales.w1_dev + expert * lt->scales.w1_stride;
        operands.row_scale = lt->scales.x_dev + lt->scales.x_offset[expert];
    }
    return operands;
}

static struct moe_lt_operands second_operands(const struct lt_expert *lt, uint32_t set,
                                              int32_t expert)
{
    const struct moe_expert_data *data = lt->kase->data;
    const int64_t hidden = data->shape.hidden;
    const int64_t inter = data->shape.inter;
    const int64_t row = lt->kase->row_offset[expert];
    struct moe_lt_operands operands = {
        .weight = (const char *) data->w2_dev[set] + expert * hidden * inter * lt->cell,
        .rows = (const char *) data->mid_dev + row * inter * lt->cell,
        .out = (char *) data->out_dev + row * hidden * 2,
    };
    if (lt->precision == MOE_LT_FP8_ROW) {
        operands.weight_scale = data->w2_row_scale_dev + expert * hidden;
        operands.row_scale = data->mid_row_scale_dev + row;
    } else if (lt->precision == MOE_LT_FP8_BLOCK) {
        operands.weight_scale = lt->scales.w2_dev + expert * lt->scales.w2_stride;
        operands.row_scale = lt->scales.mid_dev + lt->scales.mid_offset[expert];
    }
    return operands;
}

/* From projected to mid: the rows of one expert, or of all when expert is ALL. */
static enum moe_status activate(const struct lt_expert *lt, int32_t expert, void *stream,
                                struct moe_error *err)
{
    const struct moe_expert_data *data = lt->kase->data;
    const int32_t inter = data->shape.inter;
    const enum moe_expert_activation activation = data->shape.activation;
    const int64_t row = expert == ALL ? 0 : lt->kase->row_offset[expert];
    const int64_t count = expert == ALL ? lt->kase->load.row_count : row_count(lt->kase, expert);
    const char *projected = (const char *) data->projected_dev + row * inter * lt->matrix_count * 2;
    char *mid = (char *) data->mid_dev + row * inter * lt->cell;
    int code = 0;
    switch (lt->precision) {
    case MOE_LT_BF16:
        code = moe_kernel_activation_bf16(projected, mid, count, inter, activation, stream);
        break;
    case MOE_LT_FP8_ROW:
        code = moe_kernel_activation_fp8_row(projected, mid, data->mid_row_scale_dev + row, count,
                                             inter, activation, stream);
        break;
    case MOE_LT_FP8_BLOCK: /* never for ALL: each expert's scales are a matrix of its own */
        code = moe_kernel_activation_fp8(projected, mid,
                                         lt->scales.mid_dev + lt->scales.mid_offset[expert], count,
                                         inter, count, activation, stream);
        break;
    }
    return moe_device_check(code, "an activation kernel", err);
}

static enum moe_status lt_run(void *state, uint32_t set, void *stream, struct moe_error *err)
{
    struct lt_expert *lt = state;
    struct moe_blas *blas = lt->blas;
    const uint32_t lanes = lt->lane_count;
    MOE_TRY(moe_blas_fork(blas, stream, lanes, err));
    for (int32_t i = 0; i < lt->active_count; i++) {
        const uint32_t lane = (uint32_t) i % lanes;
        void *on = lane == 0 ? stream : blas->lanes[lane];
        const int32_t expert = lt->order[i];
        const struct moe_lt_operands first = first_operands(lt, set, expert);
        const struct moe_lt_operands second = second_operands(lt, set, expert);
        MOE_TRY(moe_lt_plan_run(blas, lt->first[i], &first, lane, on, err));
        if (lt->joined) {
            continue;
        }
        if (!lt->fused) {
            MOE_TRY(activate(lt, expert, on, err));
        }
        MOE_TRY(moe_lt_plan_run(blas, lt->second[i], &second, lane, on, err));
    }
    MOE_TRY(moe_blas_join(blas, stream, lanes, err));
    if (!lt->joined) {
        return MOE_OK;
    }
    MOE_TRY(activate(lt, ALL, stream, err));
    MOE_TRY(moe_blas_fork(blas, stream, lanes, err));
    for (int32_t i = 0; i < lt->active_count; i++) {
        const uint32_t lane = (uint32_t) i % lanes;
        const struct moe_lt_operands second = second_operands(lt, set, lt->order[i]);
        MOE_TRY(moe_lt_plan_run(blas, lt->second[i], &second, lane,
                                lane == 0 ? stream : blas->lanes[lane], err));
    }
    return moe_blas_join(blas, stream, lanes, err);
}

/* Most rows first, so that the long products do not begin last; ties by expert. */
static void make_order(struct lt_expert *lt)
{
    for (int32_t expert = 0; expert < lt->kase->data->shape.expert_count; expert++) {
        const int32_t rows = row_count(lt->kase, expert);
        if (rows == 0) {
            continue;
        }
        int32_t place = lt->active_count++;
        for (; place > 0 && row_count(lt->kase, lt->order[place - 1]) < rows; place--) {
            lt->order[place] = lt->order[place - 1];
        }
        lt->order[place] = expert;
    }
}

/* Experts of equal rows share their plans; some of them are the samples to try it on. */
static enum moe_status make_plans(struct lt_expert *lt, void *stream, struct moe_error *err)
{
    const struct moe_expert_ffn_shape *shape = &lt->kase->data->shape;
    for (int32_t i = 0; i < lt->active_count; i++) {
        const int32_t rows = row_count(lt->kase, lt->order[i]);
        if (i > 0 && row_count(lt->kase, lt->order[i - 1]) == rows) {
            lt->first[i] = lt->first[i - 1];
            lt->second[i] = lt->second[i - 1];
            continue;
        }
        struct moe_lt_operands first[SAMPLE_LIMIT];
        struct moe_lt_operands second[SAMPLE_LIMIT];
        uint32_t samples = 0;
        for (int32_t j = i; j < lt->active_count && samples < SAMPLE_LIMIT; j++) {
            if (row_count(lt->kase, lt->order[j]) == rows) {
                first[samples] = first_operands(lt, 0, lt->order[j]);
                second[samples++] = second_operands(lt, 0, lt->order[j]);
            }
        }
        const struct moe_lt_problem problem = { .columns = shape->inter * lt->matrix_count,
                                                .rows = rows,
                                                .depth = shape->hidden,
                                                .batch_count = 1,
                                                .precision = (int32_t) lt->precision,
                                                .relu = lt->fused };
        const struct moe_lt_problem back = { .columns = shape->hidden,
                                             .rows = rows,
                                             .depth = shape->inter,
                                             .batch_count = 1,
                                             .precision = (int32_t) lt->precision };
        MOE_TRY(moe_lt_plan_find(lt->blas, &problem, first, samples, stream, &lt->first[i], err));
        MOE_TRY(moe_lt_plan_find(lt->blas, &back, second, samples, stream, &lt->second[i], err));
    }
    return MOE_OK;
}

static enum moe_status choose_lanes(struct lt_expert *lt, struct moe_graph_timer *timer,
                                    struct moe_error *err)
{
    float best_us = INFINITY;
    uint32_t best_lanes = 1;
    bool best_joined = false;
    for (int joined = 0; joined <= (lt->fused || lt->precision == MOE_LT_FP8_BLOCK ? 0 : 1);
         joined++) {
        for (uint32_t lanes = 1; lanes <= MOE_BLAS_LANE_LIMIT; lanes *= 2) {
            float us = 0.0F;
            if (lanes > (uint32_t) lt->active_count) {
                break;
            }
            lt->joined = joined == 1;
            lt->lane_count = lanes;
            MOE_TRY(moe_graph_probe(timer, lt_run, lt, &us, err));
            if (us < best_us) {
                best_us = us;
                best_lanes = lanes;
                best_joined = lt->joined;
            }
        }
    }
    lt->lane_count = best_lanes;
    lt->joined = best_joined;
    (void) snprintf(lt->text, sizeof lt->text, "%u stream%s%s", best_lanes,
                    best_lanes == 1 ? "" : "s",
                    lt->fused ? "" : (best_joined ? ", one activation" : ", an activation each"));
    return MOE_OK;
}

static void lt_destroy(void *state)
{
    struct lt_expert *lt = state;
    moe_lt_scales_finish(&lt->scales);
    free(lt); /* the plans are the cache's */
}

static enum moe_status lt_create(const struct moe_expert_tools *tools,
                                 const struct moe_expert_case *kase,
                                 enum moe_lt_precision precision, void **state,
                                 struct moe_error *err)
{
    struct lt_expert *lt = calloc(1, sizeof *lt);
    enum moe_status status = MOE_OK;
    if (lt == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a backend");
    }
    void *stream = moe_graph_timer_stream(tools->timer);
    lt->kase = kase;
    lt->blas = tools->blas;
    lt->precision = precision;
    lt->cell = moe_expert_cell_bytes(&kase->data->shape);
    lt->matrix_count = moe_expert_ffn_w1_matrix_count(kase->data->shape.activation);
    lt->fused = precision == MOE_LT_BF16 && kase->data->shape.activation == MOE_EXPERT_RELU;
    make_order(lt);
    if (precision == MOE_LT_FP8_BLOCK) {
        status = moe_lt_scales_init(&lt->scales, kase, err);
    }
    if (status == MOE_OK) {
        status = make_plans(lt, stream, err);
    }
    if (status == MOE_OK) {
        /* Once outside of any capture, so that every kernel is loaded. */
        lt->lane_count = 1;
        status = lt_run(lt, 0, stream, err);
    }
    if (status == MOE_OK) {
        status = choose_lanes(lt, tools->timer, err);
    }
    if (status != MOE_OK) {
        (void) cudaStreamSynchronize(stream);
        lt_destroy(lt);
        return status;
    }
    *state = lt;
    return MOE_OK;
}

static const char *lt_describe(void *state)
{
    return ((const struct lt_expert *) state)->text;
}

static enum moe_status create_bf16(const struct moe_expert_tools *tools,
                                   const struct moe_expert_case *kase, void **state,
                                   struct moe_error *err)
{
    return lt_create(tools, kase, MOE_LT_BF16, state, err);
}

static enum moe_status create_row(const struct moe_expert_tools *tools,
                                  const struct moe_expert_case *kase, void **state,
                                  struct moe_error *err)
{
    return lt_create(tools, kase, MOE_LT_FP8_ROW, state, err);
}

static enum moe_status create_block(const struct moe_expert_tools *tools,
                                    const struct moe_expert_case *kase, void **state,
                                    struct moe_error *err)
{
    return lt_create(tools, kase, MOE_LT_FP8_BLOCK, state, err);
}

static const char *refuse_block(const struct moe_expert_case *kase)
{
    return moe_lt_scales_refusal(&kase->data->shape);
}

const struct moe_expert_backend moe_expert_backend_lt_expert = {
    .name = "lt-expert",
    .help = "cuBLASLt, one product per expert, over 1 to 16 streams",
    .is_library = true,
    .chosen = true,
    .dtype = MOE_EXPERT_BF16,
    .create = create_bf16,
    .run = lt_run,
    .describe = lt_describe,
    .destroy = lt_destroy,
};

const struct moe_expert_backend moe_expert_backend_lt_expert_row = {
    .name = "lt-fp8-row",
    .help = "the same in fp8 with a scale per row",
    .is_library = true,
    .chosen = true,
    .dtype = MOE_EXPERT_FP8,
    .scaling = MOE_EXPERT_SCALING_ROW,
    .create = create_row,
    .run = lt_run,
    .describe = lt_describe,
    .destroy = lt_destroy,
};

const struct moe_expert_backend moe_expert_backend_lt_expert_block = {
    .name = "lt-fp8-block",
    .help = "the same in fp8 with scales by block (1 x 128 and 128 x 128)",
    .is_library = true,
    .chosen = true,
    .dtype = MOE_EXPERT_FP8,
    .scaling = MOE_EXPERT_SCALING_BLOCK,
    .refuse = refuse_block,
    .create = create_block,
    .run = lt_run,
    .describe = lt_describe,
    .destroy = lt_destroy,
};

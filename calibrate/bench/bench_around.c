#include "calibrate/bench/bench_around.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/bench/move_contest.h"
#include "calibrate/device/device.h"
#include "kernels/memory/random_fill.h"
#include "kernels/route/gate.h"
#include "kernels/route/permute.h"
#include "sim/base/random.h"

enum { EXPERT_LIMIT = 1024, VERSION_LIMIT = 4, OWNED_LIMIT = 20 };

static const double BUDGET_S = 0.1;

/* Operands of all kernels at one size. */
struct around {
    struct moe_permute_shape shape;
    int32_t rows; /* tokens * top_k */
    int32_t token_stride;
    int32_t row_stride; /* of scales */
    int32_t *ids_dev;
    int32_t *row_offset_dev;
    int32_t *position_dev;
    int32_t *row_source_dev;
    void *workspace_dev;
    void *x_dev;
    void *rows_dev;
    void *out_dev;
    void *x8_dev;
    void *rows8_dev;
    float *x_scale_dev;
    float *row_scale_dev;
    float *weight_dev;
    float *logits_dev;
    float *bias_dev;
    int32_t *chosen_dev;
    float *chosen_weight_dev;
    void *owned[OWNED_LIMIT];
    uint32_t owned_count;
};

enum kernel { PLAN, PERMUTE_BF16, PERMUTE_FP8, COMBINE, QUANTISE, GATE_SOFTMAX, GATE_GROUPS };

struct around_work {
    const struct around *around;
    enum kernel kernel;
    int version;
};

static int64_t blocks(int32_t columns)
{
    return (columns + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
}

static enum moe_status take(struct around *around, int64_t bytes, void *target,
                            struct moe_error *err)
{
    void **slot = target;
    assert(around->owned_count < OWNED_LIMIT);
    MOE_TRY(moe_device_check((int) cudaMalloc(slot, (size_t) bytes), "cudaMalloc", err));
    around->owned[around->owned_count++] = *slot;
    return MOE_OK;
}

static void around_finish(struct around *around)
{
    for (uint32_t i = 0; i < around->owned_count; i++) {
        (void) cudaFree(around->owned[i]);
    }
}

/* top_k different experts per token. */
static enum moe_status make_ids(struct around *around, uint64_t seed, struct moe_error *err)
{
    const int32_t experts = around->shape.expert_count;
    const int32_t top_k = around->shape.top_k;
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    uint64_t draw = 0;
    int32_t deck[EXPERT_LIMIT] = { 0 };
    int32_t *ids = malloc((size_t) around->rows * sizeof *ids);
    if (ids == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %d ids", (int) around->rows);
    }
    for (int32_t e = 0; e < experts; e++) {
        deck[e] = e;
    }
    for (int32_t token = 0; token < around->shape.token_count; token++) {
        for (int32_t k = 0; k < top_k; k++) {
            const int32_t j = k + (int32_t) moe_random_below(key, draw++, (uint64_t) (experts - k));
            const int32_t moved = deck[k];
            deck[k] = deck[j];
            deck[j] = moved;
            ids[token * top_k + k] = deck[k];
        }
    }
    const enum moe_status status =
        moe_device_check((int) cudaMemcpy(around->ids_dev, ids, (size_t) around->rows * sizeof *ids,
                                          cudaMemcpyHostToDevice),
                         "cudaMemcpy of ids", err);
    free(ids);
    return status;
}

static enum moe_status take_all(struct around *around, struct moe_error *err)
{
    const int64_t tokens = around->shape.token_count;
    const int64_t hidden = around->shape.hidden;
    const int64_t experts = around->shape.expert_count;
    const int64_t rows = around->rows;
    const struct {
        void *target;
        int64_t bytes;
    } wanted[] = {
        { &around->ids_dev, rows * 4 },
        { &around->row_offset_dev, (experts + 1) * 4 },
        { &around->position_dev, rows * 4 },
        { &around->row_source_dev, rows * 4 },
        { &around->workspace_dev, (int64_t) moe_permute_workspace_bytes(&around->shape) },
        { &around->x_dev, tokens * hidden * 2 },
        { &around->rows_dev, rows * hidden * 2 },
        { &around->out_dev, tokens * hidden * 2 },
        { &around->x8_dev, tokens * hidden },
        { &around->rows8_dev, rows * hidden },
        { &around->x_scale_dev, blocks(around->shape.hidden) * around->token_stride * 4 },
        { &around->row_scale_dev, blocks(around->shape.hidden) * around->row_stride * 4 },
        { &around->weight_dev, rows * 4 },
        { &around->logits_dev, tokens * experts * 4 },
        { &around->bias_dev, experts * 4 },
        { &around->chosen_dev, rows * 4 },
        { &around->chosen_weight_dev, rows * 4 },
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        /* An empty workspace still gets a pointer. */
        MOE_TRY(take(around, wanted[i].bytes < 16 ? 16 : wanted[i].bytes, wanted[i].target, err));
    }
    return MOE_OK;
}

static enum moe_status fill_all(struct around *around, uint64_t seed, struct moe_error *err)
{
    const int64_t tokens = around->shape.token_count;
    const int64_t hidden = around->shape.hidden;
    const int64_t experts = around->shape.expert_count;
    const int codes[] = {
        moe_kernel_fill_bf16(around->x_dev, tokens * hidden, 1.0F, 1, NULL),
        moe_kernel_fill_bf16(around->rows_dev, (int64_t) around->rows * hidden, 1.0F, 2, NULL),
        moe_kernel_fill_e4m3(around->x8_dev, tokens * hidden, 128.0F, 3, NULL),
        moe_kernel_fill_f32(around->x_scale_dev,
                            blocks(around->shape.hidden) * around->token_stride, 0.005F, 0.01F, 4,
                            NULL),
        moe_kernel_fill_f32(around->weight_dev, around->rows, 0.05F, 0.2F, 5, NULL),
        moe_kernel_fill_f32(around->logits_dev, tokens * experts, -4.0F, 4.0F, 6, NULL),
        moe_kernel_fill_f32(around->bias_dev, experts, -0.1F, 0.1F, 7, NULL),
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        MOE_TRY(moe_device_check(codes[i], "filling", err));
    }
    MOE_TRY(make_ids(around, seed, err));
    MOE_TRY(moe_device_check(moe_permute_plan(&around->shape, around->ids_dev,
                                              around->row_offset_dev, around->position_dev,
                                              around->row_source_dev, around->workspace_dev, NULL),
                             "moe_permute_plan", err));
    return moe_device_check((int) cudaDeviceSynchronize(), "moe_permute_plan", err);
}

static int permute(const struct around *around, bool fp8, int version, void *stream)
{
    const struct moe_permute_operands operands = {
        .dtype = fp8 ? MOE_EXPERT_FP8 : MOE_EXPERT_BF16,
        .rows_dev = fp8 ? around->rows8_dev : around->rows_dev,
        .row_scale_dev = fp8 ? around->row_scale_dev : NULL,
        .row_scale_stride = fp8 ? around->row_stride : 0,
        .x_dev = fp8 ? around->x8_dev : around->x_dev,
        .x_scale_dev = fp8 ? around->x_scale_dev : NULL,
        .x_scale_stride = fp8 ? around->token_stride : 0,
        .position_dev = around->position_dev,
        .row_source_dev = around->row_source_dev,
        .row_offset_dev = around->row_offset_dev,
    };
    return moe_permute_rows(&around->shape, &operands, version, stream);
}

static int gate(const struct around *around, bool groups, int version, void *stream)
{
    const struct moe_gate gate = {
        .expert_count = around->shape.expert_count,
        .top_k = around->shape.top_k,
        .group_count = groups ? 8 : 1,
        .group_keep = groups ? 4 : 1,
        .score = groups ? MOE_GATE_SIGMOID : MOE_GATE_SOFTMAX,
        .group = MOE_GATE_GROUP_BEST_TWO,
        .renormalise = 1,
        .scale = groups ? 2.5F : 1.0F,
    };
    return moe_gate_choose(&gate, around->shape.token_count, around->chosen_dev,
                           around->chosen_weight_dev, around->logits_dev,
                           groups ? around->bias_dev : NULL, version, stream);
}

static enum moe_status around_launch(void *context, uint32_t set, void *stream,
                                     struct moe_error *err)
{
    const struct around_work *work = context;
    const struct around *a = work->around;
    int code = 0;
    (void) set;
    switch (work->kernel) {
    case PLAN:
        code = moe_permute_plan(&a->shape, a->ids_dev, a->row_offset_dev, a->position_dev,
                                a->row_source_dev, a->workspace_dev, stream);
        break;
    case PERMUTE_BF16:
    case PERMUTE_FP8:
        code = permute(a, work->kernel == PERMUTE_FP8, work->version, stream);
        break;
    case COMBINE:
        code = moe_combine_rows(&a->shape, a->out_dev, a->rows_dev, a->position_dev, a->weight_dev,
                                work->version, stream);
        break;
    case QUANTISE:
        code = moe_quantise_rows(a->shape.token_count, a->shape.hidden, a->x8_dev, a->x_scale_dev,
                                 a->token_stride, a->x_dev, work->version, stream);
        break;
    case GATE_SOFTMAX:
    case GATE_GROUPS:
        code = gate(a, work->kernel == GATE_GROUPS, work->version, stream);
        break;
    }
    return moe_device_check(code, "launch", err);
}

/* Versions 1 .. version_count of one kernel. */
static enum moe_status measure(struct moe_graph_timer *timer, const struct around *around,
                               enum kernel kernel, const char *name, int version_count,
                               double bytes, struct moe_bench_moves *moves, struct moe_error *err)
{
    struct around_work works[VERSION_LIMIT];
    struct moe_move_variant variants[VERSION_LIMIT] = { 0 };
    char size[64];
    assert(version_count <= VERSION_LIMIT);
    (void) snprintf(size, sizeof size, "%d tokens x %d, top %d of %d",
                    (int) around->shape.token_count, (int) around->shape.hidden,
                    (int) around->shape.top_k, (int) around->shape.expert_count);
    for (int i = 0; i < version_count; i++) {
        works[i] = (struct around_work){ .around = around, .kernel = kernel, .version = i + 1 };
        variants[i].context = &works[i];
        (void) snprintf(variants[i].name, sizeof variants[i].name, "v%d", i + 1);
    }
    const struct moe_move_family family = {
        .name = name,
        .size = size,
        .bytes = bytes,
        .tokens = around->shape.token_count,
        .launch = around_launch,
        .variants = variants,
        .variant_count = (uint32_t) version_count,
    };
    return moe_move_contest(timer, &family, BUDGET_S, (uint64_t) kernel, moves, err);
}

static enum moe_status measure_all(struct moe_graph_timer *timer, const struct around *around,
                                   struct moe_bench_moves *moves, struct moe_error *err)
{
    const double tokens = (double) around->shape.token_count;
    const double rows = (double) around->rows;
    const double hidden = (double) around->shape.hidden;
    const double row8 = hidden + 4.0 * (double) blocks(around->shape.hidden);
    const double gate_bytes =
        tokens * (4.0 * (double) around->shape.expert_count + 8.0 * (double) around->shape.top_k);
    const struct {
        enum kernel kernel;
        const char *name;
        int versions;
        double bytes;
    } kernels[] = {
        { PLAN, "permute plan", 1, 12.0 * rows },
        { PERMUTE_BF16, "permute bf16", MOE_PERMUTE_VERSION_COUNT, 2.0 * hidden * (tokens + rows) },
        { PERMUTE_FP8, "permute fp8", MOE_PERMUTE_VERSION_COUNT, row8 * (tokens + rows) },
        { COMBINE, "combine", MOE_COMBINE_VERSION_COUNT, 2.0 * hidden * (tokens + rows) },
        { QUANTISE, "quantise", MOE_QUANTISE_VERSION_COUNT, tokens * (2.0 * hidden + row8) },
        { GATE_SOFTMAX, "gate softmax", MOE_GATE_VERSION_COUNT, gate_bytes },
        { GATE_GROUPS, "gate sigmoid 4 of 8", MOE_GATE_VERSION_COUNT, gate_bytes },
    };
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        MOE_TRY(measure(timer, around, kernels[i].kernel, kernels[i].name, kernels[i].versions,
                        kernels[i].bytes, moves, err));
    }
    return MOE_OK;
}

enum moe_status moe_bench_around_measure(struct moe_graph_timer *timer,
                                         const struct moe_bench_route *route, uint64_t seed,
                                         struct moe_bench_moves *moves, struct moe_error *err)
{
    assert(route->expert_count <= EXPERT_LIMIT);
    assert(route->top_k <= route->expert_count);
    struct around around = {
        .shape = { .token_count = route->tokens,
                   .top_k = route->top_k,
                   .expert_count = route->expert_count,
                   .hidden = route->hidden },
        .rows = route->tokens * route->top_k,
        .token_stride = (route->tokens + 3) / 4 * 4,
        .row_stride = (route->tokens * route->top_k + 3) / 4 * 4,
    };
    enum moe_status status = take_all(&around, err);
    if (status == MOE_OK) {
        status = fill_all(&around, seed, err);
    }
    if (status == MOE_OK) {
        status = measure_all(timer, &around, moves, err);
    }
    if (!moe_graph_timer_stuck(timer)) {
        around_finish(&around);
    }
    return status;
}

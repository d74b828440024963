/* What stands around the experts: permute, combine and the gate, each by its fastest version. */
#include <assert.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/device/device.h"
#include "calibrate/measure/measure_work.h"
#include "kernels/memory/random_fill.h"
#include "kernels/reference/reference_number.h"
#include "kernels/route/gate.h"
#include "kernels/route/permute.h"
#include "sim/base/random.h"

enum { EXPERT_LIMIT = 1024, CHECKED_TOKENS = 3 };

struct route {
    struct moe_measure_tools tools;
    enum moe_measure_kind kind;
    enum moe_expert_dtype dtype;
    struct moe_permute_shape shape; /* token_count: of the point that is set */
    struct moe_gate gate;
    int32_t token_capacity;
    int32_t row_stride;
    struct moe_measure_buffers buffers;
    int32_t *ids_dev;
    int32_t *row_offset_dev;
    int32_t *position_dev;
    int32_t *row_source_dev;
    void *workspace_dev;
    char *x_dev;    /* permute: tokens in; combine: tokens out */
    char *rows_dev; /* permute: rows out; combine: rows in */
    float *x_scale_dev;
    float *row_scale_dev;
    float *weight_dev;
    float *logits_dev;
    float *bias_dev;
};

static size_t row_bytes(const struct route *route)
{
    return (size_t) route->shape.hidden * (route->dtype == MOE_EXPERT_BF16 ? 2 : 1);
}

/* top_k different experts per token. */
static enum moe_status make_ids(struct route *route, struct moe_error *err)
{
    const int32_t experts = route->shape.expert_count;
    const int32_t top_k = route->shape.top_k;
    const uint64_t key = moe_random_key(route->tools.seed, MOE_RANDOM_TEST);
    const size_t count = (size_t) route->token_capacity * (size_t) top_k;
    uint64_t draw = 0;
    int32_t deck[EXPERT_LIMIT] = { 0 };
    int32_t *ids = malloc(count * sizeof *ids);
    if (ids == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %zu ids", count);
    }
    for (int32_t e = 0; e < experts; e++) {
        deck[e] = e;
    }
    for (size_t i = 0; i < count; i++) {
        const int32_t k = (int32_t) (i % (size_t) top_k);
        const int32_t j = k + (int32_t) moe_random_below(key, draw++, (uint64_t) (experts - k));
        const int32_t moved = deck[k];
        deck[k] = deck[j];
        deck[j] = moved;
        ids[i] = deck[k];
    }
    const enum moe_status status = moe_device_check(
        (int) cudaMemcpy(route->ids_dev, ids, count * sizeof *ids, cudaMemcpyHostToDevice),
        "cudaMemcpy of ids", err);
    free(ids);
    return status;
}

static enum moe_status take_gate(struct route *route, struct moe_error *err)
{
    const double tokens = (double) route->token_capacity;
    const double experts = (double) route->shape.expert_count;
    MOE_TRY(moe_measure_take(&route->buffers, tokens * experts * 4.0, &route->logits_dev, err));
    MOE_TRY(moe_measure_take(&route->buffers, experts * 4.0, &route->bias_dev, err));
    MOE_TRY(moe_device_check(
        moe_kernel_fill_f32(route->logits_dev, (int64_t) (tokens * experts), -4.0F, 4.0F, 6, NULL),
        "filling", err));
    return moe_device_check(
        moe_kernel_fill_f32(route->bias_dev, (int64_t) experts, -0.1F, 0.1F, 7, NULL), "filling",
        err);
}

static enum moe_status take_rows(struct route *route, struct moe_error *err)
{
    const double tokens = (double) route->token_capacity;
    const double rows = tokens * (double) route->shape.top_k;
    const double hidden = (double) route->shape.hidden;
    const double blocks = ceil(hidden / MOE_EXPERT_SCALE_BLOCK);
    const double stride = (double) route->row_stride;
    void *in = NULL;
    const bool permute = route->kind == MOE_MEASURE_PERMUTE;
    const int64_t in_cells = (int64_t) (hidden * (permute ? tokens : rows));
    MOE_TRY(moe_measure_take(&route->buffers, tokens * hidden * 2.0, &route->x_dev, err));
    MOE_TRY(moe_measure_take(&route->buffers, rows * hidden * 2.0, &route->rows_dev, err));
    MOE_TRY(
        moe_measure_take(&route->buffers, blocks * (tokens + 4.0) * 4.0, &route->x_scale_dev, err));
    MOE_TRY(moe_measure_take(&route->buffers, blocks * stride * 4.0, &route->row_scale_dev, err));
    in = permute ? route->x_dev : route->rows_dev;
    const int code = route->dtype == MOE_EXPERT_BF16
                         ? moe_kernel_fill_bf16(in, in_cells, 1.0F, 1, NULL)
                         : moe_kernel_fill_e4m3(in, in_cells, 128.0F, 1, NULL);
    MOE_TRY(moe_device_check(code, "filling", err));
    MOE_TRY(moe_device_check(moe_kernel_fill_f32(route->x_scale_dev,
                                                 (int64_t) (blocks * (tokens + 4.0)), 0.005F, 0.01F,
                                                 4, NULL),
                             "filling", err));
    return moe_device_check(
        moe_kernel_fill_f32(route->weight_dev, (int64_t) rows, 0.05F, 0.2F, 5, NULL), "filling",
        err);
}

static enum moe_status take_all(struct route *route, struct moe_error *err)
{
    struct moe_permute_shape largest = route->shape;
    largest.token_count = route->token_capacity;
    const double rows = (double) route->token_capacity * (double) route->shape.top_k;
    const double experts = (double) route->shape.expert_count;
    MOE_TRY(moe_measure_take(&route->buffers, rows * 4.0, &route->ids_dev, err));
    MOE_TRY(moe_measure_take(&route->buffers, rows * 4.0, &route->weight_dev, err));
    if (route->kind == MOE_MEASURE_GATE) {
        MOE_TRY(take_gate(route, err));
        return moe_device_check((int) cudaDeviceSynchronize(), "filling", err);
    }
    MOE_TRY(moe_measure_take(&route->buffers, (experts + 1.0) * 4.0, &route->row_offset_dev, err));
    MOE_TRY(moe_measure_take(&route->buffers, rows * 4.0, &route->position_dev, err));
    MOE_TRY(moe_measure_take(&route->buffers, rows * 4.0, &route->row_source_dev, err));
    MOE_TRY(moe_measure_take(&route->buffers, (double) moe_permute_workspace_bytes(&largest),
                             &route->workspace_dev, err));
    MOE_TRY(take_rows(route, err));
    MOE_TRY(make_ids(route, err));
    return moe_device_check((int) cudaDeviceSynchronize(), "filling", err);
}

static void route_close(void *state)
{
    struct route *route = state;
    moe_measure_give(&route->buffers);
    free(route);
}

static enum moe_status route_open(const struct moe_measure_tools *tools,
                                  const struct moe_measure_series *series,
                                  const struct moe_measure_extent *extent, void **state,
                                  struct moe_error *err)
{
    const int32_t capacity = (int32_t) extent->tokens;
    const bool groups = series->groups > 1;
    struct route *route = calloc(1, sizeof *route);
    if (route == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a series");
    }
    *route = (struct route){
        .tools = *tools,
        .kind = series->kind,
        .dtype = series->dtype,
        .shape = { .top_k = series->top_k,
                   .expert_count = series->units,
                   .hidden = series->hidden },
        .gate = { .expert_count = series->units,
                  .top_k = series->top_k,
                  .group_count = series->groups,
                  .group_keep = series->group_limit,
                  .score = groups ? MOE_GATE_SIGMOID : MOE_GATE_SOFTMAX,
                  .group = MOE_GATE_GROUP_BEST_TWO,
                  .renormalise = 1,
                  .scale = 1.0F },
        .token_capacity = capacity,
        .row_stride = (capacity * series->top_k + 3) / 4 * 4,
    };
    const enum moe_status status = take_all(route, err);
    if (status != MOE_OK) {
        route_close(route);
        return status;
    }
    *state = route;
    return MOE_OK;
}

/* The newest version of a kernel that this GPU takes. */
static int launch_permute(const struct route *route, void *stream)
{
    const bool fp8 = route->dtype == MOE_EXPERT_FP8;
    const struct moe_permute_operands operands = {
        .dtype = route->dtype,
        .rows_dev = route->rows_dev,
        .row_scale_dev = fp8 ? route->row_scale_dev : NULL,
        .row_scale_stride = fp8 ? route->row_stride : 0,
        .x_dev = route->x_dev,
        .x_scale_dev = fp8 ? route->x_scale_dev : NULL,
        .x_scale_stride = fp8 ? (route->shape.token_count + 3) / 4 * 4 : 0,
        .position_dev = route->position_dev,
        .row_source_dev = route->row_source_dev,
        .row_offset_dev = route->row_offset_dev,
    };
    int code = (int) cudaErrorNotSupported;
    for (int version = MOE_PERMUTE_VERSION_COUNT;
         version >= 1 && code == (int) cudaErrorNotSupported; version--) {
        code = moe_permute_rows(&route->shape, &operands, version, stream);
    }
    return code;
}

static enum moe_status route_launch(void *context, uint32_t set, void *stream,
                                    struct moe_error *err)
{
    const struct route *route = context;
    int code = 0;
    (void) set;
    if (route->kind == MOE_MEASURE_PERMUTE) {
        code = launch_permute(route, stream);
    } else if (route->kind == MOE_MEASURE_COMBINE) {
        code = moe_combine_rows(&route->shape, route->x_dev, route->rows_dev, route->position_dev,
                                route->weight_dev, MOE_COMBINE_VERSION_COUNT, stream);
    } else {
        code = moe_gate_choose(&route->gate, route->shape.token_count, route->ids_dev,
                               route->weight_dev, route->logits_dev,
                               route->gate.group_count > 1 ? route->bias_dev : NULL,
                               MOE_GATE_VERSION_COUNT, stream);
    }
    return moe_device_check(code, "launch", err);
}

static enum moe_status route_set(void *state, const struct moe_measure_point *point,
                                 struct moe_measure_launch *out, struct moe_error *err)
{
    struct route *route = state;
    route->shape.token_count = (int32_t) point->tokens;
    *out = (struct moe_measure_launch){ .launch = route_launch, .context = route, .set_count = 1 };
    if (route->kind == MOE_MEASURE_GATE) {
        return MOE_OK;
    }
    MOE_TRY(moe_device_check(moe_permute_plan(&route->shape, route->ids_dev, route->row_offset_dev,
                                              route->position_dev, route->row_source_dev,
                                              route->workspace_dev, NULL),
                             "moe_permute_plan", err));
    return moe_device_check((int) cudaDeviceSynchronize(), "moe_permute_plan", err);
}

static enum moe_status route_poison(void *state, const struct moe_measure_point *point,
                                    struct moe_error *err)
{
    const struct route *route = state;
    const size_t tokens = (size_t) point->tokens;
    const size_t rows = tokens * (size_t) route->shape.top_k;
    void *target = route->kind == MOE_MEASURE_PERMUTE   ? (void *) route->rows_dev
                   : route->kind == MOE_MEASURE_COMBINE ? (void *) route->x_dev
                                                        : (void *) route->weight_dev;
    const size_t bytes = route->kind == MOE_MEASURE_PERMUTE   ? rows * row_bytes(route)
                         : route->kind == MOE_MEASURE_COMBINE ? tokens * row_bytes(route)
                                                              : rows * sizeof(float);
    MOE_TRY(moe_device_check((int) cudaMemset(target, 0xff, bytes), "cudaMemset", err));
    return moe_device_check((int) cudaDeviceSynchronize(), "cudaMemset", err);
}

static enum moe_status fetch(void *to, const void *from_dev, size_t bytes, struct moe_error *err)
{
    return moe_device_check((int) cudaMemcpy(to, from_dev, bytes, cudaMemcpyDeviceToHost),
                            "cudaMemcpy", err);
}

/* One token's place in scratch of 3 * top_k numbers and 2 rows. */
struct token_check {
    int32_t position[32];
    float weight[32];
    unsigned char *token;
    unsigned char *row;
    double *sum;
};

/* Adds to sums the square of the distance and of the length of what this token has. */
static enum moe_status check_token(const struct route *route, size_t token,
                                   struct token_check *check, double sums[2], struct moe_error *err)
{
    const size_t top_k = (size_t) route->shape.top_k;
    const size_t bytes = row_bytes(route);
    const size_t hidden = (size_t) route->shape.hidden;
    MOE_TRY(fetch(check->position, route->position_dev + token * top_k, top_k * 4, err));
    MOE_TRY(fetch(check->weight, route->weight_dev + token * top_k, top_k * 4, err));
    MOE_TRY(fetch(check->token, route->x_dev + token * bytes, bytes, err));
    memset(check->sum, 0, hidden * sizeof *check->sum);
    for (size_t k = 0; k < top_k; k++) {
        const size_t row = (size_t) check->position[k];
        MOE_TRY(fetch(check->row, route->rows_dev + row * bytes, bytes, err));
        if (route->kind == MOE_MEASURE_PERMUTE) {
            sums[0] += memcmp(check->row, check->token, bytes) == 0 ? 0.0 : 1.0;
            sums[1] += 1.0;
            continue;
        }
        for (size_t i = 0; i < hidden; i++) {
            uint16_t bits = 0;
            memcpy(&bits, check->row + 2 * i, 2);
            check->sum[i] += (double) check->weight[k] * (double) moe_float_from_bf16(bits);
        }
    }
    for (size_t i = 0; route->kind == MOE_MEASURE_COMBINE && i < hidden; i++) {
        uint16_t bits = 0;
        memcpy(&bits, check->token + 2 * i, 2);
        const double apart = (double) moe_float_from_bf16(bits) - check->sum[i];
        sums[0] += apart * apart;
        sums[1] += check->sum[i] * check->sum[i];
    }
    return MOE_OK;
}

/* The weights of a token add up to 1: they are renormalised. */
static enum moe_status check_gate(const struct route *route, size_t token, double sums[2],
                                  struct moe_error *err)
{
    float weight[32];
    const size_t top_k = (size_t) route->shape.top_k;
    double sum = 0.0;
    MOE_TRY(fetch(weight, route->weight_dev + token * top_k, top_k * sizeof *weight, err));
    for (size_t k = 0; k < top_k; k++) {
        sum += (double) weight[k];
    }
    sums[0] += (sum - 1.0) * (sum - 1.0);
    sums[1] += 1.0;
    return MOE_OK;
}

static enum moe_status route_judge(void *state, const struct moe_measure_point *point,
                                   struct moe_measure_verdict *out, struct moe_error *err)
{
    const struct route *route = state;
    const size_t last = (size_t) point->tokens - 1;
    const size_t tokens[CHECKED_TOKENS] = { 0, last / 2, last };
    const size_t hidden = (size_t) (route->shape.hidden < 1 ? 1 : route->shape.hidden);
    struct token_check check;
    double sums[2] = { 0.0, 0.0 };
    assert(route->shape.top_k <= 32);
    check.sum = calloc(hidden * 2, sizeof *check.sum);
    if (check.sum == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a comparison");
    }
    check.token = (unsigned char *) (check.sum + hidden);
    check.row = check.token + hidden * 2;
    enum moe_status status = MOE_OK;
    for (int i = 0; status == MOE_OK && i < CHECKED_TOKENS; i++) {
        status = route->kind == MOE_MEASURE_GATE ? check_gate(route, tokens[i], sums, err)
                                                 : check_token(route, tokens[i], &check, sums, err);
    }
    free(check.sum);
    if (status != MOE_OK) {
        return status;
    }
    out->error = sqrt(sums[0] / fmax(sums[1], 1e-30));
    out->wrong = !(out->error <= 1e-2);
    (void) snprintf(out->why, sizeof out->why, "relative error %.2e over %d tokens", out->error,
                    CHECKED_TOKENS);
    return MOE_OK;
}

const struct moe_measure_work moe_measure_work_route = {
    .open = route_open,
    .set = route_set,
    .poison = route_poison,
    .judge = route_judge,
    .close = route_close,
};

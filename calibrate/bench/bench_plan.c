#include "calibrate/bench/bench_plan.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/base/random.h"

/* What the bars of the kernels are set on. */
static const struct moe_bench_shape LARGE = { 7168, 2048, 32, MOE_EXPERT_SWIGLU };
enum { SMALL_EXPERT_CELLS = 3 << 20, SMALL_TOKENS_MAX = 16 };

const char *moe_expert_dtype_name(enum moe_expert_dtype dtype)
{
    return dtype == MOE_EXPERT_BF16 ? "bf16" : "fp8";
}

const char *moe_expert_activation_name(enum moe_expert_activation activation)
{
    static const char *const names[] = { "swiglu", "relu", "gelu" };
    assert((size_t) activation < sizeof names / sizeof names[0]);
    return names[activation];
}

bool moe_bench_same_shape(const struct moe_expert_ffn_shape *a,
                          const struct moe_expert_ffn_shape *b)
{
    return a->hidden == b->hidden && a->inter == b->inter && a->expert_count == b->expert_count &&
           a->dtype == b->dtype && a->activation == b->activation;
}

bool moe_bench_is_large(const struct moe_expert_ffn_shape *shape)
{
    return shape->hidden == LARGE.hidden && shape->inter == LARGE.inter &&
           shape->expert_count == LARGE.expert_count && shape->activation == LARGE.activation;
}

bool moe_bench_is_small(const struct moe_expert_ffn_shape *shape)
{
    return (int64_t) shape->hidden * shape->inter <= SMALL_EXPERT_CELLS;
}

/* A number up to one of the characters of ends (the end of the text is always one). */
static enum moe_status parse_part(const char **text, const char *ends, const char *what,
                                  uint64_t min, uint64_t max, int32_t *out, struct moe_error *err)
{
    char part[16];
    uint64_t value = 0;
    const size_t length = strcspn(*text, ends);
    if (length >= sizeof part) {
        return moe_fail(err, MOE_RANGE, "%s: '%.40s' is no number from %llu to %llu", what, *text,
                        (unsigned long long) min, (unsigned long long) max);
    }
    memcpy(part, *text, length);
    part[length] = '\0';
    MOE_TRY(moe_parse_count(part, what, min, max, &value, err));
    *out = (int32_t) value;
    *text += length;
    return MOE_OK;
}

enum moe_status moe_bench_shape_parse(const char *text, struct moe_bench_shape *out,
                                      struct moe_error *err)
{
    struct moe_bench_shape shape = { .activation = MOE_EXPERT_SWIGLU };
    const char *at = text;
    MOE_TRY(parse_part(&at, "x:", "--shape: hidden size", 64, 65536, &shape.hidden, err));
    at += *at == 'x';
    MOE_TRY(parse_part(&at, "x:", "--shape: expert size", 64, 65536, &shape.inter, err));
    at += *at == 'x';
    MOE_TRY(parse_part(&at, ":", "--shape: experts", 1, MOE_EXPERT_COUNT_LIMIT, &shape.expert_count,
                       err));
    if (shape.hidden % 16 != 0 || shape.inter % 16 != 0) {
        return moe_fail(err, MOE_RANGE,
                        "--shape: %s: hidden and expert size must be multiples of 16", text);
    }
    if (*at == ':') {
        int activation = 0;
        while (activation < MOE_EXPERT_ACTIVATION_COUNT &&
               strcmp(at + 1,
                      moe_expert_activation_name((enum moe_expert_activation) activation)) != 0) {
            activation++;
        }
        if (activation == MOE_EXPERT_ACTIVATION_COUNT) {
            return moe_fail(err, MOE_RANGE,
                            "--shape: no activation '%s'; there are: swiglu relu gelu", at + 1);
        }
        shape.activation = (enum moe_expert_activation) activation;
    }
    *out = shape;
    return MOE_OK;
}

enum moe_status moe_bench_tokens_parse(const char *text, struct moe_bench_request *request,
                                       struct moe_error *err)
{
    int32_t tokens[MOE_BENCH_TOKENS_LIMIT];
    uint32_t count = 0;
    for (const char *at = text;; at++) {
        if (count == MOE_BENCH_TOKENS_LIMIT) {
            return moe_fail(err, MOE_RANGE, "--tokens: more than %d numbers",
                            MOE_BENCH_TOKENS_LIMIT);
        }
        MOE_TRY(parse_part(&at, ",", "--tokens", 1, 65536, &tokens[count++], err));
        if (*at == '\0') {
            break;
        }
    }
    memcpy(request->tokens, tokens, sizeof tokens);
    request->tokens_count = count;
    return MOE_OK;
}

enum moe_status moe_bench_route_parse(const char *text, struct moe_bench_route *out,
                                      struct moe_error *err)
{
    struct moe_bench_route route = { 0 };
    const char *at = text;
    MOE_TRY(parse_part(&at, "x", "--route: tokens", 1, 1 << 18, &route.tokens, err));
    at += *at == 'x';
    MOE_TRY(parse_part(&at, "x", "--route: hidden size", 64, 32768, &route.hidden, err));
    at += *at == 'x';
    MOE_TRY(parse_part(&at, "x", "--route: experts", 8, MOE_EXPERT_COUNT_LIMIT, &route.expert_count,
                       err));
    at += *at == 'x';
    MOE_TRY(parse_part(&at, "", "--route: choices", 1, 16, &route.top_k, err));
    if (route.hidden % 16 != 0 || route.expert_count % 8 != 0 ||
        route.top_k > route.expert_count / 2) {
        return moe_fail(err, MOE_RANGE,
                        "--route: %s: the hidden size must be a multiple of 16, the experts one of "
                        "8, the choices at most half of the experts",
                        text);
    }
    *out = route;
    return MOE_OK;
}

enum moe_status moe_bench_context_parse(const char *text, struct moe_bench_context *out,
                                        struct moe_error *err)
{
    struct moe_bench_context context = { 0 };
    const char *at = text;
    MOE_TRY(parse_part(&at, "x", "--context: sequences", 1, 4096, &context.sequences, err));
    at += *at == 'x';
    MOE_TRY(parse_part(&at, "", "--context: tokens", 1, 1 << 20, &context.tokens, err));
    if ((int64_t) context.sequences * context.tokens > 1 << 22) {
        return moe_fail(err, MOE_RANGE, "--context: %s: more than 4194304 tokens in all", text);
    }
    *out = context;
    return MOE_OK;
}

void moe_bench_request_default(struct moe_bench_request *request)
{
    static const struct moe_bench_shape shapes[] = {
        { 7168, 2048, 32, MOE_EXPERT_SWIGLU }, /* DeepSeek-V3, 8 GPUs */
        { 2048, 768, 128, MOE_EXPERT_SWIGLU }, /* Qwen3-30B */
        { 768, 3072, 128, MOE_EXPERT_RELU },   /* Switch-base */
        { 2048, 1408, 64, MOE_EXPERT_SWIGLU }, /* DeepSeek-V2-Lite */
        { 4096, 1536, 16, MOE_EXPERT_SWIGLU }, /* Qwen3-235B, 8 GPUs */
        { 5120, 8192, 16, MOE_EXPERT_SWIGLU }, /* Llama 4 Maverick, 8 GPUs */
        { 2880, 2880, 32, MOE_EXPERT_SWIGLU }, /* gpt-oss-120b, 4 GPUs */
        { 4096, 14336, 8, MOE_EXPERT_SWIGLU }, /* Mixtral 8x7B */
    };
    static const int32_t tokens[] = { 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1024 };
    *request = (struct moe_bench_request){ .shape_count = sizeof shapes / sizeof shapes[0],
                                           .tokens_count = sizeof tokens / sizeof tokens[0],
                                           .dtypes = { true, true },
                                           .histograms = { true, true, true, true },
                                           .seed = 1 };
    memcpy(request->shapes, shapes, sizeof shapes);
    memcpy(request->tokens, tokens, sizeof tokens);
}

/* 0 is measured first. */
static int importance(const struct moe_bench_row *row)
{
    const struct moe_expert_ffn_shape *shape = &row->shape;
    const bool large = moe_bench_is_large(shape);
    const bool small = moe_bench_is_small(shape) && row->rows_per_expert <= SMALL_TOKENS_MAX;
    if (row->histogram == MOE_ROW_UNIFORM) {
        if (large || (small && shape->dtype == MOE_EXPERT_BF16)) {
            return 0;
        }
        return shape->dtype == MOE_EXPERT_BF16 ? 2 : 3;
    }
    if (large && row->histogram == MOE_ROW_HOT8X && shape->dtype == MOE_EXPERT_BF16 &&
        row->rows_per_expert >= 64) {
        return 1;
    }
    return 4;
}

/* Fisher and Yates over [first, last). */
static void shuffle(struct moe_bench_row *rows, size_t first, size_t last, uint64_t seed)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    for (size_t i = last; i > first + 1; i--) {
        const size_t j = first + moe_random_below(key, i, i - first);
        const struct moe_bench_row moved = rows[i - 1];
        rows[i - 1] = rows[j];
        rows[j] = moved;
    }
}

static size_t add_points(const struct moe_bench_request *request, int wanted,
                         struct moe_bench_row *rows)
{
    size_t count = 0;
    for (uint32_t s = 0; s < request->shape_count; s++) {
        const struct moe_bench_shape *shape = &request->shapes[s];
        for (int dtype = 0; dtype < MOE_EXPERT_DTYPE_COUNT; dtype++) {
            for (int kind = 0; kind < MOE_ROW_HISTOGRAM_COUNT; kind++) {
                for (uint32_t t = 0; t < request->tokens_count; t++) {
                    rows[count] = (struct moe_bench_row){
                        .shape = { .hidden = shape->hidden,
                                   .inter = shape->inter,
                                   .expert_count = shape->expert_count,
                                   .dtype = (enum moe_expert_dtype) dtype,
                                   .activation = shape->activation },
                        .histogram = (enum moe_row_histogram) kind,
                        .rows_per_expert = request->tokens[t],
                    };
                    count +=
                        request->dtypes[dtype] && request->histograms[kind] &&
                        (int64_t) shape->expert_count * request->tokens[t] <= MOE_BENCH_ROW_LIMIT &&
                        importance(&rows[count]) == wanted;
                }
            }
        }
    }
    return count;
}

enum moe_status moe_bench_plan_make(const struct moe_bench_request *request,
                                    struct moe_bench_row **rows, size_t *row_count,
                                    struct moe_error *err)
{
    /* One more than there can be: a point is written before it is known to be wanted. */
    const size_t most = (size_t) request->shape_count * request->tokens_count *
                            MOE_EXPERT_DTYPE_COUNT * MOE_ROW_HISTOGRAM_COUNT +
                        1;
    struct moe_bench_row *made = calloc(most, sizeof *made);
    size_t count = 0;
    if (made == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %zu points", most);
    }
    for (int wanted = 0; wanted <= 4; wanted++) {
        const size_t first = count;
        count += add_points(request, wanted, made + count);
        shuffle(made, first, count, request->seed);
    }
    if (count == 0) {
        free(made);
        return moe_fail(err, MOE_RANGE,
                        "nothing to measure: every point has more than %d rows, or no dtype or "
                        "spread is asked for",
                        MOE_BENCH_ROW_LIMIT);
    }
    *rows = made;
    *row_count = count;
    return MOE_OK;
}

int32_t moe_bench_plan_capacity(const struct moe_bench_row *rows, size_t row_count, size_t index)
{
    int32_t most = 0;
    for (size_t i = 0; i < row_count; i++) {
        const int32_t total = rows[i].rows_per_expert * rows[i].shape.expert_count;
        if (moe_bench_same_shape(&rows[i].shape, &rows[index].shape) && total > most) {
            most = total;
        }
    }
    return most;
}

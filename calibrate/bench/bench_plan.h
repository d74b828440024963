/*
 * Bench plan: which points of the expert FFN a run measures, and in which order: what the bars
 * ask for first, so that a run that ends early has it; inside one importance at random, so that
 * the drift of a warming GPU is not mistaken for the cost of a size.
 */
#ifndef MOE_CALIBRATE_BENCH_PLAN_H
#define MOE_CALIBRATE_BENCH_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "calibrate/bench/bench_result.h"
#include "sim/base/error.h"

enum {
    MOE_BENCH_SHAPE_LIMIT = 32,
    MOE_BENCH_TOKENS_LIMIT = 32,
    /* Rows of one point at most: their buffers must fit beside the weights. */
    MOE_BENCH_ROW_LIMIT = 1 << 18,
};

struct moe_bench_shape {
    int32_t hidden;
    int32_t inter;
    int32_t expert_count;
    enum moe_expert_activation activation;
};

struct moe_bench_request {
    struct moe_bench_shape shapes[MOE_BENCH_SHAPE_LIMIT];
    uint32_t shape_count;
    int32_t tokens[MOE_BENCH_TOKENS_LIMIT]; /* per expert */
    uint32_t tokens_count;
    bool dtypes[MOE_EXPERT_DTYPE_COUNT];
    bool histograms[MOE_ROW_HISTOGRAM_COUNT];
    uint64_t seed;
};

/* "bf16", "fp8"; "swiglu", "relu", "gelu". */
const char *moe_expert_dtype_name(enum moe_expert_dtype dtype);
const char *moe_expert_activation_name(enum moe_expert_activation activation);

/* "7168x2048x32" or "768x3072x128:relu" (swiglu otherwise). Errors: MOE_RANGE naming the text and
 * what is allowed. */
enum moe_status moe_bench_shape_parse(const char *text, struct moe_bench_shape *out,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* "1,2,4" into tokens. Errors: MOE_RANGE. */
enum moe_status moe_bench_tokens_parse(const char *text, struct moe_bench_request *request,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* What one layer routes: each token to top_k different ones of the experts. */
struct moe_bench_route {
    int32_t tokens;
    int32_t hidden;
    int32_t expert_count;
    int32_t top_k;
};

/* What one decode step attends to. */
struct moe_bench_context {
    int32_t sequences;
    int32_t tokens; /* of each */
};

/* "64x8192". Errors: MOE_RANGE. */
enum moe_status moe_bench_context_parse(const char *text, struct moe_bench_context *out,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* "4096x7168x256x8": tokens, hidden size, experts, choices of a token. Errors: MOE_RANGE. */
enum moe_status moe_bench_route_parse(const char *text, struct moe_bench_route *out,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* The shapes and token counts of the published results. */
void moe_bench_request_default(struct moe_bench_request *request);

/* The points in the order in which they are to be measured, in *rows, which the caller frees;
 * points of more than MOE_BENCH_ROW_LIMIT rows are left out. Errors: MOE_LIMIT; MOE_RANGE when
 * nothing is left to measure. */
enum moe_status moe_bench_plan_make(const struct moe_bench_request *request,
                                    struct moe_bench_row **rows, size_t *row_count,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* Most rows of any point of the same shape and dtype as rows[index]. */
int32_t moe_bench_plan_capacity(const struct moe_bench_row *rows, size_t row_count, size_t index);

/* The shape that the bars for large experts are set on (DeepSeek-V3's on one of 8 GPUs), and
 * those for small ones: at most 3 Mi cells per matrix. */
bool moe_bench_is_large(const struct moe_expert_ffn_shape *shape);
bool moe_bench_is_small(const struct moe_expert_ffn_shape *shape);

bool moe_bench_same_shape(const struct moe_expert_ffn_shape *a,
                          const struct moe_expert_ffn_shape *b);

#endif

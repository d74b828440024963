/*
 * Measure plan: which series and points a run measures, with the role of each drawn by seed before
 * anything is measured, and in which order.
 *
 * Roles. anchor: what a table is fitted to. heldout: drawn by seed, about a fifth, never fitted.
 * uneven: a few uneven rows to fit by; skew: uneven rows to test by. sentinel: the same few points
 * every 30 s, to see drift and to tie runs together. sustained: after the GPU has been kept at it
 * for seconds. refine: chosen while the run lasts, where interpolation is least sure
 * (measure_refine.h); no such point is planned here.
 *
 * Order. Visits come in tiers, most important first, so that a run that ends early has what matters
 * most: anchors and held-out points of our kernels, of what stands around the experts, of the
 * libraries; skew; repeats of 30 % of the points (pass 2); bursts; refinement; sustained points.
 * Inside a tier series come in random order, and the points of a series (which share weights) one
 * after the other: the light and the heavy ones each in random order, in turn first.
 */
#ifndef MOE_CALIBRATE_MEASURE_PLAN_H
#define MOE_CALIBRATE_MEASURE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "calibrate/bench/bench_plan.h"
#include "calibrate/expert/expert_floor.h"
#include "calibrate/measure/measure_histogram.h"
#include "sim/base/error.h"

enum moe_measure_kind {
    MOE_MEASURE_EXPERT,
    MOE_MEASURE_GEMM,
    MOE_MEASURE_PERMUTE,
    MOE_MEASURE_COMBINE,
    MOE_MEASURE_GATE,
    MOE_MEASURE_KV_GQA,
    MOE_MEASURE_KV_MLA,
    MOE_MEASURE_STREAM,
    MOE_MEASURE_LAUNCH,
    MOE_MEASURE_KIND_COUNT
};

enum moe_measure_role {
    MOE_ROLE_ANCHOR,
    MOE_ROLE_HELDOUT,
    MOE_ROLE_SKEW,
    MOE_ROLE_REFINE,
    MOE_ROLE_SENTINEL,
    MOE_ROLE_SUSTAINED,
    MOE_ROLE_BURST,
    MOE_ROLE_UNEVEN,
    MOE_ROLE_COUNT
};

/* Of visits, in their order. Refinement has no planned ones. */
enum moe_measure_tier {
    MOE_TIER_OWN,
    MOE_TIER_AROUND,
    MOE_TIER_LIBRARY,
    MOE_TIER_SKEW,
    MOE_TIER_SECOND,
    MOE_TIER_BURST,
    MOE_TIER_REFINE,
    MOE_TIER_SUSTAINED,
    MOE_TIER_COUNT
};

enum {
    MOE_MEASURE_MODEL_LIMIT = 32,
    MOE_MEASURE_EP_LIMIT = 16,
    MOE_MEASURE_BACKEND_LIMIT = 8,
    MOE_MEASURE_EXPERT_SERIES_LIMIT = 48, /* of one run; more are merged from several */
    MOE_MEASURE_SERIES_LIMIT = 256,
    MOE_MEASURE_LIBRARY_SHAPES = 3,
};

struct moe_measure_request {
    uint32_t models[MOE_MEASURE_MODEL_LIMIT]; /* of moe_measure_models */
    uint32_t model_count;
    int32_t ep[MOE_MEASURE_EP_LIMIT]; /* ascending or not, as asked */
    uint32_t ep_count;
    struct moe_bench_shape shapes[MOE_BENCH_SHAPE_LIMIT]; /* besides those of the models */
    uint32_t shape_count;
    bool dtypes[MOE_EXPERT_DTYPE_COUNT];
    bool kinds[MOE_MEASURE_KIND_COUNT];
    char backends[MOE_MEASURE_BACKEND_LIMIT][24];
    uint32_t backend_count;
    int32_t rows_max;    /* of one expert, one product, tokens, sequences */
    int32_t context_max; /* tokens of a sequence */
    double stream_bytes; /* largest array of the streams */
    struct moe_bench_shape sentinel;
    int32_t sentinel_rows; /* per expert, of the compute-bound sentinel; the other one has 1 */
    uint64_t seed;
    double memory_bytes;     /* free on the smallest GPU; 0: not known, nothing is refused */
    uint32_t repeat_percent; /* of the points, measured once more in a later pass */
    double settle_s;         /* most that a visit waits for its clock; for estimates */
    double reserve_bytes;    /* of it: for what is there beside a series' operands */
    double cache_bytes;
};

struct moe_measure_series {
    char name[96];
    enum moe_measure_kind kind;
    char models[320];
    int32_t hidden;
    int32_t inter;
    int32_t units;
    int32_t top_k;
    int32_t groups; /* gate: of the experts; 1: none */
    int32_t group_limit;
    enum moe_expert_dtype dtype;
    enum moe_expert_activation activation; /* expert */
    char backend[24];
    bool is_library;
    double memory_bytes; /* what its operands take at most */
};

struct moe_measure_point {
    uint32_t series;
    enum moe_measure_role role;
    char histogram[MOE_MEASURE_HISTOGRAM_NAME];
    double tokens; /* these and the next as the columns of sample_point */
    int32_t active;
    int32_t row_max;
    int64_t tiles64;
    int64_t tiles128;
    double context;
    double bytes;
    double flops;
    double cold_bytes; /* of bytes: those that cannot lie in the cache, for the physics check */
    int32_t *rows;     /* expert: [units]; else NULL. Owned by the plan. */
    double estimate_s; /* of one visit */
};

struct moe_measure_visit {
    uint32_t point;
    uint8_t pass;
    uint8_t tier;
};

struct moe_measure_plan {
    struct moe_measure_series series[MOE_MEASURE_SERIES_LIMIT];
    uint32_t series_count;
    struct moe_measure_point *points;
    uint32_t point_count;
    uint32_t point_room;
    struct moe_measure_visit *visits;
    uint32_t visit_count;
    uint32_t visit_room;
    uint32_t sentinels[8]; /* points, visited at the beginning, the end and every 30 s */
    uint32_t sentinel_count;
    uint32_t burst_point; /* the compute-bound sentinel from light load: tells the burst clock */
    uint32_t soak_point;  /* the same, sustained: tells clock and power of a warm GPU */
    double settle_s;      /* of the request, as the next */
    uint32_t repeat_percent;
    char left_out[1024]; /* series that do not fit into memory; "" when all do */
    uint64_t hash;       /* of everything above */
};

/* Time that the arithmetic of a point takes at least over that of its bytes: 1 and more is bound by
 * arithmetic. By an H200's rates, which is near enough for what depends on it. */
double moe_measure_compute_share(const struct moe_measure_series *series,
                                 const struct moe_measure_point *point);

/* Whether arithmetic is so small a part that the power limit does not lower the clock. */
bool moe_measure_is_light(const struct moe_measure_series *series,
                          const struct moe_measure_point *point);

const char *moe_measure_kind_name(enum moe_measure_kind kind);
const char *moe_measure_role_name(enum moe_measure_role role);

/* Everything but models and their EP degrees: bf16, all kinds, our backend, seed 1. */
void moe_measure_request_default(struct moe_measure_request *request);

/* "deepseek-v3,kimi-k2" or "all"; "1,8,64"; "bf16,fp8"; "expert,gemm"; "own,lt-expert". Each
 * replaces what the request held. Errors: MOE_RANGE naming the text and what is allowed. */
enum moe_status moe_measure_parse_models(const char *text, struct moe_measure_request *request,
                                         struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_measure_parse_ep(const char *text, struct moe_measure_request *request,
                                     struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_measure_parse_dtypes(const char *text, struct moe_measure_request *request,
                                         struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_measure_parse_kinds(const char *text, struct moe_measure_request *request,
                                        struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_measure_parse_backends(const char *text, struct moe_measure_request *request,
                                           struct moe_error *err) MOE_MUST_CHECK;

void moe_measure_plan_finish(struct moe_measure_plan *plan); /* a zeroed one is allowed */

/* Appends a point (rows: taken over, also on error) or a visit. Errors: MOE_LIMIT. */
enum moe_status moe_measure_plan_add_point(struct moe_measure_plan *plan,
                                           const struct moe_measure_point *point, uint32_t *index,
                                           struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_measure_plan_add_visit(struct moe_measure_plan *plan, uint32_t point,
                                           uint32_t pass, uint32_t tier,
                                           struct moe_error *err) MOE_MUST_CHECK;

/* An expert point of these rows[units] (copied), with all its derived columns. */
enum moe_status moe_measure_expert_point(struct moe_measure_plan *plan, uint32_t series,
                                         enum moe_measure_role role, const char *histogram,
                                         const int32_t *rows, uint32_t *index,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Seconds of the visits of a tier, sentinels apart; of all of them with sentinels and set-up. */
double moe_measure_plan_tier_s(const struct moe_measure_plan *plan, uint32_t tier);
double moe_measure_plan_total_s(const struct moe_measure_plan *plan);

/* Tables of series (points, seconds, memory) and of tiers, and what of the request is left out. */
void moe_measure_plan_print(FILE *out, const struct moe_measure_plan *plan,
                            const struct moe_measure_request *request, double limit_s);

#endif

#include "calibrate/collective/collective_plan.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/collective/exchange_matrix.h"
#include "calibrate/collective/exchange_pattern.h"
#include "sim/base/random.h"

enum { COARSE_HELD_OUT = 4, MATRIX_KINDS = 4, VISIT_CALLS = 80 };

static const int64_t skew_sizes[] = { INT64_C(64) << 10, INT64_C(1) << 20, INT64_C(8) << 20,
                                      INT64_C(64) << 20 };

static const int64_t overlap_sizes[] = { INT64_C(4) << 20, INT64_C(16) << 20, INT64_C(64) << 20 };

/* A guess for times; see the header. */
static const double CALL_US = 10.0;
static const double LINK_BYTES_US = 200e3;
static const double HOST_BYTES_US = 50e3;
static const double VISIT_S = 2e-3; /* beside the timed calls: warming up, sensors, store */

/* A bend is worth a point when slopes differ by this factor and the curve leaves the straight line
 * by this share. */
static const double BEND_FACTOR = 1.5;
static const double BEND_SHARE = 0.02;

const char *moe_collective_role_name(enum moe_collective_role role)
{
    static const char *const names[] = { "anchor", "refine", "heldout", "skew" };
    assert(role < MOE_COLLECTIVE_ROLE_COUNT);
    return names[role];
}

struct moe_collective_request moe_collective_request_all(uint32_t rank_count, bool nccl,
                                                         uint64_t seed)
{
    struct moe_collective_request request = {
        .seed = seed,
        .rank_count = rank_count,
        .least_bytes = MOE_COLLECTIVE_LEAST_BYTES,
        .most_bytes = MOE_COLLECTIVE_MOST_BYTES,
        /* Experts of DeepSeek-V3: their weights are many times the cache. */
        .overlap = { .hidden = 7168, .inter = 2048, .experts = 8, .rows = { 8, 512 } },
    };
    for (int op = 0; op < MOE_COLLECTIVE_OP_COUNT; op++) {
        request.ops[op] = nccl || !moe_collective_op_nccl((enum moe_collective_op) op);
    }
    return request;
}

static int64_t whole_grains(int64_t bytes)
{
    const int64_t grains = (bytes + MOE_COLLECTIVE_GRAIN / 2) / MOE_COLLECTIVE_GRAIN;
    return (grains < 1 ? 1 : grains) * MOE_COLLECTIVE_GRAIN;
}

/* Pieces that the buffer N of a series is made of. */
static int64_t pieces(const struct moe_collective_series *series)
{
    return series->src < 0 && series->op != MOE_COLLECTIVE_HOST_TO_DEVICE ? (int64_t) series->ranks
                                                                          : 1;
}

/* A point of the same size is planned once: the first role stays. */
static enum moe_status add_point(struct moe_collective_plan *plan,
                                 struct moe_collective_point point, struct moe_error *err)
{
    for (uint32_t i = 0; i < plan->point_count; i++) {
        const struct moe_collective_point *old = &plan->points[i];
        if (old->series == point.series && old->bytes_per_peer == point.bytes_per_peer &&
            old->matrix == point.matrix && old->rows == point.rows) {
            return MOE_OK;
        }
    }
    if (plan->point_count == plan->point_capacity) {
        const uint32_t capacity = plan->point_capacity == 0 ? 256 : 2 * plan->point_capacity;
        struct moe_collective_point *grown =
            realloc(plan->points, capacity * sizeof plan->points[0]);
        if (grown == NULL) {
            return moe_fail(err, MOE_LIMIT, "no memory for a plan of collectives");
        }
        plan->points = grown;
        plan->point_capacity = capacity;
    }
    plan->points[plan->point_count++] = point;
    return MOE_OK;
}

static enum moe_status add_size(struct moe_collective_plan *plan, uint32_t series,
                                enum moe_collective_role role, int64_t bytes_per_peer,
                                struct moe_error *err)
{
    const struct moe_collective_point point = {
        .series = series,
        .role = role,
        .bytes_per_peer = whole_grains(bytes_per_peer),
        .matrix = MOE_COLLECTIVE_NO_MATRIX,
    };
    return add_point(plan, point, err);
}

static enum moe_status add_anchors(struct moe_collective_plan *plan, uint32_t at,
                                   const struct moe_collective_request *request,
                                   struct moe_error *err)
{
    const struct moe_collective_series *series = &plan->series[at];
    const int64_t parts = pieces(series);
    for (int64_t size = request->least_bytes; size <= request->most_bytes;
         size *= series->coarse ? 8 : 2) {
        MOE_TRY(add_size(plan, at, MOE_COLLECTIVE_ANCHOR, size / parts, err));
    }
    const int64_t sides[] = { MOE_COLLECTIVE_KNEE / 16 * 15, MOE_COLLECTIVE_KNEE,
                              MOE_COLLECTIVE_KNEE / 16 * 17 };
    for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
        if (moe_collective_op_sends(series->op) && !series->coarse &&
            sides[i] * parts >= request->least_bytes && sides[i] * parts <= request->most_bytes) {
            MOE_TRY(add_size(plan, at, MOE_COLLECTIVE_ANCHOR, sides[i], err));
        }
    }
    return MOE_OK;
}

/* Odd numbers of grains, so that no power of two is among them (but the least of small ones). */
static enum moe_status add_held_out(struct moe_collective_plan *plan, uint32_t at,
                                    const struct moe_collective_request *request,
                                    struct moe_error *err)
{
    const struct moe_collective_series *series = &plan->series[at];
    const uint32_t count = series->coarse ? COARSE_HELD_OUT : MOE_COLLECTIVE_HELDOUT;
    const uint64_t key = moe_random_key(plan->seed ^ ((uint64_t) at << 20), MOE_RANDOM_TEST);
    const double low = log((double) request->least_bytes);
    const double width = (log((double) request->most_bytes) - low) / (double) count;
    for (uint32_t i = 0; i < count; i++) {
        const double drawn = exp(low + ((double) i + moe_random_uniform(key, i)) * width);
        const int64_t grains = (int64_t) (drawn / (double) (pieces(series) * MOE_COLLECTIVE_GRAIN));
        MOE_TRY(
            add_size(plan, at, MOE_COLLECTIVE_HELD_OUT, (grains | 1) * MOE_COLLECTIVE_GRAIN, err));
    }
    return MOE_OK;
}

static enum moe_status add_matrix(struct moe_collective_plan *plan, uint32_t at, int64_t size,
                                  uint32_t kind, struct moe_error *err)
{
    const bool is_anchor = kind == MOE_EXCHANGE_ONE_WAY || kind == MOE_EXCHANGE_OWN;
    const struct moe_collective_point point = {
        .series = at,
        .role = is_anchor ? MOE_COLLECTIVE_ANCHOR : MOE_COLLECTIVE_SKEW,
        .bytes_per_peer = whole_grains(size / pieces(&plan->series[at])),
        .matrix = kind,
    };
    return add_point(plan, point, err);
}

/* Those that are only foretold, and two that say how. */
static enum moe_status add_skew(struct moe_collective_plan *plan, uint32_t at,
                                const struct moe_collective_request *request, struct moe_error *err)
{
    for (size_t i = 0; i < sizeof skew_sizes / sizeof skew_sizes[0]; i++) {
        if (skew_sizes[i] < request->least_bytes || skew_sizes[i] > request->most_bytes) {
            continue;
        }
        for (uint32_t kind = 0; kind < MATRIX_KINDS; kind++) {
            MOE_TRY(add_matrix(plan, at, skew_sizes[i], kind, err));
        }
        MOE_TRY(add_matrix(plan, at, skew_sizes[i], MOE_EXCHANGE_ONE_WAY, err));
        MOE_TRY(add_matrix(plan, at, skew_sizes[i], MOE_EXCHANGE_OWN, err));
    }
    return MOE_OK;
}

/* Sizes beyond the largest that is asked for become that. */
static enum moe_status add_overlap(struct moe_collective_plan *plan, uint32_t at,
                                   const struct moe_collective_request *request,
                                   struct moe_error *err)
{
    for (size_t i = 0; i < sizeof overlap_sizes / sizeof overlap_sizes[0]; i++) {
        const int64_t size =
            overlap_sizes[i] < request->most_bytes ? overlap_sizes[i] : request->most_bytes;
        for (size_t k = 0; k < MOE_OVERLAP_ROWS; k++) {
            const struct moe_collective_point point = {
                .series = at,
                .role = MOE_COLLECTIVE_ANCHOR,
                .bytes_per_peer = whole_grains(size / pieces(&plan->series[at])),
                .matrix = MOE_COLLECTIVE_NO_MATRIX,
                .rows = request->overlap.rows[k],
            };
            MOE_TRY(add_point(plan, point, err));
        }
    }
    return MOE_OK;
}

static enum moe_status fill_series(struct moe_collective_plan *plan, uint32_t at,
                                   const struct moe_collective_request *request,
                                   struct moe_error *err)
{
    if (plan->series[at].op == MOE_COLLECTIVE_ALL_TO_ALL_V) {
        return add_skew(plan, at, request, err);
    }
    if (plan->series[at].op == MOE_COLLECTIVE_OVERLAP) {
        return add_overlap(plan, at, request, err);
    }
    MOE_TRY(add_anchors(plan, at, request, err));
    return add_held_out(plan, at, request, err);
}

/* Room was made for as many as there can be. */
static void add_series(struct moe_collective_plan *plan,
                       const struct moe_collective_request *request, enum moe_collective_op op,
                       uint32_t ranks, int32_t src, int32_t dst)
{
    struct moe_collective_series series = { .op = op, .ranks = ranks, .src = src, .dst = dst };
    const char *name = moe_collective_op_name(op);
    if (!request->ops[op]) {
        return;
    }
    if (src < 0) {
        (void) snprintf(series.name, sizeof series.name, "%s-%" PRIu32, name, ranks);
    } else {
        const uint32_t from = request->devices == NULL ? (uint32_t) src : request->devices[src];
        const uint32_t to = request->devices == NULL ? (uint32_t) dst : request->devices[dst];
        (void) snprintf(series.name, sizeof series.name, "%s-%" PRIu32 "-%" PRIu32, name, from, to);
        series.coarse =
            request->rank_count * (request->rank_count - 1) > MOE_COLLECTIVE_FULL_PAIRS &&
            (src > 1 || dst > 1);
    }
    plan->series[plan->series_count++] = series;
}

static void add_pairs(struct moe_collective_plan *plan,
                      const struct moe_collective_request *request)
{
    for (uint32_t src = 0; src < request->rank_count; src++) {
        for (uint32_t dst = 0; dst < request->rank_count; dst++) {
            if (src == dst) {
                continue;
            }
            add_series(plan, request, MOE_COLLECTIVE_P2P, 2, (int32_t) src, (int32_t) dst);
            add_series(plan, request, MOE_COLLECTIVE_PEER_COPY, 2, (int32_t) src, (int32_t) dst);
            if (src < dst) { /* the other order is the same work */
                add_series(plan, request, MOE_COLLECTIVE_P2P_BOTH, 2, (int32_t) src, (int32_t) dst);
            }
        }
    }
}

/* 2, 4, 8, ... and the count itself. */
static void add_groups(struct moe_collective_plan *plan,
                       const struct moe_collective_request *request)
{
    for (uint32_t ranks = 2; ranks <= request->rank_count;) {
        for (int op = 0; op <= MOE_COLLECTIVE_ALL_REDUCE; op++) {
            add_series(plan, request, (enum moe_collective_op) op, ranks, -1, -1);
        }
        ranks = ranks < request->rank_count && 2 * ranks > request->rank_count ? request->rank_count
                                                                               : 2 * ranks;
    }
}

enum moe_status moe_collective_plan_make(const struct moe_collective_request *request,
                                         struct moe_collective_plan *out, struct moe_error *err)
{
    const uint32_t count = request->rank_count;
    struct moe_collective_plan plan = {
        .seed = request->seed,
        .rank_count = count,
        .overlap = request->overlap,
    };
    if (count < 1 || count > MOE_COLLECTIVE_RANK_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%" PRIu32 " GPUs; 1 to %d can be measured together", count,
                        MOE_COLLECTIVE_RANK_LIMIT);
    }
    if (request->least_bytes < MOE_COLLECTIVE_GRAIN || request->most_bytes < request->least_bytes ||
        request->most_bytes > INT64_C(1) << 36) {
        return moe_fail(err, MOE_RANGE,
                        "sizes from %" PRId64 " to %" PRId64
                        " bytes; allowed are %d to 2^36, the smaller first",
                        request->least_bytes, request->most_bytes, MOE_COLLECTIVE_GRAIN);
    }
    plan.series = calloc((size_t) count * count * 3 + 64, sizeof plan.series[0]);
    if (plan.series == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a plan of collectives");
    }
    add_groups(&plan, request);
    add_pairs(&plan, request);
    add_series(&plan, request, MOE_COLLECTIVE_HOST_TO_DEVICE, 1, -1, -1);
    if (count > 1) {
        add_series(&plan, request, MOE_COLLECTIVE_HOST_TO_DEVICE, count, -1, -1);
        add_series(&plan, request, MOE_COLLECTIVE_OVERLAP, count, -1, -1);
    }
    for (uint32_t at = 0; at < plan.series_count; at++) {
        const enum moe_status status = fill_series(&plan, at, request, err);
        if (status != MOE_OK) {
            moe_collective_plan_free(&plan);
            return status;
        }
    }
    *out = plan;
    return MOE_OK;
}

void moe_collective_plan_free(struct moe_collective_plan *plan)
{
    free(plan->series);
    free(plan->points);
    *plan = (struct moe_collective_plan){ 0 };
}

struct moe_collective_call moe_collective_plan_call(const struct moe_collective_plan *plan,
                                                    uint32_t point, uint32_t alone, int64_t *matrix)
{
    assert(point < plan->point_count);
    const struct moe_collective_point *at = &plan->points[point];
    const struct moe_collective_series *series = &plan->series[at->series];
    struct moe_collective_call call = {
        .op = series->op,
        .ranks = series->ranks,
        .src = series->src,
        .dst = series->dst,
        .bytes_per_peer = at->bytes_per_peer,
    };
    if (series->op == MOE_COLLECTIVE_HOST_TO_DEVICE && series->ranks == 1) {
        call.src = (int32_t) alone;
        call.dst = (int32_t) alone;
    }
    if (at->matrix != MOE_COLLECTIVE_NO_MATRIX) {
        moe_exchange_matrix_make(at->matrix, series->ranks, at->bytes_per_peer, plan->seed, matrix);
        call.matrix = matrix;
    }
    return call;
}

static int by_size(const void *left, const void *right)
{
    const struct moe_collective_point *a = left;
    const struct moe_collective_point *b = right;
    return (a->bytes_per_peer > b->bytes_per_peer) - (a->bytes_per_peer < b->bytes_per_peer);
}

/* Whether the curve bends at b, between the neighbours a and c. */
static bool bends(const struct moe_collective_point *a, const struct moe_collective_point *b,
                  const struct moe_collective_point *c)
{
    const double left = (double) (b->bytes_per_peer - a->bytes_per_peer);
    const double right = (double) (c->bytes_per_peer - b->bytes_per_peer);
    const double before = (b->median_us - a->median_us) / left;
    const double after = (c->median_us - b->median_us) / right;
    const double straight = a->median_us + (c->median_us - a->median_us) * left / (left + right);
    const bool jumps = after > BEND_FACTOR * before || before > BEND_FACTOR * after;
    const bool falls = b->median_us < a->median_us || c->median_us < b->median_us;
    return (jumps || falls) && fabs(b->median_us - straight) > BEND_SHARE * b->median_us;
}

static enum moe_status refine_series(struct moe_collective_plan *plan, uint32_t at,
                                     struct moe_error *err)
{
    struct moe_collective_point anchors[64];
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->point_count; i++) {
        const struct moe_collective_point *point = &plan->points[i];
        if (point->series == at && point->role == MOE_COLLECTIVE_ANCHOR && point->median_us > 0.0 &&
            count < sizeof anchors / sizeof anchors[0]) {
            anchors[count++] = *point;
        }
    }
    qsort(anchors, count, sizeof anchors[0], by_size);
    for (uint32_t i = 1; i + 1 < count; i++) {
        if (!bends(&anchors[i - 1], &anchors[i], &anchors[i + 1])) {
            continue;
        }
        for (uint32_t k = i - 1; k <= i; k++) { /* the octave before the bend and the one after */
            const double a = (double) anchors[k].bytes_per_peer;
            const double b = (double) anchors[k + 1].bytes_per_peer;
            if (b > 1.5 * a) {
                MOE_TRY(add_size(plan, at, MOE_COLLECTIVE_REFINE, (int64_t) sqrt(a * b), err));
            }
        }
    }
    return MOE_OK;
}

enum moe_status moe_collective_plan_refine(struct moe_collective_plan *plan, struct moe_error *err)
{
    for (uint32_t at = 0; at < plan->series_count; at++) {
        const enum moe_collective_op op = plan->series[at].op;
        if (op != MOE_COLLECTIVE_OVERLAP && op != MOE_COLLECTIVE_ALL_TO_ALL_V) {
            MOE_TRY(refine_series(plan, at, err));
        }
    }
    return MOE_OK;
}

void moe_collective_plan_shuffle(const struct moe_collective_plan *plan, uint32_t first,
                                 uint32_t count, uint32_t pass, uint32_t *order)
{
    const uint64_t key = moe_random_key(plan->seed, MOE_RANDOM_REQUEST_ORDER);
    for (uint32_t i = 0; i < count; i++) {
        order[i] = first + i;
    }
    for (uint32_t i = count; i > 1; i--) {
        const uint64_t draw = ((uint64_t) pass << 32) | (first + i);
        const uint32_t j = (uint32_t) moe_random_below(key, draw, i);
        const uint32_t moved = order[i - 1];
        order[i - 1] = order[j];
        order[j] = moved;
    }
}

bool moe_collective_plan_repeats(const struct moe_collective_plan *plan, uint32_t point)
{
    const uint64_t key = moe_random_key(plan->seed + 1, MOE_RANDOM_TEST);
    return plan->series[plan->points[point].series].op != MOE_COLLECTIVE_OVERLAP &&
           moe_random_below(key, point, 100) < MOE_COLLECTIVE_REPEAT_PERCENT;
}

double moe_collective_point_seconds(const struct moe_collective_plan *plan, uint32_t point,
                                    double budget_s)
{
    static const double OVERLAP_VISIT_S = 0.25;
    int64_t matrix[MOE_COLLECTIVE_RANK_LIMIT * MOE_COLLECTIVE_RANK_LIMIT];
    const struct moe_collective_call call = moe_collective_plan_call(plan, point, 0, matrix);
    if (call.op == MOE_COLLECTIVE_OVERLAP) {
        return OVERLAP_VISIT_S;
    }
    const bool host = call.op == MOE_COLLECTIVE_HOST_TO_DEVICE;
    const double us = CALL_US + (double) moe_collective_wire_bytes(&call) /
                                    (host ? HOST_BYTES_US : LINK_BYTES_US);
    const double usual = us * 1e-6 * VISIT_CALLS;
    const double timed = usual < budget_s ? usual : budget_s;
    const double visits = host && call.src >= 0 ? (double) plan->rank_count : 1.0;
    return visits * (VISIT_S + timed);
}

double moe_collective_plan_seconds(const struct moe_collective_plan *plan, double budget_s)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < plan->point_count; i++) {
        sum += moe_collective_point_seconds(plan, i, budget_s) *
               (moe_collective_plan_repeats(plan, i) ? 2.0 : 1.0);
    }
    return sum;
}

struct moe_collective_room moe_collective_plan_room(const struct moe_collective_plan *plan)
{
    int64_t matrix[MOE_COLLECTIVE_RANK_LIMIT * MOE_COLLECTIVE_RANK_LIMIT];
    struct moe_collective_room room = { 0 };
    for (uint32_t i = 0; i < plan->point_count; i++) {
        const struct moe_collective_call call = moe_collective_plan_call(plan, i, 0, matrix);
        for (uint32_t rank = 0; rank < plan->rank_count; rank++) {
            const int64_t send = moe_collective_send_bytes(&call, rank);
            const int64_t recv = moe_collective_recv_bytes(&call, rank);
            if (call.op == MOE_COLLECTIVE_HOST_TO_DEVICE) {
                room.host = send > room.host ? send : room.host;
            } else {
                room.send = send > room.send ? send : room.send;
            }
            room.recv = recv > room.recv ? recv : room.recv;
        }
    }
    room.recv += MOE_EXCHANGE_GUARD;
    return room;
}

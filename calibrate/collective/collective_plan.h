/*
 * Collective plan: which operations are measured at which sizes, drawn before anything is measured.
 *
 * Per series, with N = n c the whole buffer (for pairs and copies: what is sent):
 *   anchors   N in powers of two, 1 KiB to 256 MiB, and 1/16 on both sides of the size where
 *             NCCL's sends change their protocol (MOE_COLLECTIVE_KNEE per peer); where there are
 *             more than MOE_COLLECTIVE_FULL_PAIRS pairs, the others only in powers of eight
 *   held out  12 sizes (4 of a coarse series) that are no powers of two, one in each of as many
 *             equal stretches of log N, drawn by seed; never fitted, never dropped
 *   refine    sqrt(2) times an anchor, in octaves beside which the curve bends: made from the
 *             anchors' times (moe_collective_plan_refine)
 *   skew      all_to_all_v only: matrices of exchange_matrix.h at four sizes
 * All sizes per peer are multiples of 16 bytes, held-out ones odd multiples. The scheme is that of
 * piecewise alpha-beta fits, whose breakpoints need points on both sides.
 */
#ifndef MOE_CALIBRATE_COLLECTIVE_PLAN_H
#define MOE_CALIBRATE_COLLECTIVE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "calibrate/collective/collective_op.h"
#include "sim/base/error.h"

enum {
    MOE_COLLECTIVE_FULL_PAIRS = 6,
    MOE_COLLECTIVE_HELDOUT = 12,
    MOE_COLLECTIVE_REPEAT_PERCENT = 30, /* of the points come again in pass 2 */
};

#define MOE_COLLECTIVE_NO_MATRIX   UINT32_MAX
#define MOE_COLLECTIVE_LEAST_BYTES INT64_C(1024)
#define MOE_COLLECTIVE_MOST_BYTES  (INT64_C(256) << 20)

enum moe_collective_role {
    MOE_COLLECTIVE_ANCHOR,
    MOE_COLLECTIVE_REFINE,
    MOE_COLLECTIVE_HELD_OUT,
    MOE_COLLECTIVE_SKEW,
    MOE_COLLECTIVE_ROLE_COUNT
};

/* "anchor", "refine", "heldout", "skew". */
const char *moe_collective_role_name(enum moe_collective_role role);

struct moe_collective_series {
    char name[64]; /* "all_to_all-2", "p2p-0-1": unique */
    enum moe_collective_op op;
    uint32_t ranks; /* host_to_device: 1 is each GPU alone, more are all at once; pairs: 2 */
    int32_t src;    /* pairs: ranks of the run; else -1 */
    int32_t dst;
    bool coarse;
};

struct moe_collective_point {
    uint32_t series;
    enum moe_collective_role role;
    int64_t bytes_per_peer;
    uint32_t matrix;  /* kind, or MOE_COLLECTIVE_NO_MATRIX */
    uint32_t rows;    /* overlap: rows of each expert; else 0 */
    double median_us; /* of the slowest rank of each call, once measured; else 0 */
    double p95_us;
    double part_us[4]; /* overlap: medians of its parts (overlap.h) */
};

/* Experts of one GPU beside which exchanges are measured: rows for each expert, few (weights are
 * what takes time) and many (arithmetic is). */
enum { MOE_OVERLAP_ROWS = 2 };
struct moe_overlap_shape {
    uint32_t hidden;
    uint32_t inter;
    uint32_t experts;
    uint32_t rows[MOE_OVERLAP_ROWS];
};

struct moe_collective_plan {
    uint64_t seed;
    uint32_t rank_count;
    struct moe_overlap_shape overlap;
    struct moe_collective_series *series;
    uint32_t series_count;
    struct moe_collective_point *points;
    uint32_t point_count;
    uint32_t point_capacity;
};

struct moe_collective_request {
    uint64_t seed;
    uint32_t rank_count;     /* GPUs of the run; 1: only copies from the host */
    const uint32_t *devices; /* [rank_count] numbers of the GPUs for names; NULL: as ranks */
    bool ops[MOE_COLLECTIVE_OP_COUNT];
    int64_t least_bytes; /* of N; the defaults above, or what a test wants */
    int64_t most_bytes;
    struct moe_overlap_shape overlap;
};

/* All operations, default sizes. nccl: whether there is NCCL to carry them out. */
struct moe_collective_request moe_collective_request_all(uint32_t rank_count, bool nccl,
                                                         uint64_t seed);

/* Errors: MOE_RANGE for sizes or rank counts out of range, MOE_LIMIT. */
enum moe_status moe_collective_plan_make(const struct moe_collective_request *request,
                                         struct moe_collective_plan *out,
                                         struct moe_error *err) MOE_MUST_CHECK;
void moe_collective_plan_free(struct moe_collective_plan *plan); /* a zeroed one is allowed */

/* The call of a point; matrix[ranks * ranks] is filled where it needs one and must live as long.
 * host_to_device of 1 rank: of rank `alone`, which others ignore. */
struct moe_collective_call moe_collective_plan_call(const struct moe_collective_plan *plan,
                                                    uint32_t point, uint32_t alone,
                                                    int64_t *matrix);

/* Adds refine points of every series whose anchors have times; none twice. The new ones are those
 * from the old point_count on. Errors: MOE_LIMIT. */
enum moe_status moe_collective_plan_refine(struct moe_collective_plan *plan,
                                           struct moe_error *err) MOE_MUST_CHECK;

/* order[] gets the indices first .. first + count - 1, shuffled by the plan's seed and pass. */
void moe_collective_plan_shuffle(const struct moe_collective_plan *plan, uint32_t first,
                                 uint32_t count, uint32_t pass, uint32_t *order);

/* Whether the point is measured again in a later pass; by seed. */
bool moe_collective_plan_repeats(const struct moe_collective_plan *plan, uint32_t point);

/* A guess of the seconds that one visit of the point, and all that is planned with its repeats,
 * takes: from 10 us per call and 200 GB/s (50 GB/s from the host), within a factor of 2 on NVLink.
 * budget_s: what a visit may spend on timed calls. */
double moe_collective_point_seconds(const struct moe_collective_plan *plan, uint32_t point,
                                    double budget_s);
double moe_collective_plan_seconds(const struct moe_collective_plan *plan, double budget_s);

/* Bytes of the send and receive buffer that each GPU needs for all planned points, guard included,
 * and of the pinned one. */
struct moe_collective_room {
    int64_t send;
    int64_t recv;
    int64_t host;
};
struct moe_collective_room moe_collective_plan_room(const struct moe_collective_plan *plan);

#endif

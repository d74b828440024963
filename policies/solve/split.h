/*
 * Split: how the load of replicated experts is divided over the GPUs that hold them, so that
 * no GPU exceeds its capacity, or so that the fullest GPU is as little full as can be.
 *
 * The linear program  min M  s.t.  sum over hosts of x[e][g] = load[e],
 *                                  sum over experts of x[e][g] <= M,  x >= 0
 * is a parametric maximum flow. moe_split_level solves it exactly in whole tokens: loads and
 * capacities are integers, so an optimal flow is integral, and the least whole M is the
 * fractional optimum rounded up. Method: raise a lower bound of M to ceil(load(R) / |R|) of
 * the set R of GPUs that the overfull ones can still reach when no augmenting path is left;
 * all that lies in R can lie nowhere else, so the bound is true, and R shrinks with every
 * raise (Newton's method on the cut function; W. Dinkelbach 1967, D. Gale 1957 for the cut).
 *
 * Uses: dispatch `lp`, `speed_weighted`, `metro` (unit loads), and the bound of what any
 * dispatch could do with the copies that a placement made.
 */
#ifndef MOE_POLICIES_SPLIT_H
#define MOE_POLICIES_SPLIT_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/solve/hosts.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

/* The largest sum of loads of one layer: products with a GPU count stay below 2^63. */
#define MOE_SPLIT_LOAD_LIMIT (INT64_C(1) << 52)

/* An item is an expert with load and at least two hosts; an edge is one of its hosts. */
struct moe_split {
    uint32_t gpu_count;
    uint32_t item_count;
    uint32_t *first_edge;  /* [item + 1] */
    uint16_t *item_expert; /* [item] */
    uint16_t *edge_gpu;    /* [edge] */
    uint16_t *edge_item;   /* [edge] */
    int64_t *flow;         /* [edge] load of the item on that GPU */
    uint32_t *first_at;    /* [gpu + 1] into edge_at */
    uint32_t *edge_at;     /* edges GPU by GPU */
    int64_t *load;         /* [gpu] */
    int64_t *capacity;     /* [gpu] what moe_split_fit keeps to; the caller's to set */
    bool *reached;         /* [gpu] the set R after moe_split_fit said no */
    bool *item_seen;       /* [item] */
    uint16_t *queue;       /* [gpu] */
    uint32_t *from_edge;   /* [gpu] edge of the item at the GPU before */
    uint32_t *to_edge;     /* [gpu] edge of the same item here */
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_split_init(struct moe_split *split, struct moe_arena *arena,
                               const struct moe_placement_shape *shape,
                               struct moe_error *err) MOE_MUST_CHECK;

/* Takes one layer up and divides every item so that its hosts are level, twice over all
 * items: a start that is close to the optimum. load[expert_count] >= 0, in sum at most
 * MOE_SPLIT_LOAD_LIMIT; an expert with load has a copy (asserted). */
void moe_split_begin(struct moe_split *split, const struct moe_hosts *hosts, const int64_t *load);

/* Moves load until every GPU is within its capacity. False when that cannot be; then
 * reached[] is a set of GPUs whose load exceeds their capacities and cannot leave it. */
bool moe_split_fit(struct moe_split *split);

/* Makes the fullest GPU as little full as whole tokens allow; returns its load. */
int64_t moe_split_level(struct moe_split *split);

/* The least load of the fullest GPU for fractional loads and divisions: load[expert_count]
 * finite and >= 0. Relative error below 1e-12. Uses split up. */
double moe_split_bound(struct moe_split *split, const struct moe_hosts *hosts, const double *load,
                       int64_t *scaled /* scratch [expert_count] */);

#endif

/*
 * Spread: from tokens per copy to tokens per (source GPU, copy).
 *
 * A solver decides how many tokens each copy of an expert takes (goal); the sources' demand has
 * then to be divided so that every source sends all it has and every copy gets its goal, in
 * whole tokens, exactly. Two ways:
 *   share  every source sends each copy the same share of its tokens, but for rounding: what a
 *          kernel does that picks the copy of each token by probability. The rounding is by
 *          running sums over the sources: it differs from the exact share by less than one
 *          token per copy that comes before.
 *   near   first to copies on the source's own GPU, then (when asked for) to those on its node,
 *          each up to the copy's goal, what is left by share.
 *
 * All functions write quota[source GPU][copy] of a dispatch view; totals of an expert are at
 * most UINT32_MAX (asserted). Nothing is allocated.
 */
#ifndef MOE_POLICIES_SPREAD_H
#define MOE_POLICIES_SPREAD_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/hosts.h"
#include "policies/placement.h"
#include "policies/policy.h"
#include "policies/split.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_spread {
    uint32_t *left; /* [gpu_count] tokens of the expert that a source has still to send */
    uint64_t *goal; /* [slot_count] for the callers: goals of one expert's copies; used up */
};

enum moe_spread_way { MOE_SPREAD_SHARE, MOE_SPREAD_NEAR_GPU, MOE_SPREAD_NEAR_NODE };

/* Names of enum moe_spread_way for a parameter: share, gpu, node, NULL. */
extern const char *const moe_spread_ways[];

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_spread_init(struct moe_spread *spread, struct moe_arena *arena,
                                const struct moe_placement_shape *shape,
                                struct moe_error *err) MOE_MUST_CHECK;

/* All demand to the first copy of every expert: right for those with one, a start for others. */
void moe_spread_first(const struct moe_dispatch_view *view, uint32_t *quota);

/* Divides one expert's demand. goal[copies]; their sum is at most the demand, and what is missing
 * is dropped, shared as if the floor were one more copy. Overwrites the expert's quotas. */
void moe_spread_expert(struct moe_spread *spread, const struct moe_dispatch_view *view,
                       uint32_t expert, const uint64_t *goal, enum moe_spread_way way,
                       uint32_t *quota);

/* Carries a solved split out: every item's flow to a GPU goes to its first copy there. Experts
 * that are no item have one host and keep what moe_spread_first gave their first copy. */
void moe_spread_split(struct moe_spread *spread, const struct moe_dispatch_view *view,
                      const struct moe_hosts *hosts, const struct moe_split *split,
                      enum moe_spread_way way, uint32_t *quota);

/* floor(a * b / divisor) for a, b < 2^32 and divisor >= 1: by a product with the reciprocal and
 * one correction, several times as fast as a division. inverse = 1.0 / divisor. */
static inline uint64_t moe_spread_portion(uint64_t a, uint64_t b, uint64_t divisor, double inverse)
{
    const uint64_t product = a * b;
    uint64_t quotient = (uint64_t) ((double) product * inverse);
    const int64_t rest = (int64_t) (product - quotient * divisor);
    if (rest < 0) {
        quotient--;
    } else if ((uint64_t) rest >= divisor) {
        quotient++;
    }
    return quotient;
}

#endif

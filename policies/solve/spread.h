/*
 * Spread: from tokens per copy to tokens per (source GPU, copy).
 *
 * A solver decides how many tokens each copy takes (goal); the sources' demand has then to be
 * divided so that every source sends all it has and every copy gets its goal, in whole tokens,
 * exactly. Two ways:
 *   share  every source sends each copy the same share of its tokens, but for rounding: what a
 *          kernel does that picks the copy of each token by probability. The rounding is by
 *          running sums over the sources: it differs from the exact share by less than one
 *          token per copy that comes before.
 *   gpu    first to copies on the source's own GPU, up to the copy's goal, what is left by share
 *   node   first those, then to copies on the source's node, in order of slots and sources, what
 *          is left by share
 *
 * quota[source GPU][copy], demand and expert_total are a dispatch view's; totals of an expert are
 * at most INT32_MAX (asserted). Nothing is allocated after init.
 */
#ifndef MOE_POLICIES_SPREAD_H
#define MOE_POLICIES_SPREAD_H

#include <stdint.h>

#include "policies/placement.h"
#include "policies/policy.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

/* One copy while its expert's tokens are shared, source after source. */
struct moe_spread_copy {
    int64_t goal;   /* tokens that are still to come by share */
    int64_t rest;   /* tokens that its expert has left for it and the copies after it */
    double inverse; /* 1 / rest */
    int64_t seen;   /* of rest, from the sources so far */
    int64_t sent;   /* of goal */
};

struct moe_spread {
    struct moe_spread_copy *copy; /* [slot_count] */
    uint16_t *divided;            /* [expert_count] experts that are not all on one copy */
};

enum moe_spread_way { MOE_SPREAD_SHARE, MOE_SPREAD_GPU, MOE_SPREAD_NODE };

/* Names of enum moe_spread_way for a parameter: share, gpu, node, NULL. */
extern const char *const moe_spread_ways[];

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_spread_init(struct moe_spread *spread, struct moe_arena *arena,
                                const struct moe_placement_shape *shape,
                                struct moe_error *err) MOE_MUST_CHECK;

/* All demand to the first copy of every expert: right for those with one, a start for others. */
void moe_spread_first(const struct moe_dispatch_view *view, uint32_t *quota);

/* goal[copy]; over the copies of an expert they sum to at most its demand, and what is missing is
 * dropped, shared as if the floor were one more copy. quota comes as moe_spread_first left it. */
void moe_spread_goals(struct moe_spread *spread, const struct moe_dispatch_view *view,
                      const uint64_t *goal, enum moe_spread_way way, uint32_t *quota);

/* floor(a * b / divisor) for 0 <= a, b < 2^31 and divisor >= 1: by a product with the reciprocal
 * and one correction, several times as fast as a division. inverse = 1.0 / divisor. */
static inline int64_t moe_spread_portion(int64_t a, int64_t b, int64_t divisor, double inverse)
{
    const int64_t product = a * b;
    const int64_t quotient = (int64_t) ((double) product * inverse);
    const int64_t rest = product - quotient * divisor;
    return quotient + (rest >= divisor) - (rest < 0);
}

#endif

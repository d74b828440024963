/*
 * Choice draw: k distinct experts of a layer with stated probabilities, as a pure function of
 * random bits.
 *
 * Fixed-size sampling without replacement whose inclusion probabilities are exactly those asked
 * for: systematic sampling (W. G. Madow, Annals of Mathematical Statistics 20, 1949): lay the
 * probabilities, which sum to k, end to end, and take what lies under u, u + 1, ..., u + k - 1.
 * The order in which they lie is drawn for each token, so that which experts are chosen together
 * follows from the probabilities and chance alone: co-activation is synthetic.
 *
 * Group limits (a token uses at most M of G groups of consecutive experts): first M groups, then
 * k experts of theirs, both that way. A group's probability is its experts' sum times M / k, so
 * the whole is exact as long as no group has more than 1 / M of the load (those that have are
 * always taken, and the rest is shared anew, still exact) and no expert more than its group's
 * probability (that is cut, which makes the hottest experts of very uneven groups too rare).
 */
#ifndef MOE_TRACES_GENERATE_CHOICE_DRAW_H
#define MOE_TRACES_GENERATE_CHOICE_DRAW_H

#include <stdint.h>

enum { MOE_CHOICE_GROUP_LIMIT = 1024 };

struct moe_choice_shape {
    uint32_t expert_count;
    uint32_t top_k;
    uint32_t group_count; /* <= MOE_CHOICE_GROUP_LIMIT; divides expert_count */
    uint32_t group_limit;
};

/* Inclusion probabilities proportional to weights[count] (>= 0, finite, not all zero) that sum
 * to size <= count, none above 1: what would be is 1, and the rest shared anew. When fewer than
 * size weights are above 0, those are 1 and the others share what is left evenly. */
void moe_choice_probabilities(const double *weights, uint32_t count, uint32_t size, double *out);

/* Choices under probability[expert_count], which sums to top_k: out[top_k], distinct, in no
 * particular order. bits: three independent words of 64 uniform bits. */
void moe_choice_draw(const struct moe_choice_shape *shape, const float *probability,
                     const uint64_t bits[3], uint16_t *out);

#endif

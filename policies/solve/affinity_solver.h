/*
 * Affinity solver: experts near the requests that use them.
 *
 * Source: "Scaling Multi-Node MoE Inference Using Expert Activation Patterns", arXiv
 * 2604.23150. Requests are clustered by the experts that their decoded tokens used; each
 * cluster gets a device group; experts go to the group whose requests use them most; a new
 * request decodes on the group whose prefill signature its own resembles. No code is public.
 *
 * Learn:    x_r[layer][expert] = decoded tokens of request r (its prompt's where it decoded
 *           none), scaled to length 1, over all layers together, since a request decodes on one
 *           group for all layers. K-means gives clusters C_1 .. C_K; K = groups: one each;
 *           K < groups: further groups to the cluster with most tokens per group; K > groups:
 *           K-means over the clusters' sums.
 *           U[group][layer][expert] = sum of x_r over the requests of the group's cluster
 *           (shared evenly by the groups of one cluster).
 * Coverage: every expert once, on the group with the largest U that has room; experts with
 *           the largest lead of their best group over the second first (the paper does not
 *           state an order). Groups get equally many, but for the remainder.
 * Redundancy: what room a group has left to its most used experts that it lacks.
 * Inside a group: hottest copy first to the least loaded GPU (the paper does not say).
 */
#ifndef MOE_POLICIES_AFFINITY_SOLVER_H
#define MOE_POLICIES_AFFINITY_SOLVER_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/policy_view.h"
#include "policies/solve/packing.h"

struct moe_affinity_plan {
    uint32_t group_count;   /* device groups; divides gpu_count */
    uint32_t cluster_count; /* K; 0: as many as groups */
    uint32_t request_limit; /* requests to learn from, evenly spread; 0: all */
    uint32_t round_limit;   /* of K-means */
    bool balanced;          /* clusters of equally many requests: a departure from the paper */
    uint64_t key;           /* of the draws */
};

struct moe_affinity {
    struct moe_placement_shape shape;
    uint32_t group_count;
    double *use;      /* U [group][layer][expert] */
    float *signature; /* [group][layer][expert] mean unit vector of its requests' prompts */
    float *square;    /* [group] its square */
};

/* Learns from the routes of a planning window. Memory stays in arena: 2 bytes per request
 * learned from, layer and expert, and 12 per group, layer and expert. Errors: MOE_LIMIT when
 * it is full; MOE_POLICY when there is no request. */
enum moe_status moe_affinity_learn(struct moe_affinity *affinity, struct moe_arena *arena,
                                   const struct moe_placement_shape *shape,
                                   const struct moe_policy_routes *routes,
                                   const struct moe_affinity_plan *plan,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* distance[group_count] of a prompt's counts [layer][expert] to the groups' signatures: smaller
 * is nearer; only differences mean something. */
void moe_affinity_distances(const struct moe_affinity *affinity, const float *prompt,
                            double *distance);

/* Coverage and redundancy of one layer: member[group][expert], whether the group holds the
 * expert. At most the group's slots each, at most copy_limit copies beyond the first. Ties: of
 * equal leads (float32) the first expert; of equal use the group with fewer experts, then the
 * first, and the first expert. */
struct moe_affinity_scratch {
    uint64_t *order; /* [expert_count] */
    uint32_t *fill;  /* [group_count] experts of the group */
};

void moe_affinity_cover(const struct moe_affinity *affinity, uint32_t layer, uint32_t copy_limit,
                        const struct moe_affinity_scratch *scratch, uint8_t *member);

/* Whole placement: coverage, redundancy and GPUs of every layer. load[layer][expert] balances
 * inside a group. copy_limit_total bounds the copies of all layers, the first layers taking
 * what does not divide over them. Errors: MOE_LIMIT when scratch is full. */
enum moe_status moe_affinity_place(const struct moe_affinity *affinity, const double *load,
                                   uint32_t copy_limit_total, struct moe_arena *scratch,
                                   struct moe_placement *plan,
                                   struct moe_error *err) MOE_MUST_CHECK;

#endif

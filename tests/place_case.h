/*
 * Place case: a random planning problem with everything that a place policy may ask for.
 * Small on purpose: up to 3 layers, 48 experts and 96 slots, so that a slow twin or a brute
 * force can follow. Drawn from tests/property.h, so that a failing one shrinks.
 */
#ifndef MOE_TESTS_PLACE_CASE_H
#define MOE_TESTS_PLACE_CASE_H

#include "policies/policy.h"
#include "tests/property.h"

enum {
    CASE_LAYERS = 3,
    CASE_EXPERTS = 48,
    CASE_SLOTS = 160,
    CASE_GPUS = 16,
    CASE_BATCHES = 6,
    CASE_REQUESTS = 5,
    CASE_TOKENS = 40,
    CASE_TOP_K = 3,
    CASE_POINTS = 3,
    CASE_SCRATCH_BYTES = 2 << 20,
};

struct place_case {
    struct moe_place_view view; /* points into the rest */
    double load[CASE_LAYERS * CASE_EXPERTS];
    double future[CASE_LAYERS * CASE_EXPERTS];
    float batches[CASE_BATCHES * CASE_LAYERS * CASE_EXPERTS];
    struct moe_policy_routes routes;
    uint16_t expert[CASE_TOKENS * CASE_LAYERS * CASE_TOP_K];
    uint32_t request[CASE_TOKENS];
    uint8_t phase[CASE_TOKENS];
    uint32_t first_token[CASE_REQUESTS + 1];
    uint16_t domain[CASE_REQUESTS];
    struct moe_policy_speed speed;
    double points[CASE_POINTS];
    double time_ns[CASE_GPUS * CASE_POINTS];
    struct moe_placement previous;
    uint16_t previous_slots[CASE_LAYERS * CASE_SLOTS];
    struct moe_policy_topology topology;
    struct moe_policy_memory memory;
    /* The plan that a policy made of it. */
    struct moe_placement plan;
    uint16_t slots[CASE_LAYERS * CASE_SLOTS];
};

/* Loads with ties or, where no_ties, all different and no zero; one group where no_groups. */
void place_case_draw(struct place_case *c, struct draws *draws, bool no_ties, bool no_groups);

/* Runs the policy with its defaults through the gate into c->plan. */
enum moe_status place_case_solve(struct place_case *c, const struct moe_policy *policy,
                                 struct moe_arena *scratch, struct moe_error *err);

/* The same case under other names: expert e becomes to[e], in everything. */
void place_case_rename_experts(const struct place_case *from, const uint16_t *to,
                               struct place_case *c);

/* The same case under other numbers of the GPUs, all of one node: GPU g becomes to[g], with its
 * speed and with what it held before. from is told of the one node too. */
void place_case_rename_gpus(struct place_case *from, const uint16_t *to, struct place_case *c);

/* The fullest GPU of a layer of c->plan over its mean; 1 without load. */
double place_case_imbalance(const struct place_case *c, uint32_t layer);

#endif

/*
 * Policy case: one made-up world to try a policy in, and how to make it smaller.
 *
 * A case follows from its spec alone, so a fault can be told in one line, and the smallest spec
 * that still shows it is found by shrinking. Every part that a policy may need is there.
 */
#ifndef MOE_POLICIES_POLICY_CASE_H
#define MOE_POLICIES_POLICY_CASE_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/policy.h"
#include "sim/base/arena.h"

enum moe_case_loads {
    MOE_CASE_EVEN_ZERO, /* nothing was routed */
    MOE_CASE_TIED,      /* whole numbers 0, 1, 2 */
    MOE_CASE_SKEWED,    /* a heavy tail, no two loads alike */
    MOE_CASE_ONE_HOT,   /* one expert has nearly all, no two alike */
    MOE_CASE_LOADS_COUNT
};

struct moe_policy_case_spec {
    uint32_t layers; /* each of these is at least 1 */
    uint32_t nodes;
    uint32_t gpus_per_node;
    uint32_t groups;
    uint32_t group_experts;
    uint32_t spare_slots; /* of a GPU, beyond what one copy of each expert needs; may be 0 */
    uint32_t batches;
    uint32_t requests;
    uint32_t loads; /* enum moe_case_loads */
    uint64_t seed;
};

enum { MOE_CASE_FIELD_COUNT = 8 }; /* fields that shrink: those before loads */

struct moe_policy_case {
    struct moe_place_view view; /* complete; points into the arena and into this struct */
    struct moe_policy_routes routes;
    struct moe_policy_speed speed;
    struct moe_policy_topology topology;
    struct moe_policy_memory memory;
    struct moe_placement previous;
};

/* The number-th case of a sequence. The first hundred grow, so that few cases are small ones. */
struct moe_policy_case_spec moe_policy_case_draw(uint64_t number);

/* Builds it in the arena. relabel: expert e is called relabel[e] instead (NULL: as it is).
 * Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_policy_case_make(struct moe_policy_case *c,
                                     const struct moe_policy_case_spec *spec,
                                     const uint16_t *relabel, struct moe_arena *arena,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Sets one field, the which-th (0 .. MOE_CASE_FIELD_COUNT-1), to its try-th smallest value. False
 * when that is no smaller than it was. */
bool moe_policy_case_shrink(struct moe_policy_case_spec *spec, uint32_t which, uint32_t try);

/* "2 layers, 12 experts in 4 groups, ...": enough to make it again. */
void moe_policy_case_print(const struct moe_policy_case_spec *spec, char *text, size_t text_bytes);

#endif

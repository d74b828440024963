/*
 * Policy view: what a policy is shown before the first scored step.
 *
 * One struct serves all kinds: it is what a place policy plans on, what a predictor
 * extrapolates, and what dispatch and group policies are set up with. A pointer is NULL (a
 * count 0) unless the policy asked for it (enum moe_policy_need); everything is read-only and
 * outlives the call. All layers and experts are the model's (0 .. shape.layer_count-1), also
 * where a trace of fewer layers is replayed.
 */
#ifndef MOE_POLICIES_POLICY_VIEW_H
#define MOE_POLICIES_POLICY_VIEW_H

#include <stdint.h>

#include "policies/placement.h"

/* What a policy reads from its view; what it does not name is absent there. */
enum moe_policy_need {
    MOE_POLICY_NEEDS_NOTHING = 0,
    MOE_POLICY_NEEDS_LOAD = 1 << 0,      /* load: sums of the planning window */
    MOE_POLICY_NEEDS_FUTURE = 1 << 1,    /* future_load: the scored window (oracles only) */
    MOE_POLICY_NEEDS_BATCHES = 1 << 2,   /* batches: the planning window as a series */
    MOE_POLICY_NEEDS_ROUTES = 1 << 3,    /* routes: its tokens, one by one */
    MOE_POLICY_NEEDS_GPU_SPEED = 1 << 4, /* speed: finish time of each GPU by tokens */
    MOE_POLICY_NEEDS_PREVIOUS = 1 << 5,  /* previous: the placement in force */
    MOE_POLICY_NEEDS_TOPOLOGY = 1 << 6,  /* topology: what a token's way costs */
    MOE_POLICY_NEEDS_MEMORY = 1 << 7,    /* memory: bytes of an expert, bytes that are free */
    MOE_POLICY_NEEDS_SEED = 1 << 8,      /* seed; 0 for those that do not draw */
    MOE_POLICY_NEEDS_DOMAINS = 1 << 9,   /* domain labels of requests, two or more */
    MOE_POLICY_NEEDS_ALL = (1 << 10) - 1,
};

enum { MOE_POLICY_NEED_COUNT = 10 };

/* The largest load of a view: the float32 sums of 65,534 of them stay finite. */
#define MOE_POLICY_LOAD_LIMIT 1e30

enum moe_route_phase { MOE_ROUTE_PREFILL, MOE_ROUTE_DECODE };

/* Token routes of the planning window, request after request in recorded order; a request's
 * prompt rows first. */
struct moe_policy_routes {
    uint64_t token_count;
    uint32_t request_count;
    uint32_t planned_requests; /* of the window: more than request_count when its routes would
                                * not fit in memory; those shown are the first */
    uint32_t top_k;
    uint32_t domain_count;          /* 0: the trace names none */
    const uint16_t *expert;         /* [token][layer][top_k] in gate order; MOE_EXPERT_UNKNOWN */
    const uint32_t *request;        /* [token] 0 .. request_count-1, ascending */
    const uint8_t *phase;           /* [token] enum moe_route_phase */
    const uint32_t *first_token;    /* [request_count + 1] */
    const uint16_t *request_domain; /* [request] */
};

/* Time that a GPU's experts of one layer take, by tokens (assignments) on the GPU that spread
 * evenly over its slots: linear between the points, the last slope beyond them. */
struct moe_policy_speed {
    uint32_t point_count;  /* >= 2 */
    const double *tokens;  /* [point] ascending, the first is 0 */
    const double *time_ns; /* [gpu][point] not descending */
};

/* What one more token copy costs its sender's link. A copy that stays on its GPU is free. */
struct moe_policy_topology {
    double near_ns; /* to a GPU of the same node; 0 where nodes have one GPU */
    double far_ns;  /* to another node; 0 where there is one node */
};

struct moe_policy_memory {
    double expert_bytes;       /* one slot in use, one layer */
    double free_bytes;         /* of a GPU, for expert slots and KV cache together */
    double kv_bytes_per_token; /* all layers */
};

struct moe_place_view {
    struct moe_placement_shape shape; /* has passed moe_placement_shape_check */
    /* Most copies beyond the first of each expert, over all layers together; 0 = the slots
     * alone decide. slot_count is then what a layer may use at most. */
    uint32_t replica_budget_total;
    uint32_t domain_count; /* labels that requests carry; 0 or 1: none are told apart */
    uint64_t seed;
    /* One value per declared parameter, inside its range; a whole number, flag (0, 1) or index
     * of a choice is stored exactly. NULL means every default, for moe_policy_place only. */
    const double *parameters;

    /* Loads may be fractional: each finite and from 0 to MOE_POLICY_LOAD_LIMIT. */
    const double *load;        /* [layer][expert] token counts of the planning window */
    const double *future_load; /* [layer][expert] of the scored window */
    /* The planning window in the order of time, cut into batches of consecutive steps. Their
     * sum is load but for rounding, unless a predictor made load. */
    uint32_t batch_count;
    const float *batches; /* [batch][layer][expert] */
    const struct moe_policy_routes *routes;
    const struct moe_policy_speed *speed;
    const struct moe_placement *previous; /* of this shape, checked */
    const struct moe_policy_topology *topology;
    const struct moe_policy_memory *memory;
};

/* batch[layer][expert] of one batch. */
static inline const float *moe_place_view_batch(const struct moe_place_view *view, uint32_t batch)
{
    return view->batches + (size_t) batch * view->shape.layer_count * view->shape.expert_count;
}

/* Sums as the only batch of their window, for those who have no series: batches[count] from
 * load[count] = [layer][expert]. NULL when the arena is full. */
float *moe_place_view_one_batch(const double *load, size_t count, struct moe_arena *arena);

/* Finish time of a GPU with so many tokens (>= 0). */
double moe_policy_speed_ns(const struct moe_policy_speed *speed, uint32_t gpu, double tokens);

#endif

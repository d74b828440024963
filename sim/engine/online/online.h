/*
 * Online: placements made anew while serving, and what that takes.
 *
 * Every every_steps steps (and only when the mean/max GPU load of those steps, over layers and
 * steps, was below max_balance) the composition's place policy plans on what those steps counted;
 * `previous` is what is in force. Policies that plan on routes or on the future, or on nothing,
 * keep their first plan; so do compositions whose dispatch is not in turn. A plan takes planner_ms.
 *
 * Layers then move one after the other. In a layer a GPU fetches each expert that the plan gives
 * it and that it does not hold: from the GPU that holds one and has sent least so far (in this
 * layer; of its own node if there is one there, else of another; the lowest of equal ones), or from
 * host memory. A layer takes the longest of its GPUs (moe_cost_bulk_copy: the larger of in and out
 * over each class of links; or moe_cost_host_copy) and layer_ms. Experts that change slots within
 * a GPU cost nothing.
 *   stall     nothing is served while it is planned and moved; then all layers change
 *   layers    planned beside serving; then weights take link_share of the links, and tokens take
 *             1 / (1 - link_share) as long on them, until all has moved. A layer changes at the end
 *             of the step in which its weights are there, at most layers_per_step in one step.
 *             Meanwhile nothing is planned
 *   prefetch  planned and moved during the step before; what is longer than it stalls
 *
 * Break-even: the time lost, standing still or on shared links, over what a step gains. A step's
 * gain is estimated from the same counts under both placements: the slowest GPU's experts, summed
 * over layers, at the mean tokens of a step (copies share evenly; a slot with m < 1 tokens on
 * average is active in m steps of one).
 */
#ifndef MOE_SIM_ENGINE_ONLINE_H
#define MOE_SIM_ENGINE_ONLINE_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/composition.h"
#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/cost/cost.h"
#include "sim/engine/route_counter.h"
#include "sim/scenario/scenario.h"

/* Sums over the run; of the scored phase where it says so. */
struct moe_online_account {
    uint64_t considered; /* times that every_steps had passed */
    uint64_t plans;
    uint64_t moved_slots; /* copies fetched */
    double moved_near_bytes;
    double moved_far_bytes;
    double moved_host_bytes;
    moe_time_ns planner_ns;
    moe_time_ns move_ns;         /* stalled or beside serving */
    moe_time_ns stall_ns;        /* serving stood still */
    moe_time_ns scored_stall_ns; /* of it in the scored phase */
    uint64_t moving_steps;       /* steps on shared links */
    moe_time_ns slowed_ns;       /* how much longer they took for it: of the exchanges along what
                                  * their barriers waited for, the part that sharing adds */
    double gain_ns;              /* per step, summed over plans; may be negative */
    double balance_before;       /* of the steps planned on, summed over plans */
};

struct moe_online {
    bool active;
    const bool *dead; /* [gpu] that plans do without (eviction.h), or NULL */
    const struct moe_online_options *options;
    const struct moe_cost *cost;
    const struct moe_composition_part *place;
    struct moe_place_view view;   /* everything there is; outlives the run */
    struct moe_placement current; /* in force */
    struct moe_placement next;    /* planned */
    struct moe_arena scratch;     /* of the planner */
    uint64_t *count;              /* [layer][expert] since the last time */
    double *load;                 /* [layer][expert] the same, for the planner */
    double balance_sum;           /* mean/max GPU load, over layer-steps */
    uint64_t layer_steps;
    uint32_t steps;
    bool moving;
    uint32_t moving_layer; /* the first that has not changed */
    double left_ns;        /* until it has, or until the plan is made */
    bool planning;         /* left_ns is the planner's */
    moe_time_ns *layer_ns; /* [layer] of the plan */
    bool *changed;         /* [layer] by the last call */
    double *in_near;       /* [gpu] copies, scratch of a layer; as the next three */
    double *in_far;
    double *out_near;
    double *out_far;
    struct moe_online_account account;
};

struct moe_online_setup {
    const struct moe_scenario *scenario;
    const struct moe_cost *cost;
    const struct moe_composition *composition;
    const struct moe_place_view *view;     /* outlives the run */
    const struct moe_placement *placement; /* in force at first */
    size_t scratch_bytes;
};

/* Bytes that staging weights takes on each GPU: its slots of one layer;
 * 0 without online planning. */
double moe_online_buffer_bytes(const struct moe_scenario *scenario);

size_t moe_online_bytes(const struct moe_placement_shape *shape);

/* Inactive when the scenario or the composition keeps its placement. Errors: MOE_LIMIT when
 * memory is short; MOE_RANGE when the rate of host memory is not known. */
enum moe_status moe_online_init(struct moe_online *online, const struct moe_online_setup *setup,
                                struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_online_finish(struct moe_online *online);

/* A step of step_ns has ended, with the counter's counts. *stall_ns: how long serving stands still
 * now; changed[layer] says whose placement (current) is another one; *comm_load: how much longer
 * tokens take on the links in the next step. Errors: what the policy reports. */
enum moe_status moe_online_step(struct moe_online *online, const struct moe_route_counter *counter,
                                moe_time_ns step_ns, bool scored, moe_time_ns *stall_ns,
                                double *comm_load, struct moe_error *err) MOE_MUST_CHECK;

#endif

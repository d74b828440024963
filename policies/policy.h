/*
 * Policy: the method table that every placement policy fills in.
 *
 * A policy proposes, the engine checks and carries out. It sees a const view of
 * what it asked for (needs), writes one bounded plan, keeps no state of its own
 * and takes memory only from the scratch arena. It must be a pure function of the
 * view: equal views, equal plans, on any machine.
 *
 * To add one: write policies/NAME.c with a `const struct moe_policy moe_policy_NAME`
 * and add its line to policies/registry.def. The contract tests then run over it.
 */
#ifndef MOE_POLICIES_POLICY_H
#define MOE_POLICIES_POLICY_H

#include <stddef.h>
#include <stdint.h>

#include "policies/placement.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

/* Bumped whenever this header changes what a compiled policy relies on. */
enum { MOE_POLICY_ABI = 1 };

/* What a policy reads from the view; what it does not name is NULL there. */
enum moe_policy_need {
    MOE_POLICY_NEEDS_NOTHING = 0,
    MOE_POLICY_NEEDS_LOAD = 1 << 0,   /* load: counts of the planning window */
    MOE_POLICY_NEEDS_FUTURE = 1 << 1, /* future_load: the scored window itself (oracles only) */
};

/* The largest load of a view: the float32 sums of 65,534 of them stay finite. */
#define MOE_POLICY_LOAD_LIMIT 1e30

struct moe_place_view {
    struct moe_placement_shape shape; /* has passed moe_placement_shape_check */
    /* Loads may be fractional: each finite and from 0 to MOE_POLICY_LOAD_LIMIT. */
    const double *load;        /* [layer][expert] token counts of the planning window, or NULL */
    const double *future_load; /* [layer][expert] of the scored window, or NULL */
    uint64_t seed;             /* for randomised policies; MOE_RANDOM_POLICY */
};

struct moe_policy {
    uint32_t abi;         /* MOE_POLICY_ABI */
    const char *name;     /* [a-z0-9_]+, unique */
    const char *summary;  /* one line for `moesim policies` */
    const char *source;   /* paper, program or "own"; what it departs from */
    const char *tie_rule; /* how equal loads are decided */
    uint32_t needs;       /* enum moe_policy_need */

    /* Mandatory. Fills plan, which comes with view->shape and all slots empty. scratch
     * is reset by the caller afterwards. Errors: MOE_POLICY when the shape cannot be
     * served (the text says why), MOE_LIMIT when scratch is full. */
    enum moe_status (*place)(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err);
};

/* All registered policies, in registry order: policies[*count]. */
const struct moe_policy *const *moe_policy_list(size_t *count);

/* By name. Errors: MOE_RANGE listing the names there are. */
enum moe_status moe_policy_find(const char *name, const struct moe_policy **out,
                                struct moe_error *err) MOE_MUST_CHECK;

/* Checks the view (shape, what the policy needs, the loads), runs policy->place and
 * checks its plan; an error names the policy. Errors: MOE_POLICY when the shape is
 * impossible, a needed matrix is missing, a load lies outside its range or the plan
 * lacks an expert; what place returns. *plan is of no use after an error. */
enum moe_status moe_policy_place(const struct moe_policy *policy, const struct moe_place_view *view,
                                 struct moe_arena *scratch, struct moe_placement *plan,
                                 struct moe_error *err) MOE_MUST_CHECK;

#endif

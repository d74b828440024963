#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "policies/policy.h"

#define MOE_POLICY(name) extern const struct moe_policy moe_policy_##name;
#include "policies/registry.def"
#undef MOE_POLICY

static const struct moe_policy *const policies[] = {
#define MOE_POLICY(name) &moe_policy_##name,
#include "policies/registry.def"
#undef MOE_POLICY
};

enum { POLICY_COUNT = sizeof policies / sizeof policies[0] };

const struct moe_policy *const *moe_policy_list(size_t *count)
{
    *count = POLICY_COUNT;
    return policies;
}

enum moe_status moe_policy_find(const char *name, const struct moe_policy **out,
                                struct moe_error *err)
{
    char names[320] = "";
    size_t used = 0;
    for (size_t i = 0; i < POLICY_COUNT; i++) {
        if (strcmp(policies[i]->name, name) == 0) {
            *out = policies[i];
            return MOE_OK;
        }
        if (used < sizeof names - 1) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s", policies[i]->name);
        }
    }
    return moe_fail(err, MOE_RANGE, "no policy '%s'; there are:%s", name, names);
}

static enum moe_status check_loads(const struct moe_placement_shape *shape, const double *load,
                                   const char *window, bool needed, struct moe_error *err)
{
    if (!needed) {
        return MOE_OK;
    }
    if (load == NULL) {
        return moe_fail(err, MOE_POLICY, "needs the loads of the %s window, which are not there",
                        window);
    }
    for (size_t i = 0; i < (size_t) shape->layer_count * shape->expert_count; i++) {
        if (!(load[i] >= 0.0 && load[i] <= MOE_POLICY_LOAD_LIMIT)) {
            return moe_fail(
                err, MOE_POLICY, "layer %zu, expert %zu: a load of %g lies outside 0 to %g",
                i / shape->expert_count, i % shape->expert_count, load[i], MOE_POLICY_LOAD_LIMIT);
        }
    }
    return MOE_OK;
}

static enum moe_status place_checked(const struct moe_policy *policy,
                                     const struct moe_place_view *view, struct moe_arena *scratch,
                                     struct moe_placement *plan, struct moe_error *err)
{
    if (moe_placement_shape_check(&view->shape, err) != MOE_OK) {
        return MOE_POLICY;
    }
    MOE_TRY(check_loads(&view->shape, view->load, "planning",
                        (policy->needs & MOE_POLICY_NEEDS_LOAD) != 0, err));
    MOE_TRY(check_loads(&view->shape, view->future_load, "scored",
                        (policy->needs & MOE_POLICY_NEEDS_FUTURE) != 0, err));
    MOE_TRY(policy->place(view, scratch, plan, err));
    return moe_placement_check(plan, err);
}

enum moe_status moe_policy_place(const struct moe_policy *policy, const struct moe_place_view *view,
                                 struct moe_arena *scratch, struct moe_placement *plan,
                                 struct moe_error *err)
{
    struct moe_error reason = { 0 };
    assert(policy->abi == MOE_POLICY_ABI);
    const enum moe_status status = place_checked(policy, view, scratch, plan, &reason);
    return status == MOE_OK ? MOE_OK
                            : moe_fail(err, status, "policy %s: %s", policy->name, reason.text);
}

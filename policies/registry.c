#include <assert.h>
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

enum moe_status moe_policy_place(const struct moe_policy *policy, const struct moe_place_view *view,
                                 struct moe_arena *scratch, struct moe_placement *plan,
                                 struct moe_error *err)
{
    struct moe_error reason = { 0 };
    assert(policy->abi == MOE_POLICY_ABI);
    enum moe_status status = policy->place(view, scratch, plan, &reason);
    if (status == MOE_OK) {
        status = moe_placement_check(plan, &reason);
    }
    return status == MOE_OK ? MOE_OK
                            : moe_fail(err, status, "policy %s: %s", policy->name, reason.text);
}

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "policies/policy.h"

#define MOE_POLICY(folder, name) extern const struct moe_policy moe_policy_##name;
#include "policies/registry.def"
#undef MOE_POLICY

static const struct moe_policy *const policies[] = {
#define MOE_POLICY(folder, name) &moe_policy_##name,
#include "policies/registry.def"
#undef MOE_POLICY
};

enum { POLICY_COUNT = sizeof policies / sizeof policies[0] };

static const char *const kind_name[MOE_POLICY_KIND_COUNT] = { "place", "dispatch", "predict",
                                                              "group" };

const char *moe_policy_kind_name(enum moe_policy_kind kind)
{
    return kind_name[kind];
}

static const struct {
    enum moe_policy_need need;
    const char *name;
    const char *text;
} needs[MOE_POLICY_NEED_COUNT] = {
    { MOE_POLICY_NEEDS_LOAD, "load", "loads of the planning window" },
    { MOE_POLICY_NEEDS_FUTURE, "future_load", "loads of the scored window (oracles only)" },
    { MOE_POLICY_NEEDS_BATCHES, "batches", "loads of the planning window, batch by batch" },
    { MOE_POLICY_NEEDS_ROUTES, "routes", "token routes of the planning window" },
    { MOE_POLICY_NEEDS_GPU_SPEED, "gpu_speed", "measured finish times of each GPU" },
    { MOE_POLICY_NEEDS_PREVIOUS, "previous", "the placement in force" },
    { MOE_POLICY_NEEDS_TOPOLOGY, "topology", "nodes and what their links cost" },
    { MOE_POLICY_NEEDS_MEMORY, "memory", "bytes of an expert and bytes that are free" },
    { MOE_POLICY_NEEDS_SEED, "seed", "a seed" },
    { MOE_POLICY_NEEDS_DOMAINS, "domains", "domain labels of the requests" },
};

static size_t place_of(enum moe_policy_need need)
{
    size_t i = 0;
    while (i < MOE_POLICY_NEED_COUNT - 1 && needs[i].need != need) {
        i++;
    }
    return i;
}

const char *moe_policy_need_name(enum moe_policy_need need)
{
    return needs[place_of(need)].name;
}

const char *moe_policy_need_text(enum moe_policy_need need)
{
    return needs[place_of(need)].text;
}

bool moe_policy_is(const struct moe_policy *policy, enum moe_policy_kind kind)
{
    switch (kind) {
    case MOE_POLICY_PLACE:
        return policy->place != NULL;
    case MOE_POLICY_DISPATCH:
        return policy->dispatch != NULL;
    case MOE_POLICY_PREDICT:
        return policy->predict != NULL;
    case MOE_POLICY_GROUP:
        return policy->group != NULL;
    case MOE_POLICY_KIND_COUNT:
        break;
    }
    return false;
}

const struct moe_policy *const *moe_policy_list(size_t *count)
{
    *count = POLICY_COUNT;
    return policies;
}

enum moe_status moe_policy_find(enum moe_policy_kind kind, const char *name,
                                const struct moe_policy **out, struct moe_error *err)
{
    char names[400] = "";
    size_t used = 0;
    for (size_t i = 0; i < POLICY_COUNT; i++) {
        if (!moe_policy_is(policies[i], kind)) {
            continue;
        }
        if (strcmp(policies[i]->name, name) == 0) {
            *out = policies[i];
            return MOE_OK;
        }
        if (used < sizeof names - 1) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s", policies[i]->name);
        }
    }
    if (kind == MOE_POLICY_PLACE) {
        return moe_fail(err, MOE_RANGE, "no policy '%.64s'; there are:%s", name, names);
    }
    return moe_fail(err, MOE_RANGE, "no %s policy '%.64s'; there are:%s", kind_name[kind], name,
                    names);
}

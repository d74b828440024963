#include <stdio.h>

#include "policies/policy.h"
#include "sim/command/command.h"

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    (void) argc;
    (void) argv;
    (void) err;
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    for (size_t i = 0; i < count; i++) {
        (void) printf("%-12s %s\n", policies[i]->name, policies[i]->summary);
    }
    return MOE_OK;
}

const struct moe_command moe_command_policies = {
    .name = "policies",
    .summary = "list the placement policies",
    .run = run,
};

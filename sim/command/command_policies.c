/* `moesim policies`: what there is, where it comes from and what it needs. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "policies/policy.h"
#include "sim/base/options.h"
#include "sim/command/command.h"

static const struct {
    enum moe_policy_need need;
    const char *name;
    const char *text;
} needs[] = {
    { MOE_POLICY_NEEDS_LOAD, "load", "loads of the planning window" },
    { MOE_POLICY_NEEDS_FUTURE, "future_load", "loads of the scored window (oracles only)" },
};

enum { NEED_COUNT = sizeof needs / sizeof needs[0] };

static void print_table(const struct moe_policy *const *policies, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        (void) printf("%-12s %s\n", policies[i]->name, policies[i]->summary);
    }
}

static void print_one(const struct moe_policy *policy)
{
    (void) printf("%s\n  %s\n  source    %s\n  ties      %s\n  needs    ", policy->name,
                  policy->summary, policy->source, policy->tie_rule);
    const char *separator = " ";
    for (size_t i = 0; i < NEED_COUNT; i++) {
        if ((policy->needs & needs[i].need) != 0) {
            (void) printf("%s%s", separator, needs[i].text);
            separator = ", ";
        }
    }
    (void) puts(policy->needs == 0 ? " nothing but the shape" : "");
}

/* NULL when memory is short. */
static json_t *describe(const struct moe_policy *policy)
{
    json_t *names = json_array();
    int failed = names == NULL;
    for (size_t i = 0; i < NEED_COUNT && !failed; i++) {
        if ((policy->needs & needs[i].need) != 0) {
            failed = json_array_append_new(names, json_string(needs[i].name)) != 0;
        }
    }
    if (failed) {
        json_decref(names);
        return NULL;
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", policy->name, "summary", policy->summary,
                     "source", policy->source, "tie_rule", policy->tie_rule, "needs", names);
}

static enum moe_status print_json(const struct moe_policy *const *policies, size_t count,
                                  struct moe_error *err)
{
    json_t *list = json_array();
    int failed = list == NULL;
    for (size_t i = 0; i < count && !failed; i++) {
        failed = json_array_append_new(list, describe(policies[i])) != 0;
    }
    json_t *root =
        failed ? NULL : json_pack("{s:s, s:O}", "schema", "moesim.policies/1", "policies", list);
    enum moe_status status = MOE_OK;
    if (root == NULL) {
        status = moe_fail(err, MOE_LIMIT, "no memory to describe %zu policies", count);
    } else if (json_dumpf(root, stdout, JSON_INDENT(2)) != 0 || putchar('\n') == EOF) {
        status = moe_fail(err, MOE_IO, "cannot write to standard output");
    }
    json_decref(root);
    json_decref(list);
    return status;
}

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    const char *format = "table";
    const char *name = NULL;
    const struct moe_option options[] = {
        { "format", MOE_OPTION_TEXT, &format, "FORMAT", "table or json", 0, 0 },
    };
    struct moe_positionals positionals = { .items = &name, .max = 1 };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim policies [NAME] [OPTION ...]; with NAME, its source, tie rule "
                    "and needs");
        moe_options_print(stdout, options, 1);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, 1, &positionals, argc, argv, err));
    size_t count = 0;
    const struct moe_policy *found = NULL;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    if (name != NULL) {
        MOE_TRY(moe_policy_find(MOE_POLICY_PLACE, name, &found, err));
        policies = &found;
        count = 1;
    }
    if (strcmp(format, "json") == 0) {
        return print_json(policies, count, err);
    }
    if (strcmp(format, "table") != 0) {
        return moe_fail(err, MOE_RANGE, "--format: no format '%s'; there are: table json", format);
    }
    if (name != NULL) {
        print_one(found);
    } else {
        print_table(policies, count);
    }
    return MOE_OK;
}

const struct moe_command moe_command_policies = {
    .name = "policies",
    .summary = "list the placement policies, or say what one needs and where it comes from",
    .run = run,
};

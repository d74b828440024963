/* `moesim policies`: what there is, where it comes from, what can be set and what it needs. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "policies/parameter.h"
#include "policies/plugin.h"
#include "policies/policy.h"
#include "sim/base/options.h"
#include "sim/command/command.h"

enum { FOUND_LIMIT = MOE_POLICY_KIND_COUNT };

static const char *const kind_text[MOE_POLICY_KIND_COUNT] = {
    "place: which experts and copies lie in which slots",
    "dispatch: how the tokens of an expert split over its copies (+dispatch=NAME)",
    "predict: the loads to plan on (+predict=NAME)",
    "group: which waiting request joins which GPU (+group=NAME)",
};

static void print_table(const struct moe_policy *const *policies, size_t count)
{
    for (int kind = 0; kind < MOE_POLICY_KIND_COUNT; kind++) {
        bool headed = false;
        for (size_t i = 0; i < count; i++) {
            if (!moe_policy_is(policies[i], (enum moe_policy_kind) kind)) {
                continue;
            }
            if (!headed) {
                (void) printf("%s%s\n", kind == 0 ? "" : "\n", kind_text[kind]);
                headed = true;
            }
            (void) printf("%-14s %s\n", policies[i]->name, policies[i]->summary);
        }
    }
    (void) puts("\n`moesim policies NAME` prints parameters, sources, tie rules and needs; "
                "\nA:x=1+dispatch=B:y=2 composes them.");
}

static void print_parameter(const struct moe_policy_parameter *p)
{
    char value[64];
    char range[240];
    moe_parameter_print(p, p->standard, value, sizeof value);
    moe_parameter_print_range(p, range, sizeof range);
    (void) printf("  :%s=%s\n            %s; %s; default from: %s\n", p->name, value, p->help,
                  range, p->source);
}

static void print_one(const struct moe_policy *policy)
{
    (void) printf("%s\n  %s\n  decides  ", policy->name, policy->summary);
    for (int kind = 0; kind < MOE_POLICY_KIND_COUNT; kind++) {
        if (moe_policy_is(policy, (enum moe_policy_kind) kind)) {
            (void) printf(" %s", moe_policy_kind_name((enum moe_policy_kind) kind));
        }
    }
    (void) printf("\n  source    %s\n  ties      %s\n  needs    ", policy->source,
                  policy->tie_rule);
    const char *separator = " ";
    for (unsigned bit = 0; bit < MOE_POLICY_NEED_COUNT; bit++) {
        const enum moe_policy_need need = (enum moe_policy_need)(1u << bit);
        if ((policy->needs & need) != 0) {
            (void) printf("%s%s", separator, moe_policy_need_text(need));
            separator = ", ";
        }
    }
    (void) puts(policy->needs == 0 ? " nothing but the shape" : "");
    (void) puts(policy->parameter_count == 0 ? "  no parameters" : "  parameters and defaults");
    for (uint32_t i = 0; i < policy->parameter_count; i++) {
        print_parameter(&policy->parameters[i]);
    }
}

static json_t *describe_parameter(const struct moe_policy_parameter *p)
{
    char value[64];
    char range[240];
    moe_parameter_print(p, p->standard, value, sizeof value);
    moe_parameter_print_range(p, range, sizeof range);
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", p->name, "default", value, "allowed",
                     range, "help", p->help, "source", p->source);
}

/* Takes the three lists, also when it fails. NULL when memory is short. */
static json_t *describe(const struct moe_policy *policy)
{
    json_t *needs = json_array();
    json_t *kinds = json_array();
    json_t *parameters = json_array();
    int failed = needs == NULL || kinds == NULL || parameters == NULL;
    for (unsigned bit = 0; bit < MOE_POLICY_NEED_COUNT && !failed; bit++) {
        const enum moe_policy_need need = (enum moe_policy_need)(1u << bit);
        if ((policy->needs & need) != 0) {
            failed = json_array_append_new(needs, json_string(moe_policy_need_name(need))) != 0;
        }
    }
    for (int kind = 0; kind < MOE_POLICY_KIND_COUNT && !failed; kind++) {
        if (moe_policy_is(policy, (enum moe_policy_kind) kind)) {
            failed =
                json_array_append_new(
                    kinds, json_string(moe_policy_kind_name((enum moe_policy_kind) kind))) != 0;
        }
    }
    for (uint32_t i = 0; i < policy->parameter_count && !failed; i++) {
        failed = json_array_append_new(parameters, describe_parameter(&policy->parameters[i])) != 0;
    }
    if (failed) {
        json_decref(needs);
        json_decref(kinds);
        json_decref(parameters);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:s, s:s, s:s, s:o, s:o}", "name", policy->name, "kinds", kinds,
                     "summary", policy->summary, "source", policy->source, "tie_rule",
                     policy->tie_rule, "needs", needs, "parameters", parameters);
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

/* All policies of that name, one for each kind at most, or the plug-in. */
static enum moe_status find(const char *name, const struct moe_policy **found, size_t *count,
                            struct moe_error *err)
{
    size_t all_count = 0;
    const struct moe_policy *const *all = moe_policy_list(&all_count);
    *count = 0;
    if (strchr(name, '/') != NULL) {
        *count = 1;
        return moe_plugin_load(&found[0], name, err);
    }
    for (size_t i = 0; i < all_count && *count < FOUND_LIMIT; i++) {
        if (strcmp(all[i]->name, name) == 0) {
            found[(*count)++] = all[i];
        }
    }
    return *count > 0 ? MOE_OK
                      : moe_fail(err, MOE_RANGE,
                                 "no policy '%.100s'; `moesim policies` lists them, and the path "
                                 "of a plug-in has a '/'",
                                 name);
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
        (void) puts("usage: moesim policies [NAME|./PLUGIN.so] [OPTION ...]; with NAME, its "
                    "parameters, source, tie rule and needs");
        moe_options_print(stdout, options, 1);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, 1, &positionals, argc, argv, err));
    size_t count = 0;
    const struct moe_policy *found[FOUND_LIMIT];
    const struct moe_policy *const *policies = moe_policy_list(&count);
    if (name != NULL) {
        MOE_TRY(find(name, found, &count, err));
        policies = found;
    }
    if (strcmp(format, "json") == 0) {
        return print_json(policies, count, err);
    }
    if (strcmp(format, "table") != 0) {
        return moe_fail(err, MOE_RANGE, "--format: no format '%s'; there are: table json", format);
    }
    for (size_t i = 0; name != NULL && i < count; i++) {
        print_one(policies[i]);
    }
    if (name == NULL) {
        print_table(policies, count);
    }
    return MOE_OK;
}

const struct moe_command moe_command_policies = {
    .name = "policies",
    .summary = "list the policies by what they decide, or say what one needs and can be told",
    .run = run,
};

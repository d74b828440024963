/* `moesim policy check X`: the contract tests on one policy, built in or a plug-in. */
#include <stdio.h>
#include <string.h>

#include "policies/check/policy_check.h"
#include "policies/plugin.h"
#include "sim/base/options.h"
#include "sim/command/command.h"

static void print_finding(const struct moe_policy_finding *finding)
{
    char spec[256];
    (void) printf("%-7s %-17s %s", finding->broken ? "BROKEN" : "kept", finding->rule,
                  finding->text);
    if (finding->tried > 1) {
        (void) printf("; %llu cases", (unsigned long long) finding->tried);
    }
    if (finding->refused > 0) {
        (void) printf(", %llu of them refused", (unsigned long long) finding->refused);
    }
    (void) putchar('\n');
    if (finding->broken) {
        (void) printf("        %s\n", finding->why);
    }
    if (finding->has_case) {
        moe_policy_case_print(&finding->spec, spec, sizeof spec);
        (void) printf("        smallest case: %s\n", spec);
    }
}

static enum moe_status check(const struct moe_policy *policy, uint32_t cases, struct moe_error *err)
{
    static struct moe_policy_report report; /* 14 KiB */
    MOE_TRY(moe_policy_check(policy, cases, &report, err));
    (void) printf("%s\n", policy->name);
    for (uint32_t i = 0; i < report.finding_count; i++) {
        print_finding(&report.findings[i]);
    }
    return report.broken_count == 0
               ? MOE_OK
               : moe_fail(err, MOE_GATE, "%s breaks %u of %u rules", policy->name,
                          report.broken_count, report.finding_count);
}

static bool is_first_kind(const struct moe_policy *policy, enum moe_policy_kind kind)
{
    for (int before = 0; before < (int) kind; before++) {
        if (moe_policy_is(policy, (enum moe_policy_kind) before)) {
            return false;
        }
    }
    return true;
}

/* Every registered policy of that name, each once. */
static enum moe_status check_named(const char *name, uint32_t cases, struct moe_error *err)
{
    const struct moe_policy *policy = NULL;
    bool found = false;
    for (int kind = 0; kind < MOE_POLICY_KIND_COUNT; kind++) {
        if (moe_policy_find((enum moe_policy_kind) kind, name, &policy, NULL) == MOE_OK &&
            is_first_kind(policy, (enum moe_policy_kind) kind)) {
            found = true;
            MOE_TRY(check(policy, cases, err));
        }
    }
    return found ? MOE_OK
                 : moe_fail(err, MOE_RANGE,
                            "no policy '%.100s'; `moesim policies` lists them, and the path of a "
                            "plug-in has a '/'",
                            name);
}

static enum moe_status run_check(int argc, char **argv, struct moe_error *err)
{
    const char *name = NULL;
    uint32_t cases = 1000;
    const struct moe_option options[] = {
        { "cases", MOE_OPTION_COUNT, &cases, "N", "made-up worlds to try each rule in", 1,
          100000000 },
    };
    struct moe_positionals positionals = { .items = &name, .min = 1, .max = 1, .what = "a policy" };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim policy check NAME|./PLUGIN.so [OPTION ...]; exit code 3 when a "
                    "rule is broken");
        moe_options_print(stdout, options, 1);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, 1, &positionals, argc, argv, err));
    if (strchr(name, '/') == NULL) {
        return check_named(name, cases, err);
    }
    const struct moe_policy *policy = NULL;
    MOE_TRY(moe_plugin_load(&policy, name, err));
    return check(policy, cases, err);
}

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    static const struct moe_command commands[] = {
        { .name = "check", .summary = "hold a policy to its contract", .run = run_check },
    };
    return moe_command_dispatch("policy", commands, 1, argc, argv, err);
}

const struct moe_command moe_command_policy = {
    .name = "policy",
    .summary = "check a policy, or a plug-in of your own, against the contract",
    .run = run,
};

#include "policies/check/policy_check.h"

#include <stdarg.h>
#include <stdio.h>

#include "policies/check/policy_rule.h"

enum { WORLD_BYTES = 8 << 20, SCRATCH_BYTES = 32 << 20 };

enum moe_rule_outcome moe_rule_broken(struct moe_rule_trial *trial, const char *format, ...)
{
    char text[sizeof trial->reason.text]; /* an argument may be the reason itself */
    va_list arguments;
    va_start(arguments, format);
    (void) vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    moe_error_set(&trial->reason, MOE_POLICY, __FILE__, __LINE__, "%s", text);
    return MOE_RULE_BROKEN;
}

enum moe_rule_outcome moe_rule_make_case(struct moe_rule_trial *trial,
                                         const struct moe_policy_case_spec *spec,
                                         struct moe_policy_case *c)
{
    return moe_policy_case_make(c, spec, NULL, &trial->world, &trial->reason) == MOE_OK
               ? MOE_RULE_KEPT
               : moe_rule_broken(trial, "the case itself failed: %.200s", trial->reason.text);
}

enum moe_rule_outcome moe_rule_no_room(struct moe_rule_trial *trial)
{
    return moe_rule_broken(trial, "the case itself failed: no room");
}

enum moe_rule_outcome moe_rule_outcome_of(struct moe_rule_trial *trial, enum moe_status status)
{
    return status == MOE_OK       ? MOE_RULE_KEPT
           : status == MOE_POLICY ? MOE_RULE_REFUSED
                                  : moe_rule_broken(trial, "it failed: %.300s", trial->reason.text);
}

static enum moe_rule_outcome attempt(struct moe_rule_trial *trial,
                                     const struct moe_policy_rule *rule,
                                     const struct moe_policy_case_spec *spec)
{
    moe_arena_reset(&trial->world);
    moe_arena_reset(&trial->scratch[0]);
    moe_arena_reset(&trial->scratch[1]);
    return rule->attempt(trial, spec);
}

/* The smallest value of one field with which the case still breaks the rule. */
static bool shrink_field(struct moe_rule_trial *trial, const struct moe_policy_rule *rule,
                         struct moe_policy_finding *finding, uint32_t which)
{
    struct moe_policy_case_spec spec = finding->spec;
    for (uint32_t try = 0; moe_policy_case_shrink(&spec, which, try); try++) {
        if (attempt(trial, rule, &spec) == MOE_RULE_BROKEN) {
            finding->spec = spec;
            (void) snprintf(finding->why, sizeof finding->why, "%s", trial->reason.text);
            return true;
        }
        spec = finding->spec;
    }
    return false;
}

static void shrink(struct moe_rule_trial *trial, const struct moe_policy_rule *rule,
                   struct moe_policy_finding *finding)
{
    bool smaller = true;
    while (smaller) {
        smaller = false;
        for (uint32_t which = 0; which < MOE_CASE_FIELD_COUNT; which++) {
            smaller = shrink_field(trial, rule, finding, which) || smaller;
        }
    }
}

static void try_rule(struct moe_rule_trial *trial, const struct moe_policy_rule *rule,
                     uint64_t case_count, struct moe_policy_finding *finding)
{
    char refusal[sizeof finding->why] = "";
    for (uint64_t number = 0; number < case_count; number++) {
        const struct moe_policy_case_spec spec = moe_policy_case_draw(number);
        const enum moe_rule_outcome outcome = attempt(trial, rule, &spec);
        finding->tried++;
        if (outcome == MOE_RULE_REFUSED && finding->refused++ == 0) {
            (void) snprintf(refusal, sizeof refusal, "%s", trial->reason.text);
        }
        if (outcome == MOE_RULE_BROKEN) {
            finding->broken = true;
            finding->has_case = true;
            finding->spec = spec;
            (void) snprintf(finding->why, sizeof finding->why, "%s", trial->reason.text);
            shrink(trial, rule, finding);
            return;
        }
    }
    if (case_count > 0 && finding->refused == case_count) {
        finding->broken = true;
        (void) snprintf(finding->why, sizeof finding->why, "every case is refused, first: %.400s",
                        refusal);
    }
}

static void try_rules(struct moe_rule_trial *trial, const struct moe_policy_rule *rules,
                      uint32_t rule_count, uint64_t case_count, struct moe_policy_report *report)
{
    for (uint32_t i = 0; i < rule_count; i++) {
        if (!rules[i].applies(trial->policy) || report->finding_count == MOE_POLICY_RULE_LIMIT) {
            continue;
        }
        struct moe_policy_finding *finding = &report->findings[report->finding_count++];
        *finding = (struct moe_policy_finding){ .rule = rules[i].name, .text = rules[i].text };
        try_rule(trial, &rules[i], case_count, finding);
        report->broken_count += finding->broken;
    }
}

enum moe_status moe_policy_check(const struct moe_policy *policy, uint64_t case_count,
                                 struct moe_policy_report *report, struct moe_error *err)
{
    struct moe_rule_trial trial = { .policy = policy };
    *report = (struct moe_policy_report){ .finding_count = 1 };
    struct moe_policy_finding *table = &report->findings[0];
    *table = (struct moe_policy_finding){ .rule = "table",
                                          .text = "name, texts, parameters and methods are sound",
                                          .tried = 1 };
    if (moe_policy_check_table(policy, &trial.reason) != MOE_OK) {
        table->broken = true;
        (void) snprintf(table->why, sizeof table->why, "%s", trial.reason.text);
        report->broken_count = 1;
        return MOE_OK; /* nothing else can be trusted */
    }
    enum moe_status status = moe_arena_init(&trial.world, WORLD_BYTES, err);
    for (int i = 0; i < 2 && status == MOE_OK; i++) {
        status = moe_arena_init(&trial.scratch[i], SCRATCH_BYTES, err);
    }
    if (status == MOE_OK) {
        try_rules(&trial, moe_place_rules, moe_place_rule_count, case_count, report);
        try_rules(&trial, moe_dispatch_rules, moe_dispatch_rule_count, case_count, report);
        try_rules(&trial, moe_replay_rules, moe_replay_rule_count, case_count, report);
    }
    moe_arena_finish(&trial.scratch[1]);
    moe_arena_finish(&trial.scratch[0]);
    moe_arena_finish(&trial.world);
    return status;
}

/*
 * Policy check: the contract tests, for registered policies and for plug-ins alike.
 *
 * Every rule is tried over made-up cases (policy_case.h). The first case that breaks a rule is
 * shrunk as long as it still breaks it, and reported with what went wrong. A policy may refuse a
 * case (MOE_POLICY with a reason); one that refuses every case breaks the rule "serves".
 */
#ifndef MOE_POLICIES_POLICY_CHECK_H
#define MOE_POLICIES_POLICY_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/check/policy_case.h"

enum { MOE_POLICY_RULE_LIMIT = 24 };

struct moe_policy_finding {
    const char *rule; /* "place repeats" */
    const char *text; /* what it asks for, one line */
    uint64_t tried;   /* cases */
    uint64_t refused; /* of them, by the policy */
    bool broken;
    bool has_case;                    /* spec is the smallest case found that breaks it */
    struct moe_policy_case_spec spec; /* of a broken one */
    char why[480];                    /* of a broken one */
};

struct moe_policy_report {
    uint32_t finding_count; /* the rules that apply to its kinds */
    struct moe_policy_finding findings[MOE_POLICY_RULE_LIMIT];
    uint32_t broken_count;
};

/* Tries the policy over case_count cases a rule. Errors: MOE_LIMIT when memory is short; a broken
 * rule is no error. */
enum moe_status moe_policy_check(const struct moe_policy *policy, uint64_t case_count,
                                 struct moe_policy_report *report,
                                 struct moe_error *err) MOE_MUST_CHECK;

#endif

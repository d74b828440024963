/*
 * Policy rule: one promise of the contract, tried on one case. For policy_check.c only.
 */
#ifndef MOE_POLICIES_POLICY_RULE_H
#define MOE_POLICIES_POLICY_RULE_H

#include "policies/check/policy_case.h"

enum moe_rule_outcome { MOE_RULE_KEPT, MOE_RULE_REFUSED, MOE_RULE_BROKEN };

/* What a rule works with; the arenas are reset before every case. */
struct moe_rule_trial {
    const struct moe_policy *policy;
    struct moe_arena world;      /* the case and what the rule keeps */
    struct moe_arena scratch[2]; /* the policy's, one for each of two tries */
    struct moe_error reason;     /* why it was refused or is broken */
};

struct moe_policy_rule {
    const char *name;
    const char *text;
    bool (*applies)(const struct moe_policy *policy);
    enum moe_rule_outcome (*attempt)(struct moe_rule_trial *trial,
                                     const struct moe_policy_case_spec *spec);
};

extern const struct moe_policy_rule moe_place_rules[];
extern const uint32_t moe_place_rule_count;
extern const struct moe_policy_rule moe_dispatch_rules[];
extern const uint32_t moe_dispatch_rule_count;
extern const struct moe_policy_rule moe_replay_rules[]; /* predict, group */
extern const uint32_t moe_replay_rule_count;

/* Fills trial->reason: the rule is broken, because. */
enum moe_rule_outcome moe_rule_broken(struct moe_rule_trial *trial, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The case of spec in trial->world; anything but kept ends the attempt. */
enum moe_rule_outcome moe_rule_make_case(struct moe_rule_trial *trial,
                                         const struct moe_policy_case_spec *spec,
                                         struct moe_policy_case *c);

/* trial->world is full. */
enum moe_rule_outcome moe_rule_no_room(struct moe_rule_trial *trial);

/* How a method's own status counts. */
enum moe_rule_outcome moe_rule_outcome_of(struct moe_rule_trial *trial, enum moe_status status);

#endif

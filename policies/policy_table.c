/* Whether a policy's table is sound: what a plug-in's author gets wrong first. */
#include <math.h>
#include <string.h>

#include "policies/policy.h"

#define LOWER   "abcdefghijklmnopqrstuvwxyz0123456789_"
#define LETTERS LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

static bool is_word(const char *text, const char *letters)
{
    return text != NULL && text[0] != '\0' && strlen(text) <= 40 &&
           strspn(text, letters) == strlen(text);
}

static bool is_line(const char *text)
{
    return text != NULL && text[0] != '\0' && strchr(text, '\n') == NULL;
}

static enum moe_status check_choices(const struct moe_policy_parameter *p, struct moe_error *err)
{
    uint32_t count = 0;
    if (p->choices == NULL || p->choices[0] == NULL) {
        return moe_fail(err, MOE_POLICY, "parameter %s has no choices", p->name);
    }
    for (uint32_t i = 0; p->choices[i] != NULL; i++, count++) {
        if (!is_word(p->choices[i], LOWER)) {
            return moe_fail(err, MOE_POLICY, "parameter %s: choice %u is no word of [a-z0-9_]",
                            p->name, i);
        }
    }
    return p->standard >= 0.0 && p->standard < count && floor(p->standard) == p->standard
               ? MOE_OK
               : moe_fail(err, MOE_POLICY, "parameter %s: its default %g is none of %u choices",
                          p->name, p->standard, count);
}

static enum moe_status check_parameter(const struct moe_policy_parameter *p, struct moe_error *err)
{
    if (!is_line(p->help) || !is_line(p->source)) {
        return moe_fail(err, MOE_POLICY, "parameter %s: help and source are one line each",
                        p->name);
    }
    switch (p->kind) {
    case MOE_PARAMETER_CHOICE:
        return check_choices(p, err);
    case MOE_PARAMETER_FLAG:
        return p->standard == 0.0 || p->standard == 1.0
                   ? MOE_OK
                   : moe_fail(err, MOE_POLICY, "parameter %s: its default %g is no flag", p->name,
                              p->standard);
    case MOE_PARAMETER_REAL:
    case MOE_PARAMETER_WHOLE:
        if (!(fabs(p->min) <= 0x1p53 && fabs(p->max) <= 0x1p53 && p->min <= p->standard &&
              p->standard <= p->max)) {
            return moe_fail(err, MOE_POLICY, "parameter %s: its default %g lies outside %g to %g",
                            p->name, p->standard, p->min, p->max);
        }
        if (p->kind == MOE_PARAMETER_WHOLE && floor(p->standard) != p->standard) {
            return moe_fail(err, MOE_POLICY, "parameter %s: its default %g is no whole number",
                            p->name, p->standard);
        }
        return MOE_OK;
    }
    return moe_fail(err, MOE_POLICY, "parameter %s has an unknown kind", p->name);
}

static enum moe_status check_parameters(const struct moe_policy *policy, struct moe_error *err)
{
    if (policy->parameter_count > MOE_POLICY_PARAMETER_LIMIT ||
        (policy->parameter_count > 0 && policy->parameters == NULL)) {
        return moe_fail(err, MOE_POLICY, "parameters: %u of them; at most %d are supported",
                        policy->parameter_count, MOE_POLICY_PARAMETER_LIMIT);
    }
    for (uint32_t i = 0; i < policy->parameter_count; i++) {
        const struct moe_policy_parameter *p = &policy->parameters[i];
        if (!is_word(p->name, LETTERS)) {
            return moe_fail(err, MOE_POLICY, "parameter %u: its name is no word of [A-Za-z0-9_]",
                            i);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(p->name, policy->parameters[j].name) == 0) {
                return moe_fail(err, MOE_POLICY, "parameter %s is declared twice", p->name);
            }
        }
        MOE_TRY(check_parameter(p, err));
    }
    return MOE_OK;
}

static enum moe_status check_methods(const struct moe_policy *policy, struct moe_error *err)
{
    const struct moe_dispatch_methods *d = policy->dispatch;
    const struct moe_predict_methods *p = policy->predict;
    const struct moe_group_methods *g = policy->group;
    if (policy->place == NULL && d == NULL && p == NULL && g == NULL) {
        return moe_fail(err, MOE_POLICY, "place, dispatch, predict and group are all NULL");
    }
    if (d != NULL && d->in_turn != (d->split == NULL)) {
        return moe_fail(err, MOE_POLICY, "dispatch: split is %s, in_turn is %s",
                        d->split == NULL ? "NULL" : "there", d->in_turn ? "true" : "false");
    }
    if (p != NULL && p->window == NULL && p->step == NULL) {
        return moe_fail(err, MOE_POLICY, "predict: window and step are both NULL");
    }
    if (g != NULL && g->in_turn != (g->choose == NULL)) {
        return moe_fail(err, MOE_POLICY, "group: choose is %s, in_turn is %s",
                        g->choose == NULL ? "NULL" : "there", g->in_turn ? "true" : "false");
    }
    return MOE_OK;
}

enum moe_status moe_policy_check_table(const struct moe_policy *policy, struct moe_error *err)
{
    if (policy->abi != MOE_POLICY_ABI || policy->struct_size != sizeof *policy) {
        return moe_fail(err, MOE_POLICY,
                        "is of ABI %u with a table of %u bytes; this is ABI %d, %zu", policy->abi,
                        policy->struct_size, MOE_POLICY_ABI, sizeof *policy);
    }
    if (!is_word(policy->name, LOWER)) {
        return moe_fail(err, MOE_POLICY, "name is no word of [a-z0-9_], at most 40 letters");
    }
    if (!is_line(policy->summary) || !is_line(policy->source) || !is_line(policy->tie_rule)) {
        return moe_fail(err, MOE_POLICY, "summary, source and tie_rule are one line each");
    }
    if ((policy->needs & ~(uint32_t) MOE_POLICY_NEEDS_ALL) != 0) {
        return moe_fail(err, MOE_POLICY, "needs 0x%x has bits beyond 0x%x", policy->needs,
                        (unsigned) MOE_POLICY_NEEDS_ALL);
    }
    MOE_TRY(check_methods(policy, err));
    return check_parameters(policy, err);
}

/* Values of parameters as text, both ways. */
#include "policies/parameter.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/options.h"

/* As few digits as read back to the same number; whole numbers in full: 1000, not 1e+03. */
static void print_real(double value, char *text, size_t text_bytes)
{
    if (floor(value) == value && fabs(value) < 1e15) {
        (void) snprintf(text, text_bytes, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        (void) snprintf(text, text_bytes, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            return;
        }
    }
}

void moe_parameter_print(const struct moe_policy_parameter *p, double value, char *text,
                         size_t text_bytes)
{
    switch (p->kind) {
    case MOE_PARAMETER_REAL:
        print_real(value, text, text_bytes);
        return;
    case MOE_PARAMETER_WHOLE:
        (void) snprintf(text, text_bytes, "%.0f", value);
        return;
    case MOE_PARAMETER_CHOICE:
        (void) snprintf(text, text_bytes, "%s", p->choices[(size_t) value]);
        return;
    case MOE_PARAMETER_FLAG:
        (void) snprintf(text, text_bytes, "%s", value != 0.0 ? "true" : "false");
        return;
    }
}

void moe_parameter_print_range(const struct moe_policy_parameter *p, char *text, size_t text_bytes)
{
    char low[48] = "";
    char high[48] = "";
    size_t used = 0;
    switch (p->kind) {
    case MOE_PARAMETER_REAL:
    case MOE_PARAMETER_WHOLE:
        moe_parameter_print(p, p->min, low, sizeof low);
        moe_parameter_print(p, p->max, high, sizeof high);
        (void) snprintf(text, text_bytes, "%s%s to %s",
                        p->kind == MOE_PARAMETER_WHOLE ? "whole, " : "", low, high);
        return;
    case MOE_PARAMETER_CHOICE:
        text[0] = '\0';
        for (uint32_t i = 0; p->choices[i] != NULL && used < text_bytes - 1; i++) {
            used += (size_t) snprintf(text + used, text_bytes - used, "%s%s", i == 0 ? "" : " ",
                                      p->choices[i]);
        }
        return;
    case MOE_PARAMETER_FLAG:
        (void) snprintf(text, text_bytes, "false true");
        return;
    }
}

static enum moe_status refuse(const struct moe_policy_parameter *p, const char *text,
                              struct moe_error *err)
{
    char range[240];
    moe_parameter_print_range(p, range, sizeof range);
    return moe_fail(err, MOE_RANGE, "parameter %s: '%.48s'; allowed: %s", p->name, text, range);
}

static bool is_one_of(const struct moe_policy_parameter *p, const char *text, double *value)
{
    static const char *const flags[] = { "false", "true", NULL };
    const char *const *names = p->kind == MOE_PARAMETER_FLAG ? flags : p->choices;
    for (uint32_t i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], text) == 0) {
            *value = i;
            return true;
        }
    }
    return false;
}

enum moe_status moe_parameter_parse(const struct moe_policy_parameter *p, const char *text,
                                    double *value, struct moe_error *err)
{
    double read = 0.0;
    const bool number = p->kind == MOE_PARAMETER_REAL || p->kind == MOE_PARAMETER_WHOLE;
    const bool good = number ? moe_parse_real(text, p->name, p->min, p->max, &read, NULL) == MOE_OK
                             : is_one_of(p, text, &read);
    if (!good || (p->kind == MOE_PARAMETER_WHOLE && floor(read) != read)) {
        return refuse(p, text, err);
    }
    *value = read + 0.0; /* -0 is 0 */
    return MOE_OK;
}

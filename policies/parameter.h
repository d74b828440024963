/*
 * Parameter: the text of a policy's knob, both ways.
 */
#ifndef MOE_POLICIES_PARAMETER_H
#define MOE_POLICIES_PARAMETER_H

#include <stddef.h>

#include "policies/policy.h"

/* A value as text[text_bytes >= 48], as short as it reads back exactly. */
void moe_parameter_print(const struct moe_policy_parameter *parameter, double value, char *text,
                         size_t text_bytes);

/* What it accepts: "0 to 1", "whole, 1 to 64", "mean knee". */
void moe_parameter_print_range(const struct moe_policy_parameter *parameter, char *text,
                               size_t text_bytes);

/* Errors: MOE_RANGE naming parameter, text and what is allowed. */
enum moe_status moe_parameter_parse(const struct moe_policy_parameter *parameter, const char *text,
                                    double *value, struct moe_error *err) MOE_MUST_CHECK;

#endif

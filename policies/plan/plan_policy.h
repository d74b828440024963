/*
 * Plan policy: a plan file as a place policy, so that what runs in production can be compared
 * with what a policy would do: a composition names the file (`./production.json`).
 *
 * The plan may have fewer slots than the study: each GPU then leaves its last ones empty. Its
 * layers are the model's MoE layers in order when they are as many; otherwise the parameters
 * first_layer and layer_step say which of the file's layer numbers they are (3 and 1 for a file
 * of all 61 layers of DeepSeek-V3).
 */
#ifndef MOE_POLICIES_PLAN_PLAN_POLICY_H
#define MOE_POLICIES_PLAN_PLAN_POLICY_H

#include "policies/policy.h"

enum { MOE_PLAN_POLICY_LIMIT = 64 }; /* files of one process */

/* Reads path and keeps it until the program ends; the same path again gives the same policy.
 * Not while other threads use policies. Errors: as moe_plan_read; MOE_LIMIT beyond
 * MOE_PLAN_POLICY_LIMIT. */
enum moe_status moe_plan_policy_load(const struct moe_policy **out, const char *path,
                                     struct moe_error *err) MOE_MUST_CHECK;

#endif

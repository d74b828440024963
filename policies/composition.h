/*
 * Composition: which policies decide together in one run, and with which parameters.
 *
 *   craft:R=8+dispatch=lp+predict=ewma:alpha=0.7
 *
 * A term for each kind of decision, joined by '+'; KIND= before all but the place policy (where
 * it may stand too); behind a policy's name its parameters, each ':name=value'. What is left out
 * is decided as the engine does by itself: dispatch=even, group=round_robin, no prediction.
 * A name with a '/' is the path of a plug-in (policies/plugin.h) when it ends with ".so", else of
 * a plan file (policies/plan/plan_policy.h); such a path has no '+', ':' or ','.
 *
 * Canonical text (the label): kinds in the order place, dispatch, predict, group; no "place=";
 * parameters in declared order, those at their default left out, numbers as short as they read
 * back exactly; dispatch=even and group=round_robin left out. Equal labels, equal behaviour.
 */
#ifndef MOE_POLICIES_COMPOSITION_H
#define MOE_POLICIES_COMPOSITION_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/policy.h"

enum { MOE_COMPOSITION_BYTES = 256 }; /* of a text, with its zero */

struct moe_composition_part {
    const struct moe_policy *policy; /* NULL only for predict: nobody predicts */
    double values[MOE_POLICY_PARAMETER_LIMIT];
};

struct moe_composition {
    char label[MOE_COMPOSITION_BYTES];
    struct moe_composition_part part[MOE_POLICY_KIND_COUNT];
};

/* Errors: MOE_RANGE quoting the term and naming what is allowed there; MOE_IO, MOE_POLICY,
 * MOE_UNSUPPORTED from a plug-in or a plan. */
enum moe_status moe_composition_parse(struct moe_composition *out, const char *text,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* The place policy alone, with its defaults. */
void moe_composition_of(struct moe_composition *out, const struct moe_policy *policy);

/* What all of its policies need together: enum moe_policy_need. */
uint32_t moe_composition_needs(const struct moe_composition *composition);

/* The text with folder (which ends with '/') before every relative plug-in path: out has
 * MOE_COMPOSITION_BYTES. Errors: MOE_RANGE when it gets too long. */
enum moe_status moe_composition_resolve(const char *text, const char *folder, char *out,
                                        struct moe_error *err) MOE_MUST_CHECK;

#endif

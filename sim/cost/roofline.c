#include "sim/cost/roofline.h"

#include <assert.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>
#include <string.h>

#include "sim/cost/norm.h"

enum { PARAMETER_LIMIT = MOE_ROOFLINE_PARAMETERS, ITERATION_LIMIT = 200 };

/* Where the search begins besides the prior's mean, in the prior's own units. Fixed: the
 * same points give the same fit. */
static const double starts[MOE_ROOFLINE_STARTS][PARAMETER_LIMIT] = {
    { 0.0, 0.0, 0.0, 0.0, 0.0 },   { -2.0, 0.0, 0.0, 0.0, 0.0 },  { 2.0, 0.0, 0.0, 0.0, 0.0 },
    { 0.0, 0.0, 0.0, 2.0, 0.0 },   { 0.0, 0.0, 0.0, -3.0, 0.0 },  { 0.0, 1.5, 1.5, 0.0, 0.0 },
    { 0.0, -2.0, -2.0, 0.0, 0.0 }, { -2.0, 1.5, -1.0, 2.0, 0.0 }, { 1.0, -1.0, 1.5, 2.0, 0.0 },
};

static size_t parameter_count(const struct moe_roofline_problem *problem)
{
    return problem->is_weighted ? PARAMETER_LIMIT : PARAMETER_LIMIT - 1;
}

double moe_roofline_logit(double share)
{
    assert(share > 0.0 && share < 1.0);
    return log(share / (1.0 - share));
}

static double share_of(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

double moe_roofline_ns(const struct moe_roofline *roofline, double bytes, double flops,
                       double clock)
{
    return roofline->t0_ns + moe_norm(bytes * (1e9 / roofline->bandwidth_bytes_s),
                                      flops * (1e9 / roofline->peak_flop_s) / clock, roofline->p,
                                      1.0 / roofline->p);
}

/* d log t / d log of one term: (t - t0)/t * term^p / (sum of both ^p). */
static double term_share(const struct moe_roofline *roofline, double term, double other)
{
    const double norm = moe_norm(term, other, roofline->p, 1.0 / roofline->p);
    if (norm <= 0.0) {
        return 0.0;
    }
    return norm / (roofline->t0_ns + norm) * pow(term / norm, roofline->p);
}

double moe_roofline_compute_share(const struct moe_roofline *roofline, double bytes, double flops,
                                  double clock)
{
    return term_share(roofline, flops / (roofline->peak_flop_s * clock) * 1e9,
                      bytes / roofline->bandwidth_bytes_s * 1e9);
}

double moe_roofline_memory_share(const struct moe_roofline *roofline, double bytes, double flops,
                                 double clock)
{
    return term_share(roofline, bytes / roofline->bandwidth_bytes_s * 1e9,
                      flops / (roofline->peak_flop_s * clock) * 1e9);
}

static void decode(const struct moe_roofline_problem *problem, const double *x,
                   struct moe_roofline *roofline)
{
    roofline->t0_ns = exp(x[0]);
    roofline->bandwidth_bytes_s = problem->bandwidth_ceiling * share_of(x[1]);
    roofline->peak_flop_s = problem->peak_ceiling * share_of(x[2]);
    const double p = 1.0 + exp(x[3]);
    roofline->p = p < 16.0 ? p : 16.0;
    roofline->weight = problem->is_weighted ? exp(x[4]) : 0.0;
}

/* What must be squared so that the sum of squares is the soft-L1 cost. */
static double soften(double residual, double soft)
{
    if (soft <= 0.0) {
        return residual;
    }
    const double z = residual / soft;
    /* 2 (sqrt(1 + z^2) - 1), without the difference of near equals */
    const double cost = 2.0 * z * z / (1.0 + sqrt(1.0 + z * z));
    return copysign(soft * sqrt(cost), residual);
}

static int residuals(const gsl_vector *x, void *context, gsl_vector *out)
{
    const struct moe_roofline_problem *problem = context;
    const struct moe_roofline_prior *prior = &problem->prior;
    double values[PARAMETER_LIMIT] = { 0 };
    struct moe_roofline roofline = { 0 };
    for (size_t i = 0; i < parameter_count(problem); i++) {
        values[i] = gsl_vector_get(x, i);
        gsl_vector_set(out, problem->count + i,
                       (values[i] - prior->mean[i]) / prior->sd[i] * prior->weight);
    }
    decode(problem, values, &roofline);
    for (uint32_t i = 0; i < problem->count; i++) {
        const struct moe_roofline_point *point = &problem->points[i];
        const double flops = point->flops + roofline.weight * point->weighted_flops;
        const double ns = moe_roofline_ns(&roofline, point->bytes, flops, point->clock);
        gsl_vector_set(out, i, soften(log(ns / point->ns), problem->soft));
    }
    return GSL_SUCCESS;
}

/* Levenberg-Marquardt with finite differences from one start. */
static double descend(const struct moe_roofline_problem *problem, const double *start, double *x,
                      gsl_multifit_nlinear_workspace *workspace)
{
    gsl_multifit_nlinear_fdf system = {
        .f = residuals,
        .n = problem->count + parameter_count(problem),
        .p = parameter_count(problem),
        .params = (void *) (uintptr_t) problem,
    };
    double begin[PARAMETER_LIMIT];
    int info = 0;
    double cost = 0.0;
    for (size_t i = 0; i < system.p; i++) {
        begin[i] = problem->prior.mean[i] + start[i] * problem->prior.sd[i];
    }
    const gsl_vector_const_view view = gsl_vector_const_view_array(begin, system.p);
    (void) gsl_multifit_nlinear_init(&view.vector, &system, workspace);
    /* Running out of iterations is no failure: the errors of the result say how good it is. */
    (void) gsl_multifit_nlinear_driver(ITERATION_LIMIT, 1e-10, 1e-10, 0.0, NULL, NULL, &info,
                                       workspace);
    const gsl_vector *position = gsl_multifit_nlinear_position(workspace);
    const gsl_vector *residual = gsl_multifit_nlinear_residual(workspace);
    for (size_t i = 0; i < system.p; i++) {
        x[i] = gsl_vector_get(position, i);
    }
    for (size_t i = 0; i < system.n; i++) {
        cost += gsl_vector_get(residual, i) * gsl_vector_get(residual, i);
    }
    return cost;
}

enum moe_status moe_roofline_fit(struct moe_roofline *out, double *cost,
                                 const struct moe_roofline_problem *problem, struct moe_error *err)
{
    assert(problem->count > 0);
    assert(problem->starts >= 1 && problem->starts <= MOE_ROOFLINE_STARTS);
    const gsl_multifit_nlinear_parameters options = gsl_multifit_nlinear_default_parameters();
    const size_t count = parameter_count(problem);
    gsl_multifit_nlinear_workspace *workspace = gsl_multifit_nlinear_alloc(
        gsl_multifit_nlinear_trust, &options, problem->count + count, count);
    if (workspace == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a fit of %u points", problem->count);
    }
    double best[PARAMETER_LIMIT] = { 0 };
    double least = INFINITY;
    for (uint32_t s = 0; s < problem->starts; s++) {
        double x[PARAMETER_LIMIT] = { 0 };
        const double reached = descend(problem, starts[s], x, workspace);
        /* Another start must win clearly: by less, the last digits would decide. */
        if (s == 0 || reached < least * (1.0 - 1e-6)) {
            least = reached;
            memcpy(best, x, sizeof best);
        }
    }
    gsl_multifit_nlinear_free(workspace);
    decode(problem, best, out);
    if (cost != NULL) {
        *cost = least;
    }
    return MOE_OK;
}

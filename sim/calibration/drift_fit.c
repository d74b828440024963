#include "sim/calibration/drift_fit.h"

#include <assert.h>
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_multimin.h>
#include <math.h>

enum { PARAMETER_COUNT = 3, ITERATION_LIMIT = 400, START_COUNT = 4 };

static const double least_tau_s = 0.5;

struct problem {
    const struct moe_drift_visit *visits;
    uint32_t count;
    double largest_tau_s; /* the longest sequence: nothing is known of longer memory */
};

/* Minus twice the log likelihood of one sequence, its unknown mean estimated along (a diffuse
 * prior of variance 1, far above what drift can be). */
static double sequence_cost(const struct moe_drift_visit *visits, uint32_t count, double tau,
                            double sigma, double noise)
{
    /* State: x and the mean, with covariance [pxx pxm; pxm pmm]. */
    double x = 0.0;
    double m = visits[0].log_ns;
    double pxx = sigma * sigma;
    double pxm = 0.0;
    double pmm = 1.0;
    double cost = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0) {
            const double keep = exp(-(visits[i].t_s - visits[i - 1].t_s) / tau);
            x *= keep;
            pxm *= keep;
            pxx = keep * keep * pxx + (1.0 - keep * keep) * sigma * sigma;
        }
        const double variance = pxx + 2.0 * pxm + pmm + noise * noise;
        const double miss = visits[i].log_ns - x - m;
        const double gain_x = (pxx + pxm) / variance;
        const double gain_m = (pxm + pmm) / variance;
        cost += log(variance) + miss * miss / variance;
        x += gain_x * miss;
        m += gain_m * miss;
        const double old_xx = pxx;
        const double old_xm = pxm;
        pxx -= gain_x * (old_xx + old_xm);
        pxm -= gain_x * (old_xm + pmm);
        pmm -= gain_m * (old_xm + pmm);
    }
    return cost;
}

static double total_cost(const struct problem *problem, double tau, double sigma, double noise)
{
    double cost = 0.0;
    for (uint32_t begin = 0; begin < problem->count;) {
        uint32_t end = begin + 1;
        while (end < problem->count &&
               problem->visits[end].sequence == problem->visits[begin].sequence) {
            end++;
        }
        cost += sequence_cost(&problem->visits[begin], end - begin, tau, sigma, noise);
        begin = end;
    }
    return cost;
}

static double clamp(double value, double low, double high)
{
    return value < low ? low : value > high ? high : value;
}

static void decode(const struct problem *problem, const gsl_vector *x, double *tau, double *sigma,
                   double *noise)
{
    *tau = clamp(exp(gsl_vector_get(x, 0)), least_tau_s, problem->largest_tau_s);
    *sigma = clamp(exp(gsl_vector_get(x, 1)), 1e-7, 1.0);
    *noise = clamp(exp(gsl_vector_get(x, 2)), 1e-5, 1.0);
}

static double cost(const gsl_vector *x, void *context)
{
    double tau = 0.0;
    double sigma = 0.0;
    double noise = 0.0;
    decode(context, x, &tau, &sigma, &noise);
    return total_cost(context, tau, sigma, noise);
}

/* The noise alone: the best likelihood without any drift, by golden section in its log. */
static double still_cost(const struct problem *problem)
{
    const double golden = 0.6180339887498949;
    double low = log(1e-5);
    double high = 0.0;
    for (int i = 0; i < 80; i++) {
        const double a = high - golden * (high - low);
        const double b = low + golden * (high - low);
        if (total_cost(problem, 1.0, 0.0, exp(a)) < total_cost(problem, 1.0, 0.0, exp(b))) {
            high = b;
        } else {
            low = a;
        }
    }
    return total_cost(problem, 1.0, 0.0, exp((low + high) / 2.0));
}

static double descend(gsl_multimin_fminimizer *minimizer, const struct problem *problem,
                      const double *start, gsl_vector *x, gsl_vector *step)
{
    gsl_multimin_function function = {
        .f = cost,
        .n = PARAMETER_COUNT,
        .params = (void *) (uintptr_t) problem,
    };
    for (size_t i = 0; i < PARAMETER_COUNT; i++) {
        gsl_vector_set(x, i, start[i]);
    }
    gsl_vector_set_all(step, 0.7);
    (void) gsl_multimin_fminimizer_set(minimizer, &function, x, step);
    for (int i = 0; i < ITERATION_LIMIT; i++) {
        if (gsl_multimin_fminimizer_iterate(minimizer) != 0 ||
            gsl_multimin_test_size(gsl_multimin_fminimizer_size(minimizer), 1e-5) == 0) {
            break;
        }
    }
    return gsl_multimin_fminimizer_minimum(minimizer);
}

enum moe_status moe_drift_fit(struct moe_drift_fit *out, const struct moe_drift_visit *visits,
                              uint32_t count, struct moe_error *err)
{
    /* log of tau in seconds, of sigma and of noise */
    static const double starts[START_COUNT][PARAMETER_COUNT] = {
        { 3.4, -5.3, -6.9 }, { 5.0, -4.6, -6.0 }, { 1.6, -6.0, -7.5 }, { 6.0, -6.5, -5.3 }
    };
    struct problem problem = { visits, count, 2.0 * least_tau_s };
    assert(count >= MOE_DRIFT_LEAST_VISITS);
    for (uint32_t i = 0, begin = 0; i < count; i++) {
        begin = visits[i].sequence == visits[begin].sequence ? begin : i;
        problem.largest_tau_s = fmax(problem.largest_tau_s, visits[i].t_s - visits[begin].t_s);
    }
    gsl_multimin_fminimizer *minimizer =
        gsl_multimin_fminimizer_alloc(gsl_multimin_fminimizer_nmsimplex2, PARAMETER_COUNT);
    gsl_vector *x = gsl_vector_alloc(PARAMETER_COUNT);
    gsl_vector *step = gsl_vector_alloc(PARAMETER_COUNT);
    enum moe_status status = MOE_OK;
    struct moe_drift_fit fit = { 0 };
    if (minimizer == NULL || x == NULL || step == NULL) {
        status = moe_fail(err, MOE_LIMIT, "no memory for a drift of %u visits", count);
        goto done;
    }
    double least = INFINITY;
    for (int s = 0; s < START_COUNT; s++) {
        const double reached = descend(minimizer, &problem, starts[s], x, step);
        if (reached < least - 1e-6) {
            least = reached;
            decode(&problem, gsl_multimin_fminimizer_x(minimizer), &fit.tau_s, &fit.sigma,
                   &fit.noise);
        }
    }
    /* Two more numbers must pay for themselves. */
    fit.found = still_cost(&problem) - least > gsl_cdf_chisq_Pinv(0.99, 2.0);
    *out = fit;
done:
    gsl_vector_free(step);
    gsl_vector_free(x);
    if (minimizer != NULL) {
        gsl_multimin_fminimizer_free(minimizer);
    }
    return status;
}

/*
 * Zipf: in each layer the popularity of the expert of rank r is r^-s, under the condition that a
 * token takes k different ones; s is found (Brent's method, GSL) so that the expected load of the
 * most popular expert over the mean is what was asked for. Which expert has which rank is drawn
 * for each layer.
 */
#include <gsl/gsl_errno.h>
#include <gsl/gsl_roots.h>
#include <math.h>
#include <stdlib.h>

#include "sim/base/random.h"
#include "traces/generate/popularity.h"

static const double EXPONENT_LIMIT = 40.0;

struct problem {
    uint32_t expert_count;
    uint32_t top_k;
    double target; /* max / mean */
    double *weights;
    double *probability;
};

static void weigh(const struct problem *problem, double exponent)
{
    for (uint32_t rank = 0; rank < problem->expert_count; rank++) {
        problem->weights[rank] = pow(rank + 1.0, -exponent);
    }
}

/* max/mean under that exponent, less the target. A probability of 1 caps the most popular: past
 * that it rises no more, so the root is sought where it still does. */
static double miss(double exponent, void *context)
{
    const struct problem *problem = context;
    weigh(problem, exponent);
    moe_choice_probabilities(problem->weights, problem->expert_count, problem->top_k,
                             problem->probability);
    return problem->probability[0] * problem->expert_count / problem->top_k - problem->target;
}

/* The exponent, or NaN when the search does not end. */
static double solve(struct problem *problem)
{
    gsl_function function = { .function = miss, .params = problem };
    gsl_root_fsolver *solver = gsl_root_fsolver_alloc(gsl_root_fsolver_brent);
    double root = NAN;
    if (solver == NULL) {
        return NAN;
    }
    if (gsl_root_fsolver_set(solver, &function, 0.0, EXPONENT_LIMIT) == GSL_SUCCESS) {
        for (int i = 0; i < 200 && isnan(root); i++) {
            if (gsl_root_fsolver_iterate(solver) != GSL_SUCCESS) {
                break;
            }
            const double low = gsl_root_fsolver_x_lower(solver);
            const double high = gsl_root_fsolver_x_upper(solver);
            if (gsl_root_test_interval(low, high, 1e-12, 1e-12) == GSL_SUCCESS) {
                root = gsl_root_fsolver_root(solver);
            }
        }
    }
    gsl_root_fsolver_free(solver);
    return root;
}

/* Ranks of a layer's experts: a shuffle (Fisher and Yates) by the layer's own draws. */
static void shuffle(double *weights, uint32_t count, uint64_t key)
{
    for (uint32_t i = count - 1; i > 0; i--) {
        const uint64_t j = moe_random_below(key, i, (uint64_t) i + 1);
        const double moved = weights[i];
        weights[i] = weights[j];
        weights[j] = moved;
    }
}

static enum moe_status build(struct moe_popularity *popularity, struct problem *problem,
                             const struct moe_generate_options *options,
                             struct moe_trace_provenance *record, struct moe_error *err)
{
    const struct moe_trace_model *model = &popularity->model;
    const double most = (double) model->expert_count / model->top_k;
    if (!(options->max_over_mean >= 1.0 && options->max_over_mean < most)) {
        return moe_fail(err, MOE_RANGE,
                        "zipf: --max-over-mean %g; from 1 to below %u / %u = %g, at which every "
                        "token takes the same expert",
                        options->max_over_mean, model->expert_count, model->top_k, most);
    }
    gsl_set_error_handler_off();
    const double exponent = options->max_over_mean > 1.0 ? solve(problem) : 0.0;
    if (!(fabs(miss(exponent, problem)) < 1e-6)) {
        return moe_fail(err, MOE_RANGE, "zipf: no exponent gives --max-over-mean %g",
                        options->max_over_mean);
    }
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        weigh(problem, exponent);
        shuffle(problem->weights, model->expert_count,
                moe_generate_key("zipf", options->seed, 1 + (uint64_t) layer));
        moe_popularity_set(popularity, layer, problem->weights, problem->probability);
    }
    (void) snprintf(record->note, sizeof record->note,
                    "seed %llu; Zipf exponent %.6g for max/mean load %g; layers and tokens are "
                    "independent",
                    (unsigned long long) options->seed, exponent, options->max_over_mean);
    return MOE_OK;
}

static enum moe_status open_zipf(void **state, const struct moe_generate_options *options,
                                 struct moe_trace_model *model, uint64_t *request_count,
                                 struct moe_trace_provenance *record, struct moe_error *err)
{
    struct moe_popularity *popularity = NULL;
    MOE_TRY(moe_generate_refuse_others(options, "zipf",
                                       " --requests --layers --experts --top-k --groups "
                                       "--group-limit --prompt-tokens --output-tokens "
                                       "--max-over-mean",
                                       err));
    if (options->request_count == 0 || options->max_over_mean == 0.0) {
        return moe_fail(err, MOE_RANGE, "zipf: %s is needed",
                        options->request_count == 0 ? "--requests" : "--max-over-mean");
    }
    MOE_TRY(moe_generate_model(model, options, "zipf", err));
    MOE_TRY(moe_popularity_create(&popularity, model, options, err));
    *state = popularity;
    *request_count = options->request_count;
    struct problem problem = {
        .expert_count = model->expert_count,
        .top_k = model->top_k,
        .target = options->max_over_mean,
        .weights = malloc(model->expert_count * sizeof(double)),
        .probability = malloc(model->expert_count * sizeof(double)),
    };
    enum moe_status status = MOE_LIMIT;
    if (problem.weights == NULL || problem.probability == NULL) {
        (void) moe_fail(err, status, "no memory for %u experts", model->expert_count);
    } else {
        status = build(popularity, &problem, options, record, err);
    }
    free(problem.weights);
    free(problem.probability);
    return status;
}

const struct moe_generator moe_generator_zipf = {
    .name = "zipf",
    .summary = "expert popularity r^-s with s so that max/mean load is --max-over-mean",
    .open = open_zipf,
    .request = moe_popularity_request,
    .row = moe_popularity_row,
    .close = moe_popularity_close,
};

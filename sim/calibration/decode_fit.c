#include "sim/calibration/decode_fit.h"

#include <assert.h>
#include <gsl/gsl_multifit_nlinear.h>
#include <math.h>
#include <string.h>

#include "sim/calibration/fitter.h"
#include "sim/calibration/shape_fit.h"
#include "sim/cost/roofline.h"

/* Without a fold's points the search has not far to go from the fit of all. */
enum { PARAMETERS = 8, STARTS = 5, ITERATION_LIMIT = 200, FOLD_ITERATION_LIMIT = 30 };

/* Of what a median may beat the ceiling of reading by; calibration_check.h allows 2 %. */
static const double margin = 1.019;
static const double soft = 0.05;
static const double prior_weight = 0.005;

/* Blocks that one SM runs at once. */
static const uint32_t per_sm[] = { 1, 2, 3, 4, 6, 8 };
enum { PER_SM_COUNT = sizeof per_sm / sizeof per_sm[0] };

/* Logs of t0, round, tile; logit of the bandwidth's share; log(p - 1); logs of join, split, row. */
enum { T0, ROUND, TILE, BANDWIDTH, P, JOIN, SPLIT, ROW };
static const double sd[PARAMETERS] = { 1.0, 1.0, 1.5, 1.0, 1.0, 1.5, 1.0, 1.5 };

/* Where the search begins besides the prior's mean, in the prior's own units. Fixed: the same
 * points give the same fit. */
static const double starts[STARTS][PARAMETERS] = {
    { 0.0 },
    { [TILE] = 1.0 },
    { [TILE] = -1.0, [ROUND] = 0.5 },
    { [P] = 1.5 },
    { [T0] = 0.5, [ROUND] = -1.5, [P] = -1.5 },
};

struct search {
    const struct moe_decode_problem *problem;
    struct moe_calibration_decode row;
    struct moe_decode_plan *plans; /* [count] */
    double mean[PARAMETERS];
};

/* A tile alone on an SM takes what it takes to bring it, and to compute it at a usual share of
 * the SM's rate. */
static void make_prior(struct search *search)
{
    const struct moe_calibration_decode *row = &search->row;
    const double pair = 2.0 * row->q_heads * ((double) row->head_size + row->value_size);
    const double flops = pair * row->tile_tokens / row->blocks;
    const double sm_flop_s = 0.6 * search->problem->flop_s / search->problem->sm_count;
    const double means[PARAMETERS] = {
        [T0] = log(6e3),
        [ROUND] = log(2e3),
        [TILE] = log(500.0 + flops / sm_flop_s * 1e9),
        [BANDWIDTH] = moe_roofline_logit(0.9),
        [P] = log(2.0),
        [JOIN] = log(1e3),
        [SPLIT] = log(100.0),
        [ROW] = log(1.0),
    };
    memcpy(search->mean, means, sizeof means);
}

static void decode(const struct search *search, const double *x, struct moe_calibration_decode *row)
{
    const double p = 1.0 + exp(x[P]);
    row->t0_ns = exp(x[T0]);
    row->round_ns = exp(x[ROUND]);
    row->tile_ns = exp(x[TILE]);
    row->bandwidth_bytes_s = margin * search->problem->read_bytes_s / (1.0 + exp(-x[BANDWIDTH]));
    row->p = p < 16.0 ? p : 16.0;
    row->join_ns = exp(x[JOIN]);
    row->split_ns = exp(x[SPLIT]);
    row->row_ns = exp(x[ROW]);
}

/* The other way round: where a search goes on from. */
static void encode(const struct search *search, const struct moe_calibration_decode *row, double *x)
{
    const double share = row->bandwidth_bytes_s / (margin * search->problem->read_bytes_s);
    x[T0] = log(row->t0_ns);
    x[ROUND] = log(row->round_ns);
    x[TILE] = log(row->tile_ns);
    x[BANDWIDTH] = moe_roofline_logit(fmin(share, 1.0 - 1e-9));
    x[P] = log(fmax(row->p - 1.0, 1e-6));
    x[JOIN] = log(row->join_ns);
    x[SPLIT] = log(row->split_ns);
    x[ROW] = log(row->row_ns);
}

/* What must be squared so that the sum of squares is the soft-L1 cost. */
static double soften(double residual)
{
    const double z = residual / soft;
    return copysign(soft * sqrt(2.0 * z * z / (1.0 + sqrt(1.0 + z * z))), residual);
}

static int residuals(const gsl_vector *x, void *context, gsl_vector *out)
{
    const struct search *search = context;
    const struct moe_decode_problem *problem = search->problem;
    struct moe_calibration_decode row = search->row;
    struct moe_decode_fit fit;
    double values[PARAMETERS];
    for (size_t i = 0; i < PARAMETERS; i++) {
        values[i] = fmin(fmax(gsl_vector_get(x, i), -40.0), 40.0);
        gsl_vector_set(out, problem->count + i,
                       (values[i] - search->mean[i]) / sd[i] * prior_weight);
    }
    decode(search, values, &row);
    moe_decode_from_row(&fit, &row);
    for (uint32_t i = 0; i < problem->count; i++) {
        const double ns = moe_decode_fitted_ns(&fit, &search->plans[i], 1.0, 1.0);
        gsl_vector_set(out, i, soften(log(ns / problem->points[i].median_ns)));
    }
    return GSL_SUCCESS;
}

/* Levenberg-Marquardt with finite differences from x, which becomes the best place found. */
static double descend(struct search *search, double *x, size_t iterations,
                      gsl_multifit_nlinear_workspace *workspace)
{
    gsl_multifit_nlinear_fdf system = {
        .f = residuals,
        .n = search->problem->count + PARAMETERS,
        .p = PARAMETERS,
        .params = search,
    };
    int info = 0;
    double cost = 0.0;
    const gsl_vector_const_view view = gsl_vector_const_view_array(x, PARAMETERS);
    (void) gsl_multifit_nlinear_init(&view.vector, &system, workspace);
    /* Running out of iterations is no failure: the errors of the result say how good it is. */
    (void) gsl_multifit_nlinear_driver(iterations, 1e-8, 1e-8, 0.0, NULL, NULL, &info, workspace);
    const gsl_vector *position = gsl_multifit_nlinear_position(workspace);
    const gsl_vector *residual = gsl_multifit_nlinear_residual(workspace);
    for (size_t i = 0; i < PARAMETERS; i++) {
        x[i] = fmin(fmax(gsl_vector_get(position, i), -40.0), 40.0);
    }
    for (size_t i = 0; i < system.n; i++) {
        cost += gsl_vector_get(residual, i) * gsl_vector_get(residual, i);
    }
    return cost;
}

static void round_row(struct moe_calibration_decode *row)
{
    double *const values[] = { &row->t0_ns,   &row->round_ns,         &row->tile_ns,
                               &row->join_ns, &row->split_ns,         &row->row_ns,
                               &row->p,       &row->bandwidth_bytes_s };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        *values[i] = moe_round_digits(*values[i], MOE_FITTER_DIGITS);
    }
}

/* From the fit that *row has (count 1), or from all starts. plans[count] is scratch. */
static enum moe_status search_fit(struct moe_calibration_decode *row,
                                  const struct moe_decode_problem *problem, bool from_row,
                                  struct moe_decode_plan *plans, struct moe_error *err)
{
    struct search search = { .problem = problem, .row = *row, .plans = plans };
    const gsl_multifit_nlinear_parameters options = gsl_multifit_nlinear_default_parameters();
    struct moe_decode_fit fit;
    double best[PARAMETERS] = { 0 };
    double least = INFINITY;
    gsl_multifit_nlinear_workspace *workspace = gsl_multifit_nlinear_alloc(
        gsl_multifit_nlinear_trust, &options, problem->count + PARAMETERS, PARAMETERS);
    if (workspace == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a fit of %u points", problem->count);
    }
    moe_decode_from_row(&fit, row); /* plans depend on shape and slots alone */
    for (uint32_t i = 0; i < problem->count; i++) {
        moe_decode_plan_make(&plans[i], &fit, problem->points[i].sequences,
                             problem->points[i].context);
    }
    make_prior(&search);
    for (uint32_t s = 0; s < (from_row ? 1 : STARTS); s++) {
        double x[PARAMETERS];
        if (from_row) {
            encode(&search, row, x);
        }
        for (size_t i = 0; i < PARAMETERS && !from_row; i++) {
            x[i] = search.mean[i] + starts[s][i] * sd[i];
        }
        const double cost =
            descend(&search, x, from_row ? FOLD_ITERATION_LIMIT : ITERATION_LIMIT, workspace);
        /* Another start must win clearly: by less, the last digits would decide. */
        if (s == 0 || cost < least * (1.0 - 1e-6)) {
            least = cost;
            memcpy(best, x, sizeof best);
        }
    }
    gsl_multifit_nlinear_free(workspace);
    decode(&search, best, row);
    round_row(row);
    return MOE_OK;
}

static struct moe_decode_plan *reserve_plans(const struct moe_decode_problem *problem,
                                             struct moe_arena *arena, struct moe_error *err)
{
    struct moe_decode_plan *plans = MOE_NEW(arena, struct moe_decode_plan, problem->count);
    if (plans == NULL) {
        (void) moe_fail(err, MOE_LIMIT, "no memory for a fit of %u points", problem->count);
    }
    return plans;
}

enum moe_status moe_decode_fit(struct moe_calibration_decode *row,
                               const struct moe_decode_problem *problem, struct moe_arena *arena,
                               struct moe_error *err)
{
    assert(problem->count > 0);
    struct moe_decode_plan *plans = reserve_plans(problem, arena, err);
    return plans == NULL ? MOE_LIMIT : search_fit(row, problem, false, plans, err);
}

/* Points with this many sequences, or else with this context, are left out. */
struct fold {
    uint32_t sequences; /* 0: by context */
    uint32_t context;
};

static bool is_left_out(const struct fold *fold, const struct moe_calibration_decode_point *point)
{
    return fold->sequences > 0 ? point->sequences == fold->sequences
                               : point->context == fold->context;
}

struct foretelling {
    const struct moe_decode_problem *problem;
    const struct moe_calibration_decode *start;
    struct moe_calibration_decode_point *kept; /* [problem->count], scratch as plans are */
    struct moe_decode_plan *plans;
    struct moe_arena *arena;
    double sum; /* of errors */
    uint32_t count;
};

static enum moe_status try_fold(struct foretelling *all, const struct fold *fold,
                                struct moe_error *err)
{
    const struct moe_decode_problem *problem = all->problem;
    struct moe_calibration_decode row = *all->start;
    struct moe_decode_problem rest = *problem;
    struct moe_decode decode = { 0 };
    rest.points = all->kept;
    rest.count = 0;
    for (uint32_t i = 0; i < problem->count; i++) {
        if (!is_left_out(fold, &problem->points[i])) {
            all->kept[rest.count++] = problem->points[i];
        }
    }
    MOE_TRY(search_fit(&row, &rest, true, all->plans, err));
    moe_decode_from_row(&decode.fit, &row);
    MOE_TRY(moe_decode_correct(&decode, all->kept, rest.count, all->arena, err));
    for (uint32_t i = 0; i < problem->count; i++) {
        const struct moe_calibration_decode_point *point = &problem->points[i];
        if (is_left_out(fold, point)) {
            enum moe_provenance provenance = MOE_PROVENANCE_MEASURED;
            const double ns =
                moe_decode_ns(&decode, point->sequences, point->context, 1.0, 1.0, &provenance);
            all->sum += fabs(log(ns / point->median_ns));
            all->count++;
        }
    }
    return MOE_OK;
}

/* The fold of point i when it is the first of its number of sequences, or of its context, and
 * others lie on both sides: what lies beyond all others is not foretold but guessed. */
static bool is_fold(const struct moe_decode_problem *problem, uint32_t index, bool by_context)
{
    const struct moe_calibration_decode_point *points = problem->points;
    const uint32_t own = by_context ? points[index].context : points[index].sequences;
    bool below = false;
    bool above = false;
    for (uint32_t i = 0; i < problem->count; i++) {
        const uint32_t other = by_context ? points[i].context : points[i].sequences;
        below = below || other < own;
        above = above || other > own;
        if (other == own && i < index) {
            return false;
        }
    }
    return below && above;
}

enum moe_status moe_decode_foretell(double *error, const struct moe_calibration_decode *row,
                                    const struct moe_decode_problem *problem,
                                    struct moe_arena *arena, struct moe_error *err)
{
    struct foretelling all = {
        .problem = problem,
        .start = row,
        .kept = MOE_NEW(arena, struct moe_calibration_decode_point, problem->count),
        .plans = reserve_plans(problem, arena, err),
        .arena = arena,
    };
    if (all.kept == NULL || all.plans == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a fit of %u points", problem->count);
    }
    for (uint32_t i = 0; i < problem->count; i++) {
        const struct moe_calibration_decode_point *point = &problem->points[i];
        const struct fold folds[] = { { .sequences = point->sequences },
                                      { .context = point->context } };
        for (int by = 0; by < 2; by++) {
            if (is_fold(problem, i, by == 1)) {
                MOE_TRY(try_fold(&all, &folds[by], err));
            }
        }
    }
    *error = all.count == 0 ? INFINITY : all.sum / all.count;
    return MOE_OK;
}

enum moe_status moe_decode_choose(struct moe_calibration_decode *row, double *error,
                                  const struct moe_decode_problem *problem, struct moe_arena *arena,
                                  struct moe_error *err)
{
    struct moe_calibration_decode best = *row;
    double least = INFINITY;
    for (int i = 0; i < PER_SM_COUNT; i++) {
        struct moe_calibration_decode tried = *row;
        double reached = INFINITY;
        tried.slots = per_sm[i] * problem->sm_count;
        MOE_TRY(moe_decode_fit(&tried, problem, arena, err));
        MOE_TRY(moe_decode_foretell(&reached, &tried, problem, arena, err));
        if (i == 0 || reached < least * (1.0 - 1e-3)) {
            least = reached;
            best = tried;
        }
    }
    *row = best;
    *error = least;
    return MOE_OK;
}

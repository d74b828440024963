#include <assert.h>
#include <gsl/gsl_cdf.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/cost/cost_state.h"
#include "sim/cost/logarithm.h"

/* Draws of one GPU: its counters are gpu * DRAW_COUNT + draw. */
enum draw { DRAW_CARD, DRAW_TAIL, DRAW_TAIL_DEPTH, DRAW_NORMAL, DRAW_COUNT = 8 };
static_assert(DRAW_NORMAL + MOE_FACTOR_COUNT <= DRAW_COUNT, "one normal for each class");

static const double quantile_at[MOE_COST_QUANTILE_COUNT] = {
    0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99
};
static const double least_jitter = 0.5;

static enum moe_status missing(const struct moe_cost_setup *setup, const char *table,
                               const char *class, struct moe_error *err)
{
    return moe_fail(err, MOE_RANGE, "%s: table %s has no row%s%s for %s", setup->calibration->name,
                    table, class[0] == '\0' ? "" : " of class ", class, setup->kind);
}

static enum moe_status init_factors(struct moe_cost_setup *setup, struct moe_error *err)
{
    static const char *const names[] = { "compute", "memory", "comm" };
    const struct moe_calibration *calibration = setup->calibration;
    bool seen[MOE_FACTOR_COUNT] = { false };
    for (uint32_t i = 0; i < calibration->factor_count; i++) {
        const struct moe_calibration_factor *row = &calibration->factor_rows[i];
        if (strcmp(row->gpu_kind, setup->kind) == 0) {
            setup->cost->factors[row->class] = *row;
            seen[row->class] = true;
        }
    }
    for (uint32_t i = 0; i < MOE_FACTOR_COUNT; i++) {
        if (!seen[i]) {
            return missing(setup, "factor", names[i], err);
        }
    }
    return MOE_OK;
}

static void lay_lines(struct moe_cost_quantile *lines, const double *quantiles)
{
    for (uint32_t i = 0; i < MOE_COST_QUANTILE_COUNT; i++) {
        const bool last = i + 1 == MOE_COST_QUANTILE_COUNT;
        lines[i] = (struct moe_cost_quantile){
            .at = quantile_at[i],
            .value = quantiles[i],
            .slope =
                last ? 0.0
                     : (quantiles[i + 1] - quantiles[i]) / (quantile_at[i + 1] - quantile_at[i]),
        };
    }
}

static enum moe_status init_jitter(struct moe_cost_setup *setup, struct moe_error *err)
{
    static const char *const names[] = { "compute", "expert", "comm" };
    const struct moe_calibration *calibration = setup->calibration;
    bool seen[MOE_JITTER_COUNT] = { false };
    for (uint32_t i = 0; i < calibration->jitter_count; i++) {
        const struct moe_calibration_jitter *row = &calibration->jitter_rows[i];
        if (strcmp(row->gpu_kind, setup->kind) == 0) {
            const double quantiles[] = { row->min, row->p5,  row->p25, row->p50,
                                         row->p75, row->p95, row->p99 };
            lay_lines(setup->cost->jitter[row->class], quantiles);
            seen[row->class] = true;
        }
    }
    for (uint32_t i = 0; i < MOE_JITTER_COUNT; i++) {
        if (!seen[i]) {
            return missing(setup, "jitter", names[i], err);
        }
    }
    return MOE_OK;
}

static enum moe_status init_gpus(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_calibration *calibration = setup->calibration;
    if (calibration->gpu_count == 0) {
        return MOE_OK;
    }
    struct moe_gpu_factor *gpus =
        MOE_NEW(setup->arena, struct moe_gpu_factor, calibration->gpu_count);
    if (gpus == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory left for the cost tables",
                        calibration->name);
    }
    for (uint32_t i = 0; i < calibration->gpu_count; i++) {
        const struct moe_calibration_gpu *row = &calibration->gpu_rows[i];
        if (strcmp(row->gpu_kind, setup->kind) == 0) {
            gpus[setup->cost->gpu_count++] =
                (struct moe_gpu_factor){ row->compute, row->memory, row->comm };
        }
    }
    setup->cost->gpus = gpus;
    return MOE_OK;
}

enum moe_status moe_cost_init_noise(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_calibration *calibration = setup->calibration;
    const struct moe_calibration_drift *drift = NULL;
    for (uint32_t i = 0; i < calibration->drift_count && drift == NULL; i++) {
        if (strcmp(calibration->drift_rows[i].gpu_kind, setup->kind) == 0) {
            drift = &calibration->drift_rows[i];
        }
    }
    if (drift == NULL) {
        return missing(setup, "drift", "", err);
    }
    setup->cost->drift = (struct moe_drift){ drift->phi, drift->sigma };
    MOE_TRY(init_factors(setup, err));
    MOE_TRY(init_jitter(setup, err));
    return init_gpus(setup, err);
}

static double draw(uint64_t key, uint32_t gpu, uint32_t which)
{
    return moe_random_uniform(key, (uint64_t) gpu * DRAW_COUNT + which);
}

static bool in_tail(const struct moe_calibration_factor *factor, uint64_t key, uint32_t gpu)
{
    return draw(key, gpu, DRAW_TAIL) < factor->tail_share;
}

static double class_factor(const struct moe_calibration_factor *factor, uint64_t key, uint32_t gpu)
{
    if (in_tail(factor, key, gpu)) {
        return factor->tail_min +
               draw(key, gpu, DRAW_TAIL_DEPTH) * (factor->tail_max - factor->tail_min);
    }
    const uint64_t counter = (uint64_t) gpu * DRAW_COUNT + DRAW_NORMAL + factor->class;
    const double u = moe_random_inside(key, counter);
    const double value = moe_exp2(factor->sd * gsl_cdf_ugaussian_Pinv(u) * 1.4426950408889634);
    /* GSL uses the C library's logarithm, whose last bit depends on the processor; a grid
     * of 2^-40 takes that away. */
    return (double) (int64_t) (value * 0x1p40 + 0.5) * 0x1p-40;
}

struct moe_gpu_factor moe_cost_gpu_factor(const struct moe_cost *cost, uint64_t seed, uint32_t gpu)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_GPU_FACTOR);
    if (cost->gpu_count > 0) {
        return cost
            ->gpus[moe_random_below(key, (uint64_t) gpu * DRAW_COUNT + DRAW_CARD, cost->gpu_count)];
    }
    return (struct moe_gpu_factor){
        .compute = class_factor(&cost->factors[MOE_FACTOR_COMPUTE], key, gpu),
        .memory = class_factor(&cost->factors[MOE_FACTOR_MEMORY], key, gpu),
        .comm = class_factor(&cost->factors[MOE_FACTOR_COMM], key, gpu),
    };
}

bool moe_cost_gpu_in_tail(const struct moe_cost *cost, uint64_t seed, uint32_t gpu)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_GPU_FACTOR);
    bool any = false;
    for (uint32_t i = 0; i < MOE_FACTOR_COUNT; i++) {
        any = any || (cost->gpu_count == 0 && in_tail(&cost->factors[i], key, gpu));
    }
    return any;
}

static inline double jitter_at(const struct moe_cost_quantile *lines, double u)
{
    assert(u >= 0.0);
    assert(u < 1.0);
    /* A sum of comparisons instead of a search: where u falls is not predictable. */
    uint32_t i = 0;
    for (uint32_t k = 1; k < MOE_COST_QUANTILE_COUNT; k++) {
        i += u >= quantile_at[k];
    }
    const struct moe_cost_quantile *line = &lines[i];
    const double value = line->value + (u - line->at) * line->slope;
    return value < least_jitter ? least_jitter : value;
}

double moe_cost_jitter(const struct moe_cost *cost, enum moe_jitter kind, double u)
{
    assert(kind < MOE_JITTER_COUNT);
    return jitter_at(cost->jitter[kind], u);
}

void moe_cost_jitter_row(const struct moe_cost *cost, enum moe_jitter kind,
                         struct moe_jitter_draws draws, uint32_t count, double *out)
{
    assert(kind < MOE_JITTER_COUNT);
    const struct moe_cost_quantile *lines = cost->jitter[kind];
    for (uint32_t i = 0; i < count; i++) {
        out[i] = jitter_at(lines, moe_random_uniform(draws.key, draws.first + i * draws.stride));
    }
}

struct moe_drift moe_cost_drift(const struct moe_cost *cost)
{
    return cost->drift;
}

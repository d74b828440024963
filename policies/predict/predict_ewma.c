/* EWMA: an exponentially weighted moving average, s = alpha x + (1 - alpha) s, of each expert's
 * load, beginning with the first loads seen. Source: STARE-LB's estimator (alpha 0.7 there);
 * DeepSeek's EPLB leaves its estimator open and names a moving average. Over a planning window the
 * steps are its periods (policies/solve/predict_periods.h). */
#include "policies/solve/predict_series.h"
#include "sim/base/no_malloc.h"

enum { ALPHA, LEAD, PERIODS };

struct average {
    struct moe_predict_lag lag;
    double *mean; /* [layer][expert] */
    bool *begun;  /* [layer] */
};

static const struct moe_predict_knobs knobs = { LEAD, PERIODS };

static enum moe_status window(const struct moe_place_view *planning, struct moe_arena *scratch,
                              double *load, struct moe_error *err)
{
    const double *value = planning->parameters;
    const uint32_t lead = (uint32_t) value[LEAD];
    struct moe_predict_periods periods;
    MOE_TRY(moe_predict_series_cut(&periods, planning, knobs, scratch, err));
    for (size_t i = 0; i < periods.cells; i++) {
        load[i] = moe_predict_period(&periods, 0)[i];
    }
    for (uint32_t period = 1; period + lead <= periods.count; period++) {
        const double *next = moe_predict_period(&periods, period);
        for (size_t i = 0; i < periods.cells; i++) {
            load[i] = value[ALPHA] * next[i] + (1.0 - value[ALPHA]) * load[i];
        }
    }
    moe_predict_periods_scale(&periods, &planning->shape, load);
    return MOE_OK;
}

static enum moe_status init(const struct moe_place_view *planning, struct moe_arena *arena,
                            void **state, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &planning->shape;
    const uint32_t lead = (uint32_t) planning->parameters[LEAD];
    struct average *average = MOE_NEW(arena, struct average, 1);
    if (average != NULL) {
        average->mean = MOE_NEW(arena, double, (size_t) shape->layer_count * shape->expert_count);
        average->begun = MOE_NEW(arena, bool, shape->layer_count);
    }
    if (average == NULL || average->mean == NULL || average->begun == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the averages of %u layers",
                        shape->layer_count);
    }
    *state = average;
    return moe_predict_lag_init(&average->lag, arena, shape->layer_count, shape->expert_count,
                                lead - 1, err);
}

static enum moe_status step(void *state, const struct moe_predict_view *view, float *predicted,
                            struct moe_error *err)
{
    struct average *average = state;
    const uint32_t experts = view->shape.expert_count;
    const uint32_t lead = (uint32_t) view->parameters[LEAD];
    (void) err;
    const uint32_t *known = moe_predict_lag_view(&average->lag, view, lead);
    if (known == NULL) {
        return MOE_OK;
    }
    double *mean = average->mean + (size_t) view->layer * experts;
    const double alpha = average->begun[view->layer] ? view->parameters[ALPHA] : 1.0;
    average->begun[view->layer] = true;
    for (uint32_t expert = 0; expert < experts; expert++) {
        mean[expert] = alpha * known[expert] + (1.0 - alpha) * mean[expert];
        predicted[expert] = (float) mean[expert];
    }
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [ALPHA] = { .name = "alpha",
                .kind = MOE_PARAMETER_REAL,
                .standard = 0.7,
                .min = 0.0,
                .max = 1.0,
                .help = "weight of the newest loads; 1 is last, 0 keeps the first",
                .source = "STARE-LB v15" },
    MOE_PREDICT_SERIES_PARAMETERS(LEAD, PERIODS),
};

MOE_PREDICT_SERIES_DEFINE(
    ewma, .summary = "an exponentially weighted moving average of each expert's load",
    .source = "STARE-LB v15 (LauzHack x Huawei); a moving average is what EPLB asks for");

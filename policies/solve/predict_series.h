/*
 * Series: predictors that carry on what they saw, step by step in the replay and period by period
 * over a planning window: their knobs, and the definition that they share.
 */
#ifndef MOE_POLICIES_PREDICT_SERIES_H
#define MOE_POLICIES_PREDICT_SERIES_H

#include "policies/policy.h"
#include "policies/solve/predict_lag.h"
#include "policies/solve/predict_periods.h"

/* Which of a policy's parameters are the lead and the number of periods. */
struct moe_predict_knobs {
    uint32_t lead;
    uint32_t periods;
};

/* The window's periods as these parameters say. Errors: as moe_predict_periods_cut. */
static inline enum moe_status moe_predict_series_cut(struct moe_predict_periods *periods,
                                                     const struct moe_place_view *planning,
                                                     struct moe_predict_knobs knobs,
                                                     struct moe_arena *scratch,
                                                     struct moe_error *err)
{
    return moe_predict_periods_cut(periods, planning,
                                   (uint32_t) planning->parameters[knobs.periods],
                                   (uint32_t) planning->parameters[knobs.lead], scratch, err);
}

/* The last two entries of `parameters`, whose indices these are. */
#define MOE_PREDICT_SERIES_PARAMETERS(lead, periods) \
    [lead] = MOE_PREDICT_LEAD_PARAMETER, [periods] = MOE_PREDICT_PERIODS_PARAMETER

/* The policy predict_ID, from window, init, step and parameters of its file; its summary, source
 * and whatever else differs follow as designated initialisers. */
#define MOE_PREDICT_SERIES_DEFINE(id, ...)                                \
    static const struct moe_predict_methods predict = { .window = window, \
                                                        .init = init,     \
                                                        .step = step };   \
    MOE_POLICY_DEFINE(predict_##id) = {                                   \
        MOE_POLICY_HEADER,                                                \
        .name = #id,                                                      \
        .tie_rule = "none needed",                                        \
        .needs = MOE_POLICY_NEEDS_BATCHES,                                \
        MOE_POLICY_PARAMETERS(parameters),                                \
        .predict = &predict,                                              \
        __VA_ARGS__,                                                      \
    }

#endif

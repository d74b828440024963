/* Last: the loads stay what they were. The prediction that every other has to beat.
 * Over a planning window it is the newest period that is known, scaled to the whole window. */
#include "policies/policy.h"
#include "policies/solve/predict_lag.h"
#include "policies/solve/predict_periods.h"
#include "sim/base/no_malloc.h"

enum { LEAD, PERIODS };

static enum moe_status window(const struct moe_place_view *planning, struct moe_arena *scratch,
                              double *load, struct moe_error *err)
{
    const double *value = planning->parameters;
    const uint32_t lead = (uint32_t) value[LEAD];
    struct moe_predict_periods periods;
    MOE_TRY(
        moe_predict_periods_cut(&periods, planning, (uint32_t) value[PERIODS], lead, scratch, err));
    const double *newest = moe_predict_period(&periods, periods.count - lead);
    for (size_t i = 0; i < periods.cells; i++) {
        load[i] = newest[i];
    }
    moe_predict_periods_scale(&periods, &planning->shape, load);
    return MOE_OK;
}

static enum moe_status init(const struct moe_place_view *planning, struct moe_arena *arena,
                            void **state, struct moe_error *err)
{
    const uint32_t lead = (uint32_t) planning->parameters[LEAD];
    struct moe_predict_lag *lag = MOE_NEW(arena, struct moe_predict_lag, 1);
    if (lag == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the last step's loads");
    }
    *state = lag;
    return moe_predict_lag_init(lag, arena, planning->shape.layer_count,
                                planning->shape.expert_count, lead - 1, err);
}

static enum moe_status step(void *state, const struct moe_predict_view *view, float *predicted,
                            struct moe_error *err)
{
    const uint32_t lead = (uint32_t) view->parameters[LEAD];
    const uint32_t back = lead > view->lead_steps ? lead - view->lead_steps : 0;
    (void) err;
    if (view->last == NULL) {
        return MOE_OK;
    }
    const uint32_t *known = moe_predict_lag_push(state, view->layer, view->last, back);
    for (uint32_t expert = 0; known != NULL && expert < view->shape.expert_count; expert++) {
        predicted[expert] = (float) known[expert];
    }
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [LEAD] = { .name = "lead",
               .kind = MOE_PARAMETER_WHOLE,
               .standard = 1.0,
               .min = 1.0,
               .max = 32.0,
               .help = "steps ahead: 1 knows all but the step that is predicted; over a planning "
                       "window, periods",
               .source = "own" },
    [PERIODS] = MOE_PREDICT_PERIODS_PARAMETER,
};

static const struct moe_predict_methods predict = { .window = window, .init = init, .step = step };

MOE_POLICY_DEFINE(predict_last) = {
    MOE_POLICY_HEADER,
    .name = "last",
    .summary = "the loads of the newest step that is known",
    .source = "own; the usual null model of load prediction",
    .tie_rule = "none needed",
    .needs = MOE_POLICY_NEEDS_BATCHES,
    MOE_POLICY_PARAMETERS(parameters),
    .predict = &predict,
};

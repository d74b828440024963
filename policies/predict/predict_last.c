/* Last: the loads stay what they were. The prediction that every other has to beat.
 * Over a planning window it is the newest period that is known, scaled to the whole window. */
#include "policies/solve/predict_series.h"
#include "sim/base/no_malloc.h"

enum { LEAD, PERIODS };

static const struct moe_predict_knobs knobs = { LEAD, PERIODS };

static enum moe_status window(const struct moe_place_view *planning, struct moe_arena *scratch,
                              double *load, struct moe_error *err)
{
    const uint32_t lead = (uint32_t) planning->parameters[LEAD];
    struct moe_predict_periods periods;
    MOE_TRY(moe_predict_series_cut(&periods, planning, knobs, scratch, err));
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
    (void) err;
    const uint32_t *known = moe_predict_lag_view(state, view, lead);
    for (uint32_t expert = 0; known != NULL && expert < view->shape.expert_count; expert++) {
        predicted[expert] = (float) known[expert];
    }
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    MOE_PREDICT_SERIES_PARAMETERS(LEAD, PERIODS),
};

MOE_PREDICT_SERIES_DEFINE(last, .summary = "the loads of the newest step that is known",
                          .source = "own; the usual null model of load prediction");

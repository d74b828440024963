#include "policies/solve/predict_periods.h"

#include "sim/base/no_malloc.h"

static double tokens_of(const float *batch, size_t cells)
{
    double sum = 0.0;
    for (size_t i = 0; i < cells; i++) {
        sum += (double) batch[i];
    }
    return sum;
}

enum moe_status moe_predict_periods_cut(struct moe_predict_periods *periods,
                                        const struct moe_place_view *planning, uint32_t limit,
                                        uint32_t lead, struct moe_arena *scratch,
                                        struct moe_error *err)
{
    const size_t cells = (size_t) planning->shape.layer_count * planning->shape.expert_count;
    const uint32_t batches = planning->batch_count;
    const uint32_t most = limit == 0 || limit > batches ? batches : limit;
    *periods = (struct moe_predict_periods){ .cells = cells,
                                             .load = MOE_NEW(scratch, double, most *cells) };
    if (periods->load == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the loads of %u periods", most);
    }
    double all = 0.0;
    double before = 0.0;
    uint32_t last = 0; /* 1 + the period of the batch before */
    for (uint32_t batch = 0; batch < batches; batch++) {
        all += tokens_of(moe_place_view_batch(planning, batch), cells);
    }
    for (uint32_t batch = 0; batch < batches; batch++) {
        const float *row = moe_place_view_batch(planning, batch);
        const double tokens = tokens_of(row, cells);
        const double middle = all > 0.0 ? (before + tokens / 2) / all : 0.0;
        uint32_t period = limit == 0 ? batch : (uint32_t) (middle * most);
        period = period < most ? period : most - 1;
        if (period + 1 != last) {
            last = period + 1;
            periods->count++;
        }
        double *load = periods->load + (periods->count - 1) * cells;
        for (size_t i = 0; i < cells; i++) {
            load[i] += (double) row[i];
        }
        before += tokens;
    }
    return periods->count >= lead
               ? MOE_OK
               : moe_fail(err, MOE_POLICY, "a lead of %u looks past the window's %u periods", lead,
                          periods->count);
}

void moe_predict_periods_scale(const struct moe_predict_periods *periods,
                               const struct moe_placement_shape *shape, double *load)
{
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const size_t first = (size_t) layer * shape->expert_count;
        double said = 0.0;
        double was = 0.0;
        for (size_t i = first; i < first + shape->expert_count; i++) {
            said += load[i];
            for (uint32_t period = 0; period < periods->count; period++) {
                was += moe_predict_period(periods, period)[i];
            }
        }
        for (size_t i = first; i < first + shape->expert_count; i++) {
            if (said > 0.0) {
                load[i] *= was / said;
                continue;
            }
            for (uint32_t period = 0; period < periods->count; period++) {
                load[i] += moe_predict_period(periods, period)[i];
            }
        }
    }
}

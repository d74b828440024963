/* Mean and deviation: mean plus k standard deviations of each expert's load over the newest steps:
 * who varies is planned for at more than its mean. Sources: FlashLB (vllm-ascend; z = 0.674, the
 * 75 % quantile of a normal distribution), ScalpeLB (K = 2 from 192 experts on, 0 below).
 *
 * The standard deviation is that of the population. Sums are of whole counts, so a step that
 * leaves the window takes exactly what it brought. Over a planning window the steps are its periods
 * (policies/solve/predict_periods.h). */
#include <math.h>

#include "policies/solve/predict_series.h"
#include "sim/base/no_malloc.h"

enum { STEPS, K, LEAD, PERIODS };

struct moments {
    struct moe_predict_lag lag;
    uint64_t *sum;    /* [layer][expert] */
    uint64_t *square; /* [layer][expert] */
    uint32_t *count;  /* [layer] steps in the window */
};

static double raised(double sum, double square, double count, double k)
{
    const double mean = sum / count;
    const double variance = square / count - mean * mean;
    return mean + k * sqrt(variance > 0.0 ? variance : 0.0);
}

static const struct moe_predict_knobs knobs = { LEAD, PERIODS };

static enum moe_status window(const struct moe_place_view *planning, struct moe_arena *scratch,
                              double *load, struct moe_error *err)
{
    const double *value = planning->parameters;
    const uint32_t lead = (uint32_t) value[LEAD];
    struct moe_predict_periods periods;
    MOE_TRY(moe_predict_series_cut(&periods, planning, knobs, scratch, err));
    const uint32_t steps = (uint32_t) value[STEPS];
    const uint32_t end = periods.count - lead + 1;
    const uint32_t first = end > steps ? end - steps : 0;
    for (size_t i = 0; i < periods.cells; i++) {
        double sum = 0.0;
        double square = 0.0;
        for (uint32_t period = first; period < end; period++) {
            const double x = moe_predict_period(&periods, period)[i];
            sum += x;
            square += x * x;
        }
        load[i] = raised(sum, square, end - first, value[K]);
    }
    moe_predict_periods_scale(&periods, &planning->shape, load);
    return MOE_OK;
}

static enum moe_status init(const struct moe_place_view *planning, struct moe_arena *arena,
                            void **state, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &planning->shape;
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    const uint32_t lead = (uint32_t) planning->parameters[LEAD];
    const uint32_t steps = (uint32_t) planning->parameters[STEPS];
    struct moments *moments = MOE_NEW(arena, struct moments, 1);
    if (moments != NULL) {
        moments->sum = MOE_NEW(arena, uint64_t, cells);
        moments->square = MOE_NEW(arena, uint64_t, cells);
        moments->count = MOE_NEW(arena, uint32_t, shape->layer_count);
    }
    if (moments == NULL || moments->sum == NULL || moments->square == NULL ||
        moments->count == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the sums of %u layers", shape->layer_count);
    }
    *state = moments;
    return moe_predict_lag_init(&moments->lag, arena, shape->layer_count, shape->expert_count,
                                steps + lead - 1, err);
}

static enum moe_status step(void *state, const struct moe_predict_view *view, float *predicted,
                            struct moe_error *err)
{
    struct moments *moments = state;
    const uint32_t experts = view->shape.expert_count;
    const uint32_t steps = (uint32_t) view->parameters[STEPS];
    const uint32_t lead = (uint32_t) view->parameters[LEAD];
    (void) err;
    const uint32_t *known = moe_predict_lag_view(&moments->lag, view, lead);
    if (known == NULL) {
        return MOE_OK;
    }
    uint64_t *sum = moments->sum + (size_t) view->layer * experts;
    uint64_t *square = moments->square + (size_t) view->layer * experts;
    const uint32_t *left =
        moe_predict_lag_at(&moments->lag, view->layer, moe_predict_lag_back(view, lead) + steps);
    const uint32_t count = left == NULL ? ++moments->count[view->layer] : steps;
    for (uint32_t expert = 0; expert < experts; expert++) {
        const uint64_t x = known[expert];
        const uint64_t y = left != NULL ? left[expert] : 0;
        sum[expert] += x - y;
        square[expert] += x * x - y * y;
        predicted[expert] = (float) raised((double) sum[expert], (double) square[expert], count,
                                           view->parameters[K]);
    }
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [STEPS] = { .name = "steps",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 16.0,
                .min = 1.0,
                .max = 256.0,
                .help = "steps that are looked back on; over a planning window, periods",
                .source = "own" },
    [K] = { .name = "k",
            .kind = MOE_PARAMETER_REAL,
            .standard = 0.674,
            .min = 0.0,
            .max = 10.0,
            .help = "standard deviations above the mean",
            .source = "FlashLB (z)" },
    MOE_PREDICT_SERIES_PARAMETERS(LEAD, PERIODS),
};

MOE_PREDICT_SERIES_DEFINE(
    mean_std,
    .summary = "mean plus k standard deviations of each expert's load over the newest steps",
    .source = "FlashLB (vllm-ascend), ScalpeLB");

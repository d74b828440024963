/* ScalpeLB: a fresh plan where it is much better, else a few exchanges.
 *
 * The load of an expert is its mean plus `deviations` standard deviations over the batches of
 * the planning window; where the shares of the experts shifted by more than `drift` between
 * the window's halves, newer batches count more, linearly. A layer whose imbalance exceeds that
 * of a fresh EPLB plan by more than `replace_above` is replaced by it, and all layers are when
 * more than `replace_all` of them are that far off. Every other layer gets at most `swaps`
 * exchanges between its fullest GPU and another. */
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/thrifty.h"
#include "sim/base/no_malloc.h"

enum { DEVIATIONS, WIDE_FROM, DRIFT, REPLACE_ABOVE, REPLACE_ALL, SWAPS };

static const struct moe_policy_parameter parameters[] = {
    [DEVIATIONS] = { .name = "deviations",
                     .kind = MOE_PARAMETER_REAL,
                     .standard = 2,
                     .max = 10,
                     .help = "standard deviations added to the mean, in wide layers",
                     .source = "ScalpeLB" },
    [WIDE_FROM] = { .name = "wide_from",
                    .kind = MOE_PARAMETER_WHOLE,
                    .standard = 192,
                    .max = 65534,
                    .help = "layers of at least so many experts are wide; others use the mean",
                    .source = "ScalpeLB" },
    [DRIFT] = { .name = "drift",
                .kind = MOE_PARAMETER_REAL,
                .standard = 0.2,
                .max = 1,
                .help = "total variation between the window's halves above which newer batches "
                        "count more",
                .source = "ScalpeLB" },
    [REPLACE_ABOVE] = { .name = "replace_above",
                        .kind = MOE_PARAMETER_REAL,
                        .standard = 0.2,
                        .max = 1000,
                        .help = "excess of max / mean load over a fresh plan's that replaces a "
                                "layer",
                        .source = "ScalpeLB" },
    [REPLACE_ALL] = { .name = "replace_all",
                      .kind = MOE_PARAMETER_REAL,
                      .standard = 0.5,
                      .max = 1,
                      .help = "share of such layers above which every layer is replaced",
                      .source = "ScalpeLB: more than 50 % drift" },
    [SWAPS] = { .name = "swaps",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 8,
                .max = 65534,
                .help = "exchanges per layer",
                .source = "ScalpeLB" },
};

static void estimate(struct moe_thrifty *t, const struct moe_place_view *view, uint32_t layer)
{
    const bool drifts = moe_thrifty_drift(view, layer) > view->parameters[DRIFT];
    const double deviations =
        t->shape.expert_count >= view->parameters[WIDE_FROM] ? view->parameters[DEVIATIONS] : 0.0;
    moe_thrifty_average(t, view, layer, 0, view->batch_count, 1.0,
                        drifts ? view->batch_count : 1.0);
    for (uint32_t expert = 0; expert < t->shape.expert_count; expert++) {
        t->weight[expert] += deviations * t->spread[expert];
    }
}

static void mend(struct moe_thrifty *t, uint16_t *row, uint32_t swaps)
{
    uint32_t fullest;
    uint32_t partner;
    (void) moe_thrifty_measure(t, row);
    while (swaps > 0 && moe_thrifty_exchange(t, row, &fullest, &partner)) {
        swaps--;
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const size_t row_bytes = shape->slot_count * sizeof(uint16_t);
    struct moe_thrifty t;
    uint8_t *replaced = MOE_NEW(scratch, uint8_t, shape->layer_count);
    uint32_t replaced_count = 0;
    if (replaced == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %u layers", shape->layer_count);
    }
    MOE_TRY(moe_thrifty_init(&t, scratch, shape, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const uint16_t *before = moe_placement_layer(view->previous, layer);
        uint16_t *row = moe_placement_layer(plan, layer);
        estimate(&t, view, layer);
        moe_thrifty_replan(&t, before, row);
        const double fresh = moe_thrifty_measure(&t, row);
        const double now = moe_thrifty_measure(&t, before);
        replaced[layer] = now - fresh > view->parameters[REPLACE_ABOVE];
        replaced_count += replaced[layer];
    }
    const bool all = replaced_count > view->parameters[REPLACE_ALL] * shape->layer_count;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *row = moe_placement_layer(plan, layer);
        if (!all && !replaced[layer]) {
            estimate(&t, view, layer);
            memcpy(row, moe_placement_layer(view->previous, layer), row_bytes);
            mend(&t, row, (uint32_t) view->parameters[SWAPS]);
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(scalpelb) = {
    MOE_POLICY_HEADER,
    .name = "scalpelb",
    .summary = "keeps the placement in force but for a few exchanges per layer; a fresh plan "
               "only where it is much better",
    .source = "ScalpeLB of the LauzHack x Huawei competition; labels matched exactly instead of "
              "by its heuristic, drift judged over the planning window",
    .tie_rule = "of equal exchanges the lowest GPU, then the lowest slots",
    .needs = MOE_POLICY_NEEDS_BATCHES | MOE_POLICY_NEEDS_PREVIOUS,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

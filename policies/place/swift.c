/* Swift: exchanges only, each GPU in at most one per round.
 *
 * While a layer's max / mean load exceeds `threshold`, its fullest GPU exchanges an expert with
 * the GPU that leaves the smaller maximum of the two; both then sit out the rest of the round,
 * so that no rank sends or takes more than one expert at a time. At most `swaps` exchanges over
 * the layer's rounds. The copies of an expert stay as many as they were. */
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/thrifty.h"
#include "sim/base/no_malloc.h"

enum { THRESHOLD, SWAPS, ROUNDS };

static const struct moe_policy_parameter parameters[] = {
    [THRESHOLD] = { .name = "threshold",
                    .kind = MOE_PARAMETER_REAL,
                    .standard = 1.01,
                    .min = 1,
                    .max = 1000,
                    .help = "max / mean load that is left alone",
                    .source = "vllm-ascend SwiftBalancer" },
    [SWAPS] = { .name = "swaps",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 100,
                .max = 65534,
                .help = "exchanges per layer",
                .source = "vllm-ascend SwiftBalancer" },
    [ROUNDS] = { .name = "rounds",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 1,
                 .min = 1,
                 .max = 1000,
                 .help = "rounds of transfers per planning",
                 .source = "own" },
};

static void mend(struct moe_thrifty *t, const double *p, uint16_t *row)
{
    uint32_t left = (uint32_t) p[SWAPS];
    double imbalance = moe_thrifty_measure(t, row);
    for (uint32_t round = 0; round < p[ROUNDS]; round++) {
        uint32_t fullest;
        uint32_t partner;
        memset(t->busy, 0, t->shape.gpu_count);
        while (left > 0 && imbalance > p[THRESHOLD] &&
               moe_thrifty_exchange(t, row, &fullest, &partner)) {
            t->busy[fullest] = 1;
            t->busy[partner] = 1;
            imbalance = moe_thrifty_measure(t, row);
            left--;
        }
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    struct moe_thrifty t;
    MOE_TRY(moe_thrifty_init(&t, scratch, shape, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *row = moe_placement_layer(plan, layer);
        memcpy(row, moe_placement_layer(view->previous, layer),
               shape->slot_count * sizeof(uint16_t));
        memcpy(t.weight, view->load + (size_t) layer * shape->expert_count,
               shape->expert_count * sizeof *t.weight);
        mend(&t, view->parameters, row);
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(swift) = {
    MOE_POLICY_HEADER,
    .name = "swift",
    .summary = "exchanges between full and emptier GPUs of the placement in force, one per GPU "
               "and round",
    .source = "vllm-ascend policy_swift_balancer: threshold and limits; the choice of exchange is "
              "ours",
    .tie_rule = "of equal exchanges the lowest GPU, then the lowest slots",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_PREVIOUS,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

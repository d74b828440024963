/* CRAFT: copies only for the layers that gain from them, R slots per GPU over all layers. */
#include "policies/policy.h"
#include "policies/solve/craft_solver.h"
#include "sim/base/no_malloc.h"
#include "traces/trace_store.h"

enum { R, KNEE };

static const struct moe_policy_parameter parameters[] = {
    [R] = { .name = "R",
            .kind = MOE_PARAMETER_WHOLE,
            .standard = 8,
            .min = 0,
            .max = MOE_TRACE_LAYER_LIMIT,
            .help = "slots per GPU that copies may take over all layers together; 0: found at "
                    "the knee of the gain",
            .source = "CRAFT: the authors run R=8" },
    [KNEE] = { .name = "knee",
               .kind = MOE_PARAMETER_REAL,
               .standard = 1.0,
               .min = 0.01,
               .max = 100.0,
               .help = "for R=0: a further slot must gain this many times the mean gain per "
                       "slot; larger stops earlier",
               .source = "own; the paper names diminishing returns, no formula" },
};

struct budget {
    uint32_t copies; /* the columns of gain and choice, less one */
    double *gain;
    uint8_t *choice;
};

/* Step 2: the copies to spend. */
static uint32_t choose_budget(const struct moe_place_view *view, const struct budget *budget)
{
    const uint32_t gpus = view->shape.gpu_count;
    if (view->parameters[R] > 0.0 || budget->copies < gpus) {
        return budget->copies;
    }
    return gpus * moe_craft_knee(budget->gain, gpus, budget->copies / gpus, view->parameters[KNEE]);
}

/* Most copies worth looking at: R slots per GPU, what the layers can hold, the view's cap. */
static uint32_t most_copies(const struct moe_place_view *view, const struct moe_craft *craft)
{
    const uint64_t held =
        (uint64_t) view->shape.layer_count * craft->option[craft->option_count - 1];
    const uint64_t gpus = view->shape.gpu_count;
    uint64_t copies = (held + gpus - 1) / gpus * gpus; /* the knee looks at whole slots per GPU */
    if (view->parameters[R] > 0.0) {
        const uint64_t asked = (uint64_t) view->parameters[R] * gpus;
        copies = asked < held ? asked : held;
    }
    const uint32_t cap = view->replica_budget_total;
    return (uint32_t) (cap > 0 && cap < copies ? cap : copies);
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const size_t stride = (size_t) shape->layer_count * shape->expert_count;
    const size_t cells = (size_t) shape->layer_count * shape->gpu_count;
    struct moe_craft craft;
    MOE_TRY(moe_craft_init(&craft, scratch, shape, err));
    struct budget budget = { .copies = most_copies(view, &craft) };
    const size_t columns = (size_t) budget.copies + 1;
    double *balance = MOE_NEW(scratch, double, (size_t) shape->layer_count *craft.option_count);
    uint32_t *copies = MOE_NEW(scratch, uint32_t, shape->layer_count);
    uint32_t *slots = MOE_NEW(scratch, uint32_t, cells);
    uint32_t *order = MOE_NEW(scratch, uint32_t, cells);
    uint32_t *total = MOE_NEW(scratch, uint32_t, shape->gpu_count);
    budget.gain = MOE_NEW(scratch, double, columns);
    budget.choice = MOE_NEW(scratch, uint8_t, columns * shape->layer_count);
    if (balance == NULL || copies == NULL || slots == NULL || order == NULL || total == NULL ||
        budget.gain == NULL || budget.choice == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to spend %u copies on %u layers", budget.copies,
                        shape->layer_count);
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const size_t first = (size_t) layer * shape->expert_count;
        moe_craft_estimate(&craft, view->load + first, view->batches + first, stride,
                           view->batch_count, balance + (size_t) layer * craft.option_count);
    }
    moe_craft_allocate(&craft, balance, budget.copies, budget.gain, budget.choice);
    moe_craft_backtrack(&craft, budget.choice, budget.copies, choose_budget(view, &budget), copies);
    moe_craft_deal_slots(shape, copies, slots, order, total);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const size_t first = (size_t) layer * shape->gpu_count;
        moe_craft_place_layer(&craft, view->load + (size_t) layer * shape->expert_count,
                              copies[layer], 0.0, UINT32_MAX, slots + first, order + first,
                              moe_placement_layer(plan, layer));
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(craft) = {
    MOE_POLICY_HEADER,
    .name = "craft",
    .summary = "CRAFT: copies where a replay of the planning batches shows that they gain most, "
               "by knapsack over the layers; every GPU gives up equally many slots in total",
    .source = "arXiv 2603.28768 (MLSys 2026); where it is silent, craft_solver.h says what is done",
    .tie_rule = "of equal gains the fewer copies; of equal loads per copy the first expert; of "
                "equally loaded GPUs the one with more slots in the layer, then the first",
    .needs = MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_BATCHES,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

/*
 * A plug-in to start from: a whole placement policy, to be copied and changed.
 *
 *   cp policies/template/snake.c mine.c           # then change name, texts and place()
 *   cc -std=c17 -O2 -fPIC -shared -fvisibility=hidden -DMOE_POLICY_PLUGIN -I . mine.c -o mine.so
 *   moesim policy check ./mine.so                 # the contract, rule by rule
 *   moesim compare T.db --model M --gpus 32 --policies contiguous,eplb,./mine.so:copies=8
 *
 * -I names the root of the moesim tree. The same file in policies/place/, with its line in
 * registry.def, is a built-in policy: MOE_POLICY_DEFINE makes the difference.
 *
 * What it does: a layer's experts, hottest first, are dealt over the GPUs like cards, to and
 * fro (a snake), and what slots remain repeat the hottest ones. It shows everything that most
 * policies need: a declared parameter, a need, scratch memory, a tie rule, an error.
 *
 * What to keep to (policies/policy.h says it in full):
 *   - answer from the view alone: no globals, no clock, no addresses. Equal views, equal plans;
 *   - ask for what you read (needs); anything else in the view is NULL;
 *   - take memory from scratch only, check for NULL, never free it;
 *   - every expert of every layer gets a slot; a slot may stay MOE_SLOT_EMPTY;
 *   - refuse what you cannot serve with MOE_POLICY and one sentence: the program adds your name.
 * Everything is static: a symbol that the program has too would be taken from the program.
 */
#include "policies/policy.h"

/* Places in parameters[], in the order in which they are declared. */
enum { COPIES };

static const struct moe_policy_parameter parameters[] = {
    {
        .name = "copies",
        .kind = MOE_PARAMETER_WHOLE,
        .standard = 65534, /* more than any layer has slots: all of them */
        .min = 0,
        .max = 65534,
        .help = "most copies beyond the first of each expert, in one layer",
        .source = "own",
    },
};

/* Experts of one layer by descending load, of equal ones the lower number first. */
static void sort_experts(const double *load, uint32_t expert_count, uint16_t *order)
{
    for (uint32_t expert = 0; expert < expert_count; expert++) {
        uint32_t place = expert;
        while (place > 0 && load[order[place - 1]] < load[expert]) {
            order[place] = order[place - 1];
            place--;
        }
        order[place] = (uint16_t) expert;
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(shape);
    const uint32_t spare = shape->slot_count - shape->expert_count;
    uint32_t copies = (uint32_t) view->parameters[COPIES];
    uint16_t *order = MOE_NEW(scratch, uint16_t, shape->expert_count);
    if (order == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to sort %u experts", shape->expert_count);
    }
    copies = copies < spare ? copies : spare;
    /* A budget over all layers is shared out evenly; what does not divide is left. */
    if (view->replica_budget_total > 0 &&
        copies > view->replica_budget_total / shape->layer_count) {
        copies = view->replica_budget_total / shape->layer_count;
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        sort_experts(view->load + (size_t) layer * shape->expert_count, shape->expert_count, order);
        for (uint32_t card = 0; card < shape->expert_count + copies; card++) {
            const uint32_t round = card / shape->gpu_count;
            const uint32_t step = card % shape->gpu_count;
            const uint32_t gpu = round % 2 == 0 ? step : shape->gpu_count - 1 - step;
            slots[gpu * slots_per_gpu + round] = order[card % shape->expert_count];
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(snake) = {
    MOE_POLICY_HEADER,
    .name = "snake",
    .summary = "experts by load dealt over the GPUs to and fro; spare slots repeat the hottest",
    .source = "own; the zig-zag packing of ADRS and SGLang's deepseek_vec without their counts",
    .tie_rule = "of equal loads the expert with the lower number",
    .needs = MOE_POLICY_NEEDS_LOAD,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

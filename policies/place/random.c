/* Random: every expert once, the redundant slots to experts drawn without replacement
 * (again from all of them when a round is used up), all shuffled over the slots. The
 * draws depend on (seed, layer, position) alone, so layers are independent and adding
 * one moves no other. */
#include "sim/base/random.h"
#include "policies/policy.h"
#include "sim/base/no_malloc.h"

/* Fisher-Yates over items[count]; counter numbers the draws. */
static void shuffle(uint16_t *items, uint32_t count, uint64_t key, uint64_t counter)
{
    for (uint32_t left = count; left > 1; left--) {
        const uint64_t drawn = moe_random_below(key, counter++, left);
        const uint16_t swap = items[left - 1];
        items[left - 1] = items[drawn];
        items[drawn] = swap;
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint64_t key = moe_random_key(view->seed, MOE_RANDOM_POLICY);
    uint16_t *round = MOE_NEW(scratch, uint16_t, shape->expert_count);
    if (round == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to shuffle %u experts", shape->expert_count);
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        uint64_t counter = (uint64_t) layer << 32;
        for (uint32_t begin = 0; begin < shape->slot_count; begin += shape->expert_count) {
            const uint32_t left = shape->slot_count - begin;
            const uint32_t count = left < shape->expert_count ? left : shape->expert_count;
            for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
                round[expert] = (uint16_t) expert;
            }
            if (count < shape->expert_count) {
                shuffle(round, shape->expert_count, key, counter);
                counter += shape->expert_count;
            }
            for (uint32_t i = 0; i < count; i++) {
                slots[begin + i] = round[i];
            }
        }
        shuffle(slots, shape->slot_count, key, counter);
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(random) = {
    MOE_POLICY_HEADER,
    .name = "random",
    .summary = "a seeded permutation of the experts in every layer; redundant slots to "
               "experts drawn without replacement",
    .source = "own; the usual null model of placement studies",
    .tie_rule = "none needed; the seed decides",
    .needs = MOE_POLICY_NEEDS_SEED,
    .numbered = true,
    .place = place,
};

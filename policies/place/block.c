/* Block: every GPU gets the same number of consecutive experts (the first ones one more where
 * they do not divide), and its spare slots repeat an expert or stay empty. Unlike contiguous,
 * whose redundant slots all lie at the end, no expert changes its GPU when slots are added. */
#include "policies/policy.h"
#include "sim/base/no_malloc.h"

enum { SPARE };
enum { LAST, NEXT, EMPTY };

static const struct moe_policy_parameter parameters[] = {
    [SPARE] = { .name = "spare",
                .kind = MOE_PARAMETER_CHOICE,
                .standard = LAST,
                .choices = (const char *const[]){ "last", "next", "empty", NULL },
                .help = "what a GPU's spare slots hold: its last expert again, the experts of "
                        "the GPU behind it, nothing",
                .source = "last: start of the LauzHack x Huawei competition; next, empty: own" },
};

static uint16_t spare_of(uint32_t choice, uint32_t first, uint32_t count, uint32_t number,
                         uint32_t expert_count)
{
    switch (choice) {
    case LAST:
        return count > 0 ? (uint16_t) (first + count - 1) : MOE_SLOT_EMPTY;
    case NEXT:
        return (uint16_t) ((first + count + number) % expert_count);
    default:
        return MOE_SLOT_EMPTY;
    }
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint32_t capacity = moe_placement_slots_per_gpu(shape);
    const uint32_t least = shape->expert_count / shape->gpu_count;
    const uint32_t larger = shape->expert_count % shape->gpu_count;
    (void) scratch;
    (void) err;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        uint32_t first = 0;
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            const uint32_t count = least + (gpu < larger);
            for (uint32_t i = 0; i < capacity; i++) {
                slots[gpu * capacity + i] =
                    i < count ? (uint16_t) (first + i)
                              : spare_of((uint32_t) view->parameters[SPARE], first, count,
                                         i - count, shape->expert_count);
            }
            first += count;
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(block) = {
    MOE_POLICY_HEADER,
    .name = "block",
    .summary = "equal blocks of consecutive experts per GPU; spare slots repeat the last one",
    .source = "start of the LauzHack x Huawei load balancing competition; without redundancy the "
              "linear placement of all engines",
    .tie_rule = "none needed",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    .numbered = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};

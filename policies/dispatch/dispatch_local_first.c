/* Local first: every source GPU has one copy of each expert for all its tokens, the same in every
 * step: a copy on the GPU itself, else one on its node, else one dealt out fairly. Source: SGLang,
 * ep_dispatch_algorithm static (sglang/srt/eplb/expert_location.py): same GPU, same node, then a
 * fair random assignment. Of several copies that are equally near it takes the first, as here.
 *
 * Fair: of k sources without a near copy each of c copies gets k / c, the remainder goes to
 * copies drawn without replacement, and the sources are shuffled. SGLang draws with Python's
 * generator seeded 42; here the run's seed decides, by (layer, expert). */
#include "policies/policy.h"
#include "policies/solve/spread.h"
#include "sim/base/no_malloc.h"
#include "sim/base/random.h"

enum { NODE };

struct choice {
    uint16_t *source; /* [gpu_count] sources without a near copy */
    uint16_t *deal;   /* [gpu_count + slot_count] copies in the order in which they are dealt */
};

static enum moe_status init(const struct moe_place_view *planning,
                            const struct moe_placement *placement, struct moe_arena *arena,
                            void **state, struct moe_error *err)
{
    (void) planning;
    const struct moe_placement_shape *shape = &placement->shape;
    struct choice *choice = MOE_NEW(arena, struct choice, 1);
    if (choice != NULL) {
        choice->source = MOE_NEW(arena, uint16_t, shape->gpu_count);
        choice->deal = MOE_NEW(arena, uint16_t, (size_t) shape->gpu_count + shape->slot_count);
    }
    if (choice == NULL || choice->source == NULL || choice->deal == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to assign copies to %u GPUs", shape->gpu_count);
    }
    *state = choice;
    return MOE_OK;
}

/* The first copy on the GPU or the node, or end. */
static uint32_t near_copy(const struct moe_dispatch_view *view, uint32_t begin, uint32_t end,
                          uint32_t source, bool by_node)
{
    const uint32_t node_gpus = view->shape.gpu_count / view->shape.node_count;
    for (uint32_t copy = begin; copy < end; copy++) {
        if (view->gpu_of_copy[copy] == source) {
            return copy;
        }
    }
    for (uint32_t copy = begin; by_node && copy < end; copy++) {
        if (view->gpu_of_copy[copy] / node_gpus == source / node_gpus) {
            return copy;
        }
    }
    return end;
}

/* count copies begin .. end-1, fairly, in random order. */
static void deal_fairly(uint16_t *deal, uint32_t begin, uint32_t end, uint32_t count, uint64_t key,
                        uint64_t counter)
{
    const uint32_t copies = end - begin;
    const uint32_t even = count - count % copies;
    for (uint32_t i = 0; i < even; i++) {
        deal[i] = (uint16_t) (begin + i % copies);
    }
    for (uint32_t i = 0; even < count && i < copies; i++) { /* the remainder, drawn from all */
        deal[even + i] = (uint16_t) (begin + i);
    }
    for (uint32_t i = even; i < count; i++) {
        const uint64_t drawn = i + moe_random_below(key, counter++, copies - (i - even));
        const uint16_t swap = deal[i];
        deal[i] = deal[drawn];
        deal[drawn] = swap;
    }
    for (uint32_t left = count; left > 1; left--) {
        const uint64_t drawn = moe_random_below(key, counter++, left);
        const uint16_t swap = deal[left - 1];
        deal[left - 1] = deal[drawn];
        deal[drawn] = swap;
    }
}

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) err;
    struct choice *choice = state;
    const uint32_t experts = view->shape.expert_count;
    const bool by_node = view->parameters[NODE] != 0.0;
    const uint64_t key = moe_random_key(view->seed, MOE_RANDOM_POLICY);
    moe_spread_first(view, quota);
    for (uint32_t expert = 0; expert < experts; expert++) {
        const uint32_t begin = view->first_copy[expert];
        const uint32_t end = view->first_copy[expert + 1];
        uint32_t far = 0;
        if (end - begin < 2) {
            continue;
        }
        for (uint32_t source = 0; source < view->shape.gpu_count; source++) {
            const uint32_t tokens = view->demand[(size_t) source * experts + expert];
            const uint32_t copy = near_copy(view, begin, end, source, by_node);
            uint32_t *row = quota + (size_t) source * view->copy_count;
            row[begin] = 0;
            if (copy == end) {
                choice->source[far++] = (uint16_t) source;
            } else {
                row[copy] = tokens;
            }
        }
        const uint64_t counter = ((uint64_t) view->layer * experts + expert) << 32;
        deal_fairly(choice->deal, begin, end, far, key, counter);
        for (uint32_t i = 0; i < far; i++) {
            const size_t source = choice->source[i];
            quota[source * view->copy_count + choice->deal[i]] =
                view->demand[source * experts + expert];
        }
    }
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [NODE] = { .name = "node",
               .kind = MOE_PARAMETER_FLAG,
               .standard = 1.0,
               .help = "whether a copy on the source's node goes before the fair deal",
               .source = "SGLang" },
};

static const struct moe_dispatch_methods dispatch = { .init = init, .split = split };

MOE_POLICY_DEFINE(dispatch_local_first) = {
    MOE_POLICY_HEADER,
    .name = "local_first",
    .summary = "every source GPU keeps to one copy of each expert: on itself, else on its node, "
               "else dealt out fairly",
    .source = "SGLang, ep_dispatch_algorithm static; the run's seed instead of 42",
    .tie_rule = "of equally near copies the lowest slot; the seed decides the deal",
    .needs = MOE_POLICY_NEEDS_SEED,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};

/* What holds of every placement policy on every planning problem: thousands of random ones, and
 * the smallest failing one shown. */
#include <assert.h>
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "policies/bounds.h"
#include "tests/place_case.h"

enum { CASES = 500 };

struct subject {
    const struct moe_policy *policy;
    struct moe_arena *scratch;
};

static bool fails(char why[PROPERTY_TEXT_LIMIT], const struct place_case *c,
                  const struct moe_policy *policy, const char *what)
{
    const struct moe_placement_shape *s = &c->view.shape;
    (void) snprintf(why, PROPERTY_TEXT_LIMIT,
                    "%s: %s; layers %u, experts %u, slots %u, GPUs %u, nodes %u, groups %u, "
                    "batches %u, tokens %llu",
                    policy->name, what, s->layer_count, s->expert_count, s->slot_count,
                    s->gpu_count, s->node_count, s->group_count, c->view.batch_count,
                    (unsigned long long) c->routes.token_count);
    return false;
}

/* Every expert has a slot (the gate checks it), the same plan again from garbage in scratch, and
 * no GPU lighter than what its copies and the mean force. */
static bool plan_is_sound(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    static uint16_t slots[CASE_LAYERS * CASE_SLOTS];
    const struct subject *subject = context;
    struct moe_error err = { 0 };
    place_case_draw(&c, draws, false, false);
    if (place_case_solve(&c, subject->policy, subject->scratch, &err) != MOE_OK) {
        return fails(why, &c, subject->policy, err.text);
    }
    for (uint32_t layer = 0; layer < c.view.shape.layer_count; layer++) {
        const double *load = c.load + (size_t) layer * c.view.shape.expert_count;
        const double mean =
            moe_bound_perfect(load, c.view.shape.expert_count, c.view.shape.gpu_count);
        uint32_t copies[CASE_EXPERTS];
        double bound = mean;
        moe_placement_count_copies(&c.plan, layer, copies);
        for (uint32_t expert = 0; expert < c.view.shape.expert_count; expert++) {
            bound = fmax(bound, load[expert] / copies[expert]);
        }
        if (place_case_imbalance(&c, layer) * mean < bound * (1.0 - 1e-12)) {
            return fails(why, &c, subject->policy, "the fullest GPU is below the bound");
        }
    }
    memcpy(slots, c.slots, sizeof slots);
    moe_arena_reset(subject->scratch);
    memset(MOE_NEW(subject->scratch, char, CASE_SCRATCH_BYTES / 2), 0xff, CASE_SCRATCH_BYTES / 2);
    return place_case_solve(&c, subject->policy, subject->scratch, &err) == MOE_OK &&
                   memcmp(slots, c.slots, sizeof slots) == 0
               ? true
               : fails(why, &c, subject->policy, "equal views, different plans");
}

static void for_policies(property *holds, const char *const *names, uint32_t cases)
{
    struct moe_arena scratch;
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    cr_assert_eq(moe_arena_init(&scratch, CASE_SCRATCH_BYTES, NULL), MOE_OK);
    for (size_t i = 0; i < count; i++) {
        struct subject subject = { policies[i], &scratch };
        bool asked = names == NULL;
        for (size_t j = 0; !asked && names[j] != NULL; j++) {
            asked = strcmp(names[j], policies[i]->name) == 0;
        }
        if (!asked || policies[i]->place == NULL) {
            continue;
        }
        /* best makes about a hundred plans of parts of its window to choose how to make the one;
         * its contract (test_policy_contract.c) has more cases of it. */
        const bool slow = strcmp(policies[i]->name, "best") == 0;
        const char *text = property_fails(holds, &subject, 1, slow ? cases / 40 : cases);
        cr_expect_null(text, "%s", text);
    }
    moe_arena_finish(&scratch);
}

Test(place_properties, plans_are_sound)
{
    for_policies(plan_is_sound, NULL, CASES);
}

static int by_number(const void *a, const void *b)
{
    return (int) *(const uint16_t *) a - (int) *(const uint16_t *) b;
}

/* Other names of the experts rename what each GPU holds and change nothing else. One slot per GPU
 * is left out: EPLB then keeps the order of the experts. */
static bool renaming_renames(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    static struct place_case renamed;
    const struct subject *subject = context;
    struct moe_error err = { 0 };
    uint16_t to[CASE_EXPERTS];
    place_case_draw(&c, draws, true, true);
    for (uint32_t expert = 0; expert < c.view.shape.expert_count; expert++) {
        const uint32_t other = draw_below(draws, expert + 1);
        to[expert] = (uint16_t) expert;
        to[expert] = to[other];
        to[other] = (uint16_t) expert;
    }
    place_case_rename_experts(&c, to, &renamed);
    if (c.view.shape.slot_count == c.view.shape.gpu_count) {
        return true;
    }
    if (place_case_solve(&c, subject->policy, subject->scratch, &err) != MOE_OK ||
        place_case_solve(&renamed, subject->policy, subject->scratch, &err) != MOE_OK) {
        return fails(why, &c, subject->policy, err.text);
    }
    const uint32_t capacity = moe_placement_slots_per_gpu(&c.view.shape);
    for (size_t i = 0; i < (size_t) c.view.shape.layer_count * c.view.shape.slot_count; i++) {
        c.slots[i] = c.slots[i] == MOE_SLOT_EMPTY ? MOE_SLOT_EMPTY : to[c.slots[i]];
    }
    for (size_t i = 0; i < (size_t) c.view.shape.layer_count * c.view.shape.gpu_count; i++) {
        qsort(c.slots + i * capacity, capacity, sizeof *c.slots, by_number);
        qsort(renamed.slots + i * capacity, capacity, sizeof *c.slots, by_number);
        if (memcmp(c.slots + i * capacity, renamed.slots + i * capacity,
                   capacity * sizeof *c.slots) != 0) {
            return fails(why, &c, subject->policy, "the renamed problem has another plan");
        }
    }
    return true;
}

/* Not asked, besides those that say of themselves that numbers matter (numbered): why. A case
 * without ties has loads that all differ; what else a policy compares may tie. */
static const char *const excepted[][2] = {
    { "affinity", "compares counts of routes, which tie" },
    { "craft", "compares gains of balancedness, which are all 0 on one GPU, and float32 loads" },
    { "eplb_sglang", "adds 1e-4 times the expert's place to what a copy bears" },
    { "topology_aware", "compares counts of routes, which tie" },
};

Test(place_properties, renaming_experts_renames_the_plan)
{
    const char *names[64] = { NULL };
    size_t count = 0;
    size_t asked = 0;
    size_t left_out = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    for (size_t i = 0; i < count; i++) {
        bool out = policies[i]->place == NULL || policies[i]->numbered;
        for (size_t j = 0; j < sizeof excepted / sizeof excepted[0] && policies[i]->place; j++) {
            const bool named = strcmp(excepted[j][0], policies[i]->name) == 0;
            left_out += named;
            out |= named;
        }
        if (!out) {
            names[asked++] = policies[i]->name;
        }
    }
    cr_assert_eq(left_out, sizeof excepted / sizeof excepted[0]);
    cr_assert_geq(asked, 14);
    for_policies(renaming_renames, names, CASES);
}

/* Other numbers of the GPUs renumber the plan, as far as anything tells GPUs apart: their speeds,
 * or what they hold already. What a GPU's slots hold may come in another order. */
static bool renaming_gpus_renames(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    static struct place_case renamed;
    const struct subject *subject = context;
    struct moe_error err = { 0 };
    uint16_t to[CASE_GPUS] = { 0 };
    place_case_draw(&c, draws, true, true);
    for (uint32_t gpu = 0; gpu < c.view.shape.gpu_count; gpu++) {
        const uint32_t other = draw_below(draws, gpu + 1);
        to[gpu] = (uint16_t) gpu;
        to[gpu] = to[other];
        to[other] = (uint16_t) gpu;
    }
    place_case_rename_gpus(&c, to, &renamed);
    if (place_case_solve(&c, subject->policy, subject->scratch, &err) != MOE_OK ||
        place_case_solve(&renamed, subject->policy, subject->scratch, &err) != MOE_OK) {
        return fails(why, &c, subject->policy, err.text);
    }
    const size_t capacity = moe_placement_slots_per_gpu(&c.view.shape);
    for (uint32_t layer = 0; layer < c.view.shape.layer_count; layer++) {
        for (size_t gpu = 0; gpu < c.view.shape.gpu_count; gpu++) {
            uint16_t *before = moe_placement_layer(&c.plan, layer) + gpu * capacity;
            uint16_t *after = moe_placement_layer(&renamed.plan, layer) + to[gpu] * capacity;
            qsort(before, capacity, sizeof *before, by_number);
            qsort(after, capacity, sizeof *after, by_number);
            if (memcmp(before, after, capacity * sizeof *before) != 0) {
                return fails(why, &c, subject->policy, "with other numbers, another plan");
            }
        }
    }
    return true;
}

/* Not asked, of those that see something of a GPU: why. Previous plans repeat the round of the
 * experts, so that GPUs that hold the same, or nothing, are frequent. */
static const char *const gpu_excepted[][2] = {
    { "eplb_vllm", "keeps slots within a GPU; which GPU gets which pack is by the packs' order" },
    { "flashlb", "compares counts of copies that stay, which tie" },
    { "scalpelb", "GPUs that hold the same copies tie" },
    { "stare", "takes over EPLB's plans, whose packs go to GPUs in their own order" },
    { "swift", "GPUs that hold the same copies tie" },
};

Test(place_properties, renaming_gpus_renames_the_plan)
{
    const uint32_t seen = MOE_POLICY_NEEDS_GPU_SPEED | MOE_POLICY_NEEDS_PREVIOUS;
    const char *names[64] = { NULL };
    size_t count = 0;
    size_t asked = 0;
    size_t left_out = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    for (size_t i = 0; i < count; i++) {
        bool out = policies[i]->place == NULL || (policies[i]->needs & seen) == 0;
        for (size_t j = 0; j < sizeof gpu_excepted / sizeof gpu_excepted[0] && !out; j++) {
            out = strcmp(gpu_excepted[j][0], policies[i]->name) == 0;
            left_out += out;
        }
        if (!out) {
            names[asked++] = policies[i]->name;
        }
    }
    cr_assert_eq(left_out, sizeof gpu_excepted / sizeof gpu_excepted[0]);
    cr_assert_geq(asked, 3);
    for_policies(renaming_gpus_renames, names, CASES);
}

/* One more slot on every GPU: the largest load per copy does not grow. */
static bool more_slots_do_not_hurt(struct draws *draws, void *context,
                                   char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    const struct subject *subject = context;
    struct moe_error err = { 0 };
    double hottest[2] = { 0.0, 0.0 };
    place_case_draw(&c, draws, false, true);
    const uint32_t experts = c.view.shape.expert_count;
    assert(experts > 0);
    c.view.shape.layer_count = 1;
    c.view.shape.node_count = 1;
    for (int more = 0; more < 2; more++) {
        uint32_t copies[CASE_EXPERTS];
        c.view.shape.slot_count += more ? c.view.shape.gpu_count : 0;
        c.previous.shape = c.view.shape;
        for (uint32_t slot = 0; slot < c.view.shape.slot_count; slot++) {
            c.previous_slots[slot] = (uint16_t) (slot % experts);
        }
        if (c.view.shape.slot_count > CASE_SLOTS ||
            place_case_solve(&c, subject->policy, subject->scratch, &err) != MOE_OK) {
            return c.view.shape.slot_count > CASE_SLOTS ||
                   fails(why, &c, subject->policy, err.text);
        }
        moe_placement_count_copies(&c.plan, 0, copies);
        for (uint32_t expert = 0; expert < c.view.shape.expert_count; expert++) {
            hottest[more] = fmax(hottest[more], c.load[expert] / copies[expert]);
        }
    }
    return hottest[1] <= hottest[0] * (1.0 + 1e-6)
               ? true
               : fails(why, &c, subject->policy, "more slots, and a hotter copy");
}

Test(place_properties, more_slots_make_no_copy_hotter)
{
    static const char *const names[] = { "eplb", "eplb_trtllm", "eplb_vllm", NULL };
    for_policies(more_slots_do_not_hurt, names, CASES);
}

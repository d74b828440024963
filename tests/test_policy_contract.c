/* What policies/policy.h promises, held against every registered policy over random
 * shapes and loads. A new policy is covered by its line in registry.def. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "policies/bounds.h"
#include "policies/policy.h"
#include "sim/base/random.h"

enum { CASES = 400, SLOT_LIMIT = 640, LAYER_LIMIT = 4, GUARD = 32, SCRATCH_BYTES = 1 << 20 };

enum { LOAD_COUNT = LAYER_LIMIT * SLOT_LIMIT };

struct draw {
    uint64_t key;
    uint64_t counter;
};

static uint32_t below(struct draw *draw, uint32_t bound)
{
    return (uint32_t) moe_random_below(draw->key, draw->counter++, bound);
}

static struct moe_placement_shape random_shape(struct draw *draw)
{
    for (;;) {
        struct moe_placement_shape shape = { .layer_count = 1 + below(draw, LAYER_LIMIT) };
        shape.node_count = 1 + below(draw, 4);
        shape.gpu_count = shape.node_count * (1 + below(draw, 8));
        shape.group_count = 1 + below(draw, 8);
        shape.expert_count = shape.group_count * (1 + below(draw, 24));
        const uint32_t least = (shape.expert_count + shape.gpu_count - 1) / shape.gpu_count;
        shape.slot_count = shape.gpu_count * (least + below(draw, 4) * below(draw, 4));
        if (shape.slot_count <= SLOT_LIMIT && moe_placement_shape_check(&shape, NULL) == MOE_OK) {
            return shape;
        }
    }
}

static void fill_loads(struct draw *draw, double *load)
{
    const uint32_t kind = below(draw, 4);
    for (uint32_t i = 0; i < LOAD_COUNT; i++) {
        const uint32_t x = below(draw, 100000);
        load[i] = kind == 0 ? 0.0 : kind == 1 ? x % 3 : kind == 2 ? x / 7.0 : x % 20 ? 1.0 : x;
    }
}

/* A plan between guards, with scratch of garbage: what a policy may not rely on. */
struct attempt {
    struct moe_arena scratch;
    struct moe_placement plan;
    uint16_t slots[GUARD + LAYER_LIMIT * SLOT_LIMIT + GUARD];
};

/* Past the gate's checks of the plan. */
static enum moe_status place_bare(const struct moe_policy *policy,
                                  const struct moe_place_view *view, struct moe_arena *scratch,
                                  struct moe_placement *plan, struct moe_error *err)
{
    struct moe_place_view shown;
    double values[MOE_POLICY_PARAMETER_LIMIT];
    MOE_TRY(moe_policy_show(policy, view, &shown, values, err));
    return policy->place(&shown, scratch, plan, err);
}

static enum moe_status attempt(struct attempt *a, const struct moe_policy *policy,
                               const struct moe_place_view *view, int garbage, bool through_gate,
                               struct moe_error *err)
{
    moe_arena_reset(&a->scratch);
    void *all = MOE_NEW(&a->scratch, unsigned char, SCRATCH_BYTES / 2);
    memset(all, garbage, SCRATCH_BYTES / 2);
    moe_arena_reset(&a->scratch);
    memset(a->slots, 0xa5, sizeof a->slots);
    a->plan = (struct moe_placement){ .shape = view->shape, .expert_of_slot = a->slots + GUARD };
    const size_t count = (size_t) view->shape.layer_count * view->shape.slot_count;
    memset(a->plan.expert_of_slot, 0xff, count * sizeof *a->slots);
    const enum moe_status status = through_gate
                                       ? moe_policy_place(policy, view, &a->scratch, &a->plan, err)
                                       : place_bare(policy, view, &a->scratch, &a->plan, err);
    for (size_t i = 0; i < GUARD; i++) {
        cr_assert_eq(a->slots[i], 0xa5a5, "%s wrote before its plan", policy->name);
    }
    for (size_t i = GUARD + count; i < sizeof a->slots / sizeof a->slots[0]; i++) {
        cr_assert_eq(a->slots[i], 0xa5a5, "%s wrote behind its plan", policy->name);
    }
    return status;
}

static struct moe_place_view view_for(const struct moe_policy *policy,
                                      const struct moe_placement_shape *shape, const double *load,
                                      const double *future, uint64_t seed)
{
    return (struct moe_place_view){
        .shape = *shape,
        .load = (policy->needs & MOE_POLICY_NEEDS_LOAD) != 0 ? load : NULL,
        .future_load = (policy->needs & MOE_POLICY_NEEDS_FUTURE) != 0 ? future : NULL,
        .seed = seed,
    };
}

/* No GPU is fuller than a whole layer, none of the bounds is undercut. */
static void expect_bounds(const struct moe_policy *policy, const struct moe_placement *plan,
                          const double *load)
{
    const struct moe_placement_shape *shape = &plan->shape;
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const double *row = load + (size_t) layer * shape->expert_count;
        double gpu_load[SLOT_LIMIT];
        double max = 0.0;
        uint32_t copies[SLOT_LIMIT];
        bool has_copies = false;
        moe_placement_gpu_load(plan, layer, row, gpu_load);
        moe_placement_count_copies(plan, layer, copies);
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            max = gpu_load[gpu] > max ? gpu_load[gpu] : max;
        }
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            has_copies |= copies[expert] > 1;
        }
        const double rounded = max * (1.0 + 1e-12);
        cr_assert_geq(rounded, moe_bound_perfect(row, shape->expert_count, shape->gpu_count), "%s",
                      policy->name);
        cr_assert(has_copies ||
                      rounded >= moe_bound_no_copy(row, shape->expert_count, shape->gpu_count),
                  "%s", policy->name);
    }
}

static void expect_contract(const struct moe_policy *policy)
{
    static struct attempt first;
    static struct attempt second;
    static double load[LOAD_COUNT];
    static double future[LOAD_COUNT];
    struct draw draw = { .key = moe_random_key(7, MOE_RANDOM_TEST) };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_arena_init(&first.scratch, SCRATCH_BYTES, NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&second.scratch, SCRATCH_BYTES, NULL), MOE_OK);
    for (uint32_t number = 0; number < CASES; number++) {
        const struct moe_placement_shape shape = random_shape(&draw);
        fill_loads(&draw, load);
        fill_loads(&draw, future);
        const struct moe_place_view view = view_for(policy, &shape, load, future, number);
        cr_assert_eq(attempt(&first, policy, &view, 0x00, true, &err), MOE_OK, "%s", err.text);
        cr_assert_eq(attempt(&second, policy, &view, 0xff, false, &err), MOE_OK, "%s", err.text);
        cr_assert_eq(memcmp(first.slots, second.slots, sizeof first.slots), 0,
                     "%s: equal views, different plans in case %u", policy->name, number);
        cr_assert_eq(moe_placement_check(&second.plan, &err), MOE_OK);
        expect_bounds(policy, &first.plan, load);
    }
    moe_arena_finish(&first.scratch);
    moe_arena_finish(&second.scratch);
}

Test(policy_contract, plans_are_complete_pure_and_within_bounds)
{
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    cr_assert_geq(count, 6);
    for (size_t i = 0; i < count; i++) {
        if (policies[i]->place != NULL) {
            expect_contract(policies[i]);
        }
    }
}

static enum moe_policy_kind first_kind(const struct moe_policy *policy)
{
    enum moe_policy_kind kind = MOE_POLICY_PLACE;
    while (!moe_policy_is(policy, kind)) {
        kind = (enum moe_policy_kind)(kind + 1);
    }
    return kind;
}

Test(policy_contract, tables_are_filled)
{
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    for (size_t i = 0; i < count; i++) {
        const struct moe_policy *found = NULL;
        const struct moe_policy *policy = policies[i];
        struct moe_error err = { 0 };
        cr_assert_eq(policy->abi, MOE_POLICY_ABI);
        cr_assert_gt(strlen(policy->name), 0);
        cr_assert_eq(strspn(policy->name, "abcdefghijklmnopqrstuvwxyz0123456789_"),
                     strlen(policy->name));
        cr_assert_gt(strlen(policy->summary), 10, "%s", policy->name);
        cr_assert_null(strchr(policy->summary, '\n'));
        cr_assert_gt(strlen(policy->source), 3, "%s", policy->name);
        cr_assert_gt(strlen(policy->tie_rule), 3, "%s", policy->name);
        cr_assert_eq(moe_policy_check_table(policy, &err), MOE_OK, "%s", err.text);
        /* Only the first of a name is found, so this also says that names are unique. */
        cr_assert_eq(moe_policy_find(first_kind(policy), policy->name, &found, NULL), MOE_OK);
        cr_assert_eq(found, policy);
    }
}

Test(policy_contract, unknown_name_lists_the_known)
{
    const struct moe_policy *policy = NULL;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, "eplb2", &policy, &err), MOE_RANGE);
    cr_assert_null(policy);
    cr_assert_not_null(strstr(err.text, "'eplb2'"));
    cr_assert_not_null(strstr(err.text, " lpt eplb hindsight"));
}

static uint32_t reads_loads(const struct moe_policy *policy)
{
    return policy->needs & (MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_FUTURE);
}

/* Each view breaks one rule; place itself is never reached with it. */
Test(policy_contract, impossible_views_are_refused)
{
    static struct attempt a;
    static double load[LOAD_COUNT];
    const struct moe_placement_shape good = { 2, 12, 16, 8, 2, 4 };
    const struct {
        struct moe_placement_shape shape;
        const char *reason;
    } bad[] = {
        { { 2, 12, 16, 7, 1, 4 }, "16 slots do not divide over 7 GPUs" },
        { { 2, 12, 8, 8, 2, 4 }, "8 slots cannot hold 12 experts" },
        { { 2, 12, 16, 8, 3, 4 }, "8 GPUs do not divide over 3 nodes" },
        { { 2, 12, 16, 8, 2, 5 }, "12 experts do not divide into 5 groups" },
        { { 0, 12, 16, 8, 2, 4 }, "each must be at least 1" },
    };
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    cr_assert_eq(moe_arena_init(&a.scratch, SCRATCH_BYTES, NULL), MOE_OK);
    for (size_t i = 0; i < count; i++) {
        struct moe_error err = { 0 };
        if (policies[i]->place == NULL) {
            continue;
        }
        struct moe_place_view view = { .shape = good, .load = load, .future_load = load };
        for (size_t j = 0; j < sizeof bad / sizeof bad[0]; j++) {
            view.shape = bad[j].shape;
            cr_assert_eq(attempt(&a, policies[i], &view, 0, true, &err), MOE_POLICY);
            cr_assert_not_null(strstr(err.text, bad[j].reason), "%s", err.text);
            cr_assert_not_null(strstr(err.text, policies[i]->name), "%s", err.text);
        }
        view = (struct moe_place_view){ .shape = good };
        cr_assert_eq(attempt(&a, policies[i], &view, 0, true, &err),
                     reads_loads(policies[i]) == 0 ? MOE_OK : MOE_POLICY);
        const double refused[] = { -1.0, 1.001e30, NAN, INFINITY };
        for (size_t j = 0; j < sizeof refused / sizeof refused[0]; j++) {
            load[13] = refused[j];
            view = view_for(policies[i], &good, load, load, 0);
            cr_assert_eq(attempt(&a, policies[i], &view, 0, true, &err),
                         reads_loads(policies[i]) == 0 ? MOE_OK : MOE_POLICY, "%g", refused[j]);
            cr_assert(reads_loads(policies[i]) == 0 ||
                      strstr(err.text, "layer 1, expert 1") != NULL);
        }
        load[13] = 1e30;
        view = view_for(policies[i], &good, load, load, 0);
        cr_assert_eq(attempt(&a, policies[i], &view, 0, true, &err), MOE_OK, "%s", err.text);
        load[13] = 0.0;
    }
    moe_arena_finish(&a.scratch);
}

Test(policy_contract, an_empty_scratch_is_a_limit_not_a_crash)
{
    static struct attempt a;
    static double load[LOAD_COUNT];
    const struct moe_placement_shape shape = { 2, 12, 16, 8, 2, 4 };
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    uint16_t slots[32];
    for (size_t i = 0; i < count; i++) {
        for (size_t bytes = policies[i]->place == NULL ? SIZE_MAX : 16; bytes <= 4096;
             bytes += 16) {
            struct moe_placement plan = { .shape = shape, .expert_of_slot = slots };
            const struct moe_place_view view = view_for(policies[i], &shape, load, load, 0);
            cr_assert_eq(moe_arena_init(&a.scratch, bytes, NULL), MOE_OK);
            memset(slots, 0xff, sizeof slots);
            const enum moe_status status =
                moe_policy_place(policies[i], &view, &a.scratch, &plan, NULL);
            cr_assert(status == MOE_OK || status == MOE_LIMIT, "%s", policies[i]->name);
            moe_arena_finish(&a.scratch);
        }
    }
}

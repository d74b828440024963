/* What policies/policy.h promises, held against every registered policy over made-up worlds
 * (policies/check/policy_check.h). A new policy is covered by its line in registry.def. The rest
 * shows that each rule can be broken: a policy that breaks it is caught, and its case shrunk. */
#include <criterion/criterion.h>
#include <string.h>

#include "policies/check/policy_check.h"

/* best makes about a hundred plans of parts of its window to choose how to make the one: it gets
 * the small cases only. */
enum { CASES = 400, CASES_OF_BEST = 60 };

static void expect_kept(const struct moe_policy *policy)
{
    static struct moe_policy_report report;
    struct moe_error err = { 0 };
    const uint32_t cases = strcmp(policy->name, "best") == 0 ? CASES_OF_BEST : CASES;
    cr_assert_eq(moe_policy_check(policy, cases, &report, &err), MOE_OK, "%s", err.text);
    for (uint32_t i = 0; i < report.finding_count; i++) {
        const struct moe_policy_finding *finding = &report.findings[i];
        char spec[256] = "";
        if (finding->has_case) {
            moe_policy_case_print(&finding->spec, spec, sizeof spec);
        }
        cr_expect_not(finding->broken, "%s: %s: %s (%s)", policy->name, finding->rule, finding->why,
                      spec);
    }
}

Test(policy_contract, every_registered_policy_keeps_it, .timeout = 600)
{
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    cr_assert_geq(count, 8);
    for (size_t i = 0; i < count; i++) {
        expect_kept(policies[i]);
    }
}

/* Only the first of a name is found, so this also says that names are unique in their kind. */
Test(policy_contract, every_registered_policy_is_found_by_kind_and_name)
{
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    for (size_t i = 0; i < count; i++) {
        for (int kind = 0; kind < MOE_POLICY_KIND_COUNT; kind++) {
            const struct moe_policy *found = NULL;
            if (moe_policy_is(policies[i], (enum moe_policy_kind) kind)) {
                cr_assert_eq(
                    moe_policy_find((enum moe_policy_kind) kind, policies[i]->name, &found, NULL),
                    MOE_OK);
                cr_assert_eq(found, policies[i], "%s", policies[i]->name);
            }
        }
    }
}

Test(policy_contract, unknown_name_lists_the_known)
{
    const struct moe_policy *policy = NULL;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, "eplb2", &policy, &err), MOE_RANGE);
    cr_assert_null(policy);
    cr_assert_not_null(strstr(err.text, "'eplb2'"));
    cr_assert_not_null(strstr(err.text, " lpt eplb "));
    cr_assert_eq(moe_policy_find(MOE_POLICY_DISPATCH, "eplb", &policy, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "no dispatch policy 'eplb'; there are: even"), "%s",
                       err.text);
}

/* --- policies that break one rule each --- */

static enum moe_status place_by(const struct moe_place_view *view, struct moe_placement *plan,
                                uint32_t first)
{
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(plan, layer);
        for (uint32_t slot = 0; slot < view->shape.slot_count; slot++) {
            slots[slot] = (uint16_t) ((slot + first) % view->shape.expert_count);
        }
    }
    return MOE_OK;
}

static enum moe_status place_forgetful(const struct moe_place_view *view, struct moe_arena *scratch,
                                       struct moe_placement *plan, struct moe_error *err)
{
    (void) scratch;
    (void) err;
    (void) place_by(view, plan, 0);
    if (view->shape.gpu_count >= 3) {
        plan->expert_of_slot[0] = MOE_SLOT_EMPTY; /* wrong only where there are no copies of 0 */
    }
    return MOE_OK;
}

static enum moe_status place_overrun(const struct moe_place_view *view, struct moe_arena *scratch,
                                     struct moe_placement *plan, struct moe_error *err)
{
    (void) scratch;
    (void) err;
    plan->expert_of_slot[(size_t) view->shape.layer_count * view->shape.slot_count] = 0;
    return place_by(view, plan, 0);
}

static enum moe_status place_by_address(const struct moe_place_view *view,
                                        struct moe_arena *scratch, struct moe_placement *plan,
                                        struct moe_error *err)
{
    (void) err;
    return place_by(view, plan, (uint32_t) ((uintptr_t) MOE_NEW(scratch, char, 16) >> 4) % 2);
}

static enum moe_status place_numbered(const struct moe_place_view *view, struct moe_arena *scratch,
                                      struct moe_placement *plan, struct moe_error *err)
{
    (void) scratch;
    (void) err;
    return place_by(view, plan, 0);
}

static enum moe_status place_greedy_for_scratch(const struct moe_place_view *view,
                                                struct moe_arena *scratch,
                                                struct moe_placement *plan, struct moe_error *err)
{
    if (MOE_NEW(scratch, char, 600) == NULL) {
        return moe_fail(err, MOE_IO, "no scratch");
    }
    return place_by(view, plan, 0);
}

static enum moe_status place_never(const struct moe_place_view *view, struct moe_arena *scratch,
                                   struct moe_placement *plan, struct moe_error *err)
{
    (void) view;
    (void) scratch;
    (void) plan;
    return moe_fail(err, MOE_POLICY, "not today");
}

static enum moe_status place_fragile(const struct moe_place_view *view, struct moe_arena *scratch,
                                     struct moe_placement *plan, struct moe_error *err)
{
    (void) scratch;
    (void) err;
    return view->parameters[0] > 7.0 ? MOE_OK : place_by(view, plan, 0); /* leaves it empty */
}

static enum moe_status split_short(void *state, const struct moe_dispatch_view *view,
                                   uint32_t *quota, struct moe_error *err)
{
    (void) state;
    (void) err;
    for (uint32_t source = 0; source < view->shape.gpu_count; source++) {
        for (uint32_t e = 0; e < view->shape.expert_count; e++) {
            const size_t row = (size_t) source * view->copy_count;
            const uint32_t wanted = view->demand[source * view->shape.expert_count + e];
            quota[row + view->first_copy[e]] = wanted > 500 ? 500 : wanted;
        }
    }
    return MOE_OK;
}

static enum moe_status choose_full(void *state, const struct moe_group_view *view,
                                   struct moe_group_choice *choice, struct moe_error *err)
{
    (void) state;
    (void) view;
    (void) err;
    *choice = (struct moe_group_choice){ 0, 0 }; /* GPU 0 whatever it holds */
    return MOE_OK;
}

static enum moe_status predict_negative(const struct moe_place_view *planning,
                                        struct moe_arena *scratch, double *load,
                                        struct moe_error *err)
{
    (void) scratch;
    (void) err;
    for (size_t i = 0; i < (size_t) planning->shape.layer_count * planning->shape.expert_count;
         i++) {
        load[i] = planning->load[i] - 1.0;
    }
    return MOE_OK;
}

static const struct moe_policy_parameter fragile_parameters[] = {
    { "depth", MOE_PARAMETER_WHOLE, 3, 1, 8, NULL, "how deep", "own" },
};
static const struct moe_dispatch_methods short_dispatch = { .split = split_short };
static const struct moe_group_methods full_group = { .choose = choose_full };
static const struct moe_predict_methods negative_predict = { .window = predict_negative };

#define BROKEN(word)                                                                  \
    MOE_POLICY_HEADER, .name = (word), .summary = "breaks one rule", .source = "own", \
                       .tie_rule = "none"

static const struct {
    struct moe_policy policy;
    const char *rule;
    const char *why;
} broken[] = {
    { { BROKEN("forgetful"), .numbered = true, .place = place_forgetful },
      "place covers",
      "layer 0: expert 0 has no slot" },
    { { BROKEN("overrun"), .numbered = true, .place = place_overrun },
      "place covers",
      "it wrote behind its plan" },
    { { BROKEN("address"), .numbered = true, .place = place_by_address },
      "place repeats",
      "equal views at other addresses" },
    { { BROKEN("greedy"), .numbered = true, .budgeted = true, .place = place_numbered },
      "place budget",
      "copies of a budget of" },
    { { BROKEN("numbers"), .place = place_numbered }, "place renamed", "experts renamed" },
    { { BROKEN("thirsty"), .numbered = true, .place = place_greedy_for_scratch },
      "place limit",
      "no scratch" },
    { { BROKEN("never"), .numbered = true, .place = place_never },
      "place covers",
      "every case is refused, first: not today" },
    { { BROKEN("fragile"), .numbered = true, MOE_POLICY_PARAMETERS(fragile_parameters),
        .place = place_fragile },
      "place parameters",
      "depth=8: layer 0: expert 0 has no slot" },
    { { BROKEN("short"), .dispatch = &short_dispatch }, "dispatch splits", "quotas of 500 tokens" },
    { { BROKEN("full"), .group = &full_group }, "group seats", "chose GPU 0, which has" },
    { { BROKEN("negative"), .needs = MOE_POLICY_NEEDS_LOAD, .predict = &negative_predict },
      "predict window",
      "a load of -1" },
    { { BROKEN("no method") }, "table", "name is no word" },
    { { BROKEN("empty") }, "table", "place, dispatch, predict and group are all NULL" },
};

Test(policy_contract, each_rule_catches_who_breaks_it, .timeout = 600)
{
    static struct moe_policy_report report;
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        const struct moe_policy_finding *found = NULL;
        cr_assert_eq(moe_policy_check(&broken[i].policy, 200, &report, NULL), MOE_OK);
        for (uint32_t j = 0; j < report.finding_count && found == NULL; j++) {
            found =
                strcmp(report.findings[j].rule, broken[i].rule) == 0 ? &report.findings[j] : NULL;
        }
        cr_assert_not_null(found, "%s", broken[i].policy.name);
        cr_expect(found->broken, "%s keeps '%s'", broken[i].policy.name, broken[i].rule);
        cr_expect_not_null(strstr(found->why, broken[i].why), "%s: %s", broken[i].policy.name,
                           found->why);
    }
}

/* Forgetting expert 0's slot is wrong from three GPUs on, where it has no copy: with one expert for
 * each slot and nothing to spare. */
static bool is_forgotten(const struct moe_policy_case_spec *spec)
{
    const uint32_t gpus = spec->nodes * spec->gpus_per_node;
    return gpus >= 3 && spec->spare_slots == 0 && spec->groups * spec->group_experts % gpus == 0;
}

Test(policy_contract, a_broken_case_is_shrunk_to_the_smallest)
{
    static struct moe_policy_report report;
    cr_assert_eq(moe_policy_check(&broken[0].policy, 200, &report, NULL), MOE_OK);
    const struct moe_policy_finding *covers = &report.findings[1];
    cr_assert(covers->broken);
    cr_expect_eq(covers->spec.layers, 1);
    cr_expect(is_forgotten(&covers->spec));
    cr_expect_eq(covers->spec.batches, 1);
    cr_expect_eq(covers->spec.requests, 1);
    for (uint32_t which = 0; which < MOE_CASE_FIELD_COUNT; which++) {
        struct moe_policy_case_spec smaller = covers->spec;
        for (uint32_t try = 0; moe_policy_case_shrink(&smaller, which, try); try++) {
            cr_expect_not(is_forgotten(&smaller), "field %u: %u still breaks it", which, try);
            smaller = covers->spec;
        }
    }
}

/* Each view breaks one rule; place itself is never reached with it. */
Test(policy_contract, impossible_shapes_are_refused)
{
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
    uint16_t slots[64];
    struct moe_arena scratch = { 0 };
    cr_assert_eq(moe_arena_init(&scratch, 1 << 16, NULL), MOE_OK);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; policies[i]->place != NULL && j < sizeof bad / sizeof bad[0]; j++) {
            struct moe_error err = { 0 };
            const struct moe_place_view view = { .shape = bad[j].shape };
            struct moe_placement plan = { .shape = bad[j].shape, .expert_of_slot = slots };
            cr_assert_eq(moe_policy_place(policies[i], &view, &scratch, &plan, &err), MOE_POLICY);
            cr_assert_not_null(strstr(err.text, bad[j].reason), "%s", err.text);
            cr_assert_not_null(strstr(err.text, policies[i]->name), "%s", err.text);
        }
    }
    moe_arena_finish(&scratch);
}

Test(policy_contract, a_budget_is_refused_by_those_who_do_not_keep_one)
{
    const struct moe_policy *policy = NULL;
    struct moe_error err = { 0 };
    const struct moe_place_view view = { .shape = { 2, 12, 16, 8, 2, 4 },
                                         .replica_budget_total = 4 };
    uint16_t slots[32];
    struct moe_placement plan = { .shape = view.shape, .expert_of_slot = slots };
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, "contiguous", &policy, NULL), MOE_OK);
    cr_assert_eq(moe_policy_place(policy, &view, NULL, &plan, &err), MOE_POLICY);
    cr_assert_not_null(strstr(err.text, "policy contiguous: takes no budget of copies"), "%s",
                       err.text);
}

/* What place policies promise. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policies/bounds.h"
#include "policies/check/policy_rule.h"
#include "policies/parameter.h"
#include "sim/base/random.h"

enum { GUARD = 32, GUARD_VALUE = 0xa5a5 };

/* A plan between guards; NULL when the world is full. */
static uint16_t *new_slots(struct moe_rule_trial *t, size_t count)
{
    uint16_t *slots = MOE_NEW(&t->world, uint16_t, count + (size_t) 2 * GUARD);
    if (slots != NULL) {
        memset(slots, GUARD_VALUE & 0xff, (count + (size_t) 2 * GUARD) * sizeof *slots);
        memset(slots + GUARD, 0xff, count * sizeof *slots);
    }
    return slots;
}

/* Calls place itself, past the gate's check of the plan, into a guarded plan. Kept: the plan is
 * there. second: with the other scratch, at other addresses. */
static enum moe_rule_outcome place(struct moe_rule_trial *t, const struct moe_place_view *view,
                                   bool second, struct moe_placement *plan)
{
    const size_t count = (size_t) view->shape.layer_count * view->shape.slot_count;
    struct moe_place_view shown;
    double values[MOE_POLICY_PARAMETER_LIMIT];
    struct moe_arena *scratch = &t->scratch[second];
    uint16_t *slots = new_slots(t, count);
    if (slots == NULL || moe_policy_show(t->policy, view, &shown, values, &t->reason) != MOE_OK) {
        return moe_rule_broken(t, "the case itself failed: %.200s", t->reason.text);
    }
    moe_arena_reset(scratch);
    if (second && MOE_NEW(scratch, char, 4096 + 48) == NULL) {
        return moe_rule_broken(t, "the case itself failed: no scratch");
    }
    *plan = (struct moe_placement){ .shape = view->shape, .expert_of_slot = slots + GUARD };
    const enum moe_status status = t->policy->place(&shown, scratch, plan, &t->reason);
    for (size_t i = 0; i < GUARD; i++) {
        if (slots[i] != GUARD_VALUE || slots[GUARD + count + i] != GUARD_VALUE) {
            return moe_rule_broken(t, "it wrote %s its plan",
                                   slots[i] != GUARD_VALUE ? "before" : "behind");
        }
    }
    if (memcmp(&plan->shape, &view->shape, sizeof view->shape) != 0 ||
        plan->expert_of_slot != slots + GUARD) {
        return moe_rule_broken(t, "it changed the plan's shape or memory");
    }
    if (status == MOE_POLICY) {
        return MOE_RULE_REFUSED;
    }
    return status == MOE_OK ? MOE_RULE_KEPT
                            : moe_rule_broken(t, "it failed: %.300s", t->reason.text);
}

static enum moe_rule_outcome make(struct moe_rule_trial *t, const struct moe_policy_case_spec *spec,
                                  const uint16_t *relabel, struct moe_policy_case *c)
{
    return moe_policy_case_make(c, spec, relabel, &t->world, &t->reason) == MOE_OK
               ? MOE_RULE_KEPT
               : moe_rule_broken(t, "the case itself failed: %.200s", t->reason.text);
}

/* Nothing undercuts the bounds of balance: a plan that seems to is none. */
static enum moe_rule_outcome check_bounds(struct moe_rule_trial *t,
                                          const struct moe_placement *plan, const double *load)
{
    const struct moe_placement_shape *shape = &plan->shape;
    double *gpu_load = MOE_NEW(&t->world, double, shape->gpu_count);
    if (gpu_load == NULL) {
        return moe_rule_broken(t, "the case itself failed: no room");
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const double *row = load + (size_t) layer * shape->expert_count;
        const double mean = moe_bound_perfect(row, shape->expert_count, shape->gpu_count);
        double max = 0.0;
        double sum = 0.0;
        moe_placement_gpu_load(plan, layer, row, gpu_load);
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            max = gpu_load[gpu] > max ? gpu_load[gpu] : max;
            sum += gpu_load[gpu];
        }
        if (max * (1.0 + 1e-9) < mean || fabs(sum / shape->gpu_count - mean) > 1e-9 * mean) {
            return moe_rule_broken(t, "layer %u: the plan's loads do not sum to what was given",
                                   layer);
        }
    }
    return MOE_RULE_KEPT;
}

static enum moe_rule_outcome covers(struct moe_rule_trial *t,
                                    const struct moe_policy_case_spec *spec)
{
    struct moe_policy_case c;
    struct moe_placement plan;
    enum moe_rule_outcome outcome = make(t, spec, NULL, &c);
    if (outcome == MOE_RULE_KEPT) {
        outcome = place(t, &c.view, false, &plan);
    }
    if (outcome != MOE_RULE_KEPT) {
        return outcome;
    }
    if (moe_placement_check(&plan, &t->reason) != MOE_OK) {
        return MOE_RULE_BROKEN;
    }
    return check_bounds(t, &plan, c.view.load);
}

static enum moe_rule_outcome repeats(struct moe_rule_trial *t,
                                     const struct moe_policy_case_spec *spec)
{
    struct moe_policy_case c;
    struct moe_policy_case again;
    struct moe_placement plan;
    struct moe_placement other;
    enum moe_rule_outcome outcome = make(t, spec, NULL, &c);
    if (outcome == MOE_RULE_KEPT) {
        outcome = make(t, spec, NULL, &again);
    }
    if (outcome == MOE_RULE_KEPT) {
        outcome = place(t, &c.view, false, &plan);
    }
    if (outcome != MOE_RULE_KEPT) {
        return outcome;
    }
    if (place(t, &again.view, true, &other) != MOE_RULE_KEPT) {
        return moe_rule_broken(t, "it answered once and then did not: %.300s", t->reason.text);
    }
    const uint64_t moves = moe_placement_count_moves(&plan, &other);
    return moves == 0 ? MOE_RULE_KEPT
                      : moe_rule_broken(t,
                                        "equal views at other addresses, plans that differ in "
                                        "%llu slots",
                                        (unsigned long long) moves);
}

static uint64_t count_copies(const struct moe_placement *plan)
{
    const size_t slots = (size_t) plan->shape.layer_count * plan->shape.slot_count;
    uint64_t used = 0;
    for (size_t i = 0; i < slots; i++) {
        used += plan->expert_of_slot[i] != MOE_SLOT_EMPTY;
    }
    return used - (uint64_t) plan->shape.layer_count * plan->shape.expert_count;
}

static enum moe_rule_outcome keeps_budget(struct moe_rule_trial *t,
                                          const struct moe_policy_case_spec *spec)
{
    struct moe_policy_case c;
    struct moe_placement plan;
    enum moe_rule_outcome outcome = make(t, spec, NULL, &c);
    if (outcome != MOE_RULE_KEPT) {
        return outcome;
    }
    c.view.replica_budget_total = 1 + (uint32_t) (spec->seed % 16);
    outcome = place(t, &c.view, false, &plan);
    if (outcome != MOE_RULE_KEPT) {
        return outcome;
    }
    if (moe_placement_check(&plan, &t->reason) != MOE_OK) {
        return MOE_RULE_BROKEN;
    }
    return count_copies(&plan) <= c.view.replica_budget_total
               ? MOE_RULE_KEPT
               : moe_rule_broken(t, "%llu copies of a budget of %u",
                                 (unsigned long long) count_copies(&plan),
                                 c.view.replica_budget_total);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *) a;
    const double y = *(const double *) b;
    return (x > y) - (x < y);
}

/* Sorted GPU loads of one layer. */
static double *sorted_loads(struct moe_rule_trial *t, const struct moe_placement *plan,
                            uint32_t layer, const double *load)
{
    const uint32_t gpus = plan->shape.gpu_count;
    double *gpu_load = MOE_NEW(&t->world, double, gpus);
    if (gpu_load != NULL) {
        moe_placement_gpu_load(plan, layer, load + (size_t) layer * plan->shape.expert_count,
                               gpu_load);
        qsort(gpu_load, gpus, sizeof *gpu_load, ascending);
    }
    return gpu_load;
}

static enum moe_rule_outcome compare_loads(struct moe_rule_trial *t,
                                           const struct moe_placement *plan, const double *load,
                                           const struct moe_placement *other,
                                           const double *other_load)
{
    for (uint32_t layer = 0; layer < plan->shape.layer_count; layer++) {
        const double *a = sorted_loads(t, plan, layer, load);
        const double *b = sorted_loads(t, other, layer, other_load);
        for (uint32_t gpu = 0; gpu < plan->shape.gpu_count; gpu++) {
            if (a == NULL || b == NULL || fabs(a[gpu] - b[gpu]) > 1e-6 * (a[gpu] + b[gpu])) {
                return moe_rule_broken(t,
                                       "layer %u: with its experts renamed the loads of the GPUs "
                                       "become others",
                                       layer);
            }
        }
    }
    return MOE_RULE_KEPT;
}

static enum moe_rule_outcome relabels(struct moe_rule_trial *t,
                                      const struct moe_policy_case_spec *spec)
{
    struct moe_policy_case c;
    struct moe_policy_case renamed;
    struct moe_placement plan;
    struct moe_placement other;
    const uint32_t experts = spec->groups * spec->group_experts;
    if (spec->groups != 1 || spec->loads < MOE_CASE_SKEWED) {
        return MOE_RULE_KEPT; /* groups and ties are allowed to depend on numbers */
    }
    uint16_t *relabel = MOE_NEW(&t->world, uint16_t, experts);
    if (relabel == NULL) {
        return moe_rule_broken(t, "the case itself failed: no room");
    }
    const uint64_t key = moe_random_key(spec->seed, MOE_RANDOM_TEST);
    for (uint32_t i = 0; i < experts; i++) {
        const uint32_t j = (uint32_t) moe_random_below(key, 5000 + i, (uint64_t) i + 1);
        relabel[i] = relabel[j];
        relabel[j] = (uint16_t) i;
    }
    enum moe_rule_outcome outcome = make(t, spec, NULL, &c);
    if (outcome == MOE_RULE_KEPT) {
        outcome = make(t, spec, relabel, &renamed);
    }
    if (outcome == MOE_RULE_KEPT) {
        outcome = place(t, &c.view, false, &plan);
    }
    if (outcome == MOE_RULE_KEPT) {
        outcome = place(t, &renamed.view, true, &other);
    }
    if (outcome != MOE_RULE_KEPT) {
        return outcome;
    }
    return compare_loads(t, &plan, c.view.load, &other, renamed.view.load);
}

/* The gate must refuse a view that lacks what the policy needs, or holds a load that is none. */
static enum moe_rule_outcome refuses(struct moe_rule_trial *t,
                                     const struct moe_policy_case_spec *spec)
{
    static const double bad[] = { -1.0, 1.001e30, NAN, INFINITY };
    struct moe_policy_case c;
    const enum moe_rule_outcome outcome = make(t, spec, NULL, &c);
    if (outcome != MOE_RULE_KEPT) {
        return outcome;
    }
    const size_t cells = (size_t) spec->layers * c.view.shape.expert_count;
    double *load = MOE_NEW(&t->world, double, cells);
    struct moe_placement plan;
    if (load == NULL || moe_placement_init(&plan, &t->world, &c.view.shape, NULL) != MOE_OK) {
        return moe_rule_broken(t, "the case itself failed: no room");
    }
    const struct moe_place_view bare = { .shape = c.view.shape };
    const uint32_t wanted =
        t->policy->needs & ~(uint32_t) (MOE_POLICY_NEEDS_SEED | MOE_POLICY_NEEDS_NOTHING);
    if (wanted != 0 &&
        moe_policy_place(t->policy, &bare, &t->scratch[0], &plan, &t->reason) != MOE_POLICY) {
        return moe_rule_broken(t, "it was let plan without what it needs");
    }
    memcpy(load, c.view.load, cells * sizeof *load);
    load[spec->seed % cells] = bad[spec->seed % 4];
    c.view.load = load;
    c.view.future_load = load;
    if ((wanted & (MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_FUTURE)) != 0 &&
        moe_policy_place(t->policy, &c.view, &t->scratch[0], &plan, &t->reason) != MOE_POLICY) {
        return moe_rule_broken(t, "it was let plan on a load of %g", bad[spec->seed % 4]);
    }
    return MOE_RULE_KEPT;
}

/* A full scratch is MOE_LIMIT, never a crash. */
static enum moe_rule_outcome survives(struct moe_rule_trial *t,
                                      const struct moe_policy_case_spec *spec)
{
    struct moe_policy_case c;
    struct moe_placement plan;
    struct moe_arena small = { 0 };
    const enum moe_rule_outcome outcome = make(t, spec, NULL, &c);
    if (outcome != MOE_RULE_KEPT) {
        return outcome;
    }
    const size_t bytes = (size_t) 16 << (spec->seed % 12);
    uint16_t *slots = new_slots(t, (size_t) c.view.shape.layer_count * c.view.shape.slot_count);
    if (slots == NULL || moe_arena_init(&small, bytes, NULL) != MOE_OK) {
        return moe_rule_broken(t, "the case itself failed: no room");
    }
    plan = (struct moe_placement){ .shape = c.view.shape, .expert_of_slot = slots + GUARD };
    const enum moe_status status = moe_policy_place(t->policy, &c.view, &small, &plan, &t->reason);
    moe_arena_finish(&small);
    return status == MOE_OK || status == MOE_LIMIT || status == MOE_POLICY
               ? MOE_RULE_KEPT
               : moe_rule_broken(t, "%zu bytes of scratch: %.300s", bytes, t->reason.text);
}

/* Both ends, or every choice, of one parameter; the others as they are. */
static enum moe_rule_outcome takes_parameters(struct moe_rule_trial *t,
                                              const struct moe_policy_case_spec *spec)
{
    double values[MOE_POLICY_PARAMETER_LIMIT];
    struct moe_policy_case c;
    struct moe_placement plan;
    enum moe_rule_outcome outcome = make(t, spec, NULL, &c);
    if (outcome != MOE_RULE_KEPT) {
        return outcome;
    }
    const uint32_t which = (uint32_t) (spec->seed / 2 % t->policy->parameter_count);
    const struct moe_policy_parameter *p = &t->policy->parameters[which];
    moe_policy_defaults(t->policy, values);
    if (p->kind == MOE_PARAMETER_CHOICE) {
        uint32_t count = 1; /* a sound table has one at least */
        while (p->choices[count] != NULL) {
            count++;
        }
        values[which] = (double) (spec->seed % count);
    } else if (p->kind == MOE_PARAMETER_FLAG) {
        values[which] = (double) (spec->seed % 2);
    } else {
        values[which] = spec->seed % 2 == 0 ? p->min : p->max;
    }
    c.view.parameters = values;
    outcome = place(t, &c.view, false, &plan);
    char value[64];
    moe_parameter_print(p, values[which], value, sizeof value);
    if (outcome == MOE_RULE_KEPT && moe_placement_check(&plan, &t->reason) != MOE_OK) {
        outcome = MOE_RULE_BROKEN;
    }
    if (outcome == MOE_RULE_BROKEN) {
        return moe_rule_broken(t, "%s=%s: %.360s", p->name, value, t->reason.text);
    }
    return outcome;
}

static bool places(const struct moe_policy *policy)
{
    return policy->place != NULL;
}

static bool is_budgeted(const struct moe_policy *policy)
{
    return policy->place != NULL && policy->budgeted;
}

/* Seeds and clusterings of routes start from numbers. */
static bool is_by_load(const struct moe_policy *policy)
{
    return policy->place != NULL && !policy->numbered &&
           (policy->needs & (MOE_POLICY_NEEDS_SEED | MOE_POLICY_NEEDS_ROUTES)) == 0;
}

static bool has_parameters(const struct moe_policy *policy)
{
    return policy->place != NULL && policy->parameter_count > 0;
}

const struct moe_policy_rule moe_place_rules[] = {
    { "place covers", "every expert of every layer has a slot, and nothing else is written", places,
      covers },
    { "place repeats", "equal views give equal plans, wherever they lie in memory", places,
      repeats },
    { "place budget", "no more copies than the budget", is_budgeted, keeps_budget },
    { "place renamed", "experts under other numbers, without ties: the same balance", is_by_load,
      relabels },
    { "place refuses", "views without what it needs and loads that are none are refused", places,
      refuses },
    { "place limit", "too little scratch is refused, not overrun", places, survives },
    { "place parameters", "both ends of every parameter are served or refused", has_parameters,
      takes_parameters },
};
const uint32_t moe_place_rule_count = sizeof moe_place_rules / sizeof moe_place_rules[0];

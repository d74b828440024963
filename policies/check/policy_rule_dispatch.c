/* What dispatch policies promise, with temporary copies and without. */
#include <string.h>

#include "policies/check/policy_rule.h"
#include "policies/copy_index.h"
#include "sim/base/random.h"

enum { STEPS = 3, GUARD = 16, GUARD_BYTE = 0xa5, SLOTS_EACH = 3 };

/* Two instances of a policy side by side, which must agree, and the layer in their hands. */
struct twins {
    struct moe_place_view shown;
    double values[MOE_POLICY_PARAMETER_LIMIT];
    void *state[2];
    struct moe_placement placement; /* with temporary slots, where the rule has them */
    uint32_t limit;                 /* temporary slots of a GPU */
    struct moe_copy_index index;    /* of the layer in hand */
    uint32_t *demand;
    uint64_t *total;
    uint32_t *quota[2];                  /* between guards */
    struct moe_dispatch_fetch *fetch[2]; /* between guards; NULL without temporary slots */
    uint32_t count[2];
};

/* The case's placement with so many empty slots behind every GPU's own. */
static enum moe_status widen(struct moe_rule_trial *t, const struct moe_placement *from,
                             struct twins *twins)
{
    struct moe_placement_shape shape = from->shape;
    const uint32_t lasting = moe_placement_slots_per_gpu(&from->shape);
    shape.slot_count += twins->limit * shape.gpu_count;
    MOE_TRY(moe_placement_init(&twins->placement, &t->world, &shape, &t->reason));
    for (uint32_t gpu = 0; gpu < shape.layer_count * shape.gpu_count; gpu++) {
        memcpy(twins->placement.expert_of_slot + (size_t) gpu * (lasting + twins->limit),
               from->expert_of_slot + (size_t) gpu * lasting, lasting * sizeof(uint16_t));
    }
    return MOE_OK;
}

static enum moe_rule_outcome start(struct moe_rule_trial *t, const struct moe_policy_case *c,
                                   struct twins *twins)
{
    const struct moe_dispatch_methods *methods = t->policy->dispatch;
    enum moe_status status =
        moe_policy_show(t->policy, &c->view, &twins->shown, twins->values, &t->reason);
    if (status == MOE_OK && widen(t, &c->previous, twins) != MOE_OK) {
        return moe_rule_no_room(t);
    }
    const struct moe_placement_shape *shape = &twins->placement.shape;
    const size_t gpus = shape->gpu_count;
    const size_t fetches = gpus * twins->limit + (size_t) 2 * GUARD;
    twins->demand = MOE_NEW(&t->world, uint32_t, gpus * shape->expert_count);
    twins->total = MOE_NEW(&t->world, uint64_t, shape->expert_count);
    bool room = twins->demand != NULL && twins->total != NULL &&
                moe_copy_index_init(&twins->index, &twins->placement, 0, &t->world, NULL) == MOE_OK;
    for (int i = 0; i < 2; i++) {
        twins->quota[i] =
            MOE_NEW(&t->world, uint32_t, gpus * shape->slot_count + (size_t) 2 * GUARD);
        twins->fetch[i] = MOE_NEW(&t->world, struct moe_dispatch_fetch, fetches);
        room = room && twins->quota[i] != NULL && twins->fetch[i] != NULL;
    }
    if (!room || MOE_NEW(&t->scratch[1], char, 48) == NULL) { /* other addresses for the second */
        return moe_rule_no_room(t);
    }
    for (int i = 0; i < 2 && methods->init != NULL && status == MOE_OK; i++) {
        status = methods->init(&twins->shown, &twins->placement, &t->scratch[i], &twins->state[i],
                               &t->reason);
    }
    return moe_rule_outcome_of(t, status);
}

/* Tokens of one layer and step: some sources idle, some experts unwanted. */
static void draw_demand(const struct moe_policy_case_spec *spec,
                        const struct moe_placement_shape *shape, uint64_t step, uint32_t layer,
                        uint32_t *demand, uint64_t *total)
{
    const uint64_t key = moe_random_key(spec->seed + step, MOE_RANDOM_TEST);
    memset(total, 0, shape->expert_count * sizeof *total);
    for (uint32_t source = 0; source < shape->gpu_count; source++) {
        for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
            const uint64_t counter = ((uint64_t) layer << 40) | (uint64_t) source << 20 | expert;
            const uint64_t drawn = moe_random_below(key, counter, 64);
            const uint32_t tokens = (uint32_t) (drawn < 32    ? 0
                                                : drawn == 63 ? 1000 + expert
                                                              : drawn - 31);
            demand[(size_t) source * shape->expert_count + expert] = tokens;
            total[expert] += tokens;
        }
    }
}

static bool is_guard(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (((const unsigned char *) bytes)[i] != GUARD_BYTE) {
            return false;
        }
    }
    return true;
}

static struct moe_dispatch_view view_of(const struct twins *twins, uint32_t number)
{
    const struct moe_placement_shape *shape = &twins->placement.shape;
    return (struct moe_dispatch_view){
        .shape = *shape,
        .step = number / shape->layer_count,
        .layer = number % shape->layer_count,
        .fetch_limit = twins->limit,
        .copy_count = twins->index.copy_count,
        .first_copy = twins->index.first_copy,
        .slot_of_copy = twins->index.slot_of_copy,
        .gpu_of_copy = twins->index.gpu_of_copy,
        .demand = twins->demand,
        .expert_total = twins->total,
        .speed = twins->shown.speed,
        .topology = twins->shown.topology,
        .parameters = twins->shown.parameters,
        .seed = twins->shown.seed,
    };
}

/* One split by one of the twins into guarded quotas. */
static enum moe_status split(struct moe_rule_trial *t, struct twins *twins, int which,
                             const struct moe_dispatch_view *view)
{
    uint32_t *guarded = twins->quota[which];
    const size_t cells = (size_t) view->shape.gpu_count * view->copy_count;
    uint64_t dropped = 0;
    memset(guarded, GUARD_BYTE, (cells + (size_t) 2 * GUARD) * sizeof *guarded);
    MOE_TRY(moe_policy_split(t->policy, twins->state[which], view, guarded + GUARD, &dropped,
                             &t->reason));
    return is_guard(guarded, GUARD * sizeof *guarded) &&
                   is_guard(guarded + GUARD + cells, GUARD * sizeof *guarded)
               ? MOE_OK
               : moe_fail(&t->reason, MOE_RANGE, "it wrote outside its quotas");
}

static enum moe_rule_outcome split_twice(struct moe_rule_trial *t, struct twins *twins,
                                         const struct moe_dispatch_view *view)
{
    const size_t cells = (size_t) view->shape.gpu_count * view->copy_count + (size_t) 2 * GUARD;
    for (int which = 0; which < 2; which++) {
        if (split(t, twins, which, view) != MOE_OK) {
            return MOE_RULE_BROKEN;
        }
    }
    return memcmp(twins->quota[0], twins->quota[1], cells * sizeof(uint32_t)) == 0
               ? MOE_RULE_KEPT
               : moe_rule_broken(t, "step %llu, layer %u: equal views, other quotas",
                                 (unsigned long long) view->step, view->layer);
}

static void draw_layer(const struct moe_policy_case_spec *spec, struct twins *twins,
                       uint32_t number)
{
    const struct moe_placement_shape *shape = &twins->placement.shape;
    const uint32_t layer = number % shape->layer_count;
    draw_demand(spec, shape, number / shape->layer_count, layer, twins->demand, twins->total);
    moe_copy_index_build(&twins->index, shape, moe_placement_layer(&twins->placement, layer));
}

static enum moe_rule_outcome splits(struct moe_rule_trial *t,
                                    const struct moe_policy_case_spec *spec)
{
    struct moe_policy_case c;
    struct twins twins = { 0 };
    enum moe_rule_outcome outcome = moe_rule_make_case(t, spec, &c);
    if (outcome == MOE_RULE_KEPT) {
        outcome = start(t, &c, &twins);
    }
    for (uint32_t i = 0; outcome == MOE_RULE_KEPT && i < STEPS * spec->layers; i++) {
        draw_layer(spec, &twins, i);
        const struct moe_dispatch_view view = view_of(&twins, i);
        outcome = split_twice(t, &twins, &view);
    }
    return outcome;
}

/* --- fetching --- */

/* Through the gate, into a guarded answer. */
static enum moe_status fetch(struct moe_rule_trial *t, struct twins *twins, int which,
                             const struct moe_dispatch_view *view)
{
    struct moe_dispatch_fetch *guarded = twins->fetch[which];
    const size_t room = (size_t) view->shape.gpu_count * view->fetch_limit;
    memset(guarded, GUARD_BYTE, (room + (size_t) 2 * GUARD) * sizeof *guarded);
    const enum moe_status status = moe_policy_fetch(
        t->policy, twins->state[which], view, guarded + GUARD, &twins->count[which], &t->reason);
    if (!is_guard(guarded, GUARD * sizeof *guarded) ||
        !is_guard(guarded + GUARD + room, GUARD * sizeof *guarded)) {
        return moe_fail(&t->reason, MOE_RANGE, "it wrote outside its answer");
    }
    return status;
}

/* What was fetched stands in the temporary slots of the layer in hand. */
static void carry_out(struct twins *twins, uint32_t layer, bool back)
{
    const struct moe_placement_shape *shape = &twins->placement.shape;
    const uint32_t each = moe_placement_slots_per_gpu(shape);
    uint16_t *row = moe_placement_layer(&twins->placement, layer);
    for (uint32_t i = 0; i < twins->count[0]; i++) {
        const struct moe_dispatch_fetch *copy = &twins->fetch[0][GUARD + i];
        uint32_t slot = copy->gpu * each + each - twins->limit;
        while (row[slot] != (back ? copy->expert : MOE_SLOT_EMPTY)) {
            slot++;
        }
        row[slot] = back ? MOE_SLOT_EMPTY : copy->expert;
    }
    moe_copy_index_build(&twins->index, shape, row);
}

enum aspect { FITS, REPEATS, SPLITS };

/* One layer of one step. What another rule is about is left to it. */
static enum moe_rule_outcome fetch_layer(struct moe_rule_trial *t, struct twins *twins,
                                         uint32_t number, enum aspect aspect)
{
    struct moe_dispatch_view view = view_of(twins, number);
    for (int which = 0; which < 2; which++) {
        const enum moe_status status = fetch(t, twins, which, &view);
        if (status != MOE_OK) {
            return aspect == FITS ? MOE_RULE_BROKEN : MOE_RULE_KEPT;
        }
    }
    const bool same = twins->count[0] == twins->count[1] &&
                      memcmp(twins->fetch[0] + GUARD, twins->fetch[1] + GUARD,
                             twins->count[0] * sizeof(struct moe_dispatch_fetch)) == 0;
    if (!same) {
        return aspect == REPEATS
                   ? moe_rule_broken(t, "step %llu, layer %u: equal views, other copies fetched",
                                     (unsigned long long) view.step, view.layer)
                   : MOE_RULE_KEPT;
    }
    if (aspect != SPLITS) {
        return MOE_RULE_KEPT; /* so fetch is also tried without a split after it */
    }
    carry_out(twins, view.layer, false);
    view = view_of(twins, number);
    const enum moe_rule_outcome outcome = split_twice(t, twins, &view);
    carry_out(twins, view.layer, true);
    return outcome;
}

static enum moe_rule_outcome fetches(struct moe_rule_trial *t,
                                     const struct moe_policy_case_spec *spec, enum aspect aspect)
{
    struct moe_policy_case c;
    struct twins twins = { .limit = 1 + (uint32_t) (spec->seed % SLOTS_EACH) };
    enum moe_rule_outcome outcome = moe_rule_make_case(t, spec, &c);
    if (outcome == MOE_RULE_KEPT) {
        outcome = start(t, &c, &twins);
    }
    for (uint32_t i = 0; outcome == MOE_RULE_KEPT && i < STEPS * spec->layers; i++) {
        draw_layer(spec, &twins, i);
        outcome = fetch_layer(t, &twins, i, aspect);
    }
    return outcome;
}

static enum moe_rule_outcome fetch_fits(struct moe_rule_trial *t,
                                        const struct moe_policy_case_spec *spec)
{
    return fetches(t, spec, FITS);
}

static enum moe_rule_outcome fetch_repeats(struct moe_rule_trial *t,
                                           const struct moe_policy_case_spec *spec)
{
    return fetches(t, spec, REPEATS);
}

static enum moe_rule_outcome fetch_splits(struct moe_rule_trial *t,
                                          const struct moe_policy_case_spec *spec)
{
    return fetches(t, spec, SPLITS);
}

static bool has_split(const struct moe_policy *policy)
{
    return policy->dispatch != NULL && policy->dispatch->split != NULL;
}

static bool has_fetch(const struct moe_policy *policy)
{
    return policy->dispatch != NULL && policy->dispatch->fetch != NULL;
}

const struct moe_policy_rule moe_dispatch_rules[] = {
    { "dispatch splits", "quotas meet the demand of every source exactly, equal views alike",
      has_split, splits },
    { "fetch fits",
      "copies fetched are of experts and GPUs that exist, not there yet, in free slots", has_fetch,
      fetch_fits },
    { "fetch repeats", "equal views, equal copies fetched", has_fetch, fetch_repeats },
    { "fetch splits",
      "quotas meet the demand by lasting copies and those fetched for the layer, no others",
      has_fetch, fetch_splits },
};
const uint32_t moe_dispatch_rule_count = sizeof moe_dispatch_rules / sizeof moe_dispatch_rules[0];

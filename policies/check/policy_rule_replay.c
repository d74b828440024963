/* What predict and group policies promise. */
#include <string.h>

#include "policies/check/policy_rule.h"
#include "sim/base/random.h"

enum { STEPS = 3, SEATS = 2, WAITING = 12 };

/* Two instances of a policy side by side, which must agree. */
struct twins {
    struct moe_place_view shown;
    double values[MOE_POLICY_PARAMETER_LIMIT];
    void *state[2];
    uint32_t lookahead[2];
};

/* --- predict --- */

static enum moe_rule_outcome predicts_window(struct moe_rule_trial *t,
                                             const struct moe_policy_case_spec *spec)
{
    struct moe_policy_case c;
    struct moe_place_view shown;
    double values[MOE_POLICY_PARAMETER_LIMIT];
    double *load[2];
    const enum moe_rule_outcome outcome = moe_rule_make_case(t, spec, &c);
    if (outcome != MOE_RULE_KEPT) {
        return outcome;
    }
    const size_t cells = (size_t) c.view.shape.layer_count * c.view.shape.expert_count;
    for (int i = 0; i < 2; i++) {
        load[i] = MOE_NEW(&t->world, double, cells);
        if (load[i] == NULL) {
            return moe_rule_no_room(t);
        }
        enum moe_status status = moe_policy_show(t->policy, &c.view, &shown, values, &t->reason);
        if (status == MOE_OK) {
            status = t->policy->predict->window(&shown, &t->scratch[i], load[i], &t->reason);
        }
        if (status != MOE_OK) {
            return moe_rule_outcome_of(t, status);
        }
    }
    for (size_t i = 0; i < cells; i++) {
        if (!(load[0][i] >= 0.0 && load[0][i] <= MOE_POLICY_LOAD_LIMIT)) {
            return moe_rule_broken(t, "layer %zu, expert %zu: a load of %g",
                                   i / c.view.shape.expert_count, i % c.view.shape.expert_count,
                                   load[0][i]);
        }
    }
    return memcmp(load[0], load[1], cells * sizeof(double)) == 0
               ? MOE_RULE_KEPT
               : moe_rule_broken(t, "equal views, other predictions");
}

static enum moe_status start_predict(struct moe_rule_trial *t, const struct moe_policy_case *c,
                                     struct twins *twins)
{
    const struct moe_predict_methods *methods = t->policy->predict;
    MOE_TRY(moe_policy_show(t->policy, &c->view, &twins->shown, twins->values, &t->reason));
    for (int i = 0; i < 2 && methods->init != NULL; i++) {
        MOE_TRY(methods->init(&twins->shown, &t->scratch[i], &twins->state[i], &t->reason));
    }
    return MOE_OK;
}

static enum moe_rule_outcome predict_layers(struct moe_rule_trial *t,
                                            const struct moe_policy_case_spec *spec,
                                            const struct moe_policy_case *c, struct twins *twins)
{
    const struct moe_placement_shape *shape = &c->view.shape;
    const uint32_t experts = shape->expert_count;
    uint32_t *counts = MOE_NEW(&t->world, uint32_t, (size_t) 3 * experts);
    float *predicted[2] = { MOE_NEW(&t->world, float, experts),
                            MOE_NEW(&t->world, float, experts) };
    if (counts == NULL || predicted[0] == NULL || predicted[1] == NULL) {
        return moe_rule_no_room(t);
    }
    const uint64_t key = moe_random_key(spec->seed, MOE_RANDOM_TEST);
    for (uint32_t i = 0; i < STEPS * shape->layer_count; i++) {
        for (uint32_t j = 0; j < 3 * experts; j++) {
            counts[j] = (uint32_t) moe_random_below(key, (uint64_t) i << 32 | j, 100);
        }
        const struct moe_predict_view view = {
            .shape = *shape,
            .step = i / shape->layer_count,
            .layer = i % shape->layer_count,
            .lead_steps = 1,
            .lead_layers = 1,
            .last = i < shape->layer_count ? NULL : counts,
            .before = i % shape->layer_count == 0 ? NULL : counts + experts,
            .actual = (t->policy->needs & MOE_POLICY_NEEDS_FUTURE) != 0
                          ? counts + (size_t) 2 * experts
                          : NULL,
            .parameters = twins->shown.parameters,
            .seed = twins->shown.seed,
        };
        for (int which = 0; which < 2; which++) {
            memset(predicted[which], 0, experts * sizeof(float));
            const enum moe_status status =
                t->policy->predict->step(twins->state[which], &view, predicted[which], &t->reason);
            if (status != MOE_OK) {
                return moe_rule_outcome_of(t, status);
            }
        }
        for (uint32_t expert = 0; expert < experts; expert++) {
            const double x = (double) predicted[0][expert];
            if (!(x >= 0.0 && x <= MOE_POLICY_LOAD_LIMIT)) {
                return moe_rule_broken(t, "layer %u, expert %u: a prediction of %g", view.layer,
                                       expert, x);
            }
        }
        if (memcmp(predicted[0], predicted[1], experts * sizeof(float)) != 0) {
            return moe_rule_broken(t, "equal views, other predictions");
        }
    }
    return MOE_RULE_KEPT;
}

static enum moe_rule_outcome predicts_steps(struct moe_rule_trial *t,
                                            const struct moe_policy_case_spec *spec)
{
    struct moe_policy_case c;
    struct twins twins = { 0 };
    enum moe_rule_outcome outcome = moe_rule_make_case(t, spec, &c);
    if (outcome == MOE_RULE_KEPT) {
        outcome = moe_rule_outcome_of(t, start_predict(t, &c, &twins));
    }
    return outcome == MOE_RULE_KEPT ? predict_layers(t, spec, &c, &twins) : outcome;
}

/* --- group --- */

/* A small waiting room and its GPUs. */
struct room {
    struct moe_waiting_request waiting[WAITING];
    uint32_t waiting_count;
    uint32_t *free_seats;
    uint32_t *running;
    uint64_t *kv_free;
};

static enum moe_rule_outcome open_room(struct moe_rule_trial *t,
                                       const struct moe_policy_case_spec *spec,
                                       const struct moe_policy_case *c, struct room *room)
{
    const struct moe_placement_shape *shape = &c->view.shape;
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    const uint64_t key = moe_random_key(spec->seed, MOE_RANDOM_TEST);
    float *signature = MOE_NEW(&t->world, float, WAITING *cells);
    room->free_seats = MOE_NEW(&t->world, uint32_t, shape->gpu_count);
    room->running = MOE_NEW(&t->world, uint32_t, shape->gpu_count);
    room->kv_free = MOE_NEW(&t->world, uint64_t, shape->gpu_count);
    if (signature == NULL || room->free_seats == NULL || room->running == NULL ||
        room->kv_free == NULL) {
        return moe_rule_no_room(t);
    }
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        room->free_seats[gpu] = SEATS;
        room->kv_free[gpu] = 1000;
    }
    for (size_t i = 0; i < WAITING * cells; i++) {
        signature[i] = (float) moe_random_below(key, 70000 + i, 5);
    }
    const bool routed = (t->policy->needs & MOE_POLICY_NEEDS_ROUTES) != 0;
    room->waiting_count = WAITING;
    for (uint32_t i = 0; i < WAITING; i++) {
        const uint32_t prompt = 1 + (uint32_t) moe_random_below(key, 60000 + i, 400);
        room->waiting[i] = (struct moe_waiting_request){
            .request = i,
            .prompt_tokens = prompt,
            .domain = i % 3,
            .kv_tokens = (uint64_t) prompt + 20,
            .signature = routed ? signature + i * cells : NULL,
        };
    }
    return MOE_RULE_KEPT;
}

static void seat(struct room *room, const struct moe_group_choice *choice)
{
    room->free_seats[choice->gpu]--;
    room->running[choice->gpu]++;
    room->kv_free[choice->gpu] -= room->waiting[choice->waiting].kv_tokens;
    for (uint32_t i = 0; i < choice->waiting; i++) {
        room->waiting[i].passed_over++;
    }
    room->waiting_count--;
    memmove(&room->waiting[choice->waiting], &room->waiting[choice->waiting + 1],
            (room->waiting_count - choice->waiting) * sizeof room->waiting[0]);
}

static enum moe_status start_group(struct moe_rule_trial *t, const struct moe_policy_case *c,
                                   struct twins *twins)
{
    const struct moe_group_methods *methods = t->policy->group;
    MOE_TRY(moe_policy_show(t->policy, &c->view, &twins->shown, twins->values, &t->reason));
    for (int i = 0; i < 2; i++) {
        twins->lookahead[i] = 1;
        if (methods->init != NULL) {
            MOE_TRY(methods->init(&twins->shown, &c->previous, &t->scratch[i], &twins->state[i],
                                  &twins->lookahead[i], &t->reason));
        }
        if (twins->lookahead[i] < 1 || twins->lookahead[i] > MOE_GROUP_LOOKAHEAD_LIMIT) {
            return moe_fail(&t->reason, MOE_RANGE, "a lookahead of %u; allowed: 1 to %d",
                            twins->lookahead[i], MOE_GROUP_LOOKAHEAD_LIMIT);
        }
    }
    return MOE_OK;
}

static enum moe_rule_outcome fill_seats(struct moe_rule_trial *t, const struct moe_policy_case *c,
                                        struct twins *twins, struct room *room)
{
    const uint32_t gpus = c->view.shape.gpu_count;
    const uint32_t most = twins->lookahead[0];
    uint32_t seated = 0;
    while (room->waiting_count > 0) {
        struct moe_group_choice choice[2];
        const struct moe_group_view view = {
            .shape = c->view.shape,
            .waiting_count = room->waiting_count < most ? room->waiting_count : most,
            .waiting = room->waiting,
            .free_seats = room->free_seats,
            .running = room->running,
            .kv_free_tokens = room->kv_free,
            .parameters = twins->shown.parameters,
            .seed = twins->shown.seed,
        };
        for (int which = 0; which < 2; which++) {
            if (moe_policy_choose(t->policy, twins->state[which], &view, &choice[which],
                                  &t->reason) != MOE_OK) {
                return MOE_RULE_BROKEN;
            }
        }
        if (choice[0].gpu != choice[1].gpu || choice[0].waiting != choice[1].waiting) {
            return moe_rule_broken(t, "equal views, other choices");
        }
        if (choice[0].gpu == gpus) {
            return seated > 0 ? MOE_RULE_KEPT
                              : moe_rule_broken(t, "it lets nobody in, and all GPUs are idle");
        }
        seat(room, &choice[0]);
        seated++;
    }
    return MOE_RULE_KEPT;
}

static enum moe_rule_outcome seats(struct moe_rule_trial *t,
                                   const struct moe_policy_case_spec *spec)
{
    struct moe_policy_case c;
    struct room room = { 0 };
    struct twins twins = { 0 };
    enum moe_rule_outcome outcome = moe_rule_make_case(t, spec, &c);
    if (outcome == MOE_RULE_KEPT) {
        outcome = open_room(t, spec, &c, &room);
    }
    if (outcome == MOE_RULE_KEPT) {
        outcome = moe_rule_outcome_of(t, start_group(t, &c, &twins));
    }
    return outcome == MOE_RULE_KEPT ? fill_seats(t, &c, &twins, &room) : outcome;
}

static bool has_window(const struct moe_policy *policy)
{
    return policy->predict != NULL && policy->predict->window != NULL;
}

static bool has_step(const struct moe_policy *policy)
{
    return policy->predict != NULL && policy->predict->step != NULL;
}

static bool has_choose(const struct moe_policy *policy)
{
    return policy->group != NULL && policy->group->choose != NULL;
}

const struct moe_policy_rule moe_replay_rules[] = {
    { "predict window", "loads in range, equal views alike", has_window, predicts_window },
    { "predict steps", "counts in range, equal views alike", has_step, predicts_steps },
    { "group seats", "requests go where they fit, equal views alike", has_choose, seats },
};
const uint32_t moe_replay_rule_count = sizeof moe_replay_rules / sizeof moe_replay_rules[0];

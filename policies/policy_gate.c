/* The gate between the engine and a policy: what goes in is what was asked for, what comes out
 * is checked. */
#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "policies/policy.h"

void moe_policy_defaults(const struct moe_policy *policy, double *values)
{
    for (uint32_t i = 0; i < policy->parameter_count; i++) {
        values[i] = policy->parameters[i].standard;
    }
}

double moe_policy_speed_ns(const struct moe_policy_speed *speed, uint32_t gpu, double tokens)
{
    const double *time_ns = speed->time_ns + (size_t) gpu * speed->point_count;
    uint32_t right = 1;
    while (right + 1 < speed->point_count && speed->tokens[right] < tokens) {
        right++;
    }
    const double from = speed->tokens[right - 1];
    const double width = speed->tokens[right] - from;
    return time_ns[right - 1] + (time_ns[right] - time_ns[right - 1]) * ((tokens - from) / width);
}

static enum moe_status check_loads(const struct moe_placement_shape *shape, const double *load,
                                   struct moe_error *err)
{
    for (size_t i = 0; i < (size_t) shape->layer_count * shape->expert_count; i++) {
        if (!(load[i] >= 0.0 && load[i] <= MOE_POLICY_LOAD_LIMIT)) {
            return moe_fail(
                err, MOE_POLICY, "layer %zu, expert %zu: a load of %g lies outside 0 to %g",
                i / shape->expert_count, i % shape->expert_count, load[i], MOE_POLICY_LOAD_LIMIT);
        }
    }
    return MOE_OK;
}

static enum moe_status check_batches(const struct moe_place_view *view, struct moe_error *err)
{
    const size_t cells = (size_t) view->shape.layer_count * view->shape.expert_count;
    for (size_t i = 0; i < view->batch_count * cells; i++) {
        const double load = (double) view->batches[i];
        if (!(load >= 0.0 && load <= MOE_POLICY_LOAD_LIMIT)) {
            return moe_fail(err, MOE_POLICY,
                            "batch %zu, layer %zu, expert %zu: a load of %g lies outside 0 to %g",
                            i / cells, i % cells / view->shape.expert_count,
                            i % view->shape.expert_count, load, MOE_POLICY_LOAD_LIMIT);
        }
    }
    return MOE_OK;
}

static const struct {
    enum moe_policy_need need;
    const char *missing;
} parts[] = {
    { MOE_POLICY_NEEDS_LOAD, "the loads of the planning window" },
    { MOE_POLICY_NEEDS_FUTURE, "the loads of the scored window" },
    { MOE_POLICY_NEEDS_BATCHES, "the planning window batch by batch" },
    { MOE_POLICY_NEEDS_ROUTES, "token routes" },
    { MOE_POLICY_NEEDS_GPU_SPEED, "the finish times of the GPUs" },
    { MOE_POLICY_NEEDS_PREVIOUS, "the placement in force" },
    { MOE_POLICY_NEEDS_TOPOLOGY, "the costs of the links" },
    { MOE_POLICY_NEEDS_MEMORY, "the memory of the GPUs" },
    { MOE_POLICY_NEEDS_DOMAINS, "two or more domain labels" },
};

static bool is_there(const struct moe_place_view *view, enum moe_policy_need need)
{
    switch (need) {
    case MOE_POLICY_NEEDS_LOAD:
        return view->load != NULL;
    case MOE_POLICY_NEEDS_FUTURE:
        return view->future_load != NULL;
    case MOE_POLICY_NEEDS_BATCHES:
        return view->batches != NULL && view->batch_count > 0;
    case MOE_POLICY_NEEDS_ROUTES:
        return view->routes != NULL;
    case MOE_POLICY_NEEDS_GPU_SPEED:
        return view->speed != NULL;
    case MOE_POLICY_NEEDS_PREVIOUS:
        return view->previous != NULL;
    case MOE_POLICY_NEEDS_TOPOLOGY:
        return view->topology != NULL;
    case MOE_POLICY_NEEDS_MEMORY:
        return view->memory != NULL;
    case MOE_POLICY_NEEDS_DOMAINS:
        return view->domain_count >= 2;
    case MOE_POLICY_NEEDS_NOTHING:
    case MOE_POLICY_NEEDS_SEED:
    case MOE_POLICY_NEEDS_ALL:
        break;
    }
    return true;
}

enum moe_status moe_policy_show(const struct moe_policy *policy, const struct moe_place_view *view,
                                struct moe_place_view *shown, double *values, struct moe_error *err)
{
    const uint32_t needs = policy->needs;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if ((needs & parts[i].need) != 0 && !is_there(view, parts[i].need)) {
            return moe_fail(err, MOE_POLICY, "needs %s, which are not there", parts[i].missing);
        }
    }
    const double *parameters = view->parameters;
    if (parameters == NULL) {
        moe_policy_defaults(policy, values);
        parameters = values;
    }
    *shown = (struct moe_place_view){
        .shape = view->shape,
        .domain_count = view->domain_count,
        .replica_budget_total = view->replica_budget_total,
        .seed = (needs & MOE_POLICY_NEEDS_SEED) != 0 ? view->seed : 0,
        .parameters = parameters,
        .load = (needs & MOE_POLICY_NEEDS_LOAD) != 0 ? view->load : NULL,
        .future_load = (needs & MOE_POLICY_NEEDS_FUTURE) != 0 ? view->future_load : NULL,
        .batch_count = (needs & MOE_POLICY_NEEDS_BATCHES) != 0 ? view->batch_count : 0,
        .batches = (needs & MOE_POLICY_NEEDS_BATCHES) != 0 ? view->batches : NULL,
        .routes = (needs & MOE_POLICY_NEEDS_ROUTES) != 0 ? view->routes : NULL,
        .speed = (needs & MOE_POLICY_NEEDS_GPU_SPEED) != 0 ? view->speed : NULL,
        .previous = (needs & MOE_POLICY_NEEDS_PREVIOUS) != 0 ? view->previous : NULL,
        .topology = (needs & MOE_POLICY_NEEDS_TOPOLOGY) != 0 ? view->topology : NULL,
        .memory = (needs & MOE_POLICY_NEEDS_MEMORY) != 0 ? view->memory : NULL,
    };
    if (shown->load != NULL) {
        MOE_TRY(check_loads(&shown->shape, shown->load, err));
    }
    if (shown->future_load != NULL) {
        MOE_TRY(check_loads(&shown->shape, shown->future_load, err));
    }
    return shown->batches != NULL ? check_batches(shown, err) : MOE_OK;
}

/* Copies beyond the first, all layers. Only valid for a plan that has every expert. */
static uint64_t count_copies(const struct moe_placement *plan)
{
    const size_t slots = (size_t) plan->shape.layer_count * plan->shape.slot_count;
    uint64_t used = 0;
    for (size_t i = 0; i < slots; i++) {
        used += plan->expert_of_slot[i] != MOE_SLOT_EMPTY;
    }
    return used - (uint64_t) plan->shape.layer_count * plan->shape.expert_count;
}

static enum moe_status place_checked(const struct moe_policy *policy,
                                     const struct moe_place_view *view, struct moe_arena *scratch,
                                     struct moe_placement *plan, struct moe_error *err)
{
    struct moe_place_view shown;
    double values[MOE_POLICY_PARAMETER_LIMIT];
    if (moe_placement_shape_check(&view->shape, err) != MOE_OK) {
        return MOE_POLICY;
    }
    if (view->replica_budget_total > 0 && !policy->budgeted) {
        return moe_fail(err, MOE_POLICY, "takes no budget of copies: its slots decide");
    }
    MOE_TRY(moe_policy_show(policy, view, &shown, values, err));
    MOE_TRY(policy->place(&shown, scratch, plan, err));
    MOE_TRY(moe_placement_check(plan, err));
    if (view->replica_budget_total > 0 && count_copies(plan) > view->replica_budget_total) {
        return moe_fail(err, MOE_POLICY, "the plan has %llu copies of a budget of %u",
                        (unsigned long long) count_copies(plan), view->replica_budget_total);
    }
    return MOE_OK;
}

enum moe_status moe_policy_place(const struct moe_policy *policy, const struct moe_place_view *view,
                                 struct moe_arena *scratch, struct moe_placement *plan,
                                 struct moe_error *err)
{
    struct moe_error reason = { 0 };
    assert(policy->abi == MOE_POLICY_ABI);
    assert(policy->place != NULL);
    const enum moe_status status = place_checked(policy, view, scratch, plan, &reason);
    return status == MOE_OK ? MOE_OK
                            : moe_fail(err, status, "policy %s: %s", policy->name, reason.text);
}

enum moe_status moe_policy_predict_window(const struct moe_policy *policy,
                                          const struct moe_place_view *view,
                                          struct moe_arena *scratch, double *load,
                                          struct moe_error *err)
{
    struct moe_error reason = { 0 };
    struct moe_place_view shown;
    double values[MOE_POLICY_PARAMETER_LIMIT];
    assert(policy->predict != NULL && policy->predict->window != NULL);
    enum moe_status status = moe_policy_show(policy, view, &shown, values, &reason);
    if (status == MOE_OK) {
        status = policy->predict->window(&shown, scratch, load, &reason);
    }
    if (status == MOE_OK) {
        status = check_loads(&view->shape, load, &reason);
    }
    return status == MOE_OK
               ? MOE_OK
               : moe_fail(err, status, "predict policy %s: %s", policy->name, reason.text);
}

static enum moe_status refuse_quotas(const struct moe_policy *policy,
                                     const struct moe_dispatch_view *view, uint32_t source,
                                     uint32_t expert, uint64_t sum, struct moe_error *err)
{
    return moe_fail(err, MOE_POLICY,
                    "dispatch policy %s: layer %u, source GPU %u, expert %u: quotas of %llu tokens "
                    "for %u",
                    policy->name, view->layer, source, expert, (unsigned long long) sum,
                    view->demand[(size_t) source * view->shape.expert_count + expert]);
}

/* quota[copies of one source] against its demand. */
static enum moe_status check_source(const struct moe_policy *policy,
                                    const struct moe_dispatch_view *view, uint32_t source,
                                    const uint32_t *quota, uint64_t *dropped, struct moe_error *err)
{
    const uint32_t *demand = view->demand + (size_t) source * view->shape.expert_count;
    uint32_t end = view->first_copy[0];
    for (uint32_t expert = 0; expert < view->shape.expert_count; expert++) {
        uint64_t sum = 0;
        uint32_t i = end;
        end = view->first_copy[expert + 1];
        for (; i < end; i++) {
            sum += quota[i];
        }
        if (sum == demand[expert]) {
            continue;
        }
        if (sum > demand[expert] || !policy->dispatch->may_drop) {
            return refuse_quotas(policy, view, source, expert, sum, err);
        }
        *dropped += demand[expert] - sum;
    }
    return MOE_OK;
}

/* Whether copy number at of those fetched may be. */
static enum moe_status check_fetch(const struct moe_policy *policy,
                                   const struct moe_dispatch_view *view,
                                   const struct moe_dispatch_fetch *fetch, uint32_t at,
                                   struct moe_error *err)
{
    const uint32_t expert = fetch[at].expert;
    const uint32_t gpu = fetch[at].gpu;
    const char *why = NULL;
    uint32_t here = 1;
    if (expert >= view->shape.expert_count || gpu >= view->shape.gpu_count) {
        why = "there is no such expert or GPU";
    }
    for (uint32_t i = why == NULL ? view->first_copy[expert] : UINT32_MAX;
         why == NULL && i < view->first_copy[expert + 1]; i++) {
        why = view->gpu_of_copy[i] == gpu ? "the GPU holds a copy" : NULL;
    }
    for (uint32_t i = 0; i < at && why == NULL; i++) {
        here += fetch[i].gpu == gpu;
        why = fetch[i].gpu == gpu && fetch[i].expert == expert ? "it is fetched twice" : NULL;
    }
    if (why == NULL && here > view->fetch_limit) {
        why = "the GPU has no temporary slot left";
    }
    return why == NULL ? MOE_OK
                       : moe_fail(err, MOE_POLICY,
                                  "dispatch policy %s: layer %u, expert %u fetched to GPU %u: %s",
                                  policy->name, view->layer, expert, gpu, why);
}

enum moe_status moe_policy_fetch(const struct moe_policy *policy, void *state,
                                 const struct moe_dispatch_view *view,
                                 struct moe_dispatch_fetch *fetch, uint32_t *count,
                                 struct moe_error *err)
{
    const uint32_t limit = view->shape.gpu_count * view->fetch_limit;
    struct moe_error reason = { 0 };
    *count = 0;
    if (policy->dispatch->fetch == NULL || view->fetch_limit == 0) {
        return MOE_OK;
    }
    const enum moe_status status = policy->dispatch->fetch(state, view, fetch, count, &reason);
    if (status != MOE_OK) {
        return moe_fail(err, status, "dispatch policy %s: %s", policy->name, reason.text);
    }
    if (*count > limit) {
        return moe_fail(err, MOE_POLICY, "dispatch policy %s: layer %u, %u copies fetched; %u fit",
                        policy->name, view->layer, *count, limit);
    }
    for (uint32_t i = 0; i < *count; i++) {
        MOE_TRY(check_fetch(policy, view, fetch, i, err));
    }
    return MOE_OK;
}

enum moe_status moe_policy_split(const struct moe_policy *policy, void *state,
                                 const struct moe_dispatch_view *view, uint32_t *quota,
                                 uint64_t *dropped, struct moe_error *err)
{
    struct moe_error reason = { 0 };
    assert(policy->dispatch != NULL && policy->dispatch->split != NULL);
    memset(quota, 0, (size_t) view->shape.gpu_count * view->copy_count * sizeof *quota);
    *dropped = 0;
    const enum moe_status status = policy->dispatch->split(state, view, quota, &reason);
    if (status != MOE_OK) {
        return moe_fail(err, status, "dispatch policy %s: %s", policy->name, reason.text);
    }
    for (uint32_t source = 0; source < view->shape.gpu_count; source++) {
        MOE_TRY(check_source(policy, view, source, quota + (size_t) source * view->copy_count,
                             dropped, err));
    }
    return MOE_OK;
}

enum moe_status moe_policy_choose(const struct moe_policy *policy, void *state,
                                  const struct moe_group_view *view,
                                  struct moe_group_choice *choice, struct moe_error *err)
{
    struct moe_error reason = { 0 };
    const uint32_t gpus = view->shape.gpu_count;
    assert(policy->group != NULL && policy->group->choose != NULL);
    *choice = (struct moe_group_choice){ .gpu = gpus };
    const enum moe_status status = policy->group->choose(state, view, choice, &reason);
    if (status != MOE_OK) {
        return moe_fail(err, status, "group policy %s: %s", policy->name, reason.text);
    }
    if (choice->gpu == gpus) {
        return MOE_OK;
    }
    if (choice->gpu > gpus || choice->waiting >= view->waiting_count) {
        return moe_fail(err, MOE_POLICY,
                        "group policy %s: chose request %u of %u waiting for GPU %u of %u",
                        policy->name, choice->waiting, view->waiting_count, choice->gpu, gpus);
    }
    const uint64_t wanted = view->waiting[choice->waiting].kv_tokens;
    if (view->free_seats[choice->gpu] == 0 || view->kv_free_tokens[choice->gpu] < wanted) {
        return moe_fail(err, MOE_POLICY,
                        "group policy %s: chose GPU %u, which has %u free seats and %llu tokens of "
                        "KV cache, for a request of %llu",
                        policy->name, choice->gpu, view->free_seats[choice->gpu],
                        (unsigned long long) view->kv_free_tokens[choice->gpu],
                        (unsigned long long) wanted);
    }
    return MOE_OK;
}

float *moe_place_view_one_batch(const double *load, size_t count, struct moe_arena *arena)
{
    float *batch = MOE_NEW(arena, float, count);
    for (size_t i = 0; batch != NULL && i < count; i++) {
        batch[i] = (float) load[i];
    }
    return batch;
}

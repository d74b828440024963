#include "sim/engine/online/online.h"

#include <assert.h>
#include <string.h>

#include "sim/engine/online/eviction.h"
#include "sim/engine/online/migration.h"
#include "sim/engine/step_times.h"

#include "sim/base/no_malloc.h"

static const double NS_PER_MS = 1e6;

static size_t cells_of(const struct moe_placement_shape *shape)
{
    return (size_t) shape->layer_count * shape->expert_count;
}

double moe_online_buffer_bytes(const struct moe_scenario *scenario)
{
    const uint32_t slots = scenario->slot_count / moe_cluster_gpu_count(&scenario->cluster);
    return scenario->online.every_steps == 0 ? 0.0
                                             : slots * moe_model_expert_bytes(&scenario->model);
}

size_t moe_online_bytes(const struct moe_placement_shape *shape)
{
    return cells_of(shape) * 16 +
           (size_t) shape->layer_count * (4 * (size_t) shape->slot_count + 32) +
           (size_t) shape->gpu_count * 48 + shape->expert_count + ((size_t) 16 << 10);
}

/* Whether new counts could change its plan. */
static bool plans_anew(const struct moe_composition *composition)
{
    const uint32_t needs = composition->part[MOE_POLICY_PLACE].policy->needs;
    return (needs & (MOE_POLICY_NEEDS_LOAD | MOE_POLICY_NEEDS_BATCHES)) != 0 &&
           (needs & (MOE_POLICY_NEEDS_ROUTES | MOE_POLICY_NEEDS_FUTURE)) == 0 &&
           composition->part[MOE_POLICY_DISPATCH].policy->dispatch->in_turn;
}

enum moe_status moe_online_init(struct moe_online *o, const struct moe_online_setup *setup,
                                struct moe_arena *arena, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &setup->placement->shape;
    const size_t layers = shape->layer_count;
    const size_t gpus = shape->gpu_count;
    struct moe_duration unused;
    *o = (struct moe_online){ .options = &setup->scenario->online };
    if (o->options->every_steps == 0 || !plans_anew(setup->composition)) {
        return MOE_OK;
    }
    if (o->options->source == MOE_ONLINE_HOST) {
        MOE_TRY(moe_cost_host_copy(setup->cost, 1.0, o->options->host_bytes_s, &unused, err));
    }
    o->cost = setup->cost;
    o->place = &setup->composition->part[MOE_POLICY_PLACE];
    o->view = *setup->view;
    o->count = MOE_NEW(arena, uint64_t, cells_of(shape));
    o->load = MOE_NEW(arena, double, cells_of(shape));
    o->layer_ns = MOE_NEW(arena, moe_time_ns, layers);
    o->changed = MOE_NEW(arena, bool, layers);
    o->in_near = MOE_NEW(arena, double, gpus);
    o->in_far = MOE_NEW(arena, double, gpus);
    o->out_near = MOE_NEW(arena, double, gpus);
    o->out_far = MOE_NEW(arena, double, gpus);
    if (o->count == NULL || o->load == NULL || o->layer_ns == NULL || o->changed == NULL ||
        o->in_near == NULL || o->in_far == NULL || o->out_near == NULL || o->out_far == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to plan %u layers anew", shape->layer_count);
    }
    MOE_TRY(moe_placement_init(&o->current, arena, shape, err));
    MOE_TRY(moe_placement_init(&o->next, arena, shape, err));
    memcpy(o->current.expert_of_slot, setup->placement->expert_of_slot,
           layers * shape->slot_count * sizeof(uint16_t));
    MOE_TRY(moe_arena_init(&o->scratch, setup->scratch_bytes, err));
    o->active = true;
    return MOE_OK;
}

void moe_online_finish(struct moe_online *o)
{
    moe_arena_finish(&o->scratch);
}

/* What the step counted, by expert, and how even it was. */
static void watch(struct moe_online *o, const struct moe_route_counter *counter)
{
    const struct moe_placement_shape *shape = &o->current.shape;
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(shape);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const uint32_t *tokens = moe_route_counter_slots(counter, layer);
        const uint16_t *expert = moe_placement_layer(&o->current, layer);
        uint64_t *count = o->count + (size_t) layer * shape->expert_count;
        uint64_t sum = 0;
        uint64_t max = 0;
        for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
            uint64_t here = 0;
            for (uint32_t i = 0; i < slots_per_gpu; i++, expert++, tokens++) {
                here += *tokens;
                if (*expert != MOE_SLOT_EMPTY) {
                    count[*expert] += *tokens;
                }
            }
            sum += here;
            max = here > max ? here : max;
        }
        o->balance_sum += max > 0 ? (double) sum / shape->gpu_count / (double) max : 1.0;
        o->layer_steps++;
    }
    o->steps++;
}

static void forget(struct moe_online *o)
{
    memset(o->count, 0, cells_of(&o->current.shape) * sizeof *o->count);
    o->balance_sum = 0.0;
    o->layer_steps = 0;
    o->steps = 0;
}

static enum moe_status plan(struct moe_online *o, struct moe_error *err)
{
    const size_t cells = cells_of(&o->current.shape);
    struct moe_place_view view = o->view;
    moe_arena_reset(&o->scratch);
    for (size_t i = 0; i < cells; i++) {
        o->load[i] = (double) o->count[i];
    }
    view.load = o->load;
    view.batches = moe_place_view_one_batch(o->load, cells, &o->scratch);
    view.batch_count = 1;
    view.previous = &o->current;
    view.parameters = o->place->values;
    view.future_load = NULL;
    view.routes = NULL;
    if (view.batches == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the loads of the last steps");
    }
    for (size_t i = 0; i < (size_t) o->next.shape.layer_count * o->next.shape.slot_count; i++) {
        o->next.expert_of_slot[i] = MOE_SLOT_EMPTY;
    }
    MOE_TRY(moe_policy_place(o->place->policy, &view, &o->scratch, &o->next, err));
    if (o->dead != NULL) {
        MOE_TRY(moe_placement_evict(&o->next, o->dead, NULL, err));
    }
    o->account.plans++;
    o->account.planner_ns += moe_time_round_up(o->options->planner_ms * NS_PER_MS);
    o->account.balance_before += o->balance_sum / (double) o->layer_steps;
    o->account.gain_ns += moe_migration_gain(o->cost, &o->current, &o->next, o->load, o->steps);
    return MOE_OK;
}

/* Prices every layer's move. Returns their sum. */
static enum moe_status price(struct moe_online *o, moe_time_ns *sum, struct moe_error *err)
{
    const double expert_bytes = o->view.memory->expert_bytes;
    const bool host = o->options->source == MOE_ONLINE_HOST;
    struct moe_migration_room room = { o->in_near, o->in_far, o->out_near, o->out_far };
    *sum = 0;
    for (uint32_t layer = 0; layer < o->current.shape.layer_count; layer++) {
        struct moe_migration m;
        moe_migration_find(&o->current, &o->next, layer, host, &room, &m);
        struct moe_duration time = { 0 };
        if (host) {
            MOE_TRY(moe_cost_host_copy(o->cost, m.most_host * expert_bytes,
                                       o->options->host_bytes_s, &time, err));
        } else {
            time = moe_migration_price(o->cost, &room, o->current.shape.gpu_count, expert_bytes);
        }
        o->layer_ns[layer] =
            m.copies == 0 ? 0 : moe_time_round_up(time.ns + o->options->layer_ms * NS_PER_MS);
        o->account.moved_slots += m.copies;
        o->account.moved_near_bytes += (double) m.near_copies * expert_bytes;
        o->account.moved_far_bytes += (double) m.far_copies * expert_bytes;
        o->account.moved_host_bytes += (double) m.host_copies * expert_bytes;
        *sum += o->layer_ns[layer];
    }
    o->account.move_ns += *sum;
    return MOE_OK;
}

static void change_layer(struct moe_online *o, uint32_t layer)
{
    const size_t bytes = o->current.shape.slot_count * sizeof(uint16_t);
    uint16_t *now = moe_placement_layer(&o->current, layer);
    const uint16_t *next = moe_placement_layer(&o->next, layer);
    o->changed[layer] = memcmp(now, next, bytes) != 0;
    memcpy(now, next, bytes);
}

static void change_all(struct moe_online *o)
{
    for (uint32_t layer = 0; layer < o->current.shape.layer_count; layer++) {
        change_layer(o, layer);
    }
}

/* The next layer that has something to fetch; those before it that have not change at once. */
static bool begin_layer(struct moe_online *o)
{
    const uint32_t layers = o->current.shape.layer_count;
    while (o->moving_layer < layers && o->layer_ns[o->moving_layer] == 0) {
        change_layer(o, o->moving_layer++);
    }
    if (o->moving_layer == layers) {
        o->moving = false;
        return false;
    }
    /* Fixed time passes as it is, transfers on their share of the links. */
    const double fixed = o->options->layer_ms * NS_PER_MS;
    o->left_ns = fixed + ((double) o->layer_ns[o->moving_layer] - fixed) / o->options->link_share;
    return true;
}

/* A step has passed beside which the planner worked or weights moved. */
static void go_on(struct moe_online *o, moe_time_ns step_ns)
{
    double time = (double) step_ns;
    uint32_t changed = 0;
    if (o->planning) {
        o->left_ns -= time;
        if (o->left_ns > 0.0) {
            return;
        }
        o->planning = false;
        (void) begin_layer(o);
        return; /* the first transfer begins with the next step */
    }
    o->account.moving_steps++;
    while (o->moving && changed < o->options->layers_per_step && time > 0.0) {
        const double used = time < o->left_ns ? time : o->left_ns;
        time -= used;
        o->left_ns -= used;
        if (o->left_ns <= 0.0) {
            change_layer(o, o->moving_layer++);
            changed++;
            (void) begin_layer(o);
        }
    }
}

static enum moe_status decide(struct moe_online *o, moe_time_ns step_ns, moe_time_ns *stall_ns,
                              struct moe_error *err)
{
    const moe_time_ns planner_ns = moe_time_round_up(o->options->planner_ms * NS_PER_MS);
    const bool even = o->balance_sum >= o->options->max_balance * (double) o->layer_steps;
    moe_time_ns move_ns = 0;
    o->account.considered++;
    if (even && o->options->max_balance < 1.0) {
        forget(o);
        return MOE_OK;
    }
    MOE_TRY(plan(o, err));
    MOE_TRY(price(o, &move_ns, err));
    forget(o);
    if (o->options->mode == MOE_ONLINE_LAYERS) {
        o->moving = true;
        o->planning = true;
        o->moving_layer = 0;
        o->left_ns = (double) planner_ns;
        return MOE_OK;
    }
    const moe_time_ns all = planner_ns + move_ns;
    const moe_time_ns hidden = o->options->mode == MOE_ONLINE_PREFETCH ? step_ns : 0;
    *stall_ns = all > hidden ? all - hidden : 0;
    change_all(o);
    return MOE_OK;
}

enum moe_status moe_online_step(struct moe_online *o, const struct moe_route_counter *counter,
                                moe_time_ns step_ns, bool scored, moe_time_ns *stall_ns,
                                double *comm_load, struct moe_error *err)
{
    *stall_ns = 0;
    *comm_load = 1.0;
    if (!o->active) {
        return MOE_OK;
    }
    memset(o->changed, 0, o->current.shape.layer_count * sizeof *o->changed);
    watch(o, counter);
    if (o->moving) {
        go_on(o, step_ns);
    } else if (o->steps >= o->options->every_steps) {
        MOE_TRY(decide(o, step_ns, stall_ns, err));
    }
    if (o->moving && !o->planning) {
        *comm_load = 1.0 / (1.0 - o->options->link_share);
    }
    o->account.stall_ns += *stall_ns;
    o->account.scored_stall_ns += scored ? *stall_ns : 0;
    return MOE_OK;
}

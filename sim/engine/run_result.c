#include "sim/engine/run_result.h"

#include <string.h>

#include "sim/base/no_malloc.h"

static const char *const phase_name[MOE_PHASE_COUNT] = { "warmup", "scored", "drain" };

const char *moe_phase_name(enum moe_phase phase)
{
    return phase_name[phase];
}

static enum moe_status new_latencies(struct moe_run_result *r, struct moe_arena *arena,
                                     struct moe_error *err)
{
    MOE_TRY(moe_latency_init(&r->step, arena, err));
    MOE_TRY(moe_latency_init(&r->ttft, arena, err));
    MOE_TRY(moe_latency_init(&r->itl, arena, err));
    MOE_TRY(moe_latency_init(&r->tpot, arena, err));
    return moe_latency_init(&r->e2e, arena, err);
}

enum moe_status moe_run_result_init(struct moe_run_result *r,
                                    const struct moe_placement_shape *shape,
                                    struct moe_arena *arena, struct moe_error *err)
{
    const size_t layers = shape->layer_count;
    const size_t gpus = shape->gpu_count;
    const size_t experts = shape->expert_count;
    *r = (struct moe_run_result){
        .layer_count = shape->layer_count,
        .gpu_count = shape->gpu_count,
        .slot_count = shape->slot_count,
        .expert_count = shape->expert_count,
        .gpu_last = MOE_NEW(arena, uint64_t, gpus),
        .gpu_lead_ns = MOE_NEW(arena, moe_time_ns, gpus),
        .gpu_factor = MOE_NEW(arena, struct moe_gpu_factor, gpus),
        .gpu_in_tail = MOE_NEW(arena, bool, gpus),
        .gpu_layer_tokens = MOE_NEW(arena, uint64_t, layers * gpus),
        .layer_idle_ns = MOE_NEW(arena, moe_time_ns, layers),
        .layer_max_load = MOE_NEW(arena, double, layers),
        .layer_mean_load = MOE_NEW(arena, double, layers),
        .expert_tokens = MOE_NEW(arena, uint64_t, layers * experts),
        .expert_lead_ns = MOE_NEW(arena, moe_time_ns, layers * experts),
        .expert_of_slot = MOE_NEW(arena, uint16_t, layers * shape->slot_count),
    };
    if (r->gpu_last == NULL || r->gpu_lead_ns == NULL || r->gpu_factor == NULL ||
        r->gpu_in_tail == NULL || r->gpu_layer_tokens == NULL || r->layer_idle_ns == NULL ||
        r->layer_max_load == NULL || r->layer_mean_load == NULL || r->expert_tokens == NULL ||
        r->expert_lead_ns == NULL || r->expert_of_slot == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the result of %u layers on %u GPUs",
                        shape->layer_count, shape->gpu_count);
    }
    return new_latencies(r, arena, err);
}

/* Loads of the layer's GPUs and experts, added to the sums; experts[expert] is filled. Returns the
 * load of the fullest GPU. */
static double add_loads(struct moe_run_result *r, const struct moe_step *step,
                        const struct moe_route_counter *counter, const uint16_t *expert_of_slot,
                        uint32_t layer, uint32_t *experts)
{
    const size_t row = (size_t) layer * r->gpu_count;
    const uint32_t *tokens = moe_route_counter_slots(counter, layer);
    uint64_t *expert_tokens = r->expert_tokens + (size_t) layer * r->expert_count;
    double sum = 0.0;
    double max = 0.0;
    for (uint32_t gpu = 0; gpu < r->gpu_count; gpu++) {
        const double load = step->expert_work[row + gpu].tokens;
        r->gpu_layer_tokens[row + gpu] += (uint64_t) load;
        sum += load;
        max = load > max ? load : max;
    }
    memset(experts, 0, r->expert_count * sizeof *experts);
    for (uint32_t slot = 0; slot < counter->slot_count; slot++) {
        if (expert_of_slot[slot] != MOE_SLOT_EMPTY) {
            experts[expert_of_slot[slot]] += tokens[slot];
        }
    }
    uint32_t hottest = 0;
    for (uint32_t expert = 0; expert < r->expert_count; expert++) {
        expert_tokens[expert] += experts[expert];
        hottest = experts[expert] > hottest ? experts[expert] : hottest;
    }
    const double mean = sum / r->gpu_count;
    r->balancedness_sum += max > 0.0 ? mean / max : 1.0;
    r->imbalance_sum += mean > 0.0 ? (max - mean) / mean : 0.0;
    r->mean_load_sum += mean;
    r->max_load_sum += max;
    r->no_copy_load_sum += hottest > mean ? hottest : mean;
    r->layer_max_load[layer] += max;
    r->layer_mean_load[layer] += mean;
    r->layer_steps++;
    return max;
}

/* source: the layer whose counts stand for this one's. */
static void add_copies(struct moe_run_result *r, const struct moe_step *step,
                       const struct moe_route_counter *counter, uint32_t layer, uint32_t source)
{
    const size_t gpus = r->gpu_count;
    const uint32_t *pair = counter->pair_tokens + (size_t) source * gpus * gpus;
    double near = 0.0;
    double far = 0.0;
    for (size_t gpu = 0; gpu < gpus; gpu++) {
        r->local_copies += pair[gpu * gpus + gpu];
        near += step->dispatch_work[(size_t) layer * gpus + gpu].near_out;
        far += step->dispatch_work[(size_t) layer * gpus + gpu].far_out;
    }
    r->near_copies += near;
    r->far_copies += far;
}

static void add_barrier(struct moe_run_result *r, const struct moe_barrier *barrier)
{
    r->idle_ns += barrier->idle_ns;
    r->gpu_last[barrier->last_rank]++;
    r->gpu_lead_ns[barrier->last_rank] += barrier->lead_ns;
    r->barriers++;
}

/* The slot with most tokens on the GPU that finished its experts last. */
static void charge_expert(struct moe_run_result *r, const struct moe_route_counter *counter,
                          const uint16_t *expert_of_slot, uint32_t layer,
                          const struct moe_barrier *combine)
{
    const uint32_t *tokens = moe_route_counter_slots(counter, layer);
    const uint32_t first = combine->last_rank * counter->slots_per_gpu;
    uint32_t hottest = first;
    for (uint32_t slot = first; slot < first + counter->slots_per_gpu; slot++) {
        hottest = tokens[slot] > tokens[hottest] ? slot : hottest;
    }
    if (tokens[hottest] > 0) {
        r->expert_lead_ns[(size_t) layer * r->expert_count + expert_of_slot[hottest]] +=
            combine->lead_ns;
    }
}

void moe_run_result_add_loads(struct moe_run_result *r, const struct moe_step *step,
                              const struct moe_route_counter *counter,
                              const uint16_t *expert_of_slot, struct moe_bound_meter *meter,
                              uint32_t *expert_scratch)
{
    for (uint32_t layer = 0; layer < r->layer_count; layer++) {
        const uint32_t source = counter->sample == NULL ? layer : counter->sample->source[layer];
        if (source == layer) { /* counted */
            const uint16_t *row = expert_of_slot + (size_t) layer * counter->slot_count;
            const double max = add_loads(r, step, counter, row, layer, expert_scratch);
            if (meter != NULL) {
                moe_bound_meter_add(meter, layer, expert_scratch, max, &r->bound);
            }
        }
        add_copies(r, step, counter, layer, source);
    }
    for (size_t at = (size_t) r->layer_count * r->gpu_count;
         at < (size_t) step->layer_count * r->gpu_count; at++) { /* of layers that draft */
        r->near_copies += step->dispatch_work[at].near_out;
        r->far_copies += step->dispatch_work[at].far_out;
    }
}

void moe_run_result_add_step(struct moe_run_result *r, const struct moe_step *step,
                             const struct moe_route_counter *counter,
                             const uint16_t *expert_of_slot, moe_time_ns step_ns)
{
    const struct moe_price_sources sources = moe_step_sources(step);
    for (uint32_t layer = 0; layer < step->layer_count; layer++) {
        const struct moe_barrier *pair = &step->barriers[(size_t) 2 * layer];
        /* Layers that draft wait at the last layer's expense, and their experts are not told. */
        const uint32_t own = layer < r->layer_count ? layer : r->layer_count - 1;
        add_barrier(r, &pair[0]);
        add_barrier(r, &pair[1]);
        if (layer < r->layer_count &&
            (counter->sample == NULL || moe_layer_sample_counts(counter->sample, layer))) {
            const uint16_t *row = expert_of_slot + (size_t) layer * counter->slot_count;
            charge_expert(r, counter, row, layer, &pair[1]);
        }
        r->layer_idle_ns[own] += pair[0].idle_ns + pair[1].idle_ns;
    }
    add_barrier(r, &step->barriers[(size_t) 2 * step->layer_count]);
    moe_timeline_critical(&step->times, step->barriers, &sources, &r->path);
    moe_latency_add(&r->step, step_ns, 1);
}

void moe_run_result_add_halves(struct moe_run_result *r, const struct moe_step *step,
                               const struct moe_halves_step *halves, moe_time_ns step_ns)
{
    const struct moe_barrier *barriers = halves->timeline.barriers;
    for (uint32_t i = 0; i + 1 < moe_halves_barrier_count(r->layer_count); i++) {
        add_barrier(r, &barriers[i]);
        r->layer_idle_ns[i / 4] += barriers[i].idle_ns;
        if (i % 4 >= 2) {
            const struct moe_route_counter *counter = &halves->counter[i % 2];
            charge_expert(r, counter, r->expert_of_slot + (size_t) (i / 4) * counter->slot_count,
                          i / 4, &barriers[i]);
        }
    }
    add_barrier(r, &barriers[moe_halves_barrier_count(r->layer_count) - 1]);
    moe_halves_path(halves, step, &r->path);
    moe_latency_add(&r->step, step_ns, 1);
}

void moe_run_result_add_request(struct moe_run_result *r, const struct moe_finished *f)
{
    moe_latency_add(&r->e2e, f->finished_ns - f->since_ns, 1);
    if (f->arrival->output_tokens > 1) {
        moe_latency_add(&r->tpot,
                        (f->finished_ns - f->first_token_ns) / (f->arrival->output_tokens - 1), 1);
    }
}

/* GPUs that die while a run goes on. */
#include <inttypes.h>
#include <string.h>

#include "sim/engine/online/eviction.h"
#include "sim/engine/run_state.h"

#include "sim/base/no_malloc.h"

enum moe_status moe_run_init_death(struct moe_run_state *run, const struct moe_placement *placement,
                                   struct moe_arena *work, struct moe_error *err)
{
    const struct moe_hardware_options *options = &run->input->scenario->hardware;
    const struct moe_placement_shape *shape = &placement->shape;
    const size_t slots = (size_t) shape->layer_count * shape->slot_count;
    bool any = false;
    for (uint32_t i = 0; i < options->event_count; i++) {
        any = any || options->event[i].kind == MOE_HARDWARE_DEAD;
    }
    if (!any) {
        return MOE_OK;
    }
    if (run->counter.split != NULL) {
        return moe_fail(err, MOE_POLICY,
                        "hardware.events: a GPU dies, and the dispatch policy knows the first "
                        "placement only; a policy that works in turn would go on");
    }
    run->dead = MOE_NEW(work, bool, shape->gpu_count);
    run->fetched = MOE_NEW(work, uint32_t, shape->gpu_count);
    if (run->dead == NULL || run->fetched == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for GPUs that die");
    }
    MOE_TRY(moe_placement_init(&run->living, work, shape, err));
    memcpy(run->living.expert_of_slot, placement->expert_of_slot, slots * sizeof(uint16_t));
    run->online.dead = run->dead;
    return moe_serving_allow_loss(&run->serving, work, err);
}

/* Everybody's placement is the living one from here on. */
static void take_over(struct moe_run_state *run)
{
    moe_drafts_replan(&run->drafts, &run->living);
    const size_t slots = run->result->slot_count;
    for (uint32_t layer = 0; layer < run->result->layer_count; layer++) {
        const uint16_t *row = moe_placement_layer(&run->living, layer);
        moe_route_counter_replan(&run->counter, run->input->map, &run->living, layer);
        moe_bound_meter_replan(&run->meter, &run->living, layer);
        memcpy(run->result->expert_of_slot + layer * slots, row, slots * sizeof *row);
        if (run->online.active) {
            memcpy(moe_placement_layer(&run->online.current, layer), row, slots * sizeof *row);
        }
    }
}

/* Weights of experts that are gone come from host memory where its rate is known. */
static moe_time_ns fetch_ns(const struct moe_run_state *run)
{
    const struct moe_scenario *scenario = run->input->scenario;
    const double expert_bytes = moe_model_expert_bytes(&scenario->model);
    struct moe_duration time = { 0 };
    uint32_t most = 0;
    for (uint32_t gpu = 0; gpu < run->result->gpu_count; gpu++) {
        most = run->fetched[gpu] > most ? run->fetched[gpu] : most;
    }
    if (moe_cost_host_copy(run->input->cost, most * expert_bytes, scenario->online.host_bytes_s,
                           &time, NULL) != MOE_OK) {
        return 0;
    }
    return moe_time_round_up(time.ns);
}

static enum moe_status bury(struct moe_run_state *run, uint32_t gpu, struct moe_error *err)
{
    const struct moe_scenario *scenario = run->input->scenario;
    const size_t slots = (size_t) run->result->layer_count * run->result->slot_count;
    uint64_t lost = 0;
    run->dead[gpu] = true;
    memset(run->fetched, 0, run->result->gpu_count * sizeof *run->fetched);
    memcpy(run->living.expert_of_slot, run->result->expert_of_slot, slots * sizeof(uint16_t));
    MOE_TRY(moe_placement_evict(&run->living, run->dead, run->fetched, err));
    MOE_TRY(moe_serving_lose_rank(&run->serving, gpu / scenario->serving.attention_ranks,
                                  run->now_ns, &run->audit.sojourn_ns, &lost, err));
    run->audit.lost += lost;
    run->result->lost_requests += lost;
    run->result->dead_gpus++;
    take_over(run);
    const moe_time_ns stall_ns =
        moe_time_from_seconds(scenario->hardware.recovery_s) + fetch_ns(run);
    run->online.account.stall_ns += stall_ns;
    run->online.account.scored_stall_ns += run->phase == MOE_PHASE_SCORED ? stall_ns : 0;
    run->now_ns += stall_ns;
    moe_audit_pass(&run->audit, &run->serving, run->now_ns);
    return MOE_OK;
}

enum moe_status moe_run_meet_death(struct moe_run_state *run, struct moe_error *err)
{
    const struct moe_hardware_options *options = &run->input->scenario->hardware;
    for (uint32_t i = 0; i < options->event_count && run->dead != NULL; i++) {
        const struct moe_hardware_event *e = &options->event[i];
        if (e->kind == MOE_HARDWARE_DEAD && e->begin_ns <= run->now_ns && !run->dead[e->gpu]) {
            MOE_TRY(bury(run, e->gpu, err));
        }
    }
    return MOE_OK;
}

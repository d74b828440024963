/* What one run shows its policies beside the planning window: its GPUs, links and memory. */
#include "sim/engine/hardware.h"
#include "sim/engine/planning.h"

#include "sim/base/no_malloc.h"

static const struct moe_gpu_factor nominal = { 1.0, 1.0, 1.0 };

size_t moe_planning_scratch_bytes(const struct moe_planning *planning,
                                  const struct moe_placement_shape *shape)
{
    const size_t cells = (size_t) shape->layer_count * (shape->slot_count + shape->expert_count);
    return ((size_t) 4 << 20) + 4 * planning->arena.used_bytes + 1024 * cells +
           64 * (size_t) shape->gpu_count * shape->gpu_count;
}

/* Tokens of a GPU spread evenly over its slots: as many active as have one. */
static double time_of(const struct moe_cost *cost, double tokens, double slots,
                      const struct moe_gpu_factor *factor)
{
    const double tile = moe_cost_tile_tokens(cost);
    const double active = tokens < slots ? tokens : slots;
    const double tiles = active + (tokens > active * tile ? tokens / tile - active : 0.0);
    const struct moe_expert_work work = {
        .tokens = tokens, .active = active, .tiles = tiles, .fullest = tokens / active
    };
    return moe_cost_expert(cost, &work, factor).ns;
}

static enum moe_status measure_speed(struct moe_policy_speed *speed,
                                     const struct moe_scenario *scenario,
                                     const struct moe_cost *cost, uint64_t seed,
                                     struct moe_arena *arena, struct moe_error *err)
{
    const uint32_t gpus = moe_cluster_gpu_count(&scenario->cluster);
    const uint32_t slots_per_gpu = scenario->slot_count / gpus;
    const double slots = slots_per_gpu;
    double *tokens = MOE_NEW(arena, double, MOE_PLANNING_SPEED_POINTS);
    double *time_ns = MOE_NEW(arena, double, (size_t) gpus *MOE_PLANNING_SPEED_POINTS);
    if (tokens == NULL || time_ns == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the speeds of %u GPUs", gpus);
    }
    for (uint32_t i = 1; i < MOE_PLANNING_SPEED_POINTS; i++) {
        tokens[i] = (double) (UINT64_C(1) << (i - 1));
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        struct moe_gpu_factor factor =
            scenario->noise ? moe_cost_gpu_factor(cost, seed, scenario->cluster.first_gpu + gpu)
                            : nominal;
        moe_hardware_apply_standing(&scenario->hardware, scenario->cluster.first_gpu + gpu,
                                    &factor);
        double *row = time_ns + (size_t) gpu * MOE_PLANNING_SPEED_POINTS;
        for (uint32_t i = 0; i < MOE_PLANNING_SPEED_POINTS; i++) {
            const double ns = time_of(cost, tokens[i], slots, &factor);
            row[i] = i > 0 && ns < row[i - 1] ? row[i - 1] : ns;
        }
    }
    *speed = (struct moe_policy_speed){ .point_count = MOE_PLANNING_SPEED_POINTS,
                                        .tokens = tokens,
                                        .time_ns = time_ns };
    return MOE_OK;
}

/* Of one copy more, there and back: the slope over a usual step's copies. */
static double link_ns(const struct moe_cost *cost, const struct moe_exchange_work *few,
                      const struct moe_exchange_work *many, double more)
{
    double ns = 0.0;
    const enum moe_cost_part parts[] = { MOE_COST_DISPATCH, MOE_COST_COMBINE };
    for (unsigned i = 0; i < 2; i++) {
        ns += moe_cost_exchange(cost, parts[i], many, &nominal).ns -
              moe_cost_exchange(cost, parts[i], few, &nominal).ns;
    }
    return ns > 0.0 ? ns / more : 0.0;
}

/* A cluster of one node, or of nodes of one GPU, has no such link to measure: 0. */
static void measure_links(struct moe_policy_topology *topology, const struct moe_cluster *cluster,
                          const struct moe_cost *cost)
{
    const double few = 1024.0;
    const double many = 4096.0;
    const struct moe_exchange_work near[] = { { .near_out = few }, { .near_out = many } };
    const struct moe_exchange_work far[] = { { .far_out = few }, { .far_out = many } };
    *topology = (struct moe_policy_topology){ 0 };
    if (cluster->gpus_per_node > 1) {
        topology->near_ns = link_ns(cost, &near[0], &near[1], many - few);
    }
    if (cluster->node_count > 1) {
        topology->far_ns = link_ns(cost, &far[0], &far[1], many - few);
    }
}

enum moe_status moe_planning_view(struct moe_planning_run *run, const struct moe_planning *planning,
                                  const struct moe_scenario *scenario, const struct moe_cost *cost,
                                  uint64_t seed, struct moe_arena *arena, struct moe_error *err)
{
    MOE_TRY(measure_speed(&run->speed, scenario, cost, seed, arena, err));
    measure_links(&run->topology, &scenario->cluster, cost);
    const double free_bytes = moe_cost_memory_bytes(cost) -
                              moe_model_nonexpert_bytes(&scenario->model) -
                              scenario->cluster.reserve_bytes;
    run->memory = (struct moe_policy_memory){
        .expert_bytes = moe_model_expert_bytes(&scenario->model),
        .free_bytes = free_bytes > 0.0 ? free_bytes : 0.0,
        .kv_bytes_per_token = moe_model_kv_bytes_per_token(&scenario->model),
    };
    run->view = (struct moe_place_view){
        .shape = moe_scenario_shape(scenario),
        .domain_count = planning->domain_count,
        .replica_budget_total = scenario->replica_budget,
        .seed = seed,
        .load = planning->load,
        .future_load = planning->future_load,
        .batch_count = planning->batch_count,
        .batches = planning->batches,
        .routes = planning->has_routes ? &planning->routes : NULL,
        .speed = &run->speed,
        .topology = &run->topology,
        .memory = &run->memory,
    };
    return MOE_OK;
}

enum moe_status moe_planning_check(const struct moe_composition *composition,
                                   const struct moe_trace *trace, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    if ((moe_composition_needs(composition) & MOE_POLICY_NEEDS_DOMAINS) != 0 &&
        model->domain_count < 2) {
        return moe_fail(err, MOE_POLICY,
                        "policy %.100s needs domain labels of the requests; trace %.160s has one "
                        "domain, '%s'",
                        composition->label, moe_trace_path(trace), model->domains[0]);
    }
    return MOE_OK;
}

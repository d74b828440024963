#include "sim/scenario/deployment.h"

#include <assert.h>

static const char *const pool_names[MOE_POOL_COUNT] = { "prefill", "decode" };

const char *moe_pool_name(enum moe_pool pool)
{
    assert(pool < MOE_POOL_COUNT);
    return pool_names[pool];
}

/* Two halves share one stream of arithmetic, so that nothing else runs beside an exchange. */
enum moe_status moe_deployment_check_overlap(const struct moe_scenario *scenario,
                                             struct moe_error *err)
{
    const struct moe_serving *s = &scenario->serving;
    const double factor[] = { s->overlap_compute, s->overlap_comm };
    for (uint32_t i = 0; i < 2; i++) {
        if (factor[i] > 0.0 && factor[i] < 0.5) {
            return moe_fail(err, MOE_RANGE, "serving.overlap_%s: %g is neither 0 nor at least 0.5",
                            i == 0 ? "compute" : "comm", factor[i]);
        }
    }
    if (s->overlap == MOE_OVERLAP_TWO_BATCH && s->shared == MOE_SHARED_OVERLAPPED &&
        scenario->model.shared_size > 0) {
        return moe_fail(err, MOE_RANGE,
                        "serving.overlap: with two halves the arithmetic beside an exchange is the "
                        "other half's, and shared experts have to take their turn: set "
                        "serving.shared_expert to serial");
    }
    return MOE_OK;
}

/* The GPUs of a pool: whole nodes, or part of one. */
static struct moe_cluster cut(const struct moe_scenario *scenario, enum moe_pool pool)
{
    const uint32_t prefill = scenario->pools.prefill_gpus;
    struct moe_cluster out = scenario->cluster;
    if (out.node_count == 1) {
        out.gpus_per_node = pool == MOE_POOL_PREFILL ? prefill : out.gpus_per_node - prefill;
    } else {
        const uint32_t nodes = prefill / out.gpus_per_node;
        out.node_count = pool == MOE_POOL_PREFILL ? nodes : out.node_count - nodes;
    }
    out.first_gpu = pool == MOE_POOL_PREFILL ? 0 : prefill;
    return out;
}

static enum moe_status check_cut(const struct moe_scenario *s, struct moe_error *err)
{
    const uint32_t all = moe_cluster_gpu_count(&s->cluster);
    const uint32_t node = s->cluster.gpus_per_node;
    const uint32_t prefill = s->pools.prefill_gpus;
    if (prefill >= all) {
        return moe_fail(err, MOE_RANGE,
                        "pools.prefill_gpus: %u of %u GPUs leave none to decode; at most %u do",
                        prefill, all, s->cluster.node_count == 1 ? all - 1 : all - node);
    }
    if (s->cluster.node_count > 1 && prefill % node != 0) {
        const uint32_t down = prefill / node * node;
        return moe_fail(err, MOE_RANGE,
                        "pools.prefill_gpus: %u GPUs are no whole nodes of %u; %u would be",
                        prefill, node, down > 0 ? down : node);
    }
    for (uint32_t pool = 0; pool < MOE_POOL_COUNT; pool++) {
        const struct moe_cluster part = cut(s, (enum moe_pool) pool);
        if (part.gpus_per_node % s->serving.attention_ranks != 0) {
            return moe_fail(err, MOE_RANGE,
                            "serving.attention_ranks: %u does not divide the %u GPUs that the %s "
                            "pool has in a node; change pools.prefill_gpus or share less",
                            s->serving.attention_ranks, part.gpus_per_node, pool_names[pool]);
        }
    }
    return MOE_OK;
}

/* The shape of a pool's placements, in the words of the keys that make it. */
static enum moe_status check_shape(const struct moe_scenario *s, enum moe_pool pool,
                                   struct moe_error *err)
{
    struct moe_error reason = { 0 };
    const struct moe_cluster cluster = cut(s, pool);
    const uint32_t gpus = moe_cluster_gpu_count(&cluster);
    const uint32_t least = (s->model.expert_count + gpus - 1) / gpus * gpus;
    const struct moe_placement_shape shape = {
        .layer_count = s->model.moe_layer_count,
        .expert_count = s->model.expert_count,
        .slot_count = s->pools.slots[pool] > 0 ? s->pools.slots[pool] : least + gpus,
        .gpu_count = gpus,
        .node_count = cluster.node_count,
        .group_count = s->model.group_count,
    };
    const enum moe_status status = moe_placement_shape_check(&shape, &reason);
    return status == MOE_OK
               ? MOE_OK
               : moe_fail(err, status, "pools.%s_slots: %s; %u is the least for its %u GPUs",
                          pool_names[pool], reason.text, least, gpus);
}

enum moe_status moe_deployment_check_pools(const struct moe_scenario *s, struct moe_error *err)
{
    if (!moe_deployment_has_pools(s)) {
        return MOE_OK;
    }
    if (s->arrivals.kind == MOE_ARRIVAL_CLOSED) {
        return moe_fail(
            err, MOE_RANGE,
            "pools.prefill_gpus: pools hand requests over as they come, and a closed "
            "loop has no arrivals; set arrivals.kind (poisson with arrivals.rate, say)");
    }
    if (s->slot_count > 0) {
        return moe_fail(err, MOE_RANGE,
                        "slots: each pool has its own; say pools.prefill_slots and "
                        "pools.decode_slots, and leave slots at 0");
    }
    for (uint32_t i = 0; i < s->hardware.event_count; i++) {
        if (s->hardware.event[i].kind == MOE_HARDWARE_DEAD) {
            return moe_fail(err, MOE_RANGE,
                            "hardware.events: GPU %u dies, which pools do not survive: leave the "
                            "event out, or set pools.prefill_gpus to 0",
                            s->hardware.event[i].gpu);
        }
    }
    MOE_TRY(check_cut(s, err));
    MOE_TRY(check_shape(s, MOE_POOL_PREFILL, err));
    return check_shape(s, MOE_POOL_DECODE, err);
}

void moe_deployment_pool(const struct moe_scenario *scenario, enum moe_pool pool,
                         struct moe_scenario *out)
{
    const struct moe_pools_options *o = &scenario->pools;
    *out = *scenario;
    out->cluster = cut(scenario, pool);
    out->pools = (struct moe_pools_options){ 0 };
    const uint32_t gpus = moe_cluster_gpu_count(&out->cluster);
    const uint32_t experts = (out->model.expert_count + gpus - 1) / gpus * gpus;
    out->slot_count = o->slots[pool] > 0 ? o->slots[pool] : experts + gpus;
    if (o->tokens[pool] > 0) {
        out->serving.step_tokens = o->tokens[pool];
    }
    if (o->running[pool] > 0) {
        out->serving.running_per_gpu = o->running[pool];
    }
    out->hardware.event_count = 0;
    for (uint32_t i = 0; i < scenario->hardware.event_count; i++) {
        struct moe_hardware_event event = scenario->hardware.event[i];
        if (event.gpu >= out->cluster.first_gpu && event.gpu - out->cluster.first_gpu < gpus) {
            event.gpu -= out->cluster.first_gpu;
            out->hardware.event[out->hardware.event_count++] = event;
        }
    }
}

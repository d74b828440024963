#include "sim/scenario/scenario_check.h"

#include <stdio.h>
#include <string.h>

#include "policies/placement.h"
#include "policies/policy.h"
#include "sim/base/options.h"
#include "sim/scenario/deployment.h"

static bool has_policy(const struct moe_scenario *scenario, const char *name, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(scenario->policies[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* Reads a composition and puts its canonical text in its place. */
static enum moe_status settle_policy(char *text, const char *key, struct moe_error *err)
{
    struct moe_composition composition;
    struct moe_error reason = { 0 };
    const enum moe_status status = moe_composition_parse(&composition, text, &reason);
    if (status != MOE_OK) {
        return moe_fail(err, status, "%s: %s", key, reason.text);
    }
    memcpy(text, composition.label, sizeof composition.label);
    return MOE_OK;
}

static enum moe_status settle_policies(struct moe_scenario *scenario, struct moe_error *err)
{
    for (uint32_t i = 0; i < scenario->policy_count; i++) {
        MOE_TRY(settle_policy(scenario->policies[i], "policies", err));
        if (has_policy(scenario, scenario->policies[i], i)) {
            return moe_fail(err, MOE_RANGE, "policies: '%s' is named twice", scenario->policies[i]);
        }
    }
    MOE_TRY(settle_policy(scenario->baseline, "baseline", err));
    if (!has_policy(scenario, scenario->baseline, scenario->policy_count)) {
        return moe_fail(err, MOE_RANGE,
                        "baseline: '%s' is not among the policies; name one of them",
                        scenario->baseline);
    }
    return MOE_OK;
}

static enum moe_status check_cluster(const struct moe_scenario *scenario, struct moe_error *err)
{
    const struct moe_cluster *cluster = &scenario->cluster;
    const uint32_t gpus = moe_cluster_gpu_count(cluster);
    if (gpus > MOE_SCENARIO_GPU_LIMIT) {
        return moe_fail(err, MOE_RANGE,
                        "cluster.nodes %u x cluster.gpus_per_node %u make %u GPUs; at most %d are "
                        "allowed",
                        cluster->node_count, cluster->gpus_per_node, gpus, MOE_SCENARIO_GPU_LIMIT);
    }
    if (cluster->memory_bytes > 0.0 && cluster->memory_bytes < 1e9) {
        return moe_fail(err, MOE_RANGE, "cluster.memory_gb: %g is neither 0 nor at least 1",
                        cluster->memory_bytes / 1e9);
    }
    if (cluster->memory_bytes > 0.0 && cluster->reserve_bytes >= cluster->memory_bytes) {
        return moe_fail(err, MOE_RANGE,
                        "cluster.reserve_gb: %g must be less than cluster.memory_gb, %g",
                        cluster->reserve_bytes / 1e9, cluster->memory_bytes / 1e9);
    }
    return MOE_OK;
}

/* The shape checked with its own words. */
static enum moe_status check_slots(const struct moe_scenario *scenario, struct moe_error *err)
{
    const struct moe_placement_shape shape = moe_scenario_shape(scenario);
    struct moe_error reason = { 0 };
    const enum moe_status status = moe_placement_shape_check(&shape, &reason);
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "slots: %s", reason.text);
}

/* As many slots as experts, rounded up to a multiple of the GPUs, and one more each. */
static uint32_t default_slots(const struct moe_scenario *scenario)
{
    const uint32_t gpus = moe_cluster_gpu_count(&scenario->cluster);
    return ((scenario->model.expert_count + gpus - 1) / gpus + 1) * gpus;
}

/* "1 2 4" into ascending numbers. */
static enum moe_status settle_graphs(struct moe_serving *serving, struct moe_error *err)
{
    const char *at = serving->graph_sizes_text;
    serving->graph_size_count = 0;
    while (*at != '\0') {
        char word[16];
        const size_t length = strcspn(at, " ");
        uint64_t size = 0;
        (void) snprintf(word, sizeof word, "%.*s", length < 15 ? (int) length : 15, at);
        MOE_TRY(moe_parse_count(word, "serving.graph_sizes", 1, 1 << 20, &size, err));
        const uint32_t count = serving->graph_size_count;
        if (count == MOE_SCENARIO_GRAPH_LIMIT) {
            return moe_fail(err, MOE_RANGE, "serving.graph_sizes: at most %d sizes are allowed",
                            MOE_SCENARIO_GRAPH_LIMIT);
        }
        if (count > 0 && size <= serving->graph_sizes[count - 1]) {
            return moe_fail(err, MOE_RANGE,
                            "serving.graph_sizes: %s stands after %u; sizes must ascend", word,
                            serving->graph_sizes[count - 1]);
        }
        serving->graph_sizes[serving->graph_size_count++] = (uint32_t) size;
        at += length + (at[length] == ' ');
    }
    return MOE_OK;
}

/* An attention that several GPUs share is cut by its heads. */
static enum moe_status check_shares(const struct moe_scenario *scenario, struct moe_error *err)
{
    const uint32_t ranks = scenario->serving.attention_ranks;
    const struct moe_model *model = &scenario->model;
    if (model->head_count % ranks != 0 || model->dense_size % ranks != 0) {
        return moe_fail(err, MOE_RANGE,
                        "serving.attention_ranks: %u does not divide the %u heads and %u dense "
                        "FFN columns of %s",
                        ranks, model->head_count, model->dense_size, model->name);
    }
    return MOE_OK;
}

static enum moe_status check_serving(struct moe_scenario *scenario, struct moe_error *err)
{
    const struct moe_serving *serving = &scenario->serving;
    if (scenario->cluster.gpus_per_node % serving->attention_ranks != 0) {
        return moe_fail(err, MOE_RANGE,
                        "serving.attention_ranks: %u does not divide the %u GPUs of a node",
                        serving->attention_ranks, scenario->cluster.gpus_per_node);
    }
    MOE_TRY(settle_graphs(&scenario->serving, err));
    MOE_TRY(moe_deployment_settle_drafts(&scenario->serving, err));
    return moe_hardware_options_settle(&scenario->hardware,
                                       moe_cluster_gpu_count(&scenario->cluster), err);
}

/* What a sample of the layers leaves out. */
static enum moe_status check_sample(const struct moe_scenario *scenario, struct moe_error *err)
{
    if (!moe_scenario_samples_layers(scenario)) {
        return MOE_OK;
    }
    if (scenario->serving.overlap != MOE_OVERLAP_NONE ||
        (scenario->serving.drafts > 0 && scenario->serving.draft_layers > 0)) {
        return moe_fail(err, MOE_RANGE,
                        "counted_layers: %u counts some layers only, but %s needs all: set it to 0",
                        scenario->counted_layers,
                        scenario->serving.overlap != MOE_OVERLAP_NONE ? "serving.overlap"
                                                                      : "serving.draft_layers");
    }
    return scenario->online.every_steps == 0
               ? MOE_OK
               : moe_fail(err, MOE_RANGE,
                          "counted_layers: %u counts some layers only, but online.every_steps %u "
                          "plans on all; set one of them to 0",
                          scenario->counted_layers, scenario->online.every_steps);
}

enum moe_status moe_scenario_complete(struct moe_scenario *scenario, struct moe_error *err)
{
    if (scenario->trace_path[0] == '\0') {
        return moe_fail(err, MOE_RANGE,
                        "trace: none is named; it must be the path of a trace "
                        "store");
    }
    if (scenario->model_ref[0] == '\0') {
        return moe_fail(err, MOE_RANGE, "model: none is named; `moesim models` lists the cards");
    }
    MOE_TRY(check_cluster(scenario, err));
    MOE_TRY(check_serving(scenario, err));
    MOE_TRY(moe_arrival_options_check(&scenario->arrivals, err));
    MOE_TRY(settle_policies(scenario, err));
    MOE_TRY(moe_model_load(&scenario->model, scenario->model_ref, err));
    MOE_TRY(check_shares(scenario, err));
    MOE_TRY(moe_deployment_check_overlap(scenario, err));
    MOE_TRY(moe_deployment_check_pools(scenario, err));
    MOE_TRY(check_sample(scenario, err));
    if (scenario->slot_count == 0) {
        scenario->slot_count = default_slots(scenario);
    }
    if (scenario->first_seed > UINT64_MAX - (scenario->seed_count - 1)) {
        return moe_fail(err, MOE_RANGE, "first_seed: %llu and the %u seeds pass 2^64",
                        (unsigned long long) scenario->first_seed, scenario->seed_count);
    }
    return check_slots(scenario, err);
}

/* What depends on how a model is served: shared attention, gathered tokens, weights on the move. */
#include <string.h>

#include "sim/cost/cost_state.h"

static const double BF16_BYTES = 2.0;

/* The curve of the calibration for an op; none is no error. */
static bool has_curve(const struct moe_cost_setup *setup, uint32_t op, uint32_t link)
{
    for (uint32_t i = 0; i < setup->calibration->segment_count; i++) {
        const struct moe_calibration_segment *row = &setup->calibration->segment_rows[i];
        if (row->op == op && row->link == link && strcmp(row->gpu_kind, setup->kind) == 0) {
            return true;
        }
    }
    return false;
}

/* Dispatch gathers every rank's tokens, combine scatters the sums. */
static enum moe_status init_gather(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_cluster *cluster = setup->cluster;
    const double bytes = moe_model_expert_width(setup->model) * BF16_BYTES;
    for (uint32_t part = 0; part < 2; part++) {
        const uint32_t op = part == 0 ? MOE_SEGMENT_ALL_GATHER : MOE_SEGMENT_REDUCE_SCATTER;
        struct moe_cost_link *links = setup->cost->links[part];
        setup->cost->copy_bytes[part] = bytes;
        if (cluster->gpus_per_node > 1 && has_curve(setup, op, MOE_LINK_NEAR)) {
            MOE_TRY(moe_cost_link_init(&links[MOE_LINK_NEAR], setup, op, op, MOE_LINK_NEAR,
                                       cluster->gpus_per_node, err));
        }
        if (cluster->node_count > 1 && has_curve(setup, op, MOE_LINK_FAR)) {
            MOE_TRY(moe_cost_link_init(&links[MOE_LINK_FAR], setup, op, op, MOE_LINK_FAR,
                                       moe_cluster_gpu_count(cluster), err));
        }
    }
    return MOE_OK;
}

static enum moe_status init_reduce(struct moe_cost_setup *setup, uint32_t ranks,
                                   struct moe_error *err)
{
    struct moe_cost *cost = setup->cost;
    cost->attention_ranks = ranks;
    if (ranks == 1) {
        return MOE_OK;
    }
    cost->reduce_row_bytes = setup->model->hidden_size * BF16_BYTES * (ranks - 1.0) / ranks;
    return moe_cost_link_init(&cost->reduce, setup, MOE_SEGMENT_REDUCE_SCATTER,
                              MOE_SEGMENT_ALL_TO_ALL, MOE_LINK_NEAR, ranks, err);
}

enum moe_status moe_cost_init_deployment(struct moe_cost_setup *setup,
                                         const struct moe_serving *serving, struct moe_error *err)
{
    struct moe_cost *cost = setup->cost;
    const double *values = setup->parameters;
    cost->sustained_factor = values[MOE_PARAMETER_SUSTAINED_FACTOR];
    cost->overlap = (struct moe_overlap_factors){ 1.0, 1.0 };
    if (values[MOE_PARAMETER_OVERLAP_COMPUTE] > 0.0) {
        cost->overlap.compute = values[MOE_PARAMETER_OVERLAP_COMPUTE];
    }
    if (values[MOE_PARAMETER_OVERLAP_COMM] > 0.0) {
        cost->overlap.comm = values[MOE_PARAMETER_OVERLAP_COMM];
    }
    if (has_curve(setup, MOE_SEGMENT_HOST_TO_DEVICE, MOE_LINK_NEAR)) {
        MOE_TRY(moe_cost_link_init(&cost->host, setup, MOE_SEGMENT_HOST_TO_DEVICE,
                                   MOE_SEGMENT_HOST_TO_DEVICE, MOE_LINK_NEAR, 1, err));
    }
    if (serving != NULL && serving->exchange == MOE_EXCHANGE_ALL_GATHER) {
        MOE_TRY(init_gather(setup, err));
    }
    return init_reduce(setup, serving == NULL ? 1 : serving->attention_ranks, err);
}

uint32_t moe_cost_attention_ranks(const struct moe_cost *cost)
{
    return cost->attention_ranks;
}

struct moe_duration moe_cost_reduce(const struct moe_cost *cost, double tokens,
                                    const struct moe_gpu_factor *factor)
{
    if (cost->attention_ranks == 1) {
        return (struct moe_duration){ 0.0, MOE_PROVENANCE_MEASURED };
    }
    struct moe_duration half =
        moe_cost_link_duration(&cost->reduce, tokens * cost->reduce_row_bytes);
    half.ns *= 2.0 * factor->comm;
    return half;
}

enum moe_status moe_cost_host_copy(const struct moe_cost *cost, double bytes, double bytes_s,
                                   struct moe_duration *duration, struct moe_error *err)
{
    if (bytes_s > 0.0) {
        *duration = (struct moe_duration){ bytes / bytes_s * 1e9, MOE_PROVENANCE_ASSUMED };
        return MOE_OK;
    }
    if (cost->host.segment_count == 0) {
        return moe_fail(err, MOE_RANGE,
                        "the calibration has no curve host_to_device: state the rate of copies "
                        "from host memory (online.host_gb_s)");
    }
    *duration = moe_cost_link_duration(&cost->host, bytes);
    return MOE_OK;
}

struct moe_duration moe_cost_bulk_copy(const struct moe_cost *cost, double near_bytes,
                                       double far_bytes)
{
    const struct moe_duration near =
        moe_cost_link_duration(&cost->links[0][MOE_LINK_NEAR], near_bytes);
    const struct moe_duration far =
        moe_cost_link_duration(&cost->links[0][MOE_LINK_FAR], far_bytes);
    return far.ns > near.ns ? far : near;
}

double moe_cost_sustained_factor(const struct moe_cost *cost)
{
    return cost->sustained_factor;
}

struct moe_overlap_factors moe_cost_overlap(const struct moe_cost *cost)
{
    return cost->overlap;
}

#include "sim/cost/cost.h"

#include <assert.h>
#include <string.h>

#include "sim/cost/cost_state.h"

const char *moe_provenance_name(enum moe_provenance provenance)
{
    static const char *const names[] = {
        [MOE_PROVENANCE_MEASURED] = "measured",
        [MOE_PROVENANCE_INTERPOLATED] = "interpolated",
        [MOE_PROVENANCE_EXTRAPOLATED] = "extrapolated",
        [MOE_PROVENANCE_PUBLISHED] = "published",
        [MOE_PROVENANCE_ASSUMED] = "assumed",
    };
    static_assert(sizeof names / sizeof names[0] == MOE_PROVENANCE_COUNT, "one name each");
    assert(provenance < MOE_PROVENANCE_COUNT);
    return names[provenance];
}

const char *moe_cost_part_name(enum moe_cost_part part)
{
    static const char *const names[] = {
        [MOE_COST_ATTENTION] = "attention", [MOE_COST_DENSE] = "dense",
        [MOE_COST_GATE] = "gate",           [MOE_COST_SHARED] = "shared",
        [MOE_COST_DISPATCH] = "dispatch",   [MOE_COST_EXPERT] = "expert",
        [MOE_COST_COMBINE] = "combine",     [MOE_COST_HEAD] = "head",
        [MOE_COST_HOST] = "host",
    };
    static_assert(sizeof names / sizeof names[0] == MOE_COST_PART_COUNT, "one name each");
    assert(part < MOE_COST_PART_COUNT);
    return names[part];
}

enum moe_dtype moe_cost_dtype(double bytes_per_weight)
{
    if (bytes_per_weight >= 1.5) {
        return MOE_DTYPE_BF16;
    }
    return bytes_per_weight >= 0.75 ? MOE_DTYPE_FP8 : MOE_DTYPE_FP4;
}

static enum moe_status find_kind(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_calibration *calibration = setup->calibration;
    const struct moe_calibration_gpu_kind *kind =
        moe_calibration_find_kind(calibration, setup->cluster->gpu);
    if (kind == NULL) {
        char names[160] = "";
        size_t used = 0;
        for (uint32_t i = 0; i < calibration->gpu_kind_count && used < sizeof names; i++) {
            used += (size_t) snprintf(names + used, sizeof names - used, " %s",
                                      calibration->gpu_kind_rows[i].name);
        }
        return moe_fail(err, MOE_RANGE, "%s: no GPU kind '%s'; this calibration has:%s",
                        calibration->name, setup->cluster->gpu, names);
    }
    setup->kind = kind->name;
    setup->cost->memory_bytes =
        setup->cluster->memory_bytes > 0.0 ? setup->cluster->memory_bytes : kind->memory_bytes;
    return MOE_OK;
}

static enum moe_status find_parameters(struct moe_cost_setup *setup, struct moe_error *err)
{
    const struct moe_calibration *calibration = setup->calibration;
    for (uint32_t p = 0; p < MOE_PARAMETER_COUNT; p++) {
        const char *name = moe_parameter_name(p);
        const struct moe_calibration_parameter *found = NULL;
        for (uint32_t i = 0; i < calibration->parameter_count; i++) {
            const struct moe_calibration_parameter *row = &calibration->parameter_rows[i];
            if (strcmp(row->name, name) == 0 && strcmp(row->gpu_kind, setup->kind) == 0) {
                found = row;
            }
        }
        if (found == NULL && p >= MOE_PARAMETER_NEEDED) {
            continue; /* 0 says that it is not there */
        }
        if (found == NULL) {
            return moe_fail(err, MOE_RANGE, "%s: table parameter has no %s for %s",
                            calibration->name, name, setup->kind);
        }
        setup->parameters[p] = found->value;
        setup->provenance[p] = found->provenance;
    }
    return MOE_OK;
}

enum moe_status moe_cost_init(struct moe_cost **out, const struct moe_calibration *calibration,
                              const struct moe_model *model, const struct moe_cluster *cluster,
                              struct moe_arena *arena, struct moe_error *err)
{
    return moe_cost_init_serving(out, calibration, model, cluster, NULL, arena, err);
}

/* The model as one of the GPUs that share an attention holds it: heads, dense FFNs and the
 * vocabulary are cut; a KV head is not, nor what is latent or shared. */
static struct moe_model share_of(const struct moe_model *model, const struct moe_serving *serving)
{
    struct moe_model part = *model;
    const uint32_t ranks = serving == NULL ? 1 : serving->attention_ranks;
    part.head_count /= ranks;
    part.output_groups = (part.output_groups + ranks - 1) / ranks;
    part.kv_head_count = (part.kv_head_count + ranks - 1) / ranks;
    part.dense_size /= ranks;
    part.vocabulary_size = (part.vocabulary_size + ranks - 1) / ranks;
    return part;
}

enum moe_status moe_cost_init_serving(struct moe_cost **out,
                                      const struct moe_calibration *calibration,
                                      const struct moe_model *whole,
                                      const struct moe_cluster *cluster,
                                      const struct moe_serving *serving, struct moe_arena *arena,
                                      struct moe_error *err)
{
    const struct moe_model part = share_of(whole, serving);
    const struct moe_model *model = &part;
    struct moe_cost_setup setup = {
        .cost = MOE_NEW(arena, struct moe_cost, 1),
        .calibration = calibration,
        .model = model,
        .cluster = cluster,
        .arena = arena,
    };
    if (setup.cost == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory left for the cost tables",
                        calibration->name);
    }
    MOE_TRY(find_kind(&setup, err));
    MOE_TRY(find_parameters(&setup, err));
    setup.cost->host_step = (struct moe_duration){ setup.parameters[MOE_PARAMETER_HOST_NS],
                                                   setup.provenance[MOE_PARAMETER_HOST_NS] };
    const double *values = setup.parameters;
    const uint32_t dtype = moe_cost_dtype(model->expert_bytes_per_weight);
    const double width = moe_model_expert_width(model);
    setup.cost->copy_bytes[0] = width * values[MOE_PARAMETER_DISPATCH_BF16_BYTES + dtype] +
                                values[MOE_PARAMETER_COPY_HEADER_BYTES];
    setup.cost->copy_bytes[1] =
        width * values[MOE_PARAMETER_COMBINE_BYTES] + values[MOE_PARAMETER_COPY_HEADER_BYTES];
    MOE_TRY(moe_cost_init_expert(&setup, err));
    MOE_TRY(moe_cost_init_attention(&setup, err));
    MOE_TRY(moe_cost_init_layers(&setup, err));
    MOE_TRY(moe_cost_init_exchange(&setup, err));
    MOE_TRY(moe_cost_init_noise(&setup, err));
    MOE_TRY(moe_cost_init_deployment(&setup, serving, err));
    *out = setup.cost;
    return MOE_OK;
}

uint32_t moe_cost_tile_tokens(const struct moe_cost *cost)
{
    return (uint32_t) cost->expert.tile_tokens;
}

double moe_cost_memory_bytes(const struct moe_cost *cost)
{
    return cost->memory_bytes;
}

struct moe_duration moe_cost_host(const struct moe_cost *cost)
{
    return cost->host_step;
}

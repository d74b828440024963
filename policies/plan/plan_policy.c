#include "policies/plan/plan_policy.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "policies/plan/plan.h"
#include "traces/trace_store.h"

enum { FIRST_LAYER, LAYER_STEP, FILE_INDEX, PARAMETER_COUNT };

/* A policy's methods are handed its parameters and nothing else, so a hidden one that has but one
 * value says which file it is. */
struct loaded {
    char *path; /* owned */
    struct moe_plan plan;
    struct moe_policy policy;
    struct moe_policy_parameter parameters[PARAMETER_COUNT];
};

static struct loaded *files[MOE_PLAN_POLICY_LIMIT];
static size_t file_count;

/* Leak checkers see what static storage points to; this frees it all the same. */
__attribute__((destructor)) static void release(void)
{
    for (size_t i = 0; i < file_count; i++) {
        moe_plan_finish(&files[i]->plan);
        free(files[i]->path);
        free(files[i]);
    }
    file_count = 0;
}

/* The plan's layer for the model's MoE layer, or layer_count. */
static uint32_t find_layer(const struct moe_plan *plan, const double *parameters, uint32_t layer,
                           bool in_order)
{
    const uint32_t count = plan->placement.shape.layer_count;
    const uint32_t number =
        (uint32_t) parameters[FIRST_LAYER] + layer * (uint32_t) parameters[LAYER_STEP];
    uint32_t i = in_order ? layer : 0;
    while (!in_order && i < count && plan->layer_number[i] != number) {
        i++;
    }
    return i;
}

static enum moe_status check_shape(const struct loaded *file,
                                   const struct moe_placement_shape *wanted, struct moe_error *err)
{
    const struct moe_placement_shape *have = &file->plan.placement.shape;
    if (file->plan.gpus_stated && have->gpu_count != wanted->gpu_count) {
        return moe_fail(err, MOE_POLICY, "%.160s is a plan for %u GPUs, not %u", file->path,
                        have->gpu_count, wanted->gpu_count);
    }
    if (have->slot_count > wanted->slot_count) {
        return moe_fail(err, MOE_POLICY, "%.160s uses %u slots of a layer; there are %u",
                        file->path, have->slot_count, wanted->slot_count);
    }
    if (have->slot_count % wanted->gpu_count != 0) {
        return moe_fail(err, MOE_POLICY,
                        "%.160s uses %u slots of a layer, not a multiple of %u "
                        "GPUs",
                        file->path, have->slot_count, wanted->gpu_count);
    }
    if (have->expert_count != wanted->expert_count) {
        return moe_fail(err, MOE_POLICY, "%.160s places %u experts of a layer, not %u", file->path,
                        have->expert_count, wanted->expert_count);
    }
    return MOE_OK;
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *out, struct moe_error *err)
{
    const struct loaded *file = files[(size_t) view->parameters[FILE_INDEX]];
    const struct moe_placement *plan = &file->plan.placement;
    const bool in_order = plan->shape.layer_count == view->shape.layer_count;
    const uint32_t here = moe_placement_slots_per_gpu(&view->shape);
    const uint32_t there = plan->shape.slot_count / view->shape.gpu_count;
    (void) scratch;
    MOE_TRY(check_shape(file, &view->shape, err));
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        const uint32_t row = find_layer(&file->plan, view->parameters, layer, in_order);
        if (row >= plan->shape.layer_count) {
            return moe_fail(err, MOE_POLICY,
                            "%.160s: has %u layers and the model %u MoE layers, and first_layer "
                            "and layer_step do not lead to one for each",
                            file->path, plan->shape.layer_count, view->shape.layer_count);
        }
        for (uint32_t gpu = 0; gpu < view->shape.gpu_count; gpu++) {
            memcpy(moe_placement_layer(out, layer) + (size_t) gpu * here,
                   moe_placement_layer(plan, row) + (size_t) gpu * there, there * sizeof(uint16_t));
        }
    }
    return MOE_OK;
}

static void describe(struct loaded *file, size_t index)
{
    file->parameters[FIRST_LAYER] = (struct moe_policy_parameter){
        .name = "first_layer",
        .kind = MOE_PARAMETER_WHOLE,
        .max = MOE_TRACE_LAYER_LIMIT - 1,
        .help = "the file's number of the model's first MoE layer, where they differ in number",
        .source = "own",
    };
    file->parameters[LAYER_STEP] = (struct moe_policy_parameter){
        .name = "layer_step",
        .kind = MOE_PARAMETER_WHOLE,
        .standard = 1,
        .min = 1,
        .max = MOE_TRACE_LAYER_LIMIT - 1,
        .help = "from one MoE layer's number to the next",
        .source = "own",
    };
    file->parameters[FILE_INDEX] = (struct moe_policy_parameter){
        .name = "file",
        .kind = MOE_PARAMETER_WHOLE,
        .standard = (double) index,
        .min = (double) index,
        .max = (double) index,
        .help = "which file this is; has one value only",
        .source = "own",
    };
    file->policy = (struct moe_policy){
        MOE_POLICY_HEADER,
        .name = "plan",
        .summary = "a plan file as it stands",
        .source = "own",
        .tie_rule = "none needed",
        .needs = MOE_POLICY_NEEDS_NOTHING,
        .numbered = true,
        .parameter_count = PARAMETER_COUNT,
        .parameters = file->parameters,
        .place = place,
    };
}

enum moe_status moe_plan_policy_load(const struct moe_policy **out, const char *path,
                                     struct moe_error *err)
{
    for (size_t i = 0; i < file_count; i++) {
        if (strcmp(files[i]->path, path) == 0) {
            *out = &files[i]->policy;
            return MOE_OK;
        }
    }
    if (file_count == MOE_PLAN_POLICY_LIMIT) {
        return moe_fail(err, MOE_LIMIT, "%.200s: more than %d plan files", path,
                        MOE_PLAN_POLICY_LIMIT);
    }
    struct loaded *file = calloc(1, sizeof *file);
    char *copy = strdup(path);
    enum moe_status status = MOE_OK;
    if (file == NULL || copy == NULL) {
        status = moe_fail(err, MOE_LIMIT, "%.200s: no memory for the plan", path);
        goto done;
    }
    status = moe_plan_read(&file->plan, path, NULL, err);
    if (status == MOE_OK) {
        file->path = copy;
        describe(file, file_count);
        files[file_count++] = file;
        *out = &file->policy;
        return MOE_OK;
    }

done:
    free(copy);
    free(file);
    return status;
}

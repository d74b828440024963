/* A plan in memory: made, numbered, checked, filled, released. */
#include "policies/plan/plan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "traces/trace_store.h"

enum moe_status moe_plan_init(struct moe_plan *plan, const struct moe_placement_shape *shape,
                              const char *name, struct moe_error *err)
{
    const size_t cells = (size_t) shape->layer_count * shape->slot_count;
    *plan = (struct moe_plan){ .placement.shape = *shape };
    if (shape->layer_count < 1 || shape->layer_count > MOE_TRACE_LAYER_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%.200s: %u layers; 1 to %d are allowed", name,
                        shape->layer_count, MOE_TRACE_LAYER_LIMIT);
    }
    if (shape->slot_count < 1 || shape->slot_count >= MOE_SLOT_EMPTY) {
        return moe_fail(err, MOE_RANGE, "%.200s: %u slots; 1 to %d are allowed", name,
                        shape->slot_count, MOE_SLOT_EMPTY - 1);
    }
    plan->gpus_stated = shape->gpu_count > 0;
    plan->placement.shape.gpu_count = plan->gpus_stated ? shape->gpu_count : 1;
    plan->placement.shape.node_count = 1;
    plan->placement.shape.group_count = 1;
    plan->hidden_layer_count = shape->layer_count;
    if (shape->slot_count % plan->placement.shape.gpu_count != 0) {
        return moe_fail(err, MOE_RANGE, "%.200s: %u slots do not divide over %u GPUs", name,
                        shape->slot_count, plan->placement.shape.gpu_count);
    }
    plan->placement.expert_of_slot = malloc(cells * sizeof(uint16_t));
    plan->layer_number = malloc(shape->layer_count * sizeof(uint32_t));
    if (plan->placement.expert_of_slot == NULL || plan->layer_number == NULL) {
        moe_plan_finish(plan);
        return moe_fail(err, MOE_LIMIT, "%.200s: no memory for %u layers of %u slots", name,
                        shape->layer_count, shape->slot_count);
    }
    for (size_t i = 0; i < cells; i++) {
        plan->placement.expert_of_slot[i] = MOE_SLOT_EMPTY;
    }
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        plan->layer_number[i] = i;
    }
    return MOE_OK;
}

void moe_plan_finish(struct moe_plan *plan)
{
    free(plan->placement.expert_of_slot);
    free(plan->layer_number);
    *plan = (struct moe_plan){ 0 };
}

enum moe_status moe_plan_number(struct moe_plan *plan, uint32_t first, uint32_t step,
                                struct moe_error *err)
{
    const uint32_t count = plan->placement.shape.layer_count;
    const uint64_t last = first + (uint64_t) step * (count - 1);
    assert(step >= 1);
    if (last >= MOE_TRACE_LAYER_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%u layers from %u in steps of %u end above layer %d",
                        count, first, step, MOE_TRACE_LAYER_LIMIT - 1);
    }
    for (uint32_t i = 0; i < count; i++) {
        plan->layer_number[i] = first + i * step;
    }
    plan->numbers_stated = true;
    if (plan->hidden_layer_count <= last) {
        plan->hidden_layer_count = (uint32_t) last + 1;
    }
    return MOE_OK;
}

enum moe_status moe_plan_keep(struct moe_plan *plan, uint32_t first, uint32_t step,
                              struct moe_error *err)
{
    struct moe_placement_shape *shape = &plan->placement.shape;
    uint32_t kept = 0;
    assert(plan->lists_dense);
    assert(step >= 1);
    if (first >= shape->layer_count) {
        return moe_fail(err, MOE_RANGE, "--first-layer %u: there are layers 0 to %u", first,
                        shape->layer_count - 1);
    }
    for (uint32_t row = first; row < shape->layer_count; row += step, kept++) {
        memmove(moe_placement_layer(&plan->placement, kept),
                moe_placement_layer(&plan->placement, row), shape->slot_count * sizeof(uint16_t));
        plan->layer_number[kept] = plan->layer_number[row];
    }
    shape->layer_count = kept;
    plan->lists_dense = false;
    return MOE_OK;
}

enum moe_status moe_plan_settle(struct moe_plan *plan, const char *name, struct moe_error *err)
{
    struct moe_placement_shape *shape = &plan->placement.shape;
    const size_t cells = (size_t) shape->layer_count * shape->slot_count;
    uint32_t end = 0;
    for (size_t i = 0; i < cells; i++) {
        const uint16_t expert = plan->placement.expert_of_slot[i];
        end = expert != MOE_SLOT_EMPTY && expert >= end ? expert + 1u : end;
    }
    if (shape->expert_count == 0) {
        shape->expert_count = end;
    }
    if (end > shape->expert_count) {
        return moe_fail(err, MOE_RANGE, "%.200s: expert %u is placed; there are experts 0 to %u",
                        name, end - 1, shape->expert_count - 1);
    }
    struct moe_error reason = { 0 };
    if (end == 0) {
        return moe_fail(err, MOE_RANGE, "%.200s: all slots are empty", name);
    }
    return moe_placement_check(&plan->placement, &reason) == MOE_OK
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "%.200s: %s", name, reason.text);
}

/* The lowest slot of [begin, end) whose expert has all its copies there, or end. */
static uint32_t find_resident(const uint16_t *slots, uint32_t begin, uint32_t end,
                              const uint32_t *copies)
{
    for (uint32_t slot = begin; slot < end; slot++) {
        if (slots[slot] == MOE_SLOT_EMPTY) {
            continue;
        }
        uint32_t here = 0;
        for (uint32_t i = begin; i < end; i++) {
            here += slots[i] == slots[slot];
        }
        if (here == copies[slots[slot]]) {
            return slot;
        }
    }
    return end;
}

static enum moe_status fill_layer(struct moe_placement *plan, uint32_t layer, uint32_t *copies,
                                  uint64_t *count, struct moe_error *err)
{
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(&plan->shape);
    uint16_t *slots = moe_placement_layer(plan, layer);
    moe_placement_count_copies(plan, layer, copies);
    for (uint32_t slot = 0; slot < plan->shape.slot_count; slot++) {
        if (slots[slot] != MOE_SLOT_EMPTY) {
            continue;
        }
        const uint32_t gpu = slot / slots_per_gpu;
        const uint32_t end = (gpu + 1) * slots_per_gpu;
        const uint32_t resident = find_resident(slots, gpu * slots_per_gpu, end, copies);
        if (resident == end) {
            return moe_fail(err, MOE_POLICY,
                            "layer %u, slot %u is empty, the engine needs an expert in every slot, "
                            "and GPU %u has none of its own to repeat; use fewer slots",
                            layer, slot, gpu);
        }
        slots[slot] = slots[resident];
        copies[slots[resident]]++;
        ++*count;
    }
    return MOE_OK;
}

enum moe_status moe_plan_fill(struct moe_placement *plan, uint64_t *filled, struct moe_error *err)
{
    uint32_t *copies = malloc(plan->shape.expert_count * sizeof *copies);
    enum moe_status status = MOE_OK;
    uint64_t count = 0;
    if (copies == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to count %u experts", plan->shape.expert_count);
    }
    for (uint32_t layer = 0; layer < plan->shape.layer_count && status == MOE_OK; layer++) {
        status = fill_layer(plan, layer, copies, &count, err);
    }
    free(copies);
    if (status == MOE_OK) {
        *filled = count;
    }
    return status;
}

enum moe_status moe_plan_take_id(const json_t *value, bool null_is_empty, uint16_t *slot,
                                 const char *name, const char *list, size_t layer, size_t index,
                                 struct moe_error *err)
{
    if (null_is_empty && json_is_null(value)) {
        *slot = MOE_SLOT_EMPTY;
        return MOE_OK;
    }
    if (!json_is_integer(value)) {
        return moe_fail(err, MOE_PARSE, "%.200s: %s[%zu][%zu] is not a whole number", name, list,
                        layer, index);
    }
    const json_int_t expert = json_integer_value(value);
    if (expert < 0 || expert >= MOE_TRACE_EXPERT_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%.200s: %s[%zu][%zu] is %lld; experts are 0 to %d", name,
                        list, layer, index, (long long) expert, MOE_TRACE_EXPERT_LIMIT - 1);
    }
    *slot = (uint16_t) expert;
    return MOE_OK;
}

void moe_plan_print_slots(FILE *out, const uint16_t *slots, uint32_t begin, uint32_t end)
{
    (void) fputc('[', out);
    for (uint32_t slot = begin; slot < end; slot++) {
        const char *comma = slot == begin ? "" : ", ";
        if (slots[slot] == MOE_SLOT_EMPTY) {
            (void) fprintf(out, "%snull", comma);
        } else {
            (void) fprintf(out, "%s%u", comma, slots[slot]);
        }
    }
    (void) fputc(']', out);
}

enum moe_status moe_plan_check_layers(const struct moe_plan *plan, struct moe_error *err)
{
    return !plan->lists_dense
               ? MOE_OK
               : moe_fail(err, MOE_RANGE,
                          "the plan lists all hidden layers and does not say which are dense; give "
                          "--first-layer, the first MoE layer's number (0 when all are)");
}

enum moe_status moe_plan_check_numbers(const struct moe_plan *plan, const char *engine,
                                       struct moe_error *err)
{
    return plan->numbers_stated
               ? MOE_OK
               : moe_fail(err, MOE_RANGE,
                          "%s numbers hidden layers, and the plan counts MoE layers only; give "
                          "--first-layer, the first MoE layer's number (0 when all are)",
                          engine);
}

enum moe_status moe_plan_check_stream(FILE *out, struct moe_error *err)
{
    return ferror(out) == 0
               ? MOE_OK
               : moe_fail(err, MOE_IO, "the plan cannot be written: %s", strerror(errno));
}

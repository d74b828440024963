#include "policies/plan_sglang.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "sim/base/output_file.h"

static const char KEY[] = "physical_to_logical_map";

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

enum moe_status moe_plan_sglang_fill(struct moe_placement *plan, struct moe_arena *scratch,
                                     uint64_t *filled, struct moe_error *err)
{
    const uint32_t slots_per_gpu = moe_placement_slots_per_gpu(&plan->shape);
    uint32_t *copies = MOE_NEW(scratch, uint32_t, plan->shape.expert_count);
    uint64_t count = 0;
    if (copies == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to count %u experts", plan->shape.expert_count);
    }
    for (uint32_t layer = 0; layer < plan->shape.layer_count; layer++) {
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
                                "layer %u, slot %u is empty, SGLang needs an expert in every slot, "
                                "and GPU %u has none of its own to repeat; use fewer slots",
                                layer, slot, gpu);
            }
            slots[slot] = slots[resident];
            copies[slots[resident]]++;
            count++;
        }
    }
    *filled = count;
    return MOE_OK;
}

/* NULL when memory is short. */
static json_t *rows_of(const struct moe_placement *plan)
{
    json_t *rows = json_array();
    for (uint32_t layer = 0; rows != NULL && layer < plan->shape.layer_count; layer++) {
        const uint16_t *slots = moe_placement_layer(plan, layer);
        json_t *row = json_array();
        int failed = row == NULL;
        for (uint32_t slot = 0; !failed && slot < plan->shape.slot_count; slot++) {
            assert(slots[slot] != MOE_SLOT_EMPTY);
            failed = json_array_append_new(row, json_integer(slots[slot])) != 0;
        }
        if (failed) {
            json_decref(row);
        }
        if (failed || json_array_append_new(rows, row) != 0) {
            json_decref(rows);
            return NULL;
        }
    }
    return rows;
}

enum moe_status moe_plan_sglang_print(FILE *out, const struct moe_placement *plan,
                                      struct moe_error *err)
{
    enum moe_status status = MOE_OK;
    json_t *root = json_object();
    if (root == NULL || json_object_set_new(root, KEY, rows_of(plan)) != 0) {
        status = moe_fail(err, MOE_LIMIT, "no memory for a plan of %u layers of %u slots",
                          plan->shape.layer_count, plan->shape.slot_count);
    } else if (json_dumpf(root, out, 0) != 0 || fputc('\n', out) == EOF) {
        status = moe_fail(err, MOE_IO, "the plan cannot be written: %s", strerror(errno));
    }
    json_decref(root);
    return status;
}

enum moe_status moe_plan_sglang_write(const struct moe_placement *plan, const char *path,
                                      bool overwrite, struct moe_error *err)
{
    struct moe_output_file file;
    MOE_TRY(moe_output_file_open(&file, path, overwrite, err));
    const enum moe_status status = moe_plan_sglang_print(file.stream, plan, err);
    if (status != MOE_OK) {
        moe_output_file_discard(&file);
        return status;
    }
    return moe_output_file_commit(&file, err);
}

static enum moe_status read_row(const json_t *row, const char *name,
                                const struct moe_placement *plan, uint32_t layer,
                                struct moe_error *err)
{
    uint16_t *slots = moe_placement_layer(plan, layer);
    if (!json_is_array(row)) {
        return moe_fail(err, MOE_PARSE, "%s: %s[%u] is not a list of experts", name, KEY, layer);
    }
    if (json_array_size(row) != plan->shape.slot_count) {
        return moe_fail(err, MOE_RANGE, "%s: %s[%u] has %zu slots, expected %u", name, KEY, layer,
                        json_array_size(row), plan->shape.slot_count);
    }
    for (uint32_t slot = 0; slot < plan->shape.slot_count; slot++) {
        const json_t *expert = json_array_get(row, slot);
        if (!json_is_integer(expert)) {
            return moe_fail(err, MOE_PARSE, "%s: %s[%u][%u] is not a whole number", name, KEY,
                            layer, slot);
        }
        const json_int_t value = json_integer_value(expert);
        if (value < 0 || value >= plan->shape.expert_count) {
            return moe_fail(err, MOE_RANGE, "%s: %s[%u][%u] is %lld; experts are 0 to %u", name,
                            KEY, layer, slot, (long long) value, plan->shape.expert_count - 1);
        }
        slots[slot] = (uint16_t) value;
    }
    return MOE_OK;
}

static enum moe_status read_document(struct moe_placement *plan, const char *name,
                                     const json_t *document, struct moe_error *err)
{
    struct moe_error reason = { 0 };
    const json_t *rows = json_object_get(document, KEY);
    if (!json_is_array(rows) || json_object_size(document) != 1) {
        return moe_fail(err, MOE_PARSE, "%s: expected an object with the one key \"%s\", a list",
                        name, KEY);
    }
    if (json_array_size(rows) != plan->shape.layer_count) {
        return moe_fail(err, MOE_RANGE, "%s: %s has %zu layers, expected %u", name, KEY,
                        json_array_size(rows), plan->shape.layer_count);
    }
    for (uint32_t layer = 0; layer < plan->shape.layer_count; layer++) {
        MOE_TRY(read_row(json_array_get(rows, layer), name, plan, layer, err));
    }
    if (moe_placement_check(plan, &reason) != MOE_OK) {
        return moe_fail(err, MOE_RANGE, "%s: %s", name, reason.text);
    }
    return MOE_OK;
}

/* Takes over document, which may be NULL with why saying so. */
static enum moe_status finish_parse(struct moe_placement *out, struct moe_arena *arena,
                                    const struct moe_placement_shape *shape, const char *name,
                                    json_t *document, const json_error_t *why,
                                    struct moe_error *err)
{
    struct moe_placement plan;
    if (document == NULL) {
        return moe_fail(err, MOE_PARSE, "%s:%d:%d: not valid JSON: %s", name, why->line,
                        why->column, why->text);
    }
    enum moe_status status = moe_placement_init(&plan, arena, shape, err);
    if (status == MOE_OK) {
        status = read_document(&plan, name, document, err);
    }
    json_decref(document);
    if (status == MOE_OK) {
        *out = plan;
    }
    return status;
}

enum moe_status moe_plan_sglang_parse(struct moe_placement *out, struct moe_arena *arena,
                                      const struct moe_placement_shape *shape, const char *name,
                                      const char *text, size_t size, struct moe_error *err)
{
    json_error_t why = { 0 };
    json_t *document = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    return finish_parse(out, arena, shape, name, document, &why, err);
}

enum moe_status moe_plan_sglang_read(struct moe_placement *out, struct moe_arena *arena,
                                     const struct moe_placement_shape *shape, const char *path,
                                     struct moe_error *err)
{
    json_error_t why = { 0 };
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
    }
    json_t *document = json_loadf(file, JSON_REJECT_DUPLICATES, &why);
    const int failed = ferror(file);
    (void) fclose(file);
    if (failed) {
        json_decref(document);
        return moe_fail(err, MOE_IO, "%s: cannot be read", path);
    }
    return finish_parse(out, arena, shape, path, document, &why, err);
}

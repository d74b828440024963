/*
 * TensorRT-LLM's moe_load_balancer.yaml:
 *
 *   num_slots: 288
 *   initial_global_assignments:
 *     3: [0, 17, ...]        hidden layer: expert of each slot
 *   layer_updates_per_iter: 0
 *
 * Every rank has num_slots / ep_size consecutive slots; the file does not state ep_size. Above 0,
 * layer_updates_per_iter lets the engine move experts while it serves: a plan is then only where
 * it began, which its note says. We write 0.
 *
 * YAML is read through libyaml's document interface; what the file needs is three levels deep,
 * so aliases (which that interface resolves to the node itself) cannot blow it up.
 */
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "policies/plan/plan.h"
#include "sim/base/options.h"
#include "traces/trace_store.h"

static const char ASSIGNMENTS[] = "initial_global_assignments";

static bool recognise(const struct moe_plan_text *text)
{
    return text->document == NULL && memchr(text->text, '\0', text->size) == NULL &&
           strstr(text->text, ASSIGNMENTS) != NULL;
}

struct reader {
    yaml_document_t document;
    const char *name;
    struct moe_plan *plan;
    struct moe_error *err;
};

static enum moe_status refuse(struct reader *reader, const yaml_node_t *node, const char *what)
{
    return moe_fail(reader->err, MOE_PARSE, "%.200s:%zu: %s", reader->name,
                    node->start_mark.line + 1, what);
}

/* A scalar that is a whole number from 0 to max. */
static enum moe_status take_number(struct reader *reader, const yaml_node_t *node, const char *what,
                                   uint64_t max, uint32_t *out)
{
    char where[320];
    uint64_t value = 0;
    (void) snprintf(where, sizeof where, "%.200s:%zu: %s", reader->name, node->start_mark.line + 1,
                    what);
    if (node->type != YAML_SCALAR_NODE) {
        return moe_fail(reader->err, MOE_PARSE, "%s is not a number", where);
    }
    if (strlen((const char *) node->data.scalar.value) != node->data.scalar.length) {
        return moe_fail(reader->err, MOE_PARSE, "%s holds a zero byte", where);
    }
    MOE_TRY(moe_parse_count((const char *) node->data.scalar.value, where, 0, max, &value,
                            reader->err));
    *out = (uint32_t) value;
    return MOE_OK;
}

static yaml_node_t *node_at(struct reader *reader, int index)
{
    return yaml_document_get_node(&reader->document, index);
}

/* The value of a key of a mapping, NULL without it. Errors: MOE_PARSE when it is there twice. */
static enum moe_status find(struct reader *reader, const yaml_node_t *mapping, const char *key,
                            yaml_node_t **out)
{
    *out = NULL;
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = node_at(reader, pair->key);
        if (name->type != YAML_SCALAR_NODE ||
            strcmp((const char *) name->data.scalar.value, key) != 0) {
            continue;
        }
        if (*out != NULL) {
            return refuse(reader, name, "a key that was there before");
        }
        *out = node_at(reader, pair->value);
    }
    return MOE_OK;
}

static size_t size_of(const yaml_node_t *mapping)
{
    return (size_t) (mapping->data.mapping.pairs.top - mapping->data.mapping.pairs.start);
}

/* One layer's list into the slots of row. */
static enum moe_status read_slots(struct reader *reader, const yaml_node_t *list, uint32_t row)
{
    const uint32_t slot_count = reader->plan->placement.shape.slot_count;
    uint16_t *slots = moe_placement_layer(&reader->plan->placement, row);
    if (list->type != YAML_SEQUENCE_NODE) {
        return refuse(reader, list, "a layer's assignment is not a list");
    }
    const yaml_node_item_t *items = list->data.sequence.items.start;
    const size_t count = (size_t) (list->data.sequence.items.top - items);
    if (count != slot_count) {
        return moe_fail(reader->err, MOE_RANGE, "%.200s:%zu: %zu slots; num_slots is %u",
                        reader->name, list->start_mark.line + 1, count, slot_count);
    }
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        uint32_t expert = 0;
        MOE_TRY(take_number(reader, node_at(reader, items[slot]), "expert",
                            MOE_TRACE_EXPERT_LIMIT - 1, &expert));
        slots[slot] = (uint16_t) expert;
    }
    return MOE_OK;
}

/* Layers in ascending order, whatever order the file has: rank of a number = those below it. */
static enum moe_status read_layers(struct reader *reader, const yaml_node_t *mapping)
{
    struct moe_plan *plan = reader->plan;
    const uint32_t count = plan->placement.shape.layer_count;
    const yaml_node_pair_t *pairs = mapping->data.mapping.pairs.start;
    uint32_t numbers[MOE_TRACE_LAYER_LIMIT];
    uint32_t last = 0;
    for (uint32_t i = 0; i < count; i++) {
        MOE_TRY(take_number(reader, node_at(reader, pairs[i].key), "layer",
                            MOE_TRACE_LAYER_LIMIT - 1, &numbers[i]));
        last = numbers[i] > last ? numbers[i] : last;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = 0;
        for (uint32_t j = 0; j < count; j++) {
            row += numbers[j] < numbers[i];
            if (j < i && numbers[j] == numbers[i]) {
                return refuse(reader, node_at(reader, pairs[i].key), "a layer for the second time");
            }
        }
        plan->layer_number[row] = numbers[i];
        MOE_TRY(read_slots(reader, node_at(reader, pairs[i].value), row));
    }
    plan->numbers_stated = true;
    plan->hidden_layer_count = last + 1;
    return MOE_OK;
}

static enum moe_status read_root(struct reader *reader, const yaml_node_t *root)
{
    yaml_node_t *slots = NULL;
    yaml_node_t *layers = NULL;
    yaml_node_t *updates = NULL;
    struct moe_placement_shape shape = { 0 };
    uint32_t update_count = 0;
    if (root == NULL || root->type != YAML_MAPPING_NODE) {
        return moe_fail(reader->err, MOE_PARSE, "%.200s: is no mapping", reader->name);
    }
    MOE_TRY(find(reader, root, "num_slots", &slots));
    MOE_TRY(find(reader, root, ASSIGNMENTS, &layers));
    MOE_TRY(find(reader, root, "layer_updates_per_iter", &updates));
    if (slots == NULL || layers == NULL || layers->type != YAML_MAPPING_NODE) {
        return refuse(reader, root, "needs num_slots and a mapping initial_global_assignments");
    }
    if (size_of(root) != 2u + (updates != NULL)) {
        return refuse(reader, root,
                      "has another key besides num_slots, initial_global_assignments and "
                      "layer_updates_per_iter");
    }
    MOE_TRY(take_number(reader, slots, "num_slots", MOE_SLOT_EMPTY - 1, &shape.slot_count));
    if (updates != NULL) {
        MOE_TRY(take_number(reader, updates, "layer_updates_per_iter", MOE_TRACE_LAYER_LIMIT,
                            &update_count));
    }
    shape.layer_count =
        size_of(layers) <= MOE_TRACE_LAYER_LIMIT ? (uint32_t) size_of(layers) : UINT32_MAX;
    MOE_TRY(moe_plan_init(reader->plan, &shape, reader->name, reader->err));
    if (update_count > 0) {
        (void) snprintf(reader->plan->note, sizeof reader->plan->note,
                        "layer_updates_per_iter is %u: the engine moves experts while it serves, "
                        "and this is only where it begins",
                        update_count);
    }
    return read_layers(reader, layers);
}

static enum moe_status parse(struct moe_plan *out, const struct moe_plan_text *text,
                             struct moe_error *err)
{
    struct reader reader = { .name = text->name, .plan = out, .err = err };
    yaml_parser_t parser;
    if (yaml_parser_initialize(&parser) == 0) {
        return moe_fail(err, MOE_LIMIT, "%.200s: no memory to read it", text->name);
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *) text->text, text->size);
    enum moe_status status = MOE_OK;
    if (yaml_parser_load(&parser, &reader.document) == 0) {
        status = parser.error == YAML_MEMORY_ERROR
                     ? moe_fail(err, MOE_LIMIT, "%.200s: no memory to read it", text->name)
                     : moe_fail(err, MOE_PARSE, "%.200s:%zu: not valid YAML: %s", text->name,
                                parser.problem_mark.line + 1,
                                parser.problem == NULL ? "unknown problem" : parser.problem);
    } else {
        status = read_root(&reader, yaml_document_get_root_node(&reader.document));
        yaml_document_delete(&reader.document);
    }
    yaml_parser_delete(&parser);
    return status;
}

static enum moe_status print(FILE *out, const struct moe_plan *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &plan->placement.shape;
    MOE_TRY(moe_plan_check_layers(plan, err));
    MOE_TRY(moe_plan_check_numbers(plan, "TensorRT-LLM", err));
    (void) fprintf(out, "num_slots: %u\n%s:\n", shape->slot_count, ASSIGNMENTS);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        (void) fprintf(out, "  %u: ", plan->layer_number[layer]);
        moe_plan_print_slots(out, moe_placement_layer(&plan->placement, layer), 0,
                             shape->slot_count);
        (void) fputc('\n', out);
    }
    (void) fputs("layer_updates_per_iter: 0\n", out);
    return moe_plan_check_stream(out, err);
}

const struct moe_plan_format moe_plan_trtllm = {
    .name = "trtllm",
    .summary = "TensorRT-LLM: moe_config.load_balancer: FILE (moe_load_balancer.yaml)",
    .recognise = recognise,
    .parse = parse,
    .print = print,
};

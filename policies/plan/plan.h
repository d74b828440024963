/*
 * Plan: a placement as a file, in the form of whoever loads it.
 *
 * Engines number layers differently: SGLang's file has a row for each hidden layer, dense ones
 * included; TensorRT-LLM's names the hidden layers that it places; vLLM-Ascend's counts MoE
 * layers only. So a plan keeps the number of each of its layers among the model's hidden ones
 * where it is known. Slots are numbered as in placement.h everywhere.
 *
 * A form is one file plan_NAME.c with a `const struct moe_plan_format moe_plan_NAME` and one
 * line in plan_format.def.
 */
#ifndef MOE_POLICIES_PLAN_PLAN_H
#define MOE_POLICIES_PLAN_PLAN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "policies/placement.h"

enum { MOE_PLAN_BYTES_LIMIT = 16 << 20 }; /* of a file that is read */

struct moe_plan {
    /* layer_count counts the layers below; gpu_count is 1 where the file does not state it.
     * Nodes and groups are 1: no form states them. */
    struct moe_placement placement; /* its slots are owned */
    uint32_t *layer_number;         /* [layer_count] ascending; owned */
    bool numbers_stated;         /* layer_number are hidden layers; else counted among MoE layers */
    uint32_t hidden_layer_count; /* more than every layer_number; what the engine counts */
    bool lists_dense; /* its layers are all hidden ones, and it does not say which are dense */
    bool gpus_stated;
    char note[160]; /* what a form said besides, for people; may be empty */
};

/* A file in the making: document is NULL for what is no JSON. */
struct moe_plan_text {
    const char *name; /* in errors */
    const char *text; /* [size], a zero byte follows */
    size_t size;
    const json_t *document;
};

struct moe_plan_format {
    const char *name;    /* [a-z0-9-]+, as --export takes it */
    const char *summary; /* one line for the help: who loads it, by which option */
    bool takes_empty;    /* slots may be empty; else moe_plan_fill comes before print */
    bool (*recognise)(const struct moe_plan_text *text);
    /* Into a zeroed plan; what it holds on failure is released by the caller. */
    enum moe_status (*parse)(struct moe_plan *out, const struct moe_plan_text *text,
                             struct moe_error *err);
    /* Errors: MOE_IO, MOE_LIMIT; MOE_RANGE for what the form cannot say. */
    enum moe_status (*print)(FILE *out, const struct moe_plan *plan, struct moe_error *err);
};

/* All forms, in plan_format.def's order: formats[*count]. */
const struct moe_plan_format *const *moe_plan_formats(size_t *count);

/* By name. Errors: MOE_RANGE listing them. */
enum moe_status moe_plan_format_find(const char *name, const struct moe_plan_format **out,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Reads a plan in whatever form its content has; *format (may be NULL) says which. Every expert
 * of 0 .. expert_count-1 has a slot in each layer, where expert_count is stated by the form or
 * one more than the largest id. Errors: MOE_IO; MOE_PARSE for anything that is no plan;
 * MOE_RANGE with the place of a value that cannot be; MOE_LIMIT. */
enum moe_status moe_plan_read(struct moe_plan *out, const char *path,
                              const struct moe_plan_format **format,
                              struct moe_error *err) MOE_MUST_CHECK;

/* The same from text[size], which a zero byte follows; name stands for the file in errors. */
enum moe_status moe_plan_parse(struct moe_plan *out, const char *name, const char *text,
                               size_t size, const struct moe_plan_format **format,
                               struct moe_error *err) MOE_MUST_CHECK;

/* Writes to path all or nothing, or to standard output when path is NULL. Errors: as print;
 * MOE_RANGE for empty slots in a form that takes none; as moe_output_file_open and _commit. */
enum moe_status moe_plan_write(const struct moe_plan *plan, const struct moe_plan_format *format,
                               const char *path, bool overwrite,
                               struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed plan and safe twice. */
void moe_plan_finish(struct moe_plan *plan);

/* --- for forms, and for those who make plans ------------------------------------------------ */

/* Room for layers of slots, all empty, numbered 0, 1, ... (not stated). shape->gpu_count 0: not
 * stated; expert_count 0: moe_plan_settle finds it. name begins the errors. Errors: MOE_RANGE
 * beyond the limits of layers and slots; MOE_LIMIT. */
enum moe_status moe_plan_init(struct moe_plan *plan, const struct moe_placement_shape *shape,
                              const char *name, struct moe_error *err) MOE_MUST_CHECK;

/* layer_number[i] = first + i * step, stated. Errors: MOE_RANGE beyond MOE_TRACE_LAYER_LIMIT. */
enum moe_status moe_plan_number(struct moe_plan *plan, uint32_t first, uint32_t step,
                                struct moe_error *err) MOE_MUST_CHECK;

/* Of a plan that lists dense layers, keeps layers first, first + step, ... to the last: the MoE
 * ones. Errors: MOE_RANGE when there is no layer first. */
enum moe_status moe_plan_keep(struct moe_plan *plan, uint32_t first, uint32_t step,
                              struct moe_error *err) MOE_MUST_CHECK;

/* Finds or checks expert_count, and that no layer lacks an expert. Errors: MOE_RANGE. */
enum moe_status moe_plan_settle(struct moe_plan *plan, const char *name,
                                struct moe_error *err) MOE_MUST_CHECK;

/* Fills empty slots for engines that need an expert in every one: each repeats the expert of the
 * lowest slot of its GPU whose copies all lie on that GPU, because that is the one way that leaves
 * every GPU's load as it was planned. *filled counts them. Errors: MOE_POLICY when a GPU has no
 * such expert, naming layer, GPU and slot (the plan is then partly filled); MOE_LIMIT. */
enum moe_status moe_plan_fill(struct moe_placement *plan, uint64_t *filled,
                              struct moe_error *err) MOE_MUST_CHECK;

/* One expert id of a JSON list into *slot. null_is_empty: null stands for an empty slot.
 * name, list, layer and index ("p.json: experts[3][7]") begin the error. Errors: MOE_PARSE,
 * MOE_RANGE. */
enum moe_status moe_plan_take_id(const json_t *value, bool null_is_empty, uint16_t *slot,
                                 const char *name, const char *list, size_t layer, size_t index,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* "[0, 1, null]": one layer's slots from begin to before end. */
void moe_plan_print_slots(FILE *out, const uint16_t *slots, uint32_t begin, uint32_t end);

/* For forms that list MoE layers only. Errors: MOE_RANGE when the plan may list dense ones. */
enum moe_status moe_plan_check_layers(const struct moe_plan *plan,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* For forms that number hidden layers. Errors: MOE_RANGE when the plan does not. */
enum moe_status moe_plan_check_numbers(const struct moe_plan *plan, const char *engine,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* MOE_IO when the stream has failed. */
enum moe_status moe_plan_check_stream(FILE *out, struct moe_error *err) MOE_MUST_CHECK;

#endif

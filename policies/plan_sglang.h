/*
 * Plan file of SGLang: {"physical_to_logical_map": [layer][slot]}, what its option
 * --init-expert-location reads. Layers are the model's layers, dense ones included;
 * slots are numbered as in placement.h.
 *
 * SGLang needs an expert in every slot. moe_plan_sglang_fill gives each empty slot a
 * second copy of an expert that lives on that GPU alone, because that is the one way
 * that leaves every GPU's load as the policy planned it.
 */
#ifndef MOE_POLICIES_PLAN_SGLANG_H
#define MOE_POLICIES_PLAN_SGLANG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "policies/placement.h"

/* Fills plan's empty slots: each repeats the expert of the lowest slot of its GPU whose
 * copies all lie on that GPU. *filled counts them. scratch has room for 4 bytes per
 * expert. Errors: MOE_POLICY when a GPU has no such expert, naming layer, GPU and slot
 * (the plan is then partly filled); MOE_LIMIT when scratch is full. */
enum moe_status moe_plan_sglang_fill(struct moe_placement *plan, struct moe_arena *scratch,
                                     uint64_t *filled, struct moe_error *err) MOE_MUST_CHECK;

/* Prints a plan without empty slots (asserted), one line. Errors: MOE_IO, MOE_LIMIT. */
enum moe_status moe_plan_sglang_print(FILE *out, const struct moe_placement *plan,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* The same into a file, all or nothing. Errors: as moe_output_file_open and _commit. */
enum moe_status moe_plan_sglang_write(const struct moe_placement *plan, const char *path,
                                      bool overwrite, struct moe_error *err) MOE_MUST_CHECK;

/* Reads a plan of exactly this shape into memory of arena. Errors: MOE_IO when the file
 * cannot be read; MOE_PARSE for anything that is not that JSON; MOE_RANGE when it has
 * other layers or slots than shape, an expert that does not exist, or lacks one (the
 * text names layer and slot); MOE_LIMIT when the arena is full. */
enum moe_status moe_plan_sglang_read(struct moe_placement *out, struct moe_arena *arena,
                                     const struct moe_placement_shape *shape, const char *path,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* The same from text[size]; name stands for the file in errors. */
enum moe_status moe_plan_sglang_parse(struct moe_placement *out, struct moe_arena *arena,
                                      const struct moe_placement_shape *shape, const char *name,
                                      const char *text, size_t size,
                                      struct moe_error *err) MOE_MUST_CHECK;

#endif

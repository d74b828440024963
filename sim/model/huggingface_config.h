/*
 * A HuggingFace configuration as it is being read: typed access to its keys, with errors
 * that name file, key, value and what is allowed.
 */
#ifndef MOE_SIM_MODEL_HUGGINGFACE_CONFIG_H
#define MOE_SIM_MODEL_HUGGINGFACE_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "sim/model/model.h"

struct moe_config {
    const json_t *root;
    const json_t *text; /* text_config, or root */
    const char *path;
    struct moe_model *model;
    struct moe_error *err;
};

/* A whole number of the config and where it goes. */
struct moe_config_size {
    const char *key;
    size_t offset; /* of a uint32_t in struct moe_model */
    bool optional; /* absent or null means 0 */
};

/* From text_config, else from outside; NULL when absent or null. */
const json_t *moe_config_get(const struct moe_config *c, const char *key);

/* Fails with "PATH: key KEY is VALUE, but ALLOWED" (or "is missing; ALLOWED"). */
enum moe_status moe_config_refuse(const struct moe_config *c, enum moe_status status,
                                  const char *key, const char *allowed);

/* Typed reads; *out is fallback when the key is absent and that is allowed.
 * Errors: MOE_RANGE. */
enum moe_status moe_config_size(const struct moe_config *c, const char *key, bool optional,
                                uint32_t fallback, uint32_t *out) MOE_MUST_CHECK;
enum moe_status moe_config_sizes(const struct moe_config *c, const struct moe_config_size *sizes,
                                 size_t count) MOE_MUST_CHECK;
enum moe_status moe_config_flag(const struct moe_config *c, const char *key, bool fallback,
                                bool *out) MOE_MUST_CHECK;
enum moe_status moe_config_text(const struct moe_config *c, const char *key,
                                const char **out) MOE_MUST_CHECK; /* NULL when absent */

/* How many entries of the array at key are `counted`; the others must be `other`, and there must
 * be one for each hidden layer. Errors: MOE_RANGE, MOE_UNSUPPORTED naming the entry. */
enum moe_status moe_config_count_layers(const struct moe_config *c, const char *key,
                                        const char *other, const char *counted,
                                        uint32_t *out) MOE_MUST_CHECK;

/* Sparse attention, after layers and heads were read (huggingface_sparse.c): an indexer beside
 * MLA; compressed entries with all of the attention; blocks beside GQA. */
enum moe_status moe_config_read_indexed_mla(const struct moe_config *c) MOE_MUST_CHECK;
enum moe_status moe_config_read_compressed(const struct moe_config *c) MOE_MUST_CHECK;
enum moe_status moe_config_read_sparse_blocks(const struct moe_config *c) MOE_MUST_CHECK;

/* Bytes per weight of experts and of all else, from quantization_config and the dtype.
 * Errors: MOE_UNSUPPORTED for a method that is not understood; MOE_RANGE. */
enum moe_status moe_config_read_precision(const struct moe_config *c) MOE_MUST_CHECK;

#endif

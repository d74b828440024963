/*
 * Model readers: what moe_model_load chooses from, for the readers themselves, the
 * `moesim models` command and the fuzz targets.
 */
#ifndef MOE_SIM_MODEL_MODEL_READER_H
#define MOE_SIM_MODEL_MODEL_READER_H

#include <stddef.h>

#include "sim/model/model.h"
#include "sim/settings/settings.h"

/* The keys of a card; object is a struct moe_model. */
extern const struct moe_settings moe_model_settings;

/* A card: YAML with the keys of moe_model_settings. name stands in errors. *model is
 * written on success only. Errors: as moe_settings_read and moe_model_check. */
enum moe_status moe_model_read_card(struct moe_model *model, const char *text, size_t bytes,
                                    const char *name, struct moe_error *err) MOE_MUST_CHECK;

/* A HuggingFace config.json. path stands in errors and source; the model's name is made
 * from it. Values that a config leaves to its class take that class's default.
 * Errors: MOE_PARSE when it is no JSON object; MOE_RANGE naming the key, its value and
 * what is allowed; MOE_UNSUPPORTED for a model_type, a quantization or an attention that
 * is not understood, naming the key. */
enum moe_status moe_model_read_huggingface(struct moe_model *model, const char *text, size_t bytes,
                                           const char *path, struct moe_error *err) MOE_MUST_CHECK;

#endif

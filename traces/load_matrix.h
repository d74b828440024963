/*
 * Load matrix: how many tokens each expert of each layer received, read from what a
 * serving engine recorded.
 *
 * Accepted is SGLang's expert-location file: a JSON object with a key "logical_count"
 * that holds [layer][expert] or [step][layer][expert] numbers, the latter summed over
 * the steps. Numbers may be fractional (averaged counts); other keys are ignored, for
 * SGLang writes some. A dense layer is a row of zeros and is kept as one.
 */
#ifndef MOE_TRACES_LOAD_MATRIX_H
#define MOE_TRACES_LOAD_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

struct moe_load_matrix {
    uint32_t layer_count;
    uint32_t expert_count;
    double *load; /* [layer_count][expert_count], each >= 0 and finite; owned */
};

/* Reads a file. Errors: MOE_IO when it cannot be read; MOE_PARSE for anything that is
 * not that JSON, naming the place ("logical_count[3][17]") and what stands there;
 * MOE_RANGE for a negative number or a matrix larger than MOE_TRACE_LAYER_LIMIT x
 * MOE_TRACE_EXPERT_LIMIT. On error *out is untouched. */
enum moe_status moe_load_matrix_read_sglang(struct moe_load_matrix *out, const char *path,
                                            struct moe_error *err) MOE_MUST_CHECK;

/* The same from text[size]; name stands for the file in errors. */
enum moe_status moe_load_matrix_parse_sglang(struct moe_load_matrix *out, const char *name,
                                             const char *text, size_t size,
                                             struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_load_matrix_finish(struct moe_load_matrix *matrix);

#endif

#include "traces/load_matrix.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/trace_store.h"

/* A place in the file, for errors: logical_count[step][layer][expert], as deep as
 * depth says; flat files have no step. */
struct place {
    const char *name;
    size_t index[3];
    int depth;
};

static const char *place_text(const struct place *place, char *text, size_t size)
{
    int used = snprintf(text, size, "%s: logical_count", place->name);
    for (int i = 0; i < place->depth && used > 0 && (size_t) used < size; i++) {
        used += snprintf(text + used, size - (size_t) used, "[%zu]", place->index[i]);
    }
    return text;
}

static const char *kind_text(const json_t *value)
{
    static const char *const kinds[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",  [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return kinds[json_typeof(value)];
}

/* The list at place must have `expected` items, or any number >= 1 when that is 0. */
static enum moe_status check_list(const json_t *value, const struct place *place, size_t expected,
                                  const char *items, struct moe_error *err)
{
    char where[320];
    if (!json_is_array(value)) {
        return moe_fail(err, MOE_PARSE, "%s is %s, expected a list of %s",
                        place_text(place, where, sizeof where), kind_text(value), items);
    }
    const size_t count = json_array_size(value);
    if (count == 0 || (expected != 0 && count != expected)) {
        return moe_fail(err, MOE_PARSE, "%s has %zu %s, expected %s%zu",
                        place_text(place, where, sizeof where), count, items,
                        expected == 0 ? "at least " : "", expected == 0 ? (size_t) 1 : expected);
    }
    return MOE_OK;
}

static enum moe_status add_row(const json_t *row, struct place *place, size_t expert_count,
                               double *load, struct moe_error *err)
{
    char where[320];
    MOE_TRY(check_list(row, place, expert_count, "experts", err));
    place->depth++;
    for (size_t expert = 0; expert < expert_count; expert++) {
        const json_t *value = json_array_get(row, expert);
        place->index[place->depth - 1] = expert;
        if (!json_is_number(value)) {
            return moe_fail(err, MOE_PARSE, "%s is %s, expected a number",
                            place_text(place, where, sizeof where), kind_text(value));
        }
        const double number = json_number_value(value);
        if (!(number >= 0.0)) {
            return moe_fail(err, MOE_RANGE, "%s is %g, a load is at least 0",
                            place_text(place, where, sizeof where), number);
        }
        load[expert] += number;
        if (!isfinite(load[expert])) {
            return moe_fail(err, MOE_RANGE, "%s makes the sum larger than a double holds",
                            place_text(place, where, sizeof where));
        }
    }
    place->depth--;
    return MOE_OK;
}

static enum moe_status add_layers(const json_t *layers, struct place *place,
                                  struct moe_load_matrix *matrix, struct moe_error *err)
{
    MOE_TRY(check_list(layers, place, matrix->layer_count, "layers", err));
    place->depth++;
    for (size_t layer = 0; layer < matrix->layer_count; layer++) {
        place->index[place->depth - 1] = layer;
        MOE_TRY(add_row(json_array_get(layers, layer), place, matrix->expert_count,
                        matrix->load + layer * matrix->expert_count, err));
    }
    place->depth--;
    return MOE_OK;
}

/* Takes the shape from the first layer; *stepped says whether there is a step axis. */
static enum moe_status read_shape(const json_t *counts, const char *name,
                                  struct moe_load_matrix *matrix, bool *stepped,
                                  struct moe_error *err)
{
    struct place place = { .name = name };
    const json_t *layers = counts;
    MOE_TRY(check_list(counts, &place, 0, "layers", err));
    place.depth = 1;
    const json_t *row = json_array_get(counts, 0);
    MOE_TRY(check_list(row, &place, 0, "experts", err));
    *stepped = json_is_array(json_array_get(row, 0));
    if (*stepped) {
        place.depth = 2;
        layers = row;
        row = json_array_get(layers, 0);
        MOE_TRY(check_list(row, &place, 0, "experts", err));
    }
    const size_t layer_count = json_array_size(layers);
    const size_t expert_count = json_array_size(row);
    if (layer_count > MOE_TRACE_LAYER_LIMIT || expert_count > MOE_TRACE_EXPERT_LIMIT) {
        return moe_fail(err, MOE_RANGE,
                        "%s: logical_count has %zu layers of %zu experts; at most %d of %d are "
                        "allowed",
                        name, layer_count, expert_count, MOE_TRACE_LAYER_LIMIT,
                        MOE_TRACE_EXPERT_LIMIT);
    }
    matrix->layer_count = (uint32_t) layer_count;
    matrix->expert_count = (uint32_t) expert_count;
    return MOE_OK;
}

static enum moe_status read_counts(struct moe_load_matrix *matrix, const char *name,
                                   const json_t *document, struct moe_error *err)
{
    const json_t *counts = json_object_get(document, "logical_count");
    bool stepped = false;
    if (counts == NULL) {
        return moe_fail(err, MOE_PARSE, "%s: %s; expected an object with \"logical_count\"", name,
                        json_is_object(document) ? "no key \"logical_count\"" : "not an object");
    }
    MOE_TRY(read_shape(counts, name, matrix, &stepped, err));
    matrix->load = calloc((size_t) matrix->layer_count * matrix->expert_count, sizeof(double));
    if (matrix->load == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %u layers of %u experts", name,
                        matrix->layer_count, matrix->expert_count);
    }
    struct place place = { .name = name };
    if (!stepped) {
        return add_layers(counts, &place, matrix, err);
    }
    place.depth = 1;
    for (size_t step = 0; step < json_array_size(counts); step++) {
        place.index[0] = step;
        MOE_TRY(add_layers(json_array_get(counts, step), &place, matrix, err));
    }
    return MOE_OK;
}

static enum moe_status finish_parse(struct moe_load_matrix *out, const char *name, json_t *document,
                                    const json_error_t *reason, struct moe_error *err)
{
    struct moe_load_matrix matrix = { 0 };
    if (document == NULL) {
        return moe_fail(err, MOE_PARSE, "%s:%d:%d: not valid JSON: %s", name, reason->line,
                        reason->column, reason->text);
    }
    const enum moe_status status = read_counts(&matrix, name, document, err);
    json_decref(document);
    if (status != MOE_OK) {
        moe_load_matrix_finish(&matrix);
        return status;
    }
    *out = matrix;
    return MOE_OK;
}

enum moe_status moe_load_matrix_parse_sglang(struct moe_load_matrix *out, const char *name,
                                             const char *text, size_t size, struct moe_error *err)
{
    json_error_t reason = { 0 };
    json_t *document = json_loadb(text, size, JSON_REJECT_DUPLICATES, &reason);
    return finish_parse(out, name, document, &reason, err);
}

enum moe_status moe_load_matrix_read_sglang(struct moe_load_matrix *out, const char *path,
                                            struct moe_error *err)
{
    json_error_t reason = { 0 };
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
    }
    json_t *document = json_loadf(file, JSON_REJECT_DUPLICATES, &reason);
    const bool failed = ferror(file) != 0;
    (void) fclose(file);
    if (failed) {
        json_decref(document);
        return moe_fail(err, MOE_IO, "%s: cannot be read: %s", path, strerror(errno));
    }
    return finish_parse(out, path, document, &reason, err);
}

void moe_load_matrix_finish(struct moe_load_matrix *matrix)
{
    free(matrix->load);
    *matrix = (struct moe_load_matrix){ 0 };
}

/*
 * Import format "numpy": a folder of plain arrays, the form in which one writes a trace
 * from any Python program.
 *
 *   experts.npy     [row][layer][k], any of u1 u2 i2 i4 i8; -1 = not recorded
 *   prompt_len.npy  [request], tokens >= 1
 *   output_len.npy  [request], tokens >= 1; a request has prompt + output - 1 rows
 *   domain.npy      [request], index into meta.json's domains; may be absent
 *   meta.json       experts, top_k, moe_layers; optional: model, engine, hidden, expert_ff,
 *                   shared_ff, groups, top_groups, domains, requests, tokens
 *
 * Arrays are read in pieces of fixed size, so memory does not grow with the trace.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traces/import.h"
#include "traces/npy.h"
#include "traces/trace_schema.h"

enum { PIECE_IDS = 1 << 18, PIECE_REQUESTS = 4096 };

_Static_assert(PIECE_IDS >= MOE_TRACE_LAYER_LIMIT * MOE_TRACE_TOP_K_LIMIT, "a piece holds a row");

/* One array of a folder. */
enum part { EXPERTS, PROMPT_LEN, OUTPUT_LEN, DOMAIN, PART_COUNT };

static const char *const part_files[PART_COUNT] = {
    [EXPERTS] = "experts.npy",
    [PROMPT_LEN] = "prompt_len.npy",
    [OUTPUT_LEN] = "output_len.npy",
    [DOMAIN] = "domain.npy",
};

struct numpy_import {
    char folder[4096];
    struct moe_npy parts[PART_COUNT];
    bool has_domain;
    const char *files[PART_COUNT + 1];
    struct moe_trace_model model;
    uint64_t request_count;
    uint64_t row_count;
    unsigned char *raw;  /* a piece as it stands in a file: PIECE_IDS items of 8 bytes */
    uint16_t *converted; /* [PIECE_IDS] */
    struct moe_trace_request requests[PIECE_REQUESTS];
};

static enum moe_status join(char *path, size_t size, const char *folder, const char *file,
                            struct moe_error *err)
{
    return snprintf(path, size, "%s/%s", folder, file) < (int) size
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "%s: the path is longer than %zu bytes", folder,
                          size - 1);
}

static bool exists(const char *folder, const char *file)
{
    char path[4096];
    return join(path, sizeof path, folder, file, NULL) == MOE_OK && access(path, F_OK) == 0;
}

static bool recognise(const struct moe_import_input *input)
{
    const char *path = input->paths[0];
    return input->path_count == 1 && exists(path, "meta.json") &&
           (exists(path, part_files[EXPERTS]) || exists(path, "experts.npy.xz"));
}

/* A key of meta.json that is a count. */
struct count_key {
    const char *name;
    uint64_t min;
    uint64_t max;
    uint64_t absent; /* what its absence means; UINT64_MAX: it must be there */
};

static enum moe_status read_count(const json_t *meta, const char *path, struct count_key key,
                                  uint64_t *out, struct moe_error *err)
{
    const uint64_t min = key.min;
    const uint64_t max = key.max;
    const json_t *value = json_object_get(meta, key.name);
    if (value == NULL && key.absent != UINT64_MAX) {
        *out = key.absent;
        return MOE_OK;
    }
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || (uint64_t) number < min ||
        (uint64_t) number > max) {
        char *shown = value == NULL ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        const enum moe_status status = moe_fail(
            err, value == NULL ? MOE_PARSE : MOE_RANGE,
            "%s: \"%s\" is %.60s; a whole number from %llu to %llu is expected", path, key.name,
            shown == NULL ? "missing" : shown, (unsigned long long) min, (unsigned long long) max);
        free(shown);
        return status;
    }
    *out = (uint64_t) number;
    return MOE_OK;
}

static enum moe_status read_text(const json_t *value, const char *path, const char *key, char *out,
                                 size_t size, struct moe_error *err)
{
    const char *text = json_string_value(value);
    if (text == NULL || text[0] == '\0' || strlen(text) >= size ||
        strlen(text) != json_string_length(value)) {
        return moe_fail(err, MOE_PARSE, "%s: \"%s\" must be a text of 1 to %zu bytes", path, key,
                        size - 1);
    }
    (void) snprintf(out, size, "%s", text);
    return MOE_OK;
}

static enum moe_status read_domains(struct numpy_import *import, const json_t *meta,
                                    const char *path, struct moe_error *err)
{
    struct moe_trace_model *model = &import->model;
    const json_t *domains = json_object_get(meta, "domains");
    const size_t count = json_array_size(domains);
    if (domains == NULL && !import->has_domain) {
        (void) snprintf(model->domains[0], sizeof model->domains[0], "all");
        model->domain_count = 1;
        return MOE_OK;
    }
    if (!json_is_array(domains) || count < 1 || count > MOE_TRACE_DOMAIN_LIMIT) {
        return moe_fail(err, MOE_PARSE, "%s: \"domains\" must be a list of 1 to %d names%s", path,
                        MOE_TRACE_DOMAIN_LIMIT,
                        domains == NULL ? ", because there is a domain.npy" : "");
    }
    if (count > 1 && !import->has_domain) {
        return moe_fail(err, MOE_PARSE,
                        "%s: \"domains\" has %zu names, but there is no domain.npy that says which "
                        "request is of which",
                        path, count);
    }
    for (size_t i = 0; i < count; i++) {
        MOE_TRY(read_text(json_array_get(domains, i), path, "domains", model->domains[i],
                          sizeof model->domains[i], err));
    }
    model->domain_count = (uint32_t) count;
    return MOE_OK;
}

static enum moe_status read_sizes(struct moe_trace_model *model, const json_t *meta,
                                  const char *path, struct moe_error *err)
{
    const struct {
        struct count_key key;
        uint32_t *out;
    } keys[] = {
        { { "moe_layers", 1, MOE_TRACE_LAYER_LIMIT, UINT64_MAX }, &model->layer_count },
        { { "experts", 1, MOE_TRACE_EXPERT_LIMIT, UINT64_MAX }, &model->expert_count },
        { { "top_k", 1, MOE_TRACE_TOP_K_LIMIT, UINT64_MAX }, &model->top_k },
        { { "groups", 1, MOE_TRACE_EXPERT_LIMIT, 1 }, &model->group_count },
        { { "top_groups", 1, MOE_TRACE_EXPERT_LIMIT, 0 }, &model->group_limit },
        { { "hidden", 0, UINT32_MAX, 0 }, &model->hidden_size },
        { { "expert_ff", 0, UINT32_MAX, 0 }, &model->expert_size },
        { { "shared_ff", 0, UINT32_MAX, 0 }, &model->shared_size },
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        uint64_t value = 0;
        MOE_TRY(read_count(meta, path, keys[i].key, &value, err));
        *keys[i].out = (uint32_t) value;
    }
    if (model->group_limit == 0) {
        model->group_limit = model->group_count; /* not stated: no limit */
    }
    return MOE_OK;
}

static enum moe_status read_keys(struct numpy_import *import, const json_t *meta, const char *path,
                                 struct moe_trace_provenance *record, struct moe_error *err)
{
    const json_t *model = json_object_get(meta, "model");
    const json_t *engine = json_object_get(meta, "engine");
    uint64_t stated = 0;
    if (!json_is_object(meta)) {
        return moe_fail(err, MOE_PARSE, "%s: a JSON object is expected", path);
    }
    MOE_TRY(read_sizes(&import->model, meta, path, err));
    MOE_TRY(read_domains(import, meta, path, err));
    if (model != NULL) {
        MOE_TRY(
            read_text(model, path, "model", import->model.name, sizeof import->model.name, err));
    }
    (void) snprintf(record->engine, sizeof record->engine, "not stated");
    if (engine != NULL) {
        MOE_TRY(read_text(engine, path, "engine", record->engine, sizeof record->engine, err));
    }
    MOE_TRY(read_count(meta, path,
                       (struct count_key){ "requests", 1, INT64_MAX, import->request_count },
                       &stated, err));
    if (stated != import->request_count) {
        return moe_fail(err, MOE_RANGE, "%s: \"requests\" is %llu, but prompt_len.npy has %llu",
                        path, (unsigned long long) stated,
                        (unsigned long long) import->request_count);
    }
    MOE_TRY(read_count(meta, path, (struct count_key){ "tokens", 1, INT64_MAX, import->row_count },
                       &stated, err));
    return stated == import->row_count
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "%s: \"tokens\" is %llu, but experts.npy has %llu rows",
                          path, (unsigned long long) stated,
                          (unsigned long long) import->row_count);
}

static enum moe_status read_meta(struct numpy_import *import, struct moe_trace_provenance *record,
                                 struct moe_error *err)
{
    char path[4096];
    json_error_t reason = { 0 };
    MOE_TRY(join(path, sizeof path, import->folder, "meta.json", err));
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
    }
    json_t *meta = json_loadf(file, JSON_REJECT_DUPLICATES, &reason);
    (void) fclose(file);
    if (meta == NULL) {
        return moe_fail(err, MOE_PARSE, "%s:%d:%d: not valid JSON: %s", path, reason.line,
                        reason.column, reason.text);
    }
    const enum moe_status status = read_keys(import, meta, path, record, err);
    json_decref(meta);
    return status;
}

static enum moe_status open_parts(struct numpy_import *import, struct moe_error *err)
{
    if (!exists(import->folder, part_files[EXPERTS]) && exists(import->folder, "experts.npy.xz")) {
        return moe_fail(err, MOE_PARSE,
                        "%s/experts.npy is missing; unpack it with: xz -dk %s/experts.npy.xz",
                        import->folder, import->folder);
    }
    import->has_domain = exists(import->folder, part_files[DOMAIN]);
    for (int part = 0; part < PART_COUNT; part++) {
        char path[4096];
        const struct moe_npy *npy = &import->parts[part];
        const uint32_t dimensions = part == EXPERTS ? 3 : 1;
        if (part == DOMAIN && !import->has_domain) {
            continue;
        }
        MOE_TRY(join(path, sizeof path, import->folder, part_files[part], err));
        MOE_TRY(moe_npy_open(&import->parts[part], path, err));
        if (npy->header.dimension_count != dimensions) {
            return moe_fail(err, MOE_PARSE, "%s: %u dimensions; %s expected", path,
                            npy->header.dimension_count,
                            part == EXPERTS ? "[row][layer][k] is" : "[request] is");
        }
        const uint64_t expected = import->parts[PROMPT_LEN].header.item_count;
        if (part > PROMPT_LEN && npy->header.item_count != expected) {
            return moe_fail(err, MOE_PARSE, "%s: %llu requests, but prompt_len.npy has %llu", path,
                            (unsigned long long) npy->header.item_count,
                            (unsigned long long) expected);
        }
    }
    import->request_count = import->parts[PROMPT_LEN].header.item_count;
    import->row_count = import->parts[EXPERTS].header.shape[0];
    if (import->request_count == 0 || import->row_count == 0) {
        return moe_fail(err, MOE_PARSE, "%s: no %s; at least 1 is expected",
                        import->parts[import->row_count == 0 ? EXPERTS : PROMPT_LEN].path,
                        import->row_count == 0 ? "rows" : "requests");
    }
    return MOE_OK;
}

static enum moe_status check_shape(const struct numpy_import *import, struct moe_error *err)
{
    const struct moe_npy *experts = &import->parts[EXPERTS];
    const uint64_t *shape = experts->header.shape;
    return shape[1] == import->model.layer_count && shape[2] == import->model.top_k
               ? MOE_OK
               : moe_fail(err, MOE_PARSE,
                          "%s: rows of [%llu][%llu], but meta.json states %u layers of top-%u",
                          experts->path, (unsigned long long) shape[1],
                          (unsigned long long) shape[2], import->model.layer_count,
                          import->model.top_k);
}

/* Values first .. first+count-1 of one array into every request's field. */
static enum moe_status read_field(struct numpy_import *import, enum part part, uint64_t first,
                                  size_t count, struct moe_error *err)
{
    const struct moe_npy *npy = &import->parts[part];
    const int64_t min = part == DOMAIN ? 0 : 1;
    const int64_t max = part == DOMAIN ? (int64_t) import->model.domain_count - 1 : UINT32_MAX;
    MOE_TRY(moe_npy_read(npy, first, count, import->raw, err));
    for (size_t i = 0; i < count; i++) {
        struct moe_trace_request *request = &import->requests[i];
        const int64_t value = moe_npy_value(npy->header.type, import->raw, i);
        if (value < min || value > max) {
            return moe_fail(err, MOE_RANGE,
                            "%s: request %llu has %s %lld; %lld to %lld are allowed", npy->path,
                            (unsigned long long) (first + i), part == DOMAIN ? "domain" : "length",
                            (long long) value, (long long) min, (long long) max);
        }
        uint32_t *const field = part == DOMAIN       ? &request->domain
                                : part == PROMPT_LEN ? &request->prompt_tokens
                                                     : &request->output_tokens;
        *field = (uint32_t) value;
    }
    return MOE_OK;
}

static enum moe_status read_requests(struct numpy_import *import, uint64_t first, size_t count,
                                     struct moe_error *err)
{
    for (size_t i = 0; i < count; i++) {
        import->requests[i] = (struct moe_trace_request){ .arrival_ns = -1 };
    }
    MOE_TRY(read_field(import, PROMPT_LEN, first, count, err));
    MOE_TRY(read_field(import, OUTPUT_LEN, first, count, err));
    return import->has_domain ? read_field(import, DOMAIN, first, count, err) : MOE_OK;
}

static size_t piece_of(uint64_t left, uint64_t most)
{
    return (size_t) (left < most ? left : most);
}

/* All lengths and domains, before anything is written. */
static enum moe_status check_requests(struct numpy_import *import, struct moe_error *err)
{
    uint64_t rows = 0;
    for (uint64_t first = 0; first < import->request_count;) {
        const size_t count = piece_of(import->request_count - first, PIECE_REQUESTS);
        MOE_TRY(read_requests(import, first, count, err));
        for (size_t i = 0; i < count; i++) {
            rows += moe_trace_request_rows(&import->requests[i]);
        }
        first += count;
    }
    return rows == import->row_count
               ? MOE_OK
               : moe_fail(
                     err, MOE_RANGE,
                     "%s: the lengths sum to %llu rows (prompt + output - 1 of %llu requests), "
                     "but experts.npy has %llu",
                     import->folder, (unsigned long long) rows,
                     (unsigned long long) import->request_count,
                     (unsigned long long) import->row_count);
}

static enum moe_status prepare(struct numpy_import *import, const char *path,
                               struct moe_import_description *out, struct moe_error *err)
{
    for (int part = 0; part < PART_COUNT; part++) {
        import->parts[part].file = -1;
    }
    import->raw = malloc((size_t) PIECE_IDS * 8);
    import->converted = malloc((size_t) PIECE_IDS * sizeof *import->converted);
    if (import->raw == NULL || import->converted == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", path);
    }
    if (snprintf(import->folder, sizeof import->folder, "%s", path) >=
        (int) sizeof import->folder) {
        return moe_fail(err, MOE_RANGE, "a path of %zu bytes; at most %zu are allowed",
                        strlen(path), sizeof import->folder - 1);
    }
    MOE_TRY(open_parts(import, err));
    MOE_TRY(read_meta(import, out->record, err));
    MOE_TRY(check_shape(import, err));
    MOE_TRY(check_requests(import, err));
    for (int part = 0; part < PART_COUNT; part++) {
        if (part != DOMAIN || import->has_domain) {
            import->files[out->file_count++] = part_files[part];
        }
    }
    import->files[out->file_count++] = "meta.json";
    out->files = import->files;
    out->model = import->model;
    out->request_count = import->request_count;
    out->row_count = import->row_count;
    (void) snprintf(out->record->layer_map, sizeof out->record->layer_map,
                    "layers 0 to %u as recorded", import->model.layer_count - 1);
    return MOE_OK;
}

static void close_import(void *state)
{
    struct numpy_import *import = state;
    if (import == NULL) {
        return;
    }
    for (int part = 0; part < PART_COUNT; part++) {
        moe_npy_close(&import->parts[part]);
    }
    free(import->raw);
    free(import->converted);
    free(import);
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    const char *path = input->paths[0];
    if (input->path_count != 1) {
        return moe_fail(err, MOE_RANGE, "%zu inputs; one folder of arrays is expected",
                        input->path_count);
    }
    struct numpy_import *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", path);
    }
    const enum moe_status status = prepare(import, path, out, err);
    if (status != MOE_OK) {
        close_import(import);
        return status;
    }
    *state = import;
    return MOE_OK;
}

static enum moe_status copy_rows(struct numpy_import *import, struct moe_trace_writer *writer,
                                 uint64_t first, size_t rows, struct moe_error *err)
{
    const struct moe_npy *npy = &import->parts[EXPERTS];
    const struct moe_trace_model *model = &import->model;
    const size_t per_row = (size_t) model->layer_count * model->top_k;
    const size_t ids = rows * per_row;
    MOE_TRY(moe_npy_read(npy, first * per_row, ids, import->raw, err));
    const size_t good = moe_npy_to_experts(npy->header.type, import->raw, ids, model->expert_count,
                                           import->converted);
    if (good < ids) {
        return moe_fail(err, MOE_RANGE,
                        "%s: row %llu, layer %zu, k %zu: expert %lld; the model has experts 0 to "
                        "%u",
                        npy->path, (unsigned long long) (first + good / per_row),
                        good % per_row / model->top_k, good % model->top_k,
                        (long long) moe_npy_value(npy->header.type, import->raw, good),
                        model->expert_count - 1);
    }
    return moe_trace_writer_rows(writer, import->converted, rows, err);
}

/* Requests up to number `end`, in pieces. */
static enum moe_status copy_requests(struct numpy_import *import, struct moe_trace_writer *writer,
                                     uint64_t *next, uint64_t end, struct moe_error *err)
{
    while (*next < end) {
        const size_t count = piece_of(end - *next, PIECE_REQUESTS);
        MOE_TRY(read_requests(import, *next, count, err));
        MOE_TRY(moe_trace_writer_requests(writer, import->requests, count, err));
        *next += count;
    }
    return MOE_OK;
}

static enum moe_status copy(void *state, struct moe_trace_writer *writer,
                            struct moe_progress *progress, struct moe_error *err)
{
    struct numpy_import *import = state;
    const uint64_t rows_per_piece =
        PIECE_IDS / ((uint64_t) import->model.layer_count * import->model.top_k);
    uint64_t request = 0;
    uint64_t row = 0;
    moe_trace_writer_resume(writer, &request, &row);
    while (row < import->row_count) {
        const size_t rows = piece_of(import->row_count - row, rows_per_piece);
        MOE_TRY(copy_rows(import, writer, row, rows, err));
        row += rows;
        /* Requests keep pace with rows, so that a batch holds its share of both. */
        const double share = (double) row / (double) import->row_count;
        const uint64_t due = (uint64_t) (share * (double) import->request_count);
        MOE_TRY(copy_requests(import, writer, &request, due, err));
        moe_progress_update(progress, row);
    }
    return copy_requests(import, writer, &request, import->request_count, err);
}

const struct moe_import_format moe_import_numpy = {
    .name = "numpy",
    .summary = "a folder of experts.npy, prompt_len.npy, output_len.npy, domain.npy, meta.json",
    .recognise = recognise,
    .open = open_import,
    .copy = copy,
    .close = close_import,
};

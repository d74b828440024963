/*
 * Import format "moesim": our own JSONL, all of a store's content as `moesim trace export
 * --format jsonl` writes it. export_jsonl.c is its documentation.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "traces/json_documents.h"
#include "traces/route_gather.h"

enum { VERSION = 1 };

struct own_import {
    const char *path;
    struct moe_trace_model model;
    uint32_t block_tokens;
    uint16_t *placement; /* [layer][slot]; owned */
    uint16_t *row;       /* [layers * top_k]; owned */
    double *counts;      /* [layers * experts]; owned */
    int64_t *blocks;     /* [MOE_TRACE_BLOCK_LIMIT]; owned */
    uint64_t rows_left;  /* of the request before */
};

static bool recognise(const struct moe_import_input *input)
{
    static const char *const texts[] = { "\"moesim.trace\"", "\"content\"", NULL };
    return input->file_count == 1 && moe_jsonl_recognise(input, texts);
}

static void close_import(void *state)
{
    struct own_import *import = state;
    if (import != NULL) {
        free(import->placement);
        free(import->row);
        free(import->counts);
        free(import->blocks);
        free(import);
    }
}

static enum moe_status read_name(const json_t *value, const char *what, const char *place,
                                 char *out, size_t size, struct moe_error *err)
{
    const char *text = json_string_value(value);
    if (text == NULL || text[0] == '\0' || strlen(text) >= size) {
        return moe_fail(err, MOE_PARSE, "%s: \"%s\" is to be a text of 1 to %zu bytes", place, what,
                        size - 1);
    }
    (void) snprintf(out, size, "%s", text);
    return MOE_OK;
}

static enum moe_status read_content(struct own_import *import, const json_t *head,
                                    const char *place, struct moe_error *err)
{
    const char *content = json_string_value(json_object_get(head, "content"));
    for (int i = 0; content != NULL && i < MOE_TRACE_CONTENT_COUNT; i++) {
        if (strcmp(content, moe_trace_content_text((enum moe_trace_content) i)) == 0) {
            import->model.content = (enum moe_trace_content) i;
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_PARSE, "%s: \"content\" is not routes, loads or arrivals", place);
}

static enum moe_status read_model(struct own_import *import, const json_t *head, const char *place,
                                  struct moe_error *err)
{
    struct moe_trace_model *m = &import->model;
    const bool has_layers = m->content != MOE_TRACE_ARRIVALS;
    const int64_t least = has_layers ? 1 : 0;
    const struct {
        const char *key;
        int64_t min;
        int64_t max;
        uint32_t *field;
    } fields[] = {
        { "layers", least, MOE_TRACE_LAYER_LIMIT, &m->layer_count },
        { "experts", least, MOE_TRACE_EXPERT_LIMIT, &m->expert_count },
        { "top_k", m->content == MOE_TRACE_ROUTES, MOE_TRACE_TOP_K_LIMIT, &m->top_k },
        { "groups", least, MOE_TRACE_EXPERT_LIMIT, &m->group_count },
        { "group_limit", least, MOE_TRACE_EXPERT_LIMIT, &m->group_limit },
        { "hidden", 0, UINT32_MAX, &m->hidden_size },
        { "expert_size", 0, UINT32_MAX, &m->expert_size },
        { "shared_size", 0, UINT32_MAX, &m->shared_size },
        { "block_tokens", 0, UINT32_MAX, &import->block_tokens },
    };
    MOE_TRY(
        read_name(json_object_get(head, "model"), "model", place, m->name, sizeof m->name, err));
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        int64_t value = 0;
        MOE_TRY(moe_json_whole(head, fields[i].key, place, fields[i].min, fields[i].max, -1, &value,
                               err));
        *fields[i].field = (uint32_t) value;
    }
    const json_t *domains = json_object_get(head, "domains");
    m->domain_count = (uint32_t) json_array_size(domains);
    if (m->domain_count < 1 || m->domain_count > MOE_TRACE_DOMAIN_LIMIT) {
        return moe_fail(err, MOE_PARSE, "%s: \"domains\" is to be a list of 1 to %d names", place,
                        MOE_TRACE_DOMAIN_LIMIT);
    }
    for (uint32_t i = 0; i < m->domain_count; i++) {
        MOE_TRY(read_name(json_array_get(domains, i), "domains", place, m->domains[i],
                          sizeof m->domains[i], err));
    }
    return MOE_OK;
}

/* Ids of a list of exactly count, null for an unknown one. */
static enum moe_status read_ids(const json_t *list, size_t count, uint32_t end, const char *what,
                                const char *place, uint16_t *out, struct moe_error *err)
{
    if (!json_is_array(list) || json_array_size(list) != count) {
        return moe_fail(err, MOE_PARSE, "%s: \"%s\" is to hold lists of %zu experts", place, what,
                        count);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        const json_int_t id = json_integer_value(value);
        if (json_is_null(value)) {
            out[i] = MOE_EXPERT_UNKNOWN;
            continue;
        }
        if (!json_is_integer(value) || id < 0 || id >= (json_int_t) end) {
            return moe_fail(err, MOE_PARSE,
                            "%s: \"%s\" holds, as number %zu of a list, what is no expert from 0 "
                            "to %u",
                            place, what, i, end - 1);
        }
        out[i] = (uint16_t) id;
    }
    return MOE_OK;
}

static enum moe_status read_placement(struct own_import *import, const json_t *head,
                                      const char *place, struct moe_import_description *out,
                                      struct moe_error *err)
{
    const json_t *layers = json_object_get(head, "placement");
    const size_t slots = json_array_size(json_array_get(layers, 0));
    if (layers == NULL || json_is_null(layers)) {
        return MOE_OK;
    }
    if (json_array_size(layers) != import->model.layer_count || slots < 1 ||
        slots > MOE_TRACE_EXPERT_LIMIT) {
        return moe_fail(err, MOE_PARSE, "%s: \"placement\" is to be a list of %u layers of slots",
                        place, import->model.layer_count);
    }
    import->placement = malloc(import->model.layer_count * slots * sizeof *import->placement);
    if (import->placement == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    for (uint32_t layer = 0; layer < import->model.layer_count; layer++) {
        MOE_TRY(read_ids(json_array_get(layers, layer), slots, import->model.expert_count,
                         "placement", place, import->placement + layer * slots, err));
    }
    out->placement = import->placement;
    out->slot_count = (uint32_t) slots;
    return MOE_OK;
}

static enum moe_status allocate(struct own_import *import, struct moe_error *err)
{
    const struct moe_trace_model *m = &import->model;
    import->row = malloc(((size_t) m->layer_count * m->top_k + 1) * sizeof *import->row);
    import->counts =
        malloc(((size_t) m->layer_count * m->expert_count + 1) * sizeof *import->counts);
    import->blocks = malloc(MOE_TRACE_BLOCK_LIMIT * sizeof *import->blocks);
    return import->row == NULL || import->counts == NULL || import->blocks == NULL
               ? moe_fail(err, MOE_LIMIT, "no memory to import")
               : MOE_OK;
}

static enum moe_status read_head(struct own_import *import, const json_t *head, const char *place,
                                 struct moe_import_description *out, struct moe_error *err)
{
    const char *format = json_string_value(json_object_get(head, "format"));
    int64_t version = 0;
    if (format == NULL || strcmp(format, "moesim.trace") != 0) {
        return moe_fail(err, MOE_PARSE, "%s: the first line does not state the format", place);
    }
    MOE_TRY(moe_json_whole(head, "version", place, 1, INT32_MAX, -1, &version, err));
    if (version != VERSION) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "%s: a trace of version %" PRId64 "; this program reads version %d", place,
                        version, VERSION);
    }
    MOE_TRY(read_content(import, head, place, err));
    MOE_TRY(read_model(import, head, place, err));
    MOE_TRY(read_placement(import, head, place, out, err));
    return allocate(import, err);
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct moe_json_documents lines;
    const json_t *head = NULL;
    struct own_import *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    if (input->file_count != 1) {
        return moe_fail(err, MOE_RANGE, "%zu files; one is expected", input->file_count);
    }
    input->files[0].is_used = true;
    import->path = input->files[0].path;
    MOE_TRY(moe_json_documents_open(&lines, import->path, err));
    enum moe_status status = moe_json_documents_next(&lines, &head, err);
    if (status == MOE_OK) {
        status = read_head(import, head, lines.place, out, err);
    }
    moe_json_documents_close(&lines);
    MOE_TRY(status);
    out->model = import->model;
    out->block_tokens = import->block_tokens;
    out->layers_stated = true;
    for (uint32_t i = 0; i < import->model.layer_count; i++) {
        out->layer_number[i] = i;
        out->is_moe_layer[i] = true;
    }
    return MOE_OK;
}

static enum moe_status read_blocks(struct own_import *import, const json_t *line, const char *place,
                                   size_t *count, struct moe_error *err)
{
    const json_t *list = json_object_get(line, "blocks");
    *count = json_array_size(list);
    if (*count > MOE_TRACE_BLOCK_LIMIT || (*count > 0 && import->block_tokens == 0)) {
        return moe_fail(err, MOE_PARSE, "%s: %zu \"blocks\" of %u tokens; at most %d", place,
                        *count, import->block_tokens, MOE_TRACE_BLOCK_LIMIT);
    }
    for (size_t i = 0; i < *count; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value)) {
            return moe_fail(err, MOE_PARSE, "%s: \"blocks\"[%zu] is %s; a number is expected",
                            place, i, moe_json_kind_text(value));
        }
        import->blocks[i] = json_integer_value(value);
    }
    return MOE_OK;
}

/* A key that may hold null, for which *out is -1. */
static enum moe_status read_known(const json_t *line, const char *key, const char *place,
                                  int64_t max, int64_t *out, struct moe_error *err)
{
    *out = -1;
    return json_is_null(json_object_get(line, key))
               ? MOE_OK
               : moe_json_whole(line, key, place, 0, max, -1, out, err);
}

static enum moe_status send_request(struct own_import *import, const json_t *line,
                                    const char *place, struct moe_import_sink *sink,
                                    struct moe_error *err)
{
    struct moe_trace_request request = { 0 };
    int64_t domain = 0;
    int64_t prompt = 0;
    int64_t output = 0;
    size_t blocks = 0;
    if (import->rows_left > 0) {
        return moe_fail(err, MOE_PARSE, "%s: the request before lacks %" PRIu64 " rows", place,
                        import->rows_left);
    }
    MOE_TRY(read_known(line, "arrival_ns", place, INT64_MAX, &request.arrival_ns, err));
    MOE_TRY(
        moe_json_whole(line, "domain", place, 0, import->model.domain_count - 1, -1, &domain, err));
    MOE_TRY(moe_json_whole(line, "prompt_tokens", place, 1, UINT32_MAX, -1, &prompt, err));
    MOE_TRY(moe_json_whole(line, "output_tokens", place, 1, UINT32_MAX, -1, &output, err));
    MOE_TRY(read_blocks(import, line, place, &blocks, err));
    request.domain = (uint32_t) domain;
    request.prompt_tokens = (uint32_t) prompt;
    request.output_tokens = (uint32_t) output;
    import->rows_left =
        import->model.content == MOE_TRACE_ROUTES ? moe_trace_request_rows(&request) : 0;
    return sink->request(sink, &request, import->blocks, blocks, err);
}

static enum moe_status send_rows(struct own_import *import, const json_t *rows, const char *place,
                                 struct moe_import_sink *sink, struct moe_error *err)
{
    const size_t ids = (size_t) import->model.layer_count * import->model.top_k;
    if (!json_is_array(rows) || json_array_size(rows) > import->rows_left) {
        return moe_fail(err, MOE_PARSE,
                        "%s: \"rows\" is no list of at most the %" PRIu64 " rows that its request "
                        "still lacks",
                        place, import->rows_left);
    }
    for (size_t i = 0; i < json_array_size(rows); i++) {
        MOE_TRY(read_ids(json_array_get(rows, i), ids, import->model.expert_count, "rows", place,
                         import->row, err));
        MOE_TRY(sink->rows(sink, import->row, 1, err));
        import->rows_left--;
    }
    return MOE_OK;
}

static enum moe_status send_load(struct own_import *import, const json_t *line, const char *place,
                                 struct moe_import_sink *sink, struct moe_error *err)
{
    const struct moe_trace_model *m = &import->model;
    const json_t *layers = json_object_get(line, "counts");
    int64_t step = 0;
    int64_t rank = 0;
    int64_t domain = 0;
    struct moe_trace_load load = { 0 };
    MOE_TRY(moe_json_whole(line, "step", place, 0, INT64_MAX, -1, &step, err));
    MOE_TRY(read_known(line, "rank", place, MOE_TRACE_RANK_LIMIT - 1, &rank, err));
    MOE_TRY(moe_json_whole(line, "domain", place, 0, m->domain_count - 1, -1, &domain, err));
    MOE_TRY(read_known(line, "label", place, INT64_MAX, &load.label, err));
    load.step = (uint64_t) step;
    load.rank = rank < 0 ? MOE_TRACE_ALL_RANKS : (int32_t) rank;
    load.domain = (uint32_t) domain;
    for (uint32_t layer = 0; layer < m->layer_count; layer++) {
        const json_t *row = json_array_get(layers, layer);
        if (json_array_size(layers) != m->layer_count || json_array_size(row) != m->expert_count) {
            return moe_fail(err, MOE_PARSE, "%s: \"counts\" is no list of %u layers of %u experts",
                            place, m->layer_count, m->expert_count);
        }
        for (uint32_t i = 0; i < m->expert_count; i++) {
            const json_t *value = json_array_get(row, i);
            const double count = json_number_value(value);
            if (!json_is_number(value) || !(count >= 0.0 && count <= MOE_TRACE_COUNT_LIMIT)) {
                return moe_fail(err, MOE_PARSE,
                                "%s: \"counts\"[%u][%u] is no number from 0 to 2^32", place, layer,
                                i);
            }
            import->counts[(size_t) layer * m->expert_count + i] = count;
        }
    }
    return sink->load(sink, &load, import->counts, err);
}

static enum moe_status send_line(struct own_import *import, const json_t *line, const char *place,
                                 struct moe_import_sink *sink, struct moe_error *err)
{
    const json_t *rows = json_object_get(line, "rows");
    if (import->model.content == MOE_TRACE_LOADS) {
        return send_load(import, line, place, sink, err);
    }
    return rows != NULL ? send_rows(import, rows, place, sink, err)
                        : send_request(import, line, place, sink, err);
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    struct own_import *import = state;
    struct moe_json_documents lines;
    const json_t *line = NULL;
    import->rows_left = 0;
    MOE_TRY(moe_json_documents_open(&lines, import->path, err));
    enum moe_status status = moe_json_documents_next(&lines, &line, err); /* the head */
    while (status == MOE_OK && line != NULL) {
        status = moe_json_documents_next(&lines, &line, err);
        if (status == MOE_OK && line != NULL) {
            status = send_line(import, line, lines.place, sink, err);
        }
    }
    moe_json_documents_close(&lines);
    if (status == MOE_OK && import->rows_left > 0) {
        status =
            moe_fail(err, MOE_PARSE, "%.300s: ends, and the last request lacks %" PRIu64 " rows",
                     import->path, import->rows_left);
    }
    return status;
}

const struct moe_import_format moe_import_moesim = {
    .name = "moesim",
    .summary = "our own JSONL, as `moesim trace export --format jsonl` writes it",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};

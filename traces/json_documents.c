#include "traces/json_documents.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "traces/trace_store.h"

enum moe_status moe_json_documents_open(struct moe_json_documents *documents, const char *path,
                                        struct moe_error *err)
{
    *documents = (struct moe_json_documents){ 0 };
    return moe_line_reader_open(&documents->lines, path, err);
}

enum moe_status moe_json_documents_open_memory(struct moe_json_documents *documents,
                                               const char *name, const void *bytes, size_t size,
                                               struct moe_error *err)
{
    *documents = (struct moe_json_documents){ 0 };
    return moe_line_reader_open_memory(&documents->lines, name, bytes, size, err);
}

void moe_json_documents_close(struct moe_json_documents *documents)
{
    json_decref(documents->current);
    documents->current = NULL;
    moe_line_reader_close(&documents->lines);
}

/* Every value but the first of a list or object stands behind one of these. */
static enum moe_status check_values(const struct moe_line_reader *lines, struct moe_error *err)
{
    size_t values = 0;
    for (size_t i = 0; i < lines->length; i++) {
        const char c = lines->line[i];
        values += c == ',' || c == '[' || c == '{';
    }
    return values <= MOE_JSON_VALUE_LIMIT
               ? MOE_OK
               : moe_fail(err, MOE_RANGE,
                          "%s:%" PRIu64 ": a JSON document of %zu values; at most %d are read",
                          lines->path, lines->number, values, MOE_JSON_VALUE_LIMIT);
}

/* Parses the current line; when it is no JSON and the first one, the whole file. */
static enum moe_status parse(struct moe_json_documents *documents, struct moe_error *err)
{
    struct moe_line_reader *lines = &documents->lines;
    const uint64_t first = lines->number;
    json_error_t reason = { 0 };
    MOE_TRY(check_values(lines, err));
    documents->current = json_loadb(lines->line, lines->length, JSON_REJECT_DUPLICATES, &reason);
    if (documents->current == NULL && first == 1) {
        json_error_t whole = { 0 };
        const size_t length = lines->length;
        MOE_TRY(moe_line_reader_rest(lines, err));
        if (lines->length > length + 1) {
            MOE_TRY(check_values(lines, err));
            documents->current =
                json_loadb(lines->line, lines->length, JSON_REJECT_DUPLICATES, &whole);
            reason = documents->current == NULL && whole.line > 1 ? whole : reason;
        }
    }
    if (documents->current == NULL) {
        return moe_fail(err, MOE_PARSE, "%s:%" PRIu64 ":%d: not valid JSON: %s", lines->path,
                        first + (uint64_t) (reason.line > 0 ? reason.line - 1 : 0), reason.column,
                        reason.text);
    }
    documents->is_list = first == 1 && json_is_array(documents->current);
    documents->next = 0;
    (void) snprintf(documents->place, sizeof documents->place, "%s:%" PRIu64, lines->path, first);
    return MOE_OK;
}

enum moe_status moe_json_documents_next(struct moe_json_documents *documents, const json_t **out,
                                        struct moe_error *err)
{
    bool got = true;
    *out = NULL;
    if (documents->is_list && documents->next < json_array_size(documents->current)) {
        (void) snprintf(documents->place, sizeof documents->place, "%s[%zu]", documents->lines.path,
                        documents->next);
        *out = json_array_get(documents->current, documents->next++);
        return MOE_OK;
    }
    json_decref(documents->current);
    documents->current = NULL;
    documents->is_list = false;
    for (;;) {
        MOE_TRY(moe_line_reader_next(&documents->lines, &got, err));
        if (!got) {
            return MOE_OK;
        }
        if (documents->lines.line[strspn(documents->lines.line, " \t\r")] != '\0') {
            break;
        }
    }
    MOE_TRY(parse(documents, err));
    if (documents->is_list) {
        return moe_json_documents_next(documents, out, err);
    }
    *out = documents->current;
    return MOE_OK;
}

const char *moe_json_kind_text(const json_t *value)
{
    static const char *const kinds[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",  [JSON_STRING] = "a text",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return value == NULL ? "missing" : kinds[json_typeof(value)];
}

enum moe_status moe_json_whole(const json_t *object, const char *key, const char *place,
                               int64_t min, int64_t max, int64_t absent, int64_t *out,
                               struct moe_error *err)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL && absent >= 0) {
        *out = absent;
        return MOE_OK;
    }
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < min || number > max) {
        char shown[32];
        (void) snprintf(shown, sizeof shown, "%" JSON_INTEGER_FORMAT, number);
        return moe_fail(
            err, MOE_PARSE,
            "%s: \"%s\" is %s; a whole number from %" PRId64 " to %" PRId64 " is expected", place,
            key, json_is_integer(value) ? shown : moe_json_kind_text(value), min, max);
    }
    *out = number;
    return MOE_OK;
}

enum moe_status moe_json_experts(const json_t *list, size_t count, const char *key,
                                 const char *place, uint16_t *out, struct moe_error *err)
{
    if (!json_is_array(list) || json_array_size(list) != count) {
        return moe_fail(err, MOE_PARSE,
                        "%s: \"%s\": a list of %zu experts is expected, %s stands "
                        "there",
                        place, key, count,
                        json_is_array(list) ? "one of another length" : moe_json_kind_text(list));
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        const json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < -1 || id >= MOE_TRACE_EXPERT_LIMIT) {
            char shown[32];
            (void) snprintf(shown, sizeof shown, "%" JSON_INTEGER_FORMAT, id);
            return moe_fail(err, MOE_PARSE,
                            "%s: \"%s\": choice %zu is %s; an expert or -1 is expected", place, key,
                            i, json_is_integer(value) ? shown : moe_json_kind_text(value));
        }
        out[i] = id < 0 ? MOE_EXPERT_UNKNOWN : (uint16_t) id;
    }
    return MOE_OK;
}

enum moe_status
moe_json_documents_read(const char *path,
                        enum moe_status (*take)(void *context, const json_t *document,
                                                const char *place, struct moe_error *err),
                        void *context, struct moe_error *err)
{
    struct moe_json_documents documents;
    const json_t *document = NULL;
    MOE_TRY(moe_json_documents_open(&documents, path, err));
    enum moe_status status = moe_json_documents_next(&documents, &document, err);
    while (status == MOE_OK && document != NULL) {
        status = take(context, document, documents.place, err);
        if (status == MOE_OK) {
            status = moe_json_documents_next(&documents, &document, err);
        }
    }
    moe_json_documents_close(&documents);
    return status;
}

/*
 * JSON documents: a file that holds one JSON document, a list of them, or one on every line
 * (JSONL). A document is read whole, so its size and number of values are bounded.
 */
#ifndef MOE_TRACES_JSON_DOCUMENTS_H
#define MOE_TRACES_JSON_DOCUMENTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "traces/line_reader.h"

/* About 60 bytes of memory each. */
enum { MOE_JSON_VALUE_LIMIT = 8 << 20 };

struct moe_json_documents {
    struct moe_line_reader lines;
    json_t *current; /* owned; the document, or the list that it stands in */
    size_t next;     /* in that list */
    bool is_list;
    char place[4200]; /* of the current document, for errors: "file:12", "file[3]" */
};

enum moe_status moe_json_documents_open(struct moe_json_documents *documents, const char *path,
                                        struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_json_documents_open_memory(struct moe_json_documents *documents,
                                               const char *name, const void *bytes, size_t size,
                                               struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_json_documents_close(struct moe_json_documents *documents);

/* The next document, NULL at the end; it stays until the next call. Empty lines are passed
 * over. Errors: MOE_IO; MOE_PARSE with place and reason, also for duplicate keys; MOE_RANGE
 * beyond the limits. */
enum moe_status moe_json_documents_next(struct moe_json_documents *documents, const json_t **out,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* Opens path and hands every document to take, which ends the reading when it fails. Errors: those
 * of open, next and take. */
enum moe_status
moe_json_documents_read(const char *path,
                        enum moe_status (*take)(void *context, const json_t *document,
                                                const char *place, struct moe_error *err),
                        void *context, struct moe_error *err) MOE_MUST_CHECK;

/* "a list", "missing" (NULL), ... for errors. */
const char *moe_json_kind_text(const json_t *value);

/* A key that holds a whole number from min to max, or is absent when absent is >= 0: then that.
 * place begins the error. Errors: MOE_PARSE. */
enum moe_status moe_json_whole(const json_t *object, const char *key, const char *place,
                               int64_t min, int64_t max, int64_t absent, int64_t *out,
                               struct moe_error *err) MOE_MUST_CHECK;

/* Ids of a list of `count` whole numbers into out, -1 to MOE_EXPERT_UNKNOWN. Errors: MOE_PARSE
 * naming place, key and position. */
enum moe_status moe_json_experts(const json_t *list, size_t count, const char *key,
                                 const char *place, uint16_t *out,
                                 struct moe_error *err) MOE_MUST_CHECK;

#endif

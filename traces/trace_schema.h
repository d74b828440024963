/*
 * Trace schema: what reader, writer and verifier of a trace store agree on: the tables,
 * the blobs' layout, and what the hashes cover. The schema's SQL in trace_schema.c is
 * the documentation of the file.
 */
#ifndef MOE_TRACES_TRACE_SCHEMA_H
#define MOE_TRACES_TRACE_SCHEMA_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/database.h"
#include "sim/base/error.h"
#include "sim/base/hash.h"
#include "traces/trace_store.h"

extern const struct moe_database_kind moe_trace_kind;

/* Version 1 knew routes only. It is read, and an unfinished import of it is finished as what
 * it is; new stores are of version 2, which only adds tables. */
enum { MOE_TRACE_SCHEMA_VERSION = 2 };

/* Blobs hold at most this much, and more than half of it. */
enum { MOE_TRACE_BLOB_BYTES = 1 << 20 };

/* Blob b holds rows b << row_shift .. up to the next blob's or the trace's end. */
struct moe_trace_layout {
    uint32_t ids_per_row;  /* layer_count * top_k */
    uint32_t expert_bytes; /* 1 or 2: width of an id in the file */
    uint32_t row_shift;    /* rows of a full blob = 1 << row_shift */
};

/* A pure function of the model's shape, the same in all schema versions; all 0 for a store
 * without routes. */
struct moe_trace_layout moe_trace_layout_of(const struct moe_trace_model *model);

static inline uint64_t moe_trace_layout_blobs(const struct moe_trace_layout *layout, uint64_t rows)
{
    return (rows + (UINT64_C(1) << layout->row_shift) - 1) >> layout->row_shift;
}

/* Rows of blob number `blob` in a trace of row_count rows. */
static inline uint64_t moe_trace_layout_rows(const struct moe_trace_layout *layout, uint64_t blob,
                                             uint64_t row_count)
{
    const uint64_t first = blob << layout->row_shift;
    const uint64_t full = UINT64_C(1) << layout->row_shift;
    return row_count - first < full ? row_count - first : full;
}

/* Bytes of the bit mask of unknown ids beside a blob of that many rows. */
static inline size_t moe_trace_layout_mask_bytes(const struct moe_trace_layout *layout,
                                                 uint64_t rows)
{
    return (size_t) ((rows * layout->ids_per_row + 7) / 8);
}

/* Shape and names within the limits. what ("fine64/meta.json") begins the error.
 * Errors: MOE_RANGE naming the field, its value and what is allowed. */
enum moe_status moe_trace_model_check(const struct moe_trace_model *model, const char *what,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Checks one request but for first_row. Errors: MOE_RANGE naming request `index`. */
enum moe_status moe_trace_request_check(const struct moe_trace_request *request, uint64_t index,
                                        const struct moe_trace_model *model, const char *what,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* Reads the tables model and domain, and checks them. */
enum moe_status moe_trace_model_load(struct moe_trace_model *model, struct moe_database *db,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Hash of one blob with its mask (NULL: none). */
uint64_t moe_trace_blob_hash(const void *experts, size_t experts_bytes, const void *mask,
                             size_t mask_bytes);

/* Adds the model to a hash, so that equal shapes and names give equal values. */
void moe_trace_model_hash(struct moe_hash *hash, const struct moe_trace_model *model);

/* The content hash of a trace: model, then every request, then every blob's hash in
 * order, read back from the tables; so how the import was cut into calls cannot matter.
 * Provenance is not content. */
enum moe_status moe_trace_content_hash(struct moe_database *db, const struct moe_trace_model *model,
                                       uint64_t *out, struct moe_error *err) MOE_MUST_CHECK;

/* Copies a text column into text[size]. Errors: MOE_PARSE naming the column when it is
 * no text or too long. */
enum moe_status moe_trace_column_text(struct moe_database *db, sqlite3_stmt *stmt, int column,
                                      char *text, size_t size,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* A column that must hold min .. max. Errors: MOE_PARSE naming column and value. */
enum moe_status moe_trace_column_count(struct moe_database *db, sqlite3_stmt *stmt, int column,
                                       uint64_t min, uint64_t max, uint64_t *out,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* The open store behind a reader, for verification and provenance. */
struct moe_database *moe_trace_database(struct moe_trace *trace);

#endif

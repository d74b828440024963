/*
 * Provenance: what the content of a trace store was made from, step by step. The first
 * record is the import of an engine's files, later ones are cuts. It names files as
 * the user would find them inside the imported folder, with their sizes and hashes, and
 * no absolute path or date, so that equal imports give equal stores.
 */
#ifndef MOE_TRACES_TRACE_PROVENANCE_H
#define MOE_TRACES_TRACE_PROVENANCE_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/database.h"
#include "sim/base/error.h"
#include "sim/base/hash.h"
#include "sim/base/progress.h"

struct moe_trace_source {
    char name[256];
    uint64_t size_bytes;
    uint64_t hash; /* XXH64 of the file */
};

struct moe_trace_provenance {
    char engine[64];     /* what recorded the routes; "not stated" when it did not say */
    char format[32];     /* import format, or "cut" */
    char layer_map[512]; /* which of the recording's layers became the trace's layers */
    char skip_reason[256];
    char note[256];
    uint64_t rows_skipped;
    size_t source_count;
    struct moe_trace_source *sources; /* owned */
};

/* Records of one store, oldest first. */
struct moe_trace_history {
    size_t count;
    struct moe_trace_provenance *records; /* owned */
};

/* Appends a zeroed record. Errors: MOE_LIMIT. The pointer is good until the next one. */
enum moe_status moe_trace_history_add(struct moe_trace_history *history,
                                      struct moe_trace_provenance **out,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_trace_history_finish(struct moe_trace_history *history);

/* Appends a source. Errors: MOE_LIMIT, MOE_RANGE when the name is too long. */
enum moe_status moe_trace_provenance_add(struct moe_trace_provenance *record,
                                         const struct moe_trace_source *source,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Reads the file at path once, in pieces, and appends it under name. progress may be
 * NULL. Errors: also MOE_IO. */
enum moe_status moe_trace_provenance_add_file(struct moe_trace_provenance *record, const char *name,
                                              const char *path, struct moe_progress *progress,
                                              struct moe_error *err) MOE_MUST_CHECK;

/* Adds all of it to a hash. */
void moe_trace_history_hash(struct moe_hash *hash, const struct moe_trace_history *history);

/* Between a store's tables and memory. */
enum moe_status moe_trace_history_store(const struct moe_trace_history *history,
                                        struct moe_database *db,
                                        struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_trace_history_load(struct moe_trace_history *history, struct moe_database *db,
                                       struct moe_error *err) MOE_MUST_CHECK;

#endif

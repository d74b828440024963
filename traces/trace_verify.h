/*
 * Trace verification: reads all of a store and says what is wrong with it. Repairs nothing.
 *
 * Damage means that the store is not what the import wrote: it is to be imported again.
 * Findings are true to the recording but odd for the stated model: a token that used
 * more groups than allowed, or an expert twice in one top-k.
 */
#ifndef MOE_TRACES_TRACE_VERIFY_H
#define MOE_TRACES_TRACE_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "sim/base/progress.h"
#include "traces/trace_store.h"

enum moe_trace_check {
    MOE_TRACE_CHECK_BLOBS,        /* damage: missing, of a wrong size, changed, bad ids or counts */
    MOE_TRACE_CHECK_EXTRA_BLOBS,  /* damage: blobs beyond the last row */
    MOE_TRACE_CHECK_CONTENT_HASH, /* damage: hash of model, requests and blobs */
    MOE_TRACE_CHECK_DATABASE,     /* damage: SQLite's own integrity check */
    MOE_TRACE_CHECK_GROUP_LIMIT,  /* finding */
    MOE_TRACE_CHECK_DUPLICATES,   /* finding */
    MOE_TRACE_CHECK_COUNT
};

struct moe_trace_check_result {
    uint64_t count;         /* how often; 0 = in order */
    struct moe_error first; /* the first one, with its place */
};

struct moe_trace_verification {
    uint64_t row_count;     /* rows that were read and checked; loads, where it holds those */
    uint64_t choice_count;  /* ids in them */
    uint64_t unknown_count; /* of these, not recorded */
    struct moe_trace_check_result results[MOE_TRACE_CHECK_COUNT];
};

/* What the check looks at, for a table. */
const char *moe_trace_check_text(enum moe_trace_check check);
bool moe_trace_check_is_damage(enum moe_trace_check check);

/* trace is open, so its tables, requests and row sum are already checked (what
 * moe_trace_open refuses never comes here). Errors: MOE_IO, MOE_LIMIT; what is wrong with
 * the content is in *out. progress may be NULL. */
enum moe_status moe_trace_verify(struct moe_trace_verification *out, struct moe_trace *trace,
                                 struct moe_progress *progress,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* MOE_OK, or MOE_PARSE with the first damage. */
enum moe_status moe_trace_verification_status(const struct moe_trace_verification *verification,
                                              struct moe_error *err);

#endif

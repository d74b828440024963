/*
 * Trace cut: a smaller trace of the first requests of another, for samples that travel
 * with a study. Its provenance is the original's, with one more record that says what was
 * cut from which content.
 */
#ifndef MOE_TRACES_TRACE_CUT_H
#define MOE_TRACES_TRACE_CUT_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "traces/trace_store.h"

/* Writes requests 0 .. request_count-1 to a store at path, as an import would: resumable,
 * nothing left behind when it is refused. A store of up to 16 MiB is then packed into
 * small pages, which saves about half a megabyte.
 * Errors: MOE_RANGE when the trace has fewer requests; those of moe_trace_writer_open. */
enum moe_status moe_trace_cut(struct moe_trace *trace, const char *path, uint64_t request_count,
                              bool overwrite, struct moe_error *err) MOE_MUST_CHECK;

#endif

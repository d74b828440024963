/*
 * Export: a trace store as files that any program reads, and that `moesim trace import` reads
 * back to the same content.
 *
 * Each form is one file export_NAME.c with a `const struct moe_export_format moe_export_NAME`
 * and one line in export.def.
 */
#ifndef MOE_TRACES_EXPORT_H
#define MOE_TRACES_EXPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "sim/base/error.h"
#include "traces/trace_store.h"

struct moe_export_format {
    const char *name;    /* [a-z0-9_]+ */
    const char *summary; /* one line for the help: what is written, who reads it */
    /* Writes to path all or nothing; what exists already is refused unless overwrite is set.
     * Errors: MOE_RANGE for a trace that the form cannot hold; MOE_IO, MOE_LIMIT; as
     * moe_trace_read. */
    enum moe_status (*write)(struct moe_trace *trace, const char *path, bool overwrite,
                             struct moe_error *err);
};

/* All forms, in export.def's order: formats[*count]. */
const struct moe_export_format *const *moe_export_formats(size_t *count);

/* By name. Errors: MOE_RANGE listing them. */
enum moe_status moe_export_find(const char *name, const struct moe_export_format **out,
                                struct moe_error *err) MOE_MUST_CHECK;

#endif

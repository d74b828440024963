/*
 * Import: turning what a serving engine recorded into a trace store.
 *
 * Each format is one file import_NAME.c with a `const struct moe_import_format
 * moe_import_NAME` and one line in import.def. A format looks at its input, describes
 * it, and sends requests and rows to a writer; finding the format, hashing the source
 * files, resuming, refusing and cleaning up are done here, for all of them.
 */
#ifndef MOE_TRACES_IMPORT_H
#define MOE_TRACES_IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/base/error.h"
#include "sim/base/progress.h"
#include "traces/trace_provenance.h"
#include "traces/trace_store.h"
#include "traces/trace_writer.h"

/* What a format says about its input before anything is written. */
struct moe_import_description {
    struct moe_trace_model model;
    uint64_t request_count; /* both 0 when only reading everything would tell */
    uint64_t row_count;
    struct moe_trace_provenance *record; /* engine, layer map, skipped rows to be filled in */
    size_t file_count;                   /* source files, relative to the input's path */
    const char **files;                  /* owned by the format's state */
};

struct moe_import_format {
    const char *name;    /* [a-z0-9_]+, unique; "auto" is taken */
    const char *summary; /* one line for the help */

    /* Whether path looks like this format, by names and content. Cheap, never fails. */
    bool (*recognise)(const char *path);

    /* Opens the input and checks all that can be checked without reading the routes.
     * *state is the format's own, given back to close. Errors name the file and place. */
    enum moe_status (*open)(void **state, const char *path, struct moe_import_description *out,
                            struct moe_error *err);

    /* Sends everything to the writer, going on where it says if the format can seek. */
    enum moe_status (*copy)(void *state, struct moe_trace_writer *writer,
                            struct moe_progress *progress, struct moe_error *err);

    /* Safe for NULL. */
    void (*close)(void *state);
};

struct moe_import_request {
    const char *format; /* a name, or "auto" */
    const char *input;  /* a folder or a file, as the format wants */
    const char *output;
    const char *name; /* of the model; NULL: as the input says */
    bool overwrite;
    FILE *progress; /* NULL: silent */
};

struct moe_import_result {
    const struct moe_import_format *format;
    struct moe_trace_model model;
    uint64_t hash;        /* content hash; 0 when nothing was done */
    uint64_t resumed_row; /* rows that an earlier run had stored */
    uint64_t request_count;
    uint64_t row_count;
    bool was_finished; /* the store held exactly this import: nothing was changed */
};

/* All formats, in import.def's order: formats[*count]. */
const struct moe_import_format *const *moe_import_formats(size_t *count);

/* Imports. Errors: what formats and writer say. A refused input leaves nothing behind and
 * older stores as they were; when the world failed, the text says whether running it again
 * goes on from what is stored. */
enum moe_status moe_import_run(const struct moe_import_request *request,
                               struct moe_import_result *result,
                               struct moe_error *err) MOE_MUST_CHECK;

#endif

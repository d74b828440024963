/*
 * Import: turning what a serving engine recorded into a trace store.
 *
 * Each format is one file import_NAME.c with a `const struct moe_import_format
 * moe_import_NAME` and one line in import.def. A format recognises its files, describes them,
 * and sends what they hold, on the axes on which it was recorded, to a sink. Everything else
 * is done here, for all of them: finding the format, which recorded layers become the trace's,
 * warm-up rows, hashing the sources, resuming, refusing and cleaning up.
 *
 * A format is read twice: measured first (import_measure.h), then written through a map
 * (import_map.h), because what to keep is known only after everything was seen.
 */
#ifndef MOE_TRACES_IMPORT_H
#define MOE_TRACES_IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/base/error.h"
#include "sim/base/progress.h"
#include "traces/import_input.h"
#include "traces/trace_loads.h"
#include "traces/trace_provenance.h"
#include "traces/trace_store.h"
#include "traces/trace_writer.h"

/* What a format says about its input before anything is written. */
struct moe_import_description {
    /* On the recorded axes: layer_count counts recorded layers; expert_count 0: not recorded;
     * top_k as recorded, padding included; name may be empty; domain_count 0: one, unnamed. */
    struct moe_trace_model model;
    struct moe_trace_provenance *record; /* engine and note to be filled in */

    /* Recorded layer i is the engine's layer layer_number[i], ascending. When the producer says
     * which of them are MoE layers, layers_stated is set and is_moe_layer tells. */
    uint32_t layer_number[MOE_TRACE_LAYER_LIMIT];
    bool layers_stated;
    bool is_moe_layer[MOE_TRACE_LAYER_LIMIT];
    bool top_k_is_padded; /* columns that are unknown everywhere are no choices */

    /* The placement in force, or NULL: experts[layer_count][slot_count]; the format's own. */
    const uint16_t *placement;
    uint32_t slot_count;
    uint32_t block_tokens; /* of prefix blocks of arrivals */

    /* Of the formats that have copy instead of feed: final model, counts, sources relative to
     * the first path. */
    uint64_t request_count;
    uint64_t row_count;
    size_t file_count;
    const char **files;
};

/* Where a format sends what it reads. A request comes before its rows; rows of requests follow
 * one another. All three return what the sink's owner found wrong. */
struct moe_import_sink {
    /* For routes and arrivals; blocks[block_count] are prefix hashes, of arrivals only. */
    enum moe_status (*request)(struct moe_import_sink *sink,
                               const struct moe_trace_request *request, const int64_t *blocks,
                               size_t block_count, struct moe_error *err);
    /* experts[row_count][layer][k], MOE_EXPERT_UNKNOWN for an engine's -1. */
    enum moe_status (*rows)(struct moe_import_sink *sink, const uint16_t *experts,
                            uint64_t row_count, struct moe_error *err);
    /* counts[layer][expert], each finite and >= 0 (the format checks: it knows the place). */
    enum moe_status (*load)(struct moe_import_sink *sink, const struct moe_trace_load *load,
                            const double *counts, struct moe_error *err);
};

struct moe_import_format {
    const char *name;    /* [a-z0-9_]+, unique; "auto" is taken */
    const char *summary; /* one line for the help */

    /* Whether the files look like this format, by content before names. Cheap, never fails. */
    bool (*recognise)(const struct moe_import_input *input);

    /* Opens the input and checks all that can be checked without reading everything. Marks the
     * files that it reads. *state is the format's own, given back to close; input stays until
     * then. Errors name the file and place. */
    enum moe_status (*open)(void **state, struct moe_import_input *input,
                            struct moe_import_description *out, struct moe_error *err);

    /* Sends everything, the same each time it is called. */
    enum moe_status (*feed)(void *state, struct moe_import_sink *sink, struct moe_error *err);

    /* Instead of feed (NULL then), for a format whose rows need no map and that can seek: sends
     * everything to the writer, going on where it says. */
    enum moe_status (*copy)(void *state, struct moe_trace_writer *writer,
                            struct moe_progress *progress, struct moe_error *err);

    /* Safe for NULL. */
    void (*close)(void *state);
};

struct moe_import_request {
    const char *format;        /* a name, or "auto" */
    const char *const *inputs; /* [input_count] folders and files */
    size_t input_count;
    const char *output;
    const char *name; /* of the model; NULL: as the input says */
    struct moe_import_options options;
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
    uint64_t load_count;
    uint64_t step_count;   /* of loads; not known when nothing was done */
    uint64_t warmup_rows;  /* identical leading rows (or loads) that were found */
    uint64_t rows_skipped; /* of these, left out */
    bool was_finished;     /* the store held exactly this import: nothing was changed */
};

/* All formats, in import.def's order: formats[*count]. */
const struct moe_import_format *const *moe_import_formats(size_t *count);

/* By name, or the one that the input looks like. Errors: MOE_RANGE, MOE_PARSE listing them. */
enum moe_status moe_import_find(const char *name, const struct moe_import_input *input,
                                const struct moe_import_format **out,
                                struct moe_error *err) MOE_MUST_CHECK;

/* Imports. Errors: what formats and writer say. A refused input leaves nothing behind and
 * older stores as they were; when the world failed, the text says whether running it again
 * goes on from what is stored. */
enum moe_status moe_import_run(const struct moe_import_request *request,
                               struct moe_import_result *result,
                               struct moe_error *err) MOE_MUST_CHECK;

/* Who takes a dump without a store. begin comes after everything was measured and before
 * anything is sent to sink; placement[result->model.layer_count][slot_count] is the one in
 * force, NULL when none was recorded, good during the call. */
struct moe_import_receiver {
    struct moe_import_sink sink; /* first, so that the one is the other */
    enum moe_status (*begin)(struct moe_import_receiver *receiver,
                             const struct moe_import_result *result, const uint16_t *placement,
                             uint32_t slot_count, struct moe_error *err);
};

/* Reads a dump as an import would and sends it to a receiver; output and overwrite of the request
 * are not looked at. Errors: also MOE_UNSUPPORTED for a format that only a store can take. */
enum moe_status moe_import_read(const struct moe_import_request *request,
                                struct moe_import_receiver *receiver,
                                struct moe_error *err) MOE_MUST_CHECK;

#endif

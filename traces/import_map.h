/*
 * Import map: the second pass over a dump: recorded axes become the trace's. It decides which
 * layers to keep and what the trace's model is, drops layers, padding and warm-up rows, and
 * hands the rest on.
 *
 * Which recorded layers are kept, in their order:
 *   not said   all; those that the producer calls MoE layers when it does. A layer that holds
 *              only zeros or unknowns could be a dense one: then the user has to say.
 *   all        all recorded ones
 *   moe        those that the producer calls MoE layers; else those that hold anything
 *   a list     the engine's layer numbers, such as 3-60,62
 */
#ifndef MOE_TRACES_IMPORT_MAP_H
#define MOE_TRACES_IMPORT_MAP_H

#include "traces/import_measure.h"

struct moe_import_map {
    struct moe_import_sink sink; /* first, so that the one is the other */
    const struct moe_import_description *description;
    struct moe_trace_model model; /* of the trace */
    struct moe_import_sink *next;
    uint32_t layers[MOE_TRACE_LAYER_LIMIT]; /* recorded layer of each of the model's */
    uint64_t skip_rows;                     /* leading rows, or loads, to leave out */
    uint64_t seen_rows;
    uint64_t left_to_skip; /* of skip_rows, for the requests' lengths */
    uint64_t seen_loads;
    uint16_t *rows; /* a piece; owned */
    double *counts; /* one load; owned */
};

/* Decides and fills in *map, and record's layer_map, rows_skipped, skip_reason and note. what
 * begins the errors. Errors: MOE_RANGE for options that do not fit, or that are needed;
 * MOE_LIMIT. */
enum moe_status moe_import_map_init(struct moe_import_map *map,
                                    const struct moe_import_measure *measure,
                                    const struct moe_import_options *options,
                                    struct moe_trace_provenance *record, const char *what,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* Begins a pass that hands on to next; may be called again for another. */
void moe_import_map_begin(struct moe_import_map *map, struct moe_import_sink *next);

/* The recorded placement of the layers that were kept: [model.layer_count][slot_count], to be
 * freed. Errors: MOE_LIMIT. Only when the description has one (asserted). */
enum moe_status moe_import_map_placement(const struct moe_import_map *map, uint16_t **out,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_import_map_finish(struct moe_import_map *map);

#endif

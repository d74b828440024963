/*
 * Dump loads: what any recording says about expert loads, in two parts by time: what a policy
 * may plan on, and what follows, on which its plan is scored. Read from a trace store of
 * routes or loads, or directly from an engine's files.
 */
#ifndef MOE_TRACES_DUMP_LOADS_H
#define MOE_TRACES_DUMP_LOADS_H

#include "traces/import.h"

struct moe_dump_loads {
    struct moe_trace_model model;
    uint64_t unit_count;    /* rows of routes, or steps of loads */
    uint64_t planned_units; /* the first ones */
    double *planned;        /* [layer_count][expert_count], tokens; owned */
    double *scored;         /* of the other units; owned */
    bool in_sample;         /* there is but one unit: it stands in both */
    uint32_t slot_count;    /* of the placement in force; 0: none was recorded */
    uint16_t *placement;    /* [layer_count][slot_count]; NULL with 0; owned */
};

/* Reads request's inputs; one that is a trace store is read as such. The first
 * floor(share * units) units, but at least one, are planned on, 0 < share <= 1; with share 1
 * nothing is scored, and scored is all zeros. Errors: those of moe_import_read and
 * moe_trace_open_any; MOE_RANGE for arrivals. On error *out is untouched. */
enum moe_status moe_dump_loads_read(struct moe_dump_loads *out,
                                    const struct moe_import_request *request, double share,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_dump_loads_finish(struct moe_dump_loads *loads);

#endif

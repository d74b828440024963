/*
 * Trace loads: what an engine recorded that counts tokens per expert instead of their routes.
 *
 * A load is [layer][expert] counts of one step, of the tokens of one source rank or of all
 * ranks together. Steps are numbered from 0 in recorded order and have one load for each
 * source rank, or one for all. Counts may be fractional (averages, frequencies). Beside
 * loads and routes a store may hold the placement that was in force when they were recorded.
 */
#ifndef MOE_TRACES_TRACE_LOADS_H
#define MOE_TRACES_TRACE_LOADS_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "traces/trace_schema.h"
#include "traces/trace_store.h"

enum { MOE_TRACE_ALL_RANKS = -1, MOE_TRACE_RANK_LIMIT = 65536 };

/* Largest count: sums of 2^20 of them are still exact in a double. */
#define MOE_TRACE_COUNT_LIMIT 0x1p32

struct moe_trace_load {
    uint64_t step;
    int64_t label;   /* the engine's own number of the step (a pass, an iteration); -1: none */
    int32_t rank;    /* source rank, or MOE_TRACE_ALL_RANKS */
    uint32_t domain; /* index into the model's domains */
};

/* Bytes of a count in the file that holds counts[count] without loss: 4 or 8. */
uint32_t moe_trace_load_item_bytes(const double *counts, uint64_t count);

/* A pass over all loads of an open store, in stored order. */
struct moe_trace_load_cursor {
    struct moe_trace *trace;
    sqlite3_stmt *stmt; /* owned */
    uint64_t next;
};

/* Errors: MOE_RANGE for a store that holds no loads. */
enum moe_status moe_trace_loads_begin(struct moe_trace_load_cursor *cursor, struct moe_trace *trace,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* The next load into *load and counts[layer_count][expert_count]; *got is false at the end.
 * Errors: MOE_IO; MOE_PARSE for damage, naming the load. */
enum moe_status moe_trace_loads_next(struct moe_trace_load_cursor *cursor,
                                     struct moe_trace_load *load, double *counts, bool *got,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_trace_loads_end(struct moe_trace_load_cursor *cursor);

/* Steps of a store of loads; 0 for others. */
enum moe_status moe_trace_step_count(struct moe_trace *trace, uint64_t *out,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* The recorded placement: *experts[layer_count][*slot_count], to be freed; *slot_count 0 and
 * *experts NULL when none was recorded. Errors: MOE_PARSE for damage. */
enum moe_status moe_trace_placement_read(struct moe_trace *trace, uint32_t *slot_count,
                                         uint16_t **experts, struct moe_error *err) MOE_MUST_CHECK;

/* Tokens of one prefix block, 0 when prefixes were not recorded. */
enum moe_status moe_trace_block_tokens(struct moe_trace *trace, uint32_t *out,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* Hashes of a request's prompt blocks: *blocks[*count], to be freed; *count 0 and *blocks NULL
 * when it has none. Errors: MOE_PARSE for damage; MOE_LIMIT. */
enum moe_status moe_trace_blocks_read(struct moe_trace *trace, uint64_t request, int64_t **blocks,
                                      size_t *count, struct moe_error *err) MOE_MUST_CHECK;

#endif

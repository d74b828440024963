/*
 * Trace store: which experts every token of every request was routed to.
 *
 * A SQLite file (documented by the schema in trace_schema.c). It holds one of three
 * things: routes, which everything else here is about; loads, for engines that record only
 * how many tokens each expert received (trace_loads.h); arrivals, requests without routes.
 *
 * A trace has requests in the
 * order in which they were recorded; a request of p prompt and o output tokens has
 * p + o - 1 rows (the last sampled token is never routed), prompt rows first. Rows
 * of all requests follow one another, so a row has one number in 0 .. row_count-1.
 * One row is expert[layer][k], the top-k of each MoE layer in gate order.
 *
 * Routes are stored as blobs of about 1 MiB: u8 up to 256 experts, u16 above, with
 * a bit mask beside a blob that holds unknown ids (an engine's -1). They are read
 * back as u16 with MOE_EXPERT_UNKNOWN, whatever the width in the file.
 */
#ifndef MOE_TRACES_TRACE_STORE_H
#define MOE_TRACES_TRACE_STORE_H

#include <stdint.h>

#include "sim/base/error.h"

enum {
    MOE_EXPERT_UNKNOWN = 0xffff, /* the engine did not record this choice */
    MOE_TRACE_DOMAIN_LIMIT = 64, /* domains of one trace */
    MOE_TRACE_EXPERT_LIMIT = 65534,
    MOE_TRACE_LAYER_LIMIT = 1024,
    MOE_TRACE_TOP_K_LIMIT = 64,
};

enum moe_trace_content {
    MOE_TRACE_ROUTES,
    MOE_TRACE_LOADS,    /* no requests, no rows; top_k may be 0 (not stated) */
    MOE_TRACE_ARRIVALS, /* requests, no rows; no layers, experts and top_k */
    MOE_TRACE_CONTENT_COUNT
};

/* The traced model's routing shape; sizes that the recording did not state are 0. */
struct moe_trace_model {
    char name[64];
    enum moe_trace_content content;
    uint32_t layer_count; /* MoE layers only */
    uint32_t expert_count;
    uint32_t top_k;
    uint32_t group_count; /* routing groups of consecutive experts; 1 = none */
    uint32_t group_limit; /* groups that one token may use; group_count = no limit */
    uint32_t hidden_size;
    uint32_t expert_size; /* intermediate size of one routed expert */
    uint32_t shared_size; /* intermediate size of the shared experts together; 0 = none */
    uint32_t domain_count;
    char domains[MOE_TRACE_DOMAIN_LIMIT][32];
};

struct moe_trace_request {
    uint64_t first_row;
    int64_t arrival_ns;     /* -1: the trace has no arrival times */
    uint32_t prompt_tokens; /* >= 1 */
    uint32_t output_tokens; /* >= 1 */
    uint32_t domain;        /* index into domains */
};

/* Rows that a request has. */
static inline uint64_t moe_trace_request_rows(const struct moe_trace_request *request)
{
    return (uint64_t) request->prompt_tokens + request->output_tokens - 1;
}

struct moe_trace; /* an open store; one per thread */

/* "routes", "loads", "arrivals". */
const char *moe_trace_content_text(enum moe_trace_content content);

/* Opens for reading and loads the requests' lengths (32 bytes each), not the routes.
 * Errors: MOE_IO, MOE_PARSE for another kind of file or an unfinished import,
 * MOE_UNSUPPORTED for a newer schema. */
enum moe_status moe_trace_open_any(struct moe_trace **out, const char *path,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* The same for what needs routes. Errors: also MOE_RANGE for a store of loads or arrivals. */
enum moe_status moe_trace_open(struct moe_trace **out, const char *path,
                               struct moe_error *err) MOE_MUST_CHECK;
void moe_trace_close(struct moe_trace *trace);

const char *moe_trace_path(const struct moe_trace *trace);
const struct moe_trace_model *moe_trace_model(const struct moe_trace *trace);
uint64_t moe_trace_request_count(const struct moe_trace *trace);
uint64_t moe_trace_row_count(const struct moe_trace *trace);  /* 0 without routes */
uint64_t moe_trace_load_count(const struct moe_trace *trace); /* see trace_loads.h; else 0 */

/* requests[request_count], in recorded order; valid until close. */
const struct moe_trace_request *moe_trace_requests(const struct moe_trace *trace);

/* 64-bit content hash over model, requests and routes, computed at import: equal
 * for equal content however the import was interrupted. Identifies a trace in runs. */
uint64_t moe_trace_hash(const struct moe_trace *trace);

/* Bounds the blobs in memory, 128 MiB when a trace is opened; at least one blob (up to
 * 1 MiB) is kept. Only before the first read (asserted). */
void moe_trace_limit_cache(struct moe_trace *trace, uint64_t bytes);

/* Rows first_row .. first_row+row_count-1 into out[row][layer][k]. Blobs are kept
 * in a cache of bounded size (least recently used out first), so reading nearby
 * rows again is a copy. Errors: MOE_IO; MOE_PARSE for damaged routes, naming the
 * blob and row. Rows outside the trace are asserted. */
enum moe_status moe_trace_read(struct moe_trace *trace, uint64_t first_row, uint64_t row_count,
                               uint16_t *out, struct moe_error *err) MOE_MUST_CHECK;

#endif

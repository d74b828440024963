/*
 * Serving: which tokens run in which step on which GPU.
 *
 * Closed loop, continuous batching, prefill and decode colocated: every GPU is one
 * data-parallel rank that keeps up to running_per_gpu requests running; when one ends, the
 * next of the workload takes its place at the next step, ranks being offered requests in
 * turn (rank 0 first in every sweep; a rank without a free slot or without room for the next
 * request is passed over, and sweeps go on until none takes one). A request keeps the lowest
 * free slot of its rank until it ends. A step holds one token of every decoding request and,
 * within the token budget that remains, the next chunk of every prompt still unread, both
 * from the lowest slot up until the budget is used. A request is admitted when the KV cache of
 * its whole length fits the rank (prompt + output tokens are reserved), so nothing is ever
 * preempted. With a waiting room (waiting_room.h) a group policy says instead who joins which rank,
 * one request at a time, until it takes none or nothing fits.
 *
 * Rows of a request: prompt first, then one for each output token but the last. The row that
 * ends the prompt samples the first output token, each row after it one more. What a row
 * attends to is itself and all rows before it (windowed layers: the last window_size of
 * them); what a sequence reads in a step is the union of that over its rows.
 * A rank's rows are routed in the order of its slots.
 *
 * The schedule depends on lengths and memory only, never on time: all policies with the
 * same KV pool serve the same batches.
 */
#ifndef MOE_SIM_ENGINE_SERVING_H
#define MOE_SIM_ENGINE_SERVING_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/cost/cost.h"
#include "sim/engine/route_counter.h"
#include "sim/engine/waiting_room.h"
#include "sim/arrival/workload.h"

/* One running request. */
struct moe_sequence {
    bool running;
    uint32_t prompt_tokens;
    uint32_t output_tokens;
    uint64_t first_row;    /* in the trace */
    uint32_t done_rows;    /* rows already processed */
    uint32_t step_rows;    /* rows of this step */
    uint32_t buffer_first; /* first row (of the request) that buffer holds */
    uint32_t buffer_rows;
    moe_time_ns admitted_ns;
    moe_time_ns first_token_ns;
    uint16_t *buffer; /* [MOE_SERVING_BUFFER_BYTES / row bytes][layer][k] */
};

/* Routes fetched ahead for each running request: long enough that a short request is read
 * from the trace once. */
enum { MOE_SERVING_BUFFER_BYTES = 16 << 10, MOE_SERVING_BLOCK_TOKENS = 512 };

/* What serving stands on; everything must outlive it. */
struct moe_serving_setup {
    const struct moe_serving *options;
    struct moe_trace *trace;
    struct moe_workload *workload;
    uint32_t gpu_count;
    uint64_t kv_tokens;            /* KV pool of a rank */
    uint32_t window_size;          /* of the model's windowed layers; 0 = none */
    struct moe_waiting_room *room; /* NULL: ranks are offered requests in turn */
};

struct moe_serving_state {
    struct moe_serving_setup setup;
    uint32_t running_per_gpu;
    uint32_t row_items; /* layer_count x top_k of the trace */
    uint32_t buffer_rows;
    uint32_t window_size;          /* of the model's windowed layers; 0 = none */
    uint64_t kv_tokens;            /* KV pool of a rank, in tokens */
    uint64_t *kv_used;             /* [gpu] */
    uint32_t *running;             /* [gpu] */
    struct moe_sequence *sequence; /* [gpu][running_per_gpu] */
    const uint16_t **block;        /* [MOE_SERVING_BLOCK_TOKENS] row pointers */
};

/* A request that ended in a step. */
struct moe_finished {
    uint32_t output_tokens;
    moe_time_ns admitted_ns;
    moe_time_ns first_token_ns;
    moe_time_ns finished_ns;
};

/* Whom the end of a step is told to, in order of rank and slot. Both are mandatory. */
struct moe_serving_observer {
    void *context;
    /* A request's first token is there, ttft_ns after its admission. */
    void (*on_first_token)(void *context, moe_time_ns ttft_ns);
    /* Its last token is there; after on_first_token when both fall into one step. */
    void (*on_finish)(void *context, const struct moe_finished *finished);
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_serving_init(struct moe_serving_state *state,
                                 const struct moe_serving_setup *setup, struct moe_arena *arena,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Whether a request to score waits to be admitted. */
bool moe_serving_scores_next(const struct moe_serving_state *state);

/* Admits what fits and plans the step that begins at now_ns: work[gpu]. *token_count is the
 * rows of the step, 0 when everything is served. Errors: MOE_LIMIT when a request is longer
 * than the KV pool of an empty rank; MOE_POLICY when a group policy lets nobody into an empty
 * cluster. */
enum moe_status moe_serving_plan_step(struct moe_serving_state *state, moe_time_ns now_ns,
                                      struct moe_token_work *work, uint64_t *token_count,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Feeds the routes of the planned step to the counter. Errors: as moe_trace_read. */
enum moe_status moe_serving_route_step(struct moe_serving_state *state,
                                       struct moe_route_counter *counter,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* The step has ended at end_ns. *output_tokens: tokens sampled in the step. */
void moe_serving_end_step(struct moe_serving_state *state, moe_time_ns end_ns,
                          uint64_t *output_tokens, const struct moe_serving_observer *observer);

#endif

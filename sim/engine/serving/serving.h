/*
 * Serving: which tokens run in which step on which rank.
 *
 * Continuous batching, prefill and decode colocated. A rank is one data-parallel replica of the
 * attention: one GPU, or attention_ranks GPUs that share it (tensor parallel). It runs up to
 * running_per_gpu requests, each in the lowest slot of its rank that is free when it is admitted,
 * until it ends. All ranks step together; one without a request takes part with an empty batch.
 *
 * Rows of a request: prompt first, then one for each output token but the last. A row whose token
 * is known can run: those of the prompt (from hit_tokens on, what a prefix cache holds need not
 * run), and after each sampled token one more. The row that is the last known one samples the next
 * token. What a row attends to is itself and all rows before it (windowed layers: the last
 * window_size of them; sparse layers: sparse_size of them, which ones is not known); what a
 * sequence reads in a step is the union of that over its rows, taken to be as large as it can be.
 * Whose routes they take, and how they are repeated for a longer request, says
 * sim/arrival/arrival.h. A rank's rows are routed in the order of its slots; with attention_ranks A
 * the rank's i-th row starts from its GPU i mod A.
 *
 * Memory (kv):
 *   reserve  a request is admitted when the KV cache of its whole length fits the rank; nothing
 *            is ever preempted
 *   pages    cache is taken page by page, for the rows that run. A request is admitted when the
 *            pages of its first chunk are free (of its prompt and of output_reserve of its output,
 *            beside what the running ones may still take of theirs, where that is not 0). When
 *            a page is missing, a running request is preempted: its cache is dropped, it keeps
 *            its slot, and computes everything known again (less hit_tokens) once pages are free,
 *            before its rank admits anybody new; the one preempted last comes back first. Whom:
 *              last_admitted  the last one that began or came back (vLLM)
 *              least_output   with fewest output tokens, of equals the longest prompt, then the
 *                             last admitted; before any row of the step is planned (SGLang)
 *
 * Batch (order), within the budget of step_tokens rows:
 *   decode_first   every request that decodes has one row, then prompts their next chunks. With
 *                  pages all running ones in the order of admission, and then new ones (vLLM):
 *                  a step that preempts admits nobody on that rank
 *   prefill_first  a rank with rows of prompts to run, running or new, runs nothing else (SGLang)
 *
 * Who joins which rank: in a closed loop ranks are offered requests in turn (rank 0 first in every
 * sweep; a rank without a free slot or without room is passed over, and sweeps go on until none
 * takes one); with pages the sweep begins after the rank that took the last one, so that a lightly
 * loaded cluster shares them out. With a waiting room a group policy says instead.
 *
 * Multi-token prediction: a decoding request runs `drafts` rows more (as far as its output and
 * the budget go), of which the first a are accepted: the i-th with probability acceptance_at[i],
 * until the first that is not (draw: MOE_RANDOM_DRAFTS, counter admission << 32 | row). Rejected
 * rows cost time, and their routes are those of the rows that will run there. What drafting itself
 * costs stands in drafts.h.
 *
 * With reserve, decode_first and a closed loop the schedule depends on lengths and memory only,
 * never on time: all policies with the same KV pool serve the same batches.
 */
#ifndef MOE_SIM_ENGINE_SERVING_H
#define MOE_SIM_ENGINE_SERVING_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/cost/cost.h"
#include "sim/engine/route_counter.h"
#include "sim/engine/serving/intake.h"
#include "sim/engine/serving/waiting_room.h"

/* One admitted request. */
struct moe_sequence {
    bool arriving; /* its cache is on its way here (moved): until ready_ns it runs nothing */
    moe_time_ns ready_ns;
    bool running;   /* false: the slot is free, or its request is preempted */
    bool preempted; /* waits in its slot, without cache */
    struct moe_arrival arrival;
    const struct moe_trace_request *from; /* whose routes it takes */
    uint32_t prompt_tokens;               /* of the arrival, as the next two */
    uint32_t output_tokens;
    uint32_t hit_tokens;
    uint32_t preemptions;
    uint32_t known_rows;   /* rows whose token is known */
    uint32_t done_rows;    /* rows already processed (or cached) */
    uint32_t step_rows;    /* rows of this step */
    uint32_t buffer_rows;  /* that buffer holds */
    uint64_t buffer_first; /* the first of them, in the trace */
    uint64_t kv_held;      /* tokens of the pool */
    uint64_t admission;    /* how many were admitted before it came first, all ranks */
    moe_time_ns since_ns;  /* its arrival; in a closed loop when it was admitted */
    moe_time_ns admitted_ns;
    moe_time_ns first_token_ns;
    moe_time_ns last_token_ns;
    uint16_t *buffer; /* [MOE_SERVING_BUFFER_BYTES / row bytes][layer][k] */
};

/* Routes fetched ahead for each running request: long enough that a short request is read
 * from the trace once. */
enum { MOE_SERVING_BUFFER_BYTES = 16 << 10, MOE_SERVING_BLOCK_TOKENS = 512 };

/* Requests whose prompts were read elsewhere (a decode pool). Such a request comes with the pages
 * of its prompt, its first token known, and hit_tokens equal to its prompt; it runs nothing until
 * its cache is there. When it is preempted it computes the prompt again, here. */
struct moe_serving_moved {
    void *context;
    /* The request takes a seat of the rank at now_ns: when its cache is there (>= now_ns), and
     * when its user has the first token. */
    void (*seat)(void *context, uint32_t rank, const struct moe_arrival *incoming,
                 moe_time_ns now_ns, moe_time_ns *ready_ns, moe_time_ns *first_token_ns);
};

/* What serving stands on; everything must outlive it. */
struct moe_serving_setup {
    const struct moe_serving *options;
    struct moe_trace *trace;
    struct moe_intake *intake;
    uint32_t rank_count;
    uint64_t kv_tokens;            /* KV pool of a rank */
    uint32_t window_size;          /* of the model's windowed layers; 0 = none */
    uint64_t sparse_size;          /* tokens whose entries its sparse layers choose; 0 = none */
    uint64_t seed;                 /* of the draws of accepted drafts */
    struct moe_waiting_room *room; /* NULL: ranks are offered requests in turn */
    const struct moe_serving_moved *moved; /* NULL: prompts are read here */
};

struct moe_serving_state {
    struct moe_serving_setup setup;
    uint32_t running_per_gpu;
    uint32_t page_tokens; /* 1 with reserve */
    uint32_t row_items;   /* layer_count x top_k of the trace */
    uint32_t buffer_rows;
    uint64_t kv_tokens;            /* whole pages of a rank's pool, in tokens */
    uint64_t *kv_used;             /* [rank] tokens, whole pages */
    uint32_t *running;             /* [rank] slots in use, by running and preempted ones */
    uint32_t *preempted;           /* [rank] of them preempted */
    uint32_t *budget;              /* [rank] rows that this step may still take */
    bool *blocked;                 /* [rank] nobody may join in this step */
    bool *closed;                  /* [rank] nobody may join any more */
    uint32_t *arriving;            /* [rank] requests whose cache is on its way here */
    uint64_t *leaving;             /* [rank] of kv_used: of finished requests, not yet moved on */
    struct moe_sequence *sequence; /* [rank][running_per_gpu] */
    uint32_t *order;               /* [rank][running_per_gpu] slots running, by admission (pages) */
    uint32_t *stack;               /* [rank][running_per_gpu] slots preempted, the last on top */
    uint32_t next_rank;            /* that is offered the next request (pages) */
    uint64_t draft_key;
    const uint16_t **block;   /* [MOE_SERVING_BLOCK_TOKENS] row pointers */
    const uint16_t **scatter; /* likewise: those of one GPU of a rank */

    /* Accounts since init. */
    uint64_t admissions;
    uint64_t preemptions;
    uint64_t lost_rows;       /* processed for requests that were lost */
    uint64_t recomputed_rows; /* processed before and again */
    uint64_t hit_rows;        /* not processed thanks to the prefix cache */
    uint64_t finished;
    uint64_t moved_rows;    /* that came with a cache from elsewhere */
    uint64_t rejected_rows; /* drafts */
    uint64_t repeated_rows; /* whose routes stand in for rows that the trace does not have */
};

/* A request that ended in a step. */
struct moe_finished {
    const struct moe_arrival *arrival;
    uint32_t rank;
    uint64_t kv_held; /* tokens of the pool that are now free */
    uint32_t preemptions;
    moe_time_ns since_ns; /* its arrival; in a closed loop admitted_ns */
    moe_time_ns admitted_ns;
    moe_time_ns first_token_ns;
    moe_time_ns finished_ns;
};

/* Whom the end of a step is told to, in order of rank and slot. All are mandatory. */
struct moe_serving_observer {
    void *context;
    /* A request's first token is there, ttft_ns after its arrival. */
    void (*on_first_token)(void *context, moe_time_ns ttft_ns);
    /* A further one, gap_ns after the one before. */
    void (*on_next_token)(void *context, moe_time_ns gap_ns);
    /* Its last token is there; after the others when they fall into one step. */
    void (*on_finish)(void *context, const struct moe_finished *finished);
};

/* Bytes that init needs from its arena, about. */
size_t moe_serving_bytes(const struct moe_serving *options, uint32_t rank_count,
                         uint32_t row_items);

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_serving_init(struct moe_serving_state *state,
                                 const struct moe_serving_setup *setup, struct moe_arena *arena,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Whether a request to score waits to be admitted or is still to arrive. */
bool moe_serving_scores_next(const struct moe_serving_state *state);

/* When somebody comes next; false when nobody does. Of use when nothing runs. */
bool moe_serving_next_arrival(const struct moe_serving_state *state, moe_time_ns *arrival_ns);

/* Admits what fits and plans the step that begins at now_ns: work[rank]. *token_count is the
 * rows of the step, 0 when nothing runs: all is served, or the next arrival is to come. Errors:
 * MOE_LIMIT when a request is longer than the KV pool of an empty rank; MOE_POLICY when a group
 * policy lets nobody into an empty cluster. */
enum moe_status moe_serving_plan_step(struct moe_serving_state *state, moe_time_ns now_ns,
                                      struct moe_token_work *work, uint64_t *token_count,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Feeds the routes of the planned step to the counter. Errors: as moe_trace_read. */
enum moe_status moe_serving_route_step(struct moe_serving_state *state,
                                       struct moe_route_counter *counter,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* Requests that sample in the planned step, of which each drafts one row more: work[rank] of these
 * rows, which attend to all rows before them; and their routes (drafts.h) to the counter, after
 * moe_serving_route_step. Errors: as moe_trace_read. */
void moe_serving_plan_drafts(const struct moe_serving_state *state, struct moe_token_work *work);
enum moe_status moe_serving_route_drafts(struct moe_serving_state *state,
                                         struct moe_route_counter *counter,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* The planned step cut in two: of each rank's rows, in the order in which they are routed, the
 * first half (one more when their number is odd) and the rest. Fills work[half][rank]; a
 * request's chunk may be cut, and its second part reads what the first has written. */
void moe_serving_halve(const struct moe_serving_state *state, struct moe_token_work *const work[2]);

/* Feeds the routes of one half (0, 1) of the planned step to the counter. Errors: as
 * moe_trace_read. */
enum moe_status moe_serving_route_half(struct moe_serving_state *state, uint32_t half,
                                       struct moe_route_counter *counter,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* The step has ended at end_ns. *output_tokens: tokens sampled in the step. */
void moe_serving_end_step(struct moe_serving_state *state, moe_time_ns end_ns,
                          uint64_t *output_tokens, const struct moe_serving_observer *observer);

/* The cache of a request that has just finished (within on_finish) stays until release. */
void moe_serving_keep(struct moe_serving_state *state, uint32_t rank, uint64_t kv_tokens);
void moe_serving_release(struct moe_serving_state *state, uint32_t rank, uint64_t kv_tokens);

/* When the next cache on its way here has come; false when none is. */
bool moe_serving_next_ready(const struct moe_serving_state *state, moe_time_ns *ready_ns);

/* Room for requests that are lost. Before the first step. Errors: MOE_LIMIT. */
enum moe_status moe_serving_allow_loss(struct moe_serving_state *state, struct moe_arena *arena,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* Between two steps: the rank takes nobody any more, and its requests, *lost of them, come anew,
 * before those that wait, in the order of its slots; what they had is forgotten. In a closed loop
 * *sojourn_ns is raised by the time they were there. Errors: MOE_POLICY when no rank is left. */
enum moe_status moe_serving_lose_rank(struct moe_serving_state *state, uint32_t rank,
                                      moe_time_ns now_ns, uint64_t *sojourn_ns, uint64_t *lost,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Tokens of KV cache that must be free for a request to be admitted, in whole pages. */
uint64_t moe_serving_admission_tokens(const struct moe_serving *options,
                                      const struct moe_arrival *incoming);

#endif

/* Inside of serving, for its own files: slots, pages and rows. */
#ifndef MOE_SIM_ENGINE_SERVING_BATCH_H
#define MOE_SIM_ENGINE_SERVING_BATCH_H

#include "sim/engine/serving/serving.h"

static inline struct moe_sequence *moe_batch_sequences(const struct moe_serving_state *s,
                                                       uint32_t rank)
{
    return s->sequence + (size_t) rank * s->running_per_gpu;
}

static inline uint32_t *moe_batch_order(const struct moe_serving_state *s, uint32_t rank)
{
    return s->order + (size_t) rank * s->running_per_gpu;
}

static inline uint32_t *moe_batch_stack(const struct moe_serving_state *s, uint32_t rank)
{
    return s->stack + (size_t) rank * s->running_per_gpu;
}

/* Running, not preempted. */
static inline uint32_t moe_batch_active(const struct moe_serving_state *s, uint32_t rank)
{
    return s->running[rank] - s->preempted[rank];
}

static inline bool moe_batch_pages(const struct moe_serving_state *s)
{
    return s->setup.options->kv == MOE_KV_PAGES;
}

/* All that is known has run but the token sampled last. */
static inline bool moe_batch_decodes(const struct moe_sequence *q)
{
    return q->done_rows >= q->prompt_tokens && q->known_rows - q->done_rows == 1;
}

/* Rows that a request has in all. */
static inline uint32_t moe_batch_row_count(const struct moe_sequence *q)
{
    return q->prompt_tokens + q->output_tokens - 1;
}

/* tokens in whole pages. */
static inline uint64_t moe_batch_round(const struct moe_serving_state *s, uint64_t tokens)
{
    return (tokens + s->page_tokens - 1) / s->page_tokens * s->page_tokens;
}

/* n rows of a sequence whose first attends to `context` tokens before it, added to *work. */
void moe_batch_add_work(const struct moe_serving_state *s, struct moe_token_work *work,
                        uint32_t context, uint32_t rows, uint32_t sampled, bool decodes);

/* Rows of the planned step that are in its rank's first half. */
uint64_t moe_batch_first_half(const struct moe_serving_state *s, uint32_t rank);

/* Plans rows (> 0) of q, which has the cache for them. */
void moe_batch_take(struct moe_serving_state *s, uint32_t rank, struct moe_sequence *q,
                    uint32_t rows, struct moe_token_work *work);

/* Rows that a prompt (or what was preempted) may run now: what is known and not done, within the
 * budget, and with pages within what is free. */
uint32_t moe_batch_chunk(const struct moe_serving_state *s, uint32_t rank,
                         const struct moe_sequence *q);

/* Takes the pages that rows more rows of q need, when they are free. */
bool moe_batch_grow(struct moe_serving_state *s, uint32_t rank, struct moe_sequence *q,
                    uint32_t rows);

/* Rows of the requests that run already, before anybody is admitted. Sets budget and blocked. */
void moe_batch_plan_running(struct moe_serving_state *s, uint32_t rank,
                            struct moe_token_work *work);

/* Who has come by now_ns of those whose cache was on its way may run. */
void moe_moved_land(struct moe_serving_state *s, uint32_t rank, moe_time_ns now_ns);

/* q, just seated, was read elsewhere: takes the pages of its prompt, and waits for them. */
void moe_moved_seat(struct moe_serving_state *s, uint32_t rank, struct moe_sequence *q,
                    moe_time_ns now_ns);

/* What is left to plan once the new ones have their rows. */
void moe_batch_plan_rest(struct moe_serving_state *s, uint32_t rank, struct moe_token_work *work);

/* Who was preempted comes back, and then new requests, as far as slots, pages and budget go.
 * With pages each takes its first rows at once. Errors: as moe_serving_plan_step. */
enum moe_status moe_admission_run(struct moe_serving_state *s, moe_time_ns now_ns,
                                  struct moe_token_work *work,
                                  struct moe_error *err) MOE_MUST_CHECK;

#endif

#include "sim/engine/serving/batch.h"

#include <assert.h>
#include <string.h>

#include "sim/base/no_malloc.h"

/* Pairs of n rows, the first of which has `context` tokens before it, when each sees span of
 * them and itself at most. */
static double bounded_pairs(double context, double n, double span)
{
    const double growing = context >= span ? 0.0 : n < span - context ? n : span - context;
    return growing * context + growing * (growing + 1.0) / 2.0 + (n - growing) * span;
}

void moe_batch_add_work(const struct moe_serving_state *s, struct moe_token_work *work,
                        uint32_t context, uint32_t rows, uint32_t sampled, bool decodes)
{
    const double n = rows;
    const double last = (double) context + n;
    const bool single = rows == 1 || decodes;
    work->tokens += n;
    work->sampled += sampled;
    work->kv_read += last;
    work->score_pairs += n * context + n * (n + 1.0) / 2.0;
    work->decode_read += single ? last : 0.0;
    work->decode_sequences += single ? 1.0 : 0.0;
    if (s->setup.window_size > 0) {
        const double window = s->setup.window_size;
        work->window_read += last < window + n - 1.0 ? last : window + n - 1.0;
        work->window_pairs += bounded_pairs(context, n, window);
    }
    if (s->setup.sparse_size > 0) {
        const double span = (double) s->setup.sparse_size;
        const double pairs = bounded_pairs(context, n, span);
        work->sparse_read += last < pairs ? last : pairs;
        work->sparse_pairs += pairs;
        work->sparse_decode += !single ? 0.0 : last < span ? last : span;
    }
}

void moe_batch_take(struct moe_serving_state *s, uint32_t rank, struct moe_sequence *q,
                    uint32_t rows, struct moe_token_work *work)
{
    assert(rows > 0);
    assert(rows <= s->budget[rank]);
    const bool decodes = moe_batch_decodes(q);
    const bool samples = q->done_rows + rows >= q->known_rows;
    q->step_rows = rows;
    s->budget[rank] -= rows;
    moe_batch_add_work(s, &work[rank], q->done_rows, rows, decodes ? rows : samples, decodes);
}

bool moe_batch_grow(struct moe_serving_state *s, uint32_t rank, struct moe_sequence *q,
                    uint32_t rows)
{
    const uint64_t wanted = moe_batch_round(s, (uint64_t) q->done_rows + rows);
    if (!moe_batch_pages(s) || wanted <= q->kv_held) {
        return true;
    }
    if (s->kv_used[rank] + (wanted - q->kv_held) > s->kv_tokens) {
        return false;
    }
    s->kv_used[rank] += wanted - q->kv_held;
    q->kv_held = wanted;
    return true;
}

uint32_t moe_batch_chunk(const struct moe_serving_state *s, uint32_t rank,
                         const struct moe_sequence *q)
{
    const uint32_t unread = q->known_rows - q->done_rows;
    const uint32_t rows = unread < s->budget[rank] ? unread : s->budget[rank];
    if (!moe_batch_pages(s)) {
        return rows;
    }
    const uint64_t room = q->kv_held + (s->kv_tokens - s->kv_used[rank]) - q->done_rows;
    return rows < room ? rows : (uint32_t) room;
}

/* Rows of a decoding request: the token sampled last, and drafts. */
static uint32_t decode_rows(const struct moe_serving_state *s, uint32_t rank,
                            const struct moe_sequence *q)
{
    const uint32_t left = moe_batch_row_count(q) - q->done_rows;
    const uint32_t wanted = q->arriving ? 0 : 1 + s->setup.options->drafts;
    const uint32_t rows = wanted < left ? wanted : left;
    return rows < s->budget[rank] ? rows : s->budget[rank];
}

static uint32_t wanted_rows(const struct moe_serving_state *s, uint32_t rank,
                            const struct moe_sequence *q)
{
    if (moe_batch_decodes(q)) {
        return decode_rows(s, rank, q);
    }
    const uint32_t unread = q->known_rows - q->done_rows;
    return unread < s->budget[rank] ? unread : s->budget[rank];
}

/* Entry `at` of the order of admission loses its cache. */
static void preempt(struct moe_serving_state *s, uint32_t rank, uint32_t at)
{
    uint32_t *order = moe_batch_order(s, rank);
    const uint32_t slot = order[at];
    const uint32_t active = moe_batch_active(s, rank);
    struct moe_sequence *q = moe_batch_sequences(s, rank) + slot;
    assert(q->running);
    assert(q->step_rows == 0);
    memmove(order + at, order + at + 1, (active - 1 - at) * sizeof *order);
    moe_batch_stack(s, rank)[s->preempted[rank]++] = slot;
    s->kv_used[rank] -= q->kv_held;
    s->recomputed_rows += q->done_rows - q->hit_tokens;
    s->preemptions++;
    s->blocked[rank] = true;
    s->arriving[rank] -= q->arriving;
    q->arriving = false; /* what is on its way comes for nothing */
    q->kv_held = 0;
    q->done_rows = q->hit_tokens;
    q->preemptions++;
    q->running = false;
    q->preempted = true;
}

/* SGLang's order of retraction. */
static bool goes_before(const struct moe_sequence *a, const struct moe_sequence *b)
{
    const uint32_t output_a = a->known_rows - a->prompt_tokens;
    const uint32_t output_b = b->known_rows - b->prompt_tokens;
    if (output_a != output_b) {
        return output_a < output_b;
    }
    return a->prompt_tokens >= b->prompt_tokens; /* b stands later: of equals the last */
}

/* Which entry of the order is preempted next. */
static uint32_t victim(const struct moe_serving_state *s, uint32_t rank)
{
    const uint32_t active = moe_batch_active(s, rank);
    const uint32_t *order = moe_batch_order(s, rank);
    const struct moe_sequence *sequence = moe_batch_sequences(s, rank);
    uint32_t chosen = active - 1;
    if (s->setup.options->preempt == MOE_PREEMPT_LEAST_OUTPUT) {
        for (uint32_t at = active - 1; at-- > 0;) {
            const struct moe_sequence *a = &sequence[order[at]];
            const struct moe_sequence *b = &sequence[order[chosen]];
            chosen = goes_before(a, b) && !goes_before(b, a) ? at : chosen;
        }
    }
    return chosen;
}

/* Preempts before any row is planned, until all that decode can go on. */
static void retract(struct moe_serving_state *s, uint32_t rank)
{
    for (;;) {
        const uint32_t active = moe_batch_active(s, rank);
        const uint32_t *order = moe_batch_order(s, rank);
        uint64_t needed = 0;
        for (uint32_t i = 0; i < active; i++) {
            const struct moe_sequence *q = moe_batch_sequences(s, rank) + order[i];
            if (moe_batch_decodes(q)) {
                needed += moe_batch_round(s, (uint64_t) q->done_rows + decode_rows(s, rank, q)) -
                          q->kv_held;
            }
        }
        if (active < 2 || s->kv_used[rank] + needed <= s->kv_tokens) {
            return;
        }
        preempt(s, rank, victim(s, rank));
    }
}

/* Rows of entry `at`, for which others may lose their cache: those after it, itself last. False
 * when it lost its own. */
static bool run_entry(struct moe_serving_state *s, uint32_t rank, uint32_t at,
                      struct moe_token_work *work)
{
    struct moe_sequence *q = moe_batch_sequences(s, rank) + moe_batch_order(s, rank)[at];
    const uint32_t rows = wanted_rows(s, rank, q);
    while (rows > 0 && !moe_batch_grow(s, rank, q, rows)) {
        const uint32_t last = moe_batch_active(s, rank) - 1;
        preempt(s, rank, last);
        if (last == at) {
            return false;
        }
    }
    if (rows > 0) {
        moe_batch_take(s, rank, q, rows, work);
    }
    return true;
}

/* All that run, in the order of admission; decoding_only: but for prompts. */
static void run_in_order(struct moe_serving_state *s, uint32_t rank, bool decoding_only,
                         struct moe_token_work *work)
{
    if (s->setup.options->preempt == MOE_PREEMPT_LEAST_OUTPUT) {
        retract(s, rank);
    }
    for (uint32_t at = 0; at < moe_batch_active(s, rank);) {
        const struct moe_sequence *q = moe_batch_sequences(s, rank) + moe_batch_order(s, rank)[at];
        if ((decoding_only && !moe_batch_decodes(q)) || run_entry(s, rank, at, work)) {
            at++;
        }
    }
}

/* Chunks of prompts as far as pages are free; in the order of admission, or of slots. */
static void run_prompts(struct moe_serving_state *s, uint32_t rank, struct moe_token_work *work)
{
    const bool pages = moe_batch_pages(s);
    const uint32_t count = pages ? moe_batch_active(s, rank) : s->running_per_gpu;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t slot = pages ? moe_batch_order(s, rank)[i] : i;
        struct moe_sequence *q = moe_batch_sequences(s, rank) + slot;
        if (!q->running || moe_batch_decodes(q) || q->step_rows > 0) {
            continue;
        }
        const uint32_t rows = moe_batch_chunk(s, rank, q);
        if (rows > 0 && moe_batch_grow(s, rank, q, rows)) {
            moe_batch_take(s, rank, q, rows, work);
        }
    }
}

/* Reserved cache: one row (and drafts) of everybody who decodes, from the lowest slot up. */
static void run_decoding(struct moe_serving_state *s, uint32_t rank, struct moe_token_work *work)
{
    struct moe_sequence *sequence = moe_batch_sequences(s, rank);
    for (uint32_t i = 0; i < s->running_per_gpu; i++) {
        struct moe_sequence *q = &sequence[i];
        const uint32_t rows = q->running && moe_batch_decodes(q) ? decode_rows(s, rank, q) : 0;
        if (rows > 0) {
            moe_batch_take(s, rank, q, rows, work);
        }
    }
}

void moe_batch_plan_running(struct moe_serving_state *s, uint32_t rank, struct moe_token_work *work)
{
    const bool prefill_first = s->setup.options->order == MOE_BATCH_PREFILL_FIRST;
    work[rank] = (struct moe_token_work){ 0 };
    s->budget[rank] = s->setup.options->step_tokens;
    s->blocked[rank] = false;
    if (!moe_batch_pages(s)) {
        return; /* whoever fits is admitted first, and then all share the budget */
    }
    if (prefill_first) {
        run_prompts(s, rank, work);
    } else {
        run_in_order(s, rank, false, work);
    }
}

void moe_batch_plan_rest(struct moe_serving_state *s, uint32_t rank, struct moe_token_work *work)
{
    const bool prefill_first = s->setup.options->order == MOE_BATCH_PREFILL_FIRST;
    if (!moe_batch_pages(s)) {
        if (!prefill_first) {
            run_decoding(s, rank, work);
        }
        run_prompts(s, rank, work);
        if (prefill_first && work[rank].tokens <= 0.0) {
            run_decoding(s, rank, work);
        }
        return;
    }
    if (prefill_first && work[rank].tokens <= 0.0) {
        run_in_order(s, rank, true, work);
    }
    /* Prompts that hold each other up: the last one gives way. */
    while (work[rank].tokens <= 0.0 && s->arriving[rank] == 0 && s->leaving[rank] == 0 &&
           moe_batch_active(s, rank) > 1) {
        preempt(s, rank, moe_batch_active(s, rank) - 1);
        run_prompts(s, rank, work);
    }
}

#include "sim/engine/serving/serving.h"

#include <assert.h>

#include "sim/base/random.h"
#include "sim/engine/serving/batch.h"

#include "sim/base/no_malloc.h"

static uint32_t buffered_rows(uint32_t row_items)
{
    const uint32_t fitting = MOE_SERVING_BUFFER_BYTES / (row_items * (uint32_t) sizeof(uint16_t));
    return fitting < 8 ? 8 : fitting;
}

size_t moe_serving_bytes(const struct moe_serving *options, uint32_t rank_count, uint32_t row_items)
{
    const size_t slots = (size_t) rank_count * options->running_per_gpu;
    const size_t buffer = (size_t) buffered_rows(row_items) * row_items * sizeof(uint16_t);
    return slots * (sizeof(struct moe_sequence) + buffer + 2 * sizeof(uint32_t)) +
           (size_t) rank_count * 64 + ((size_t) 64 << 10);
}

static bool take_arrays(struct moe_serving_state *s, struct moe_arena *arena)
{
    const size_t ranks = s->setup.rank_count;
    const size_t slots = ranks * s->running_per_gpu;
    uint16_t *buffers = MOE_NEW(arena, uint16_t, slots * s->buffer_rows * s->row_items);
    s->kv_used = MOE_NEW(arena, uint64_t, ranks);
    s->running = MOE_NEW(arena, uint32_t, ranks);
    s->preempted = MOE_NEW(arena, uint32_t, ranks);
    s->budget = MOE_NEW(arena, uint32_t, ranks);
    s->blocked = MOE_NEW(arena, bool, ranks);
    s->closed = MOE_NEW(arena, bool, ranks);
    s->arriving = MOE_NEW(arena, uint32_t, ranks);
    s->leaving = MOE_NEW(arena, uint64_t, ranks);
    s->sequence = MOE_NEW(arena, struct moe_sequence, slots);
    s->order = MOE_NEW(arena, uint32_t, slots);
    s->stack = MOE_NEW(arena, uint32_t, slots);
    s->block = MOE_NEW(arena, const uint16_t *, MOE_SERVING_BLOCK_TOKENS);
    s->scatter = MOE_NEW(arena, const uint16_t *, MOE_SERVING_BLOCK_TOKENS);
    if (buffers == NULL || s->kv_used == NULL || s->running == NULL || s->preempted == NULL ||
        s->budget == NULL || s->blocked == NULL || s->closed == NULL || s->sequence == NULL ||
        s->arriving == NULL || s->leaving == NULL || s->order == NULL || s->stack == NULL ||
        s->block == NULL || s->scatter == NULL) {
        return false;
    }
    for (size_t i = 0; i < slots; i++) {
        s->sequence[i].buffer = buffers + i * s->buffer_rows * s->row_items;
    }
    return true;
}

enum moe_status moe_serving_init(struct moe_serving_state *s, const struct moe_serving_setup *setup,
                                 struct moe_arena *arena, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(setup->trace);
    const uint32_t page = setup->options->kv == MOE_KV_PAGES ? setup->options->page_tokens : 1;
    assert(page > 0);
    *s = (struct moe_serving_state){
        .setup = *setup,
        .running_per_gpu = setup->options->running_per_gpu,
        .page_tokens = page,
        .row_items = model->layer_count * model->top_k,
        .buffer_rows = buffered_rows(model->layer_count * model->top_k),
        .kv_tokens = setup->kv_tokens / page * page,
        .draft_key = moe_random_key(setup->seed, MOE_RANDOM_DRAFTS),
    };
    return take_arrays(s, arena) ? MOE_OK
                                 : moe_fail(err, MOE_LIMIT,
                                            "no room for %u running requests on "
                                            "each of %u ranks",
                                            s->running_per_gpu, setup->rank_count);
}

bool moe_serving_scores_next(const struct moe_serving_state *s)
{
    return s->setup.room != NULL ? moe_waiting_room_scores_next(s->setup.room)
                                 : moe_intake_scores_next(s->setup.intake);
}

bool moe_serving_next_arrival(const struct moe_serving_state *s, moe_time_ns *arrival_ns)
{
    const struct moe_arrival *next = moe_intake_next(s->setup.intake);
    *arrival_ns = next != NULL ? next->arrival_ns : 0;
    return next != NULL;
}

enum moe_status moe_serving_plan_step(struct moe_serving_state *s, moe_time_ns now_ns,
                                      struct moe_token_work *work, uint64_t *token_count,
                                      struct moe_error *err)
{
    *token_count = 0;
    for (uint32_t rank = 0; rank < s->setup.rank_count; rank++) {
        moe_moved_land(s, rank, now_ns);
        moe_batch_plan_running(s, rank, work);
    }
    MOE_TRY(moe_admission_run(s, now_ns, work, err));
    for (uint32_t rank = 0; rank < s->setup.rank_count; rank++) {
        moe_batch_plan_rest(s, rank, work);
        *token_count += (uint64_t) work[rank].tokens;
    }
    return MOE_OK;
}

/* Routes from trace row `row` on, which is row `at` of the request, into its buffer: as many as
 * follow one another in both. */
static enum moe_status fetch(struct moe_serving_state *s, struct moe_sequence *q, uint32_t at,
                             uint64_t row, uint32_t run, struct moe_error *err)
{
    const bool whole =
        q->prompt_tokens == q->from->prompt_tokens && q->output_tokens <= q->from->output_tokens;
    const uint32_t rows = whole ? moe_batch_row_count(q) - at : run;
    q->buffer_first = row;
    q->buffer_rows = rows < s->buffer_rows ? rows : s->buffer_rows;
    return moe_trace_read(s->setup.trace, row, q->buffer_rows, q->buffer, err);
}

/* Hands the block's rows to the counter: row i of the rank starts from its GPU i mod GPUs. */
static void flush(struct moe_serving_state *s, struct moe_route_counter *counter, uint32_t rank,
                  uint32_t *filled, uint64_t *rows)
{
    const uint32_t gpus = s->setup.options->attention_ranks;
    if (gpus == 1) {
        moe_route_counter_add(counter, rank, s->block, *filled);
    } else {
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            uint32_t n = 0;
            for (uint32_t i = (uint32_t) ((gpu + gpus - *rows % gpus) % gpus); i < *filled;
                 i += gpus) {
                s->scatter[n++] = s->block[i];
            }
            moe_route_counter_add(counter, rank * gpus + gpu, s->scatter, n);
        }
    }
    *rows += *filled;
    *filled = 0;
}

/* The rows of a rank from its begin-th to before its end-th of the step. */
static enum moe_status route_rank(struct moe_serving_state *s, uint32_t rank, uint64_t begin,
                                  uint64_t end, struct moe_route_counter *counter,
                                  struct moe_error *err)
{
    struct moe_sequence *q = moe_batch_sequences(s, rank);
    uint32_t filled = 0;
    uint64_t routed = begin;
    uint64_t before = 0; /* rows of the slots passed */
    for (uint32_t i = 0; i < s->running_per_gpu && before < end; before += q->step_rows, i++, q++) {
        const uint32_t first = before < begin ? (uint32_t) (begin - before) : 0;
        const uint32_t last =
            before + q->step_rows > end ? (uint32_t) (end - before) : q->step_rows;
        for (uint32_t row = q->done_rows + first; row < q->done_rows + last; row++) {
            uint32_t run = 0;
            uint64_t from = 0;
            moe_arrival_route(&q->arrival, q->from, row, &from, &run);
            if (from - q->buffer_first >= q->buffer_rows) {
                /* Pointers into the buffer must be used before it changes. */
                flush(s, counter, rank, &filled, &routed);
                MOE_TRY(fetch(s, q, row, from, run, err));
            }
            s->block[filled++] = q->buffer + (size_t) (from - q->buffer_first) * s->row_items;
            if (filled == MOE_SERVING_BLOCK_TOKENS) {
                flush(s, counter, rank, &filled, &routed);
            }
        }
    }
    if (filled > 0) {
        flush(s, counter, rank, &filled, &routed);
    }
    return MOE_OK;
}

enum moe_status moe_serving_route_step(struct moe_serving_state *s,
                                       struct moe_route_counter *counter, struct moe_error *err)
{
    for (uint32_t rank = 0; rank < s->setup.rank_count; rank++) {
        if (s->running[rank] > 0) {
            MOE_TRY(route_rank(s, rank, 0, UINT64_MAX, counter, err));
        }
    }
    return MOE_OK;
}

enum moe_status moe_serving_route_half(struct moe_serving_state *s, uint32_t half,
                                       struct moe_route_counter *counter, struct moe_error *err)
{
    for (uint32_t rank = 0; rank < s->setup.rank_count; rank++) {
        const uint64_t middle = moe_batch_first_half(s, rank);
        MOE_TRY(half == 0 ? route_rank(s, rank, 0, middle, counter, err)
                          : route_rank(s, rank, middle, UINT64_MAX, counter, err));
    }
    return MOE_OK;
}

/* The slot is free again. */
static void finish(struct moe_serving_state *s, uint32_t rank, uint32_t slot, moe_time_ns end_ns,
                   const struct moe_serving_observer *observer)
{
    struct moe_sequence *q = moe_batch_sequences(s, rank) + slot;
    const struct moe_finished finished = {
        .arrival = &q->arrival,
        .rank = rank,
        .kv_held = q->kv_held,
        .preemptions = q->preemptions,
        .since_ns = q->since_ns,
        .admitted_ns = q->admitted_ns,
        .first_token_ns = q->first_token_ns,
        .finished_ns = end_ns,
    };
    if (moe_batch_pages(s)) {
        uint32_t *order = moe_batch_order(s, rank);
        const uint32_t active = moe_batch_active(s, rank);
        uint32_t at = 0;
        while (order[at] != slot) {
            at++;
        }
        for (; at + 1 < active; at++) {
            order[at] = order[at + 1];
        }
    }
    q->running = false;
    s->running[rank]--;
    s->kv_used[rank] -= q->kv_held;
    s->finished++;
    observer->on_finish(observer->context, &finished);
}

/* Rows of a decoding request that stay: the one known, and drafts up to the first rejected. */
static uint32_t accepted_rows(const struct moe_serving_state *s, const struct moe_sequence *q)
{
    uint32_t rows = 1;
    while (rows < q->step_rows &&
           moe_random_uniform(s->draft_key, q->admission << 32 | (q->done_rows + rows)) <
               s->setup.options->acceptance) {
        rows++;
    }
    return rows;
}

/* A token more of q is there at end_ns. */
static void sample(struct moe_sequence *q, moe_time_ns end_ns,
                   const struct moe_serving_observer *observer)
{
    if (q->known_rows == q->prompt_tokens && q->first_token_ns == 0) {
        q->first_token_ns = end_ns;
        observer->on_first_token(observer->context, end_ns - q->since_ns);
    } else {
        observer->on_next_token(observer->context, end_ns - q->last_token_ns);
    }
    q->last_token_ns = end_ns;
}

/* Returns the tokens sampled. */
static uint32_t end_rows(struct moe_serving_state *s, struct moe_sequence *q, moe_time_ns end_ns,
                         const struct moe_serving_observer *observer)
{
    const bool decodes = moe_batch_decodes(q);
    const uint32_t rows = decodes ? accepted_rows(s, q) : q->step_rows;
    s->rejected_rows += q->step_rows - rows;
    q->done_rows += rows;
    q->step_rows = 0;
    if (q->done_rows < q->known_rows) {
        return 0;
    }
    const uint32_t tokens = decodes ? rows : 1;
    for (uint32_t i = 0; i < tokens; i++) {
        sample(q, end_ns, observer);
        q->known_rows += q->known_rows <= moe_batch_row_count(q);
    }
    return tokens;
}

void moe_serving_end_step(struct moe_serving_state *s, moe_time_ns end_ns, uint64_t *output_tokens,
                          const struct moe_serving_observer *observer)
{
    *output_tokens = 0;
    for (uint32_t rank = 0; rank < s->setup.rank_count; rank++) {
        struct moe_sequence *q = moe_batch_sequences(s, rank);
        for (uint32_t i = 0; i < s->running_per_gpu && s->running[rank] > 0; i++, q++) {
            if (q->step_rows == 0) {
                continue;
            }
            *output_tokens += end_rows(s, q, end_ns, observer);
            if (q->done_rows == moe_batch_row_count(q)) {
                finish(s, rank, i, end_ns, observer);
            }
        }
    }
}

enum moe_status moe_serving_allow_loss(struct moe_serving_state *s, struct moe_arena *arena,
                                       struct moe_error *err)
{
    struct moe_intake *intake = s->setup.intake;
    intake->returned_room = (uint64_t) s->setup.rank_count * s->running_per_gpu;
    intake->returned = MOE_NEW(arena, struct moe_arrival, intake->returned_room);
    return intake->returned != NULL ? MOE_OK
                                    : moe_fail(err, MOE_LIMIT, "no room for lost requests");
}

enum moe_status moe_serving_lose_rank(struct moe_serving_state *s, uint32_t rank,
                                      moe_time_ns now_ns, uint64_t *sojourn_ns, uint64_t *lost,
                                      struct moe_error *err)
{
    uint32_t open = 0;
    *lost = 0;
    s->closed[rank] = true;
    for (uint32_t i = 0; i < s->setup.rank_count; i++) {
        open += !s->closed[i];
    }
    if (open == 0) {
        return moe_fail(err, MOE_POLICY, "no rank is left: every one has lost a GPU");
    }
    for (uint32_t i = 0; i < s->running_per_gpu; i++) {
        struct moe_sequence *q = moe_batch_sequences(s, rank) + i;
        if (!q->running && !q->preempted) {
            continue;
        }
        moe_intake_return(s->setup.intake, &q->arrival);
        s->lost_rows += q->done_rows - q->hit_tokens;
        s->hit_rows -= q->hit_tokens; /* cached again, or not, elsewhere */
        *sojourn_ns += moe_intake_is_open(s->setup.intake) ? 0 : (uint64_t) (now_ns - q->since_ns);
        *lost += 1;
        q->running = false;
        q->preempted = false;
    }
    s->running[rank] = 0;
    s->preempted[rank] = 0;
    s->kv_used[rank] = 0;
    return MOE_OK;
}
